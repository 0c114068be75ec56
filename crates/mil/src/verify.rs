//! The verifier. It is the list of what every pass may rely on.

use std::collections::HashSet;

use arcane_tensor::{element_count, round_to};

use crate::{Function, Op, Operation, Opset, TypeError, ValueId, infer, op};

pub(crate) mod state;

/// The largest rank of values, but for those that compressed weights are made of.
const MAX_RANK: usize = 5;

/// How strict the verifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// In memory: operands that MIL wants constant (the weight and bias of `linear`) may be any value.
    Open,
    /// As text, packages and engines want it.
    Strict,
}

/// What is wrong with a function, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// An op is ill-typed.
    #[error("{function}: {op} at `{path}`: {source}")]
    Type {
        /// The function.
        function: String,
        /// The op's name.
        op: &'static str,
        /// The path of its first result.
        path: String,
        /// Why.
        source: TypeError,
    },
    /// Another invariant does not hold.
    #[error("{function}: {what}")]
    Invariant {
        /// The function.
        function: String,
        /// Which, and the value that breaks it.
        what: String,
    },
}

/// Checks a function:
/// 1. every operand is a parameter or the result of an earlier op; every value is defined exactly once;
/// 2. every op is well-typed and its results have the types that [`infer`] gives;
/// 3. ranks are at most 5 and types have a byte or more, but for the operands and results of [`crate::Constexpr`]; the size in
///    bytes of every value can be addressed;
/// 4. names of parameters and outputs are not empty and unique together;
/// 5. outputs are results of ops, each value at most one output;
/// 6. aliases name existing ports of equal type, each output and each parameter at most once;
/// 7. numbers inside ops fit their type: an ε is finite, α, β and k are no NaN, the value of `fill` is an integer or bool where its dtype is;
/// 8. states are parameters of the role [`crate::Role::State`]; each is read and written as [`crate::StateOp`] says;
/// 9. *strict*: operands that MIL wants constant are: those of [`crate::Constexpr`], weight and bias of `linear` and of
///    recurrences, scale and zero point, the weight of a dilated `conv`, what scales and shifts
///    in normalisations and activations by channel; before ios17 any bias, and the weight of
///    `conv_transpose`.
///
/// # Errors
/// [`VerifyError`] names the first invariant found broken, and where.
pub fn verify(function: &Function, strictness: Strictness) -> Result<(), VerifyError> {
    let invariant = |what: String| VerifyError::Invariant { function: function.name.clone(), what };
    let mut defined = vec![false; function.values.len()];
    for p in &function.parameters {
        define(function, &mut defined, p.value).map_err(invariant)?;
    }
    if strictness == Strictness::Strict {
        for p in &function.parameters {
            compressed_only(function, p.value, "parameter").map_err(invariant)?;
        }
    }
    let mut constant = vec![false; function.values.len()];
    let mut states = state::States::new(function);
    for operation in &function.operations {
        operation_holds(function, operation, &mut defined)?;
        states.operation(operation).map_err(|what| {
            invariant(format!(
                "{} at `{}`: {what}",
                operation.op.name(),
                function.value(operation.results[0]).path
            ))
        })?;
        if strictness == Strictness::Strict {
            constants_hold(function, operation, &mut constant)?;
        }
    }
    if let Some(i) = defined.iter().position(|d| !d) {
        return Err(invariant(format!("value {i} `{}` is never defined", function.values[i].path)));
    }
    ports_hold(function).and_then(|()| state::hold(function)).map_err(invariant)
}

/// Refuses a value that only compressed weights may have. `what` it is.
fn compressed_only(function: &Function, v: ValueId, what: &str) -> Result<(), String> {
    let info = function.value(v);
    if info.ty.dtype.is_sub_byte() || info.ty.shape.len() > MAX_RANK {
        let name = &info.path;
        return Err(format!(
            "the {what} `{name}` is {}, a type of a byte or more and rank {MAX_RANK} or less was expected",
            info.ty
        ));
    }
    Ok(())
}

fn define(function: &Function, defined: &mut [bool], v: crate::ValueId) -> Result<(), String> {
    let Some(slot) = defined.get_mut(v.index()) else {
        return Err(format!("value {} does not exist", v.index()));
    };
    let info = &function.values[v.index()];
    if std::mem::replace(slot, true) {
        return Err(format!("value {} `{}` is defined twice", v.index(), info.path));
    }
    if info.ty.shape.len() > op::constexpr::MAX_RANK {
        let most = op::constexpr::MAX_RANK;
        return Err(format!("`{}` has rank {}, at most {most} was expected", info.path, info.ty.shape.len()));
    }
    let bytes = element_count(&info.ty.shape).and_then(|n| n.checked_mul(info.ty.dtype.size()));
    if bytes.is_none_or(|b| isize::try_from(b).is_err()) {
        return Err(format!("`{}` {} is larger than memory can be", info.path, info.ty));
    }
    Ok(())
}

