//! Parts of arrays, and arrays with a part replaced.

use crate::ValueId;

/// Numbers that an op takes, one an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Position {
    /// Known when the op is made.
    Known(Vec<i64>),
    /// The elements of a vector of integers, known at run time.
    Value(ValueId),
}

/// `begin : end : stride` along each axis, as in numpy: negative numbers count from the end, what reaches beyond is cut off.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// The first element.
    pub begin: Position,
    /// The element before which it ends.
    pub end: Position,
    /// The distance between elements, not 0; negative ones go backwards.
    pub stride: Vec<i64>,
    /// Where true, it begins with the first element, or with the last one if the stride is negative.
    pub begin_mask: Vec<bool>,
    /// Where true, it ends with the last element, or with the first one if the stride is negative.
    pub end_mask: Vec<bool>,
    /// Where true, it is element `begin` alone, and the axis is dropped.
    pub squeeze_mask: Vec<bool>,
}

/// Elements `first`, `first + step`, .. along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub first: usize,
    /// From one to the next.
    pub step: i64,
    /// How many.
    pub count: usize,
}

/// Slices.
#[derive(Clone, Debug, PartialEq)]
pub enum Slice {
    /// `slice_by_index`: a known range of x.
    ByIndex {
        /// The operand.
        x: ValueId,
        /// Which elements.
        range: Range,
    },
    /// `slice_by_size`: `size` elements from `begin` on; negative begins count from the end, size −1 reaches to it.
    BySize {
        /// The operand.
        x: ValueId,
        /// The first elements; known where a size is −1.
        begin: Position,
        /// How many.
        size: Vec<i64>,
    },
    /// `slice_update`: x with a range replaced by `update`, which has the range's shape. Where begin and end are run-time
    /// values, the update's shape says how many elements there are.
    Update {
        /// What is copied.
        x: ValueId,
        /// What replaces the range.
        update: ValueId,
        /// Which elements.
        range: Range,
    },
}

impl Position {
    /// The numbers, if they are known.
    pub fn known(&self) -> Option<&[i64]> {
        match self {
            Self::Known(values) => Some(values),
            Self::Value(_) => None,
        }
    }

    fn for_each_operand(&mut self, f: &mut impl FnMut(&mut ValueId)) {
        if let Self::Value(v) = self {
            f(v);
        }
    }
}

impl Range {
    /// A known range with stride 1 and no masks.
    pub fn new(begin: &[i64], end: &[i64]) -> Self {
        let none = vec![false; begin.len()];
        Self {
            begin: Position::Known(begin.to_vec()),
            end: Position::Known(end.to_vec()),
            stride: vec![1; begin.len()],
            begin_mask: none.clone(),
            end_mask: none.clone(),
            squeeze_mask: none,
        }
    }

    /// The elements along an axis of a length; `None` if that depends on run-time values. Of an axis of length 1 every range
    /// takes the one element, unless it ends where it begins.
    pub fn span(&self, axis: usize, length: usize) -> Option<Span> {
        let (n, stride) = (length as i64, self.stride[axis]);
        let number =
            |p: &Position, masked: bool| if masked { Some(None) } else { p.known().map(|k| Some(k[axis])) };
        let begin = number(&self.begin, self.begin_mask[axis])?;
        if self.squeeze_mask[axis] {
            let first = from_end(begin.unwrap_or(0), n);
            let inside = (0..n).contains(&first);
            return Some(Span { first: first.clamp(0, n) as usize, step: 1, count: usize::from(inside) });
        }
        let end = number(&self.end, self.end_mask[axis])?;
        // Where the range may begin and end: one place further for the end.
        let (low, high) = if stride > 0 { (0, n) } else { (-1, n - 1) };
        let place =
            |given: Option<i64>, masked: i64| given.map_or(masked, |v| from_end(v, n).clamp(low, high));
        let (first, last) =
            if stride > 0 { (place(begin, 0), place(end, n)) } else { (place(begin, n - 1), place(end, -1)) };
        let distance = if stride > 0 { last - first } else { first - last };
        let count =
            if distance <= 0 { 0 } else { (distance as u64).div_ceil(stride.unsigned_abs()) as usize };
        if count == 0 && length == 1 && begin != end {
            return Some(Span { first: 0, step: 1, count: 1 });
        }
        Some(Span { first: first.max(0) as usize, step: if count > 1 { stride } else { 1 }, count })
    }

