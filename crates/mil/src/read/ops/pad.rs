//! `pad` as it is written.

use super::{Built, sizes};
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found};
use crate::read::lexer::shown;
use crate::read::syntax::MAX_RANK;
use crate::{Op, Pad, PadMode};

/// `pad`.
pub(super) fn pad(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let Found { value, at } = a.known_ints("pad", Class::Int, 2 * MAX_RANK)?;
    let value_of = a.float_in("constant_val", a.ty(x).dtype)?;
    let mode = match a.text("mode")? {
        None => PadMode::Constant(value_of),
        Some(Found { value: mode, at }) => match mode.as_str() {
            "constant" => PadMode::Constant(value_of),
            "reflect" => PadMode::Reflect,
            "replicate" => PadMode::Replicate,
            other => {
                let expected = "constant, reflect or replicate";
                return Err(Fault::new(at, format!("mode is {}", shown(other)), expected));
            }
        },
    };
    Ok(Op::Pad(Pad { x, pad: sizes(&value, 0, "pad", at)?, mode }))
}
