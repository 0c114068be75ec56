//! Arrays that are made, as they are written.

use arcane_tensor::DType;

use super::{Built, since, sizes};
use crate::op::make::Make;
use crate::read::Fault;
use crate::read::arguments::{Arguments, Class, Found, from_front_of};
use crate::read::syntax::MAX_RANK;
use crate::{Join, JoinKind, Op, Opset};

/// `fill`.
pub(super) fn fill(a: &mut Arguments<'_, '_>) -> Built {
    let Found { value: shape, at } = a.known_ints("shape", Class::Int, MAX_RANK)?;
    let (dtype, value) = a.number("value")?.map_or((DType::F32, 0.0), |found| found.value);
    Ok(Op::Fill { shape: sizes(&shape, 0, "shape", at)?, dtype, value })
}

/// `fill_like`.
pub(super) fn fill_like(a: &mut Arguments<'_, '_>) -> Built {
    since(a, Opset::Ios16)?;
    let like = a.operand("ref_tensor", Class::Plain)?;
    let (dtype, value) = a.number("value")?.map_or((DType::F32, 0.0), |found| found.value);
    Ok(Op::Make(Make::FillLike { like, dtype, value }))
}

/// `range_1d`: its numbers have one type and are known, at the latest where the inputs are.
pub(super) fn range(a: &mut Arguments<'_, '_>) -> Built {
    let (start, end, step) = (a.known_number("start")?, a.known_number("end")?, a.known_number("step")?);
    let dtype = start.0;
    if end.0 != dtype || step.0 != dtype {
        return Err(a.fault(format!("start, end and step are {dtype}, {} and {}", end.0, step.0), "one type"));
    }
    Ok(Op::Make(Make::Range { dtype, start: start.1, end: end.1, step: step.1 }))
}

/// `one_hot`. The size may be a run-time value where the declared result has it.
pub(super) fn one_hot(a: &mut Arguments<'_, '_>) -> Built {
    let indices = a.operand("indices", Class::Index)?;
    let rank = a.ty(indices).shape.len() + 1;
    let axis = match a.int("axis")? {
        None => rank - 1,
        Some(Found { value, at }) => from_front_of(value, rank, "axis", at)?,
    };
    let (on, off) = (a.number("on_value")?, a.number("off_value")?);
    let dtype = on.as_ref().or(off.as_ref()).map_or(DType::I32, |found| found.value.0);
    if let Some(Found { value: (other, _), at }) = &off
        && *other != dtype
    {
        return Err(Fault::new(*at, format!("off_value is {other}"), format!("{dtype}, as on_value")));
    }
    let (on, off) = (on.map_or(1.0, |f| f.value.1), off.map_or(0.0, |f| f.value.1));
    let (_, size) = a.known_number("one_hot_vector_size")?;
    if size < 0.0 || size.fract() != 0.0 {
        return Err(a.fault(format!("one_hot_vector_size is {size}"), "0 or more"));
    }
    Ok(Op::Make(Make::OneHot { indices, size: size as usize, axis, dtype, on, off }))
}

/// `non_zero`: its shape depends on its operand's elements, so these are known, at the latest where the inputs are.
pub(super) fn non_zero(a: &mut Arguments<'_, '_>) -> Built {
    let class = if a.opset() >= Opset::Ios17 { Class::Wide } else { Class::Plain };
    let x = a.operand("x", class)?;
    let rank = a.ty(x).shape.len();
    let Some(tensor) = a.known_tensor(x) else {
        return Err(Fault::open(a.at(), "non_zero has as many results as x has elements other than 0"));
    };
    let mut found: Vec<i32> = Vec::new();
    for i in (0..tensor.len()).filter(|&i| tensor.get(i) != 0.0) {
        let mut rest = i;
        let start = found.len();
        for &d in tensor.shape().iter().rev() {
            found.insert(start, (rest % d) as i32);
            rest /= d;
        }
    }
    let count = (0..tensor.len()).filter(|&i| tensor.get(i) != 0.0).count();
    a.constant_result(&[count, rank], found)
}

/// `stack`.
pub(super) fn stack(a: &mut Arguments<'_, '_>) -> Built {
    let values = a.operands("values", Class::Wide)?;
    let Some(&first) = values.first() else {
        return Err(a.fault("values is empty", "one operand or more"));
    };
    let rank = a.ty(first).shape.len() + 1;
    let Found { value, at } = a.required_int("axis")?;
    let axis = from_front_of(value, rank, "axis", at)?;
    Ok(Op::Join(Join { values, axis, kind: JoinKind::Stack }))
}

/// `concat`. Numbers are joined as vectors of one element.
pub(super) fn concat(a: &mut Arguments<'_, '_>) -> Built {
    let mut values = a.operands("values", Class::Wide)?;
    if values.iter().all(|&v| a.ty(v).shape.is_empty()) {
        for v in &mut values {
            *v = a.intermediate(Op::Reshape { x: *v, shape: vec![1] })?;
        }
    }
    let Some(&first) = values.first() else {
        return Err(a.fault("values is empty", "one operand or more"));
    };
    let axis = a.axis("axis", first, None)?;
    if a.flag("interleave")?.is_some_and(|found| found.value) {
        return Ok(Op::Join(Join { values, axis, kind: JoinKind::Interleave }));
    }
    Ok(Op::Concat { values, axis })
}
