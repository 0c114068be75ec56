//! Pools as they are written.

use super::convolution::{pad, pad_type, per_dimension, spatial};
use super::{Built, flag, sizes};
use crate::read::arguments::{Arguments, Class, Found};
use crate::{Op, Pool, PoolKind};

/// `max_pool`, `avg_pool` and `l2_pool`.
pub(super) fn pool(a: &mut Arguments<'_, '_>) -> Built {
    let x = a.operand("x", Class::Float)?;
    let spatial = spatial(a, x)?;
    let Found { value, at } = a.required_ints("kernel_sizes", spatial)?;
    let kernel_sizes = sizes(&value, 1, "kernel_sizes", at)?;
    let strides = per_dimension(a, "strides", spatial)?;
    let Some(pad_type) = pad_type(a)? else {
        return Err(a.fault("the parameter `pad_type` is missing", "a value for it"));
    };
    let pad = pad(a, spatial)?;
    let ceil_mode = flag(a, "ceil_mode")?;
    let kind = match a.op() {
        "max_pool" => PoolKind::Max,
        "l2_pool" => PoolKind::L2,
        _ => PoolKind::Average { exclude_padding: flag(a, "exclude_padding_from_average")? },
    };
    Ok(Op::Pool(Pool { kind, x, kernel_sizes, strides, pad_type, pad, ceil_mode }))
}
