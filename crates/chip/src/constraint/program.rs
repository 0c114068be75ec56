//! Checks of ports and of a function as a whole.

use arcane_mil::{Function, Op, Operation, TensorType};
use arcane_tensor::DType;

use super::Finding;
use super::site::{is_constant, stands_for_constant};
use crate::Chip;
use crate::surface::{PAGE_BYTES, SurfaceLayout, folded};

pub(super) fn port_type(_: &Chip, ty: &TensorType) -> Option<Finding> {
    // Other constraints have fp32.
    (!matches!(ty.dtype, DType::F16 | DType::F32)).then(|| Finding::new("fp16", ty))
}

pub(super) fn port_fp32(_: &Chip, ty: &TensorType) -> Option<Finding> {
    (ty.dtype == DType::F32).then(|| Finding::new("fp16", ty))
}

/// An axis that is too long, the last one first.
pub(super) fn axis_length(chip: &Chip, ty: &TensorType) -> Option<Finding> {
    let limits = &chip.limits;
    let named = [
        ("width", *limits.max_width),
        ("height", *limits.max_height),
        ("channels", *limits.max_channels),
        ("batch", *limits.max_batch),
    ];
    let lengths = folded(&ty.shape).unwrap_or([usize::MAX; 4]);
    let ((name, limit), length) =
        named.into_iter().zip(lengths).find(|((_, limit), length)| length > limit)?;
    Some(Finding::new(format!("{name} {limit}"), format!("{length} in {ty}")))
}

/// Gaps of less than a page cost nothing: allocations are whole pages.
pub(super) fn port_padding(_: &Chip, ty: &TensorType) -> Option<Finding> {
    let layout = SurfaceLayout::of(ty).ok()?;
    let (strided, dense) = (layout.strided_bytes(), layout.dense_bytes());
    (strided - dense >= PAGE_BYTES).then(|| {
        Finding::new("rows of a multiple of 64 bytes", format!("{strided} bytes for {dense} of {ty}"))
    })
}

pub(super) fn dialect(chip: &Chip, function: &Function) -> Option<Finding> {
    let newest = chip.dialect.newest.as_str();
    // Names of opsets sort as their versions.
    (function.opset().name() > newest)
        .then(|| Finding::new(format!("{newest} or older"), function.opset().name()))
}

/// The names of the inputs that become surfaces, and of the outputs.
fn port_names(function: &Function) -> [Vec<&str>; 2] {
    let inputs = function.parameters().iter().filter(|p| !stands_for_constant(p));
    [inputs.map(|p| p.name.as_str()).collect(), function.outputs().iter().map(|o| o.name.as_str()).collect()]
}

pub(super) fn surfaces(chip: &Chip, function: &Function) -> Option<Finding> {
    let [inputs, outputs] = port_names(function).map(|names| names.len());
    let limit = *chip.limits.max_surfaces;
    if inputs == 0 || outputs == 0 {
        let actual = format!("{inputs} inputs and {outputs} outputs");
        return Some(Finding::new("1 input and 1 output at least", actual));
    }
    (inputs + outputs > limit).then(|| Finding::new(format!("{limit} inputs and outputs"), inputs + outputs))
}

pub(super) fn symbols(_: &Chip, function: &Function) -> Option<Finding> {
    let ports = port_names(function);
    let mut neighbours = ports.iter().flat_map(|names| names.windows(2));
    let pair = neighbours.find(|pair| pair[0].as_bytes() > pair[1].as_bytes())?;
    Some(Finding::new("names in declared order", format!("`{}` before `{}`", pair[0], pair[1])))
}

pub(super) fn constant_output(_: &Chip, function: &Function) -> Option<Finding> {
    let output = function.outputs().iter().find(|o| is_constant(function, o.value))?;
    Some(Finding::new("outputs that are computed", format!("the constant `{}`", output.name)))
}

pub(super) fn operations(chip: &Chip, function: &Function) -> Option<Finding> {
    let found = function.operations().iter().filter(|o| !matches!(o.op, Op::Const(_))).count();
    let limit = *chip.limits.max_operations;
    (found > limit).then(|| Finding::new(format!("{limit} ops"), found))
}

pub(super) fn depth(chip: &Chip, function: &Function) -> Option<Finding> {
    let mut depths = vec![0usize; function.values().len()];
    for operation in function.operations() {
        let before = operation.op.operands().into_iter().map(|v| depths[v.index()]).max();
        let product = matches!(
            operation.op,
            Op::Linear { .. } | Op::Convolution(_) | Op::Matmul { .. } | Op::ScaledDotProductAttention { .. }
        );
        for r in &operation.results {
            depths[r.index()] = before.unwrap_or(0) + usize::from(product);
        }
    }
    let (limit, found) = (*chip.limits.max_depth, depths.into_iter().max().unwrap_or(0));
    (found > limit).then(|| Finding::new(format!("{limit} products in a chain"), found))
}

/// The types of all constants, those of weight files that were not read among them.
fn constants(function: &Function) -> impl Iterator<Item = &TensorType> {
    let promoted = function.parameters().iter().filter(|p| stands_for_constant(p)).map(|p| p.value);
    let constants = function.operations().iter().filter(|o| matches!(o.op, Op::Const(_)));
    let values = promoted.chain(constants.flat_map(|o| o.results.iter().copied()));
    values.map(|v| function.ty(v))
}

pub(super) fn weight_bytes(chip: &Chip, function: &Function) -> Option<Finding> {
    let found = constants(function).fold(0usize, |sum, ty| sum.saturating_add(ty.bytes()));
    let limit = *chip.limits.max_weight_bytes;
    (found > limit).then(|| Finding::new(format!("{limit} bytes of constants"), found))
}

/// The printer puts constants from this many elements on into the weight file.
const FILE_ELEMENTS: usize = 10;

/// Constants of weight files that were not read may stand in any number of files.
pub(super) fn weights_per_file(chip: &Chip, function: &Function) -> Option<Finding> {
    let printed = |o: &&Operation| match &o.op {
        Op::Const(tensor) => tensor.len() >= FILE_ELEMENTS,
        _ => false,
    };
    let found = function.operations().iter().filter(printed).count();
    let limit = *chip.limits.max_weights_per_file;
    (found > limit).then(|| Finding::new(format!("{limit} in a weight file"), found))
}