fn operation_holds(
    function: &Function,
    operation: &Operation,
    defined: &mut [bool],
) -> Result<(), VerifyError> {
    let path = || operation.results.first().map_or(String::new(), |r| function.value(*r).path.clone());
    let invariant = |what: String| VerifyError::Invariant { function: function.name.clone(), what };
    let ill_typed = |source| VerifyError::Type {
        function: function.name.clone(),
        op: operation.op.name(),
        path: path(),
        source,
    };
    for v in operation.op.operands() {
        if !defined.get(v.index()).copied().unwrap_or(false) {
            let what = format!(
                "{} at `{}` uses value {} before it is defined",
                operation.op.name(),
                path(),
                v.index()
            );
            return Err(invariant(what));
        }
    }
    let is_compressed = matches!(operation.op, Op::Constexpr(_));
    if !is_compressed {
        let operands = operation.op.operands();
        let fault = operands.into_iter().find_map(|v| compressed_only(function, v, "operand").err());
        if let Some(what) = fault {
            return Err(ill_typed(TypeError(what)));
        }
    }
    let types = infer(&operation.op, |v| function.ty(v)).map_err(ill_typed)?;
    if types.len() != operation.results.len() {
        let what = format!("{} at `{}` has {} results", operation.op.name(), path(), operation.results.len());
        return Err(invariant(what));
    }
    for (&r, inferred) in operation.results.iter().zip(&types) {
        define(function, defined, r).map_err(invariant)?;
        if function.ty(r) != inferred {
            let what = format!("declared {}, the op gives {inferred}", function.ty(r));
            return Err(ill_typed(TypeError(what)));
        }
        if !is_compressed && !matches!(operation.op, Op::Const(_)) {
            compressed_only(function, r, "result").map_err(|what| ill_typed(TypeError(what)))?;
        }
    }
    Ok(())
}

/// Refuses run-time values where MIL wants constants. `constant` says which values are, of the ops so far.
fn constants_hold(
    function: &Function,
    operation: &Operation,
    constant: &mut [bool],
) -> Result<(), VerifyError> {
    let old = function.opset < Opset::Ios17;
    let wanted: Vec<(ValueId, &str)> = match &operation.op {
        Op::Constexpr(_) => operation.op.operands().into_iter().map(|v| (v, "an operand")).collect(),
        Op::Linear { weight, bias, .. } => {
            std::iter::once((*weight, "weight")).chain(bias.map(|b| (b, "bias"))).collect()
        }
        Op::Convolution(c) => {
            let dilated = c.dilations.iter().any(|&d| d > 1);
            let weight = dilated.then_some((c.weight, "weight"));
            weight.into_iter().chain(c.bias.filter(|_| old).map(|b| (b, "bias"))).collect()
        }
        Op::Normalisation(n) => n.constants(),
        Op::Channelwise(c) => c.constants(),
        Op::TransposedConvolution(c) if old => {
            std::iter::once((c.weight, "weight")).chain(c.bias.map(|b| (b, "bias"))).collect()
        }
        Op::Quantization(q) => {
            let (scale, zero_point) = q.scale();
            std::iter::once((scale, "scale")).chain(zero_point.map(|z| (z, "zero_point"))).collect()
        }
        Op::Recurrent(r) => r.constants().into_iter().map(|(name, v)| (v, name)).collect(),
        _ => Vec::new(),
    };
    let follows = match operation.op {
        Op::Const(_) | Op::Constexpr(_) => true,
        Op::Cast { x, .. } => constant[x.index()],
        _ => false,
    };
    if follows {
        operation.results.iter().for_each(|r| constant[r.index()] = true);
    }
    let Some((_, name)) = wanted.into_iter().find(|(v, _)| !constant[v.index()]) else { return Ok(()) };
    let what = format!("{name} is a run-time value, a constant was expected");
    Err(VerifyError::Type {
        function: function.name.clone(),
        op: operation.op.name(),
        path: function.value(operation.results[0]).path.clone(),
        source: TypeError(what),
    })
}

fn ports_hold(function: &Function) -> Result<(), String> {
    let mut names = HashSet::new();
    let mut is_parameter = vec![false; function.values.len()];
    for p in &function.parameters {
        is_parameter[p.value.index()] = true;
    }
    let ports = function.parameters.iter().map(|p| &p.name).chain(function.outputs.iter().map(|o| &o.name));
    for name in ports {
        if name.is_empty() || !names.insert(name) {
            return Err(format!("the port name `{name}` is empty or taken twice"));
        }
    }
    let mut returned = HashSet::new();
    for o in &function.outputs {
        if o.value.index() >= function.values.len() {
            return Err(format!("output `{}` does not exist", o.name));
        }
        compressed_only(function, o.value, "output")?;
        if is_parameter[o.value.index()] || !returned.insert(o.value) {
            return Err(format!("output `{}` is a parameter or another output, insert an identity", o.name));
        }
    }
    let (mut outputs, mut parameters) = (HashSet::new(), HashSet::new());
    for a in &function.aliases {
        let (Some(o), Some(p)) = (function.outputs.get(a.output), function.parameters.get(a.parameter))
        else {
            return Err(format!("alias {a:?} names a port that does not exist"));
        };
        if function.ty(o.value) != function.ty(p.value) {
            return Err(format!("output `{}` and parameter `{}` differ in type", o.name, p.name));
        }
        if !outputs.insert(a.output) || !parameters.insert(a.parameter) {
            return Err(format!("output `{}` or parameter `{}` is aliased twice", o.name, p.name));
        }
    }
    // What clips may be infinite.
    let holds = |name: &str, x: f64| if name == "epsilon" { x.is_finite() } else { !x.is_nan() };
    let finite = |op: &Op| match op {
        Op::Unary { kind, .. } => kind.numbers().iter().all(|(name, x)| holds(name, *x)),
        Op::Normalisation(n) => n.numbers().iter().all(|(name, x)| holds(name, *x)),
        Op::Random(r) => r.numbers().iter().all(|(_, x)| x.is_finite()),
        Op::Fill { dtype, value, .. } => dtype.is_float() || round_to(*dtype, *value) == *value,
        _ => true,
    };
    match function.operations.iter().find(|o| !finite(&o.op)) {
        Some(o) => Err(format!("{} has a constant that its type does not hold", o.op.name())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
