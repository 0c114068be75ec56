//! Where ops run: on the engine what the chip accepts and what is worth it, on the host the rest.

use std::collections::{BTreeSet, HashMap};

use arcane_chip::price::{host_ns, op_ns, program_ns};
use arcane_chip::{Chip, Family};
use arcane_mil::{Builder, Convolution, Function, Op, Opset, Rewriter, Role, TensorType, ValueId};

use crate::layout::{Placed, lay_out, places};
use crate::partition::{Limits, partition};
use crate::plan::{Place, PlanOptions};
use crate::{Precision, legalise, mixed, simplify};

/// Which ops are an engine's, of those that it has and that its chip accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Those in programs with a matrix product, and those in other programs that the host would need longer for.
    #[default]
    Price,
    /// All.
    Legal,
}

/// What functions are compiled for.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    precision: Precision,
    pub(crate) chip: Option<&'static Chip>,
    placement: Placement,
}

/// A function whose ops have types and places.
pub(crate) struct Compiled {
    pub(crate) placed: Placed,
    /// Why ops that engines could run are the host's.
    pub(crate) hosted: Vec<String>,
}

impl Target {
    pub(crate) fn new(options: &PlanOptions) -> Self {
        let chip = options.chip.filter(|_| options.precision != Precision::Fp32);
        Self { precision: options.precision, chip, placement: options.placement }
    }

    /// The passes, in order.
    pub(crate) fn compile(self, function: &Function, is_frozen: impl Fn(&str) -> bool) -> Compiled {
        let Some(chip) = self.chip else {
            let function = simplify(&mixed(&simplify(function), self.precision));
            let places = vec![Place::Host; function.operations().len()];
            let origins = (0..places.len()).collect();
            return Compiled { placed: Placed { function, places, origins }, hosted: Vec::new() };
        };
        place(chip, &legalise(&frozen(function, is_frozen), chip), self.placement)
    }
}

/// The function with its frozen weights as constants that are still to come. What is overwritten is not frozen.
fn frozen(function: &Function, is_frozen: impl Fn(&str) -> bool) -> Function {
    let mut rewriter = Rewriter::new(function);
    for (i, p) in function.parameters().iter().enumerate() {
        let overwritten = function.aliases().iter().any(|a| a.parameter == i);
        let frozen = p.role == Role::Param && !overwritten && is_frozen(&p.name);
        let role = if frozen { Role::Constant } else { p.role };
        let new = rewriter.builder.parameter(&p.name, function.ty(p.value).clone(), role);
        rewriter.set(p.value, new);
    }
    for operation in function.operations() {
        rewriter.copy(operation);
    }
    rewriter.finish()
}

/// Puts ops on the engine until the chip accepts all that are there and, by price, all are worth their programs.
///
/// A convolution that the chip refuses, or that is not faster than the product that it stands for, is that product: its weight
/// is then an input, which all calls share. Programs without a product are the host's where that takes less time.
fn place(chip: &Chip, function: &Function, placement: Placement) -> Compiled {
    let mut refused: HashMap<usize, String> = HashMap::new();
    let mut products: BTreeSet<usize> = BTreeSet::new();
    let mut islands = Islands::default();
    loop {
        let before = (refused.len(), products.len());
        let hosted = |op: usize| refused.contains_key(&op) || islands.ops.contains(&op);
        match lay_out(function, &places(function, hosted), &products) {
            Err(unplaceable) => {
                refused.insert(unplaceable.op, unplaceable.why);
            }
            Ok(placed) => {
                review(chip, &placed, &mut refused, &mut products);
                let settled = (refused.len(), products.len()) == before;
                if settled && (placement == Placement::Legal || !islands.grow(chip, &placed)) {
                    let mut refused: Vec<(usize, String)> = refused.into_iter().collect();
                    refused.sort();
                    let path = |op: usize| &function.value(function.operations()[op].results[0]).path;
                    let refused = refused.into_iter().map(|(op, why)| format!("{}: {why}", path(op)));
                    return Compiled { placed, hosted: refused.chain(islands.reasons).collect() };
                }
            }
        }
    }
}

