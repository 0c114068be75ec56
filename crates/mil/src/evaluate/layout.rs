//! Where elements stand: every op that moves or pairs elements is a list of offsets.

/// Row-major strides of a shape, in elements.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect()
}

/// For each coordinate of `shape` in row-major order, the sum of coordinate times stride.
pub(super) fn offsets(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    shape.iter().zip(strides).fold(vec![0], |found, (&length, &stride)| {
        found.iter().flat_map(|&o| (0..length).map(move |i| o + i * stride)).collect()
    })
}

/// For each element of `result` in row-major order, the offset of the element of `operand` that broadcasting pairs with it.
pub(super) fn broadcast_offsets(operand: &[usize], result: &[usize]) -> Vec<usize> {
    let mut paired = vec![0; result.len() - operand.len()];
    paired.extend(strides(operand).iter().zip(operand).map(|(&s, &d)| if d == 1 { 0 } else { s }));
    offsets(result, &paired)
}

/// Strides of a shape, with those of `axes` only (the others zero).
pub(super) fn strides_of(shape: &[usize], axes: impl Fn(usize) -> bool) -> Vec<usize> {
    strides(shape).iter().enumerate().map(|(i, &s)| if axes(i) { s } else { 0 }).collect()
}

/// All coordinates of a shape in row-major order.
pub(super) fn positions(shape: &[usize]) -> Vec<Vec<usize>> {
    let strides = strides(shape);
    let coordinate = |offset: usize| {
        strides.iter().zip(shape).map(|(&s, &d)| if d == 0 { 0 } else { offset / s % d }).collect()
    };
    offsets(shape, &strides).into_iter().map(coordinate).collect()
}
