//! The arguments of pools.

use super::convolution::padding_exists;
use super::{Argument, Named, flag, ints, text};
use crate::print::Unspellable;
use crate::{Opset, Pool, PoolKind};

pub(super) fn pool(p: &Pool, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    padding_exists(p.pad_type, opset)?;
    let mut found = vec![
        ("ceil_mode", flag(p.ceil_mode)),
        ("kernel_sizes", ints("kernel_sizes", &p.kernel_sizes)?),
        ("pad", ints("pad", &p.pad)?),
        ("pad_type", text(p.pad_type.name())),
        ("strides", ints("strides", &p.strides)?),
        ("x", Argument::Value(p.x)),
    ];
    if let PoolKind::Average { exclude_padding } = p.kind {
        found.push(("exclude_padding_from_average", flag(exclude_padding)));
    }
    Ok(found)
}