/// Notes what a chip has against the ops on its engine, and which convolutions are better products.
fn review(
    chip: &Chip,
    placed: &Placed,
    refused: &mut HashMap<usize, String>,
    products: &mut BTreeSet<usize>,
) {
    let definitions = placed.function.definitions();
    let op = |i: usize| &placed.function.operations()[i].op;
    for i in (0..placed.places.len()).filter(|&i| placed.places[i] == Place::Engine) {
        if let Op::Convolution(c) = op(i) {
            let in_program = definitions[c.weight.index()].is_some_and(|d| matches!(op(d), Op::Const(_)));
            if !pays(chip, &placed.function, c, in_program) {
                products.insert(placed.origins[i]);
            }
            continue;
        }
        let violations = arcane_chip::op_violations(chip, &placed.function, i);
        if let Some(v) = violations.iter().find(|v| v.is_fatal()) {
            refused.entry(placed.origins[i]).or_insert_with(|| v.to_string());
        }
    }
}

/// Ops that an engine has, in programs that are not worth a dispatch.
#[derive(Default)]
struct Islands {
    /// Of the function before its layout.
    ops: BTreeSet<usize>,
    reasons: Vec<String>,
}

impl Islands {
    /// Adds the engine's programs without a product that the host would compute in less time; whether there were any.
    fn grow(&mut self, chip: &Chip, placed: &Placed) -> bool {
        let (mut programs, mut engine, mut host) = (0, 0.0, 0.0);
        let before = self.ops.len();
        for piece in partition(placed, Limits::of(chip)).pieces {
            let is_product = |op: &Op| matches!(op, Op::Matmul { .. } | Op::Convolution(_));
            let on_engine = piece.place == Place::Engine;
            if !on_engine || piece.function.operations().iter().any(|o| is_product(&o.op)) {
                continue;
            }
            let times = (program_ns(chip, &piece.function).total_ns, host_ns(chip, &piece.function));
            if times.1 < times.0 {
                (programs, engine, host) = (programs + 1, engine + times.0, host + times.1);
                self.ops.extend(piece.ops.iter().map(|&op| placed.origins[op]));
            }
        }
        let found = self.ops.len() - before;
        if found > 0 {
            self.reasons.push(format!(
                "{found} ops without a product: {programs} programs of the engine would take {:.3} ms, the host {:.3} ms",
                engine * 1e-6,
                host * 1e-6
            ));
        }
        found > 0
    }
}

/// How much less time a convolution has to take than a product for its weight to be in the program, where no other call can
/// use it.
const WORTH_A_CONSTANT: f64 = 0.9;

/// Whether a chip runs a convolution with a constant weight, in less time than the product of an input with its operand. A
/// weight that is in the program anyway costs nothing to be there.
fn pays(chip: &Chip, function: &Function, c: &Convolution, in_program: bool) -> bool {
    let (x, weight) = (function.ty(c.x), function.ty(c.weight));
    let alone = |role, x: TensorType, weight: TensorType, op: &dyn Fn(ValueId, ValueId) -> Op| {
        let mut f = Builder::new("alone", function.opset());
        let weight = f.parameter("weight", weight, role);
        let x = f.parameter("x", x, Role::Batch);
        let y = f.push_one(op(x, weight)).expect("the shapes are those of the convolution");
        f.output("y", y);
        f.finish()
    };
    let convolution = alone(Role::Constant, x.clone(), weight.clone(), &|x, weight| {
        Op::Convolution(Convolution { x, weight, ..c.clone() })
    });
    let matrix = |rows: usize, columns: usize| TensorType::new(x.dtype, &[rows, columns]);
    let (left, right) = (matrix(weight.shape[0], weight.shape[1]), matrix(x.shape[1], x.shape[3]));
    let product =
        alone(Role::Batch, right, left, &|y, x| Op::Matmul { x, y, transpose_x: false, transpose_y: false });
    !arcane_chip::op_violations(chip, &convolution, 0).iter().any(arcane_chip::Violation::is_fatal)
        && (in_program || op_ns(chip, &convolution, 0) < WORTH_A_CONSTANT * op_ns(chip, &product, 0))
}

impl Limits {
    /// Those of a chip's programs.
    pub(crate) fn of(chip: &Chip) -> Self {
        Self {
            opset: opset(chip),
            max_ports: *chip.limits.max_surfaces,
            max_operations: *chip.limits.max_operations,
            max_products: *chip.limits.max_depth,
            max_weight_bytes: *chip.limits.max_weight_bytes,
        }
    }
}

/// The newest opset whose text a chip's compiler reads: that of ios18 comes with the third generation (T03).
fn opset(chip: &Chip) -> Opset {
    if chip.family < Family::H15 { Opset::Ios16 } else { Opset::Ios18 }
}
