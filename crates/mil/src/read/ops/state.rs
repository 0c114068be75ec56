//! States as they are written.

use super::{Built, since};
use crate::read::arguments::{Arguments, Class};
use crate::{Op, Opset, StateOp};

/// `read_state` and `write_state`.
pub(super) fn state(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios18)?;
    let state = a.state("input")?;
    Ok(Op::State(match a.op() {
        "read_state" => StateOp::Read { state },
        _ => StateOp::Write { state, data: a.operand("data", Class::Any)? },
    }))
}
