//! The arguments of slices.

use super::{Argument, Named, flags, signed};
use crate::op::slice::{Position, Range};
use crate::print::Unspellable;
use crate::{Opset, Slice};

pub(super) fn slice(slice: &Slice, opset: Opset) -> Result<Vec<Named<'static>>, Unspellable> {
    Ok(match slice {
        Slice::ByIndex { x, range } => with_range(range, [("x", Argument::Value(*x))]),
        Slice::BySize { x, begin, size } => {
            vec![("begin", position(begin)), ("size", signed(size)), ("x", Argument::Value(*x))]
        }
        Slice::Update { .. } if opset < Opset::Ios18 => {
            return Err(Unspellable::Opset { since: Opset::Ios18, opset });
        }
        Slice::Update { x, update, range } => {
            with_range(range, [("update", Argument::Value(*update)), ("x", Argument::Value(*x))])
        }
    })
}

fn with_range<const N: usize>(range: &Range, others: [Named<'static>; N]) -> Vec<Named<'static>> {
    let range = [
        ("begin", position(&range.begin)),
        ("begin_mask", flags(&range.begin_mask)),
        ("end", position(&range.end)),
        ("end_mask", flags(&range.end_mask)),
        ("squeeze_mask", flags(&range.squeeze_mask)),
        ("stride", signed(&range.stride)),
    ];
    range.into_iter().chain(others).collect()
}

fn position(position: &Position) -> Argument<'static> {
    match position {
        Position::Known(values) => signed(values),
        Position::Value(v) => Argument::Value(*v),
    }
}