    /// The first element along an axis at run time, where `begin` is the given number.
    pub fn first(&self, axis: usize, length: usize, begin: i64) -> i64 {
        match (self.begin_mask[axis], self.stride[axis] > 0 || self.squeeze_mask[axis]) {
            (true, true) => 0,
            (true, false) => length as i64 - 1,
            (false, _) => from_end(begin, length as i64),
        }
    }

    fn for_each_operand(&mut self, f: &mut impl FnMut(&mut ValueId)) {
        self.begin.for_each_operand(f);
        self.end.for_each_operand(f);
    }
}

/// A position that counts from the end where it is negative.
fn from_end(position: i64, length: i64) -> i64 {
    if position < 0 { position.saturating_add(length) } else { position }
}

impl Slice {
    /// The name in MIL.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ByIndex { .. } => "slice_by_index",
            Self::BySize { .. } => "slice_by_size",
            Self::Update { .. } => "slice_update",
        }
    }

    /// What each axis of the sliced array contributes, dropped axes included; `None` if that depends on run-time values.
    pub fn spans(&self, shape: &[usize]) -> Option<Vec<Span>> {
        match self {
            Self::ByIndex { range, .. } | Self::Update { range, .. } => {
                shape.iter().enumerate().map(|(i, &length)| range.span(i, length)).collect()
            }
            Self::BySize { begin, size, .. } => {
                let begin = begin.known()?;
                let span = |((&b, &s), &length): ((&i64, &i64), &usize)| {
                    let first = from_end(b, length as i64).max(0) as usize;
                    let count = usize::try_from(s).unwrap_or(length.saturating_sub(first));
                    Span { first, step: 1, count }
                };
                Some(begin.iter().zip(size).zip(shape).map(span).collect())
            }
        }
    }

    pub(crate) fn for_each_operand(&mut self, f: &mut impl FnMut(&mut ValueId)) {
        match self {
            Self::ByIndex { x, range } => {
                f(x);
                range.for_each_operand(f);
            }
            Self::BySize { x, begin, size: _ } => {
                f(x);
                begin.for_each_operand(f);
            }
            Self::Update { x, update, range } => {
                f(x);
                f(update);
                range.for_each_operand(f);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Position, Range, Span};

    fn range(begin: i64, end: i64, stride: i64) -> Range {
        Range { stride: vec![stride], ..Range::new(&[begin], &[end]) }
    }

    fn elements(range: &Range, length: usize) -> Vec<i64> {
        let Span { first, step, count } = range.span(0, length).expect("the range is known");
        (0..count as i64).map(|i| first as i64 + i * step).collect()
    }

    #[test]
    fn ranges_are_those_of_numpy() {
        assert_eq!(elements(&range(5, 0, -2), 6), [5, 3, 1]);
        assert_eq!(elements(&range(-3, 100, 1), 6), [3, 4, 5]);
        assert_eq!(elements(&range(-100, 2, 1), 6), [0, 1]);
        assert_eq!(elements(&range(4, 2, 1), 6), [0; 0]);
        assert_eq!(elements(&range(1, 2, i64::MAX), 6), [1]);
        assert_eq!(elements(&range(i64::MIN, i64::MAX, 1), 3), [0, 1, 2]);
        let backwards = Range { begin_mask: vec![true], end_mask: vec![true], ..range(0, 0, -2) };
        assert_eq!(elements(&backwards, 6), [5, 3, 1]);
        assert_eq!(elements(&range(-1, -2, -1), 1), [0]);
    }

    #[test]
    fn a_range_of_one_element_is_empty_only_where_it_ends_at_its_begin() {
        assert_eq!(elements(&range(-1, 0, 1), 1), [0]);
        assert_eq!(elements(&range(0, 0, 1), 1), [0; 0]);
    }

    #[test]
    fn squeezed_axes_have_the_element_at_begin() {
        let squeezed = |begin| Range { squeeze_mask: vec![true], ..range(begin, 0, 1) };
        assert_eq!(elements(&squeezed(-1), 6), [5]);
        assert_eq!(elements(&squeezed(6), 6), [0; 0]);
        let run_time = Range { begin: Position::Value(crate::ValueId(0)), ..range(0, 0, 1) };
        assert_eq!(run_time.span(0, 6), None);
    }
}
