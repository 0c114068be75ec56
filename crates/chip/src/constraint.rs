//! What an engine refuses or computes wrongly, as one table.

mod ops;
mod program;
mod site;
mod table;

use std::fmt;

use arcane_mil::{Binary, Function, Op, TensorType, Unary};

use self::site::Site;
pub(crate) use self::site::{definition, is_constant, stands_for_constant};
use crate::legality::{Support, legality};
use crate::{Chip, Confidence, Family};

/// What becomes of a program that violates a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// It is slow, needs care, or fails in some reports: no reason to refuse it.
    Note,
    /// It runs and its results are wrong.
    Wrong,
    /// It does not compile, load or run.
    Refused,
}

impl Severity {
    /// The name in lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Wrong => "wrong",
            Self::Refused => "refused",
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Constraint {
    /// Its name. Rows of one name differ in severity and families.
    pub id: &'static str,
    /// What becomes of a program that violates it.
    pub severity: Severity,
    /// The first and the last family that has it.
    pub families: (Family, Family),
    /// The chips that have it; all of these families where there are none.
    pub chips: &'static [&'static str],
    /// What happens.
    pub message: &'static str,
    /// What to do instead.
    pub remedy: &'static str,
    /// Who measured or said it.
    pub source: &'static str,
    /// How well it is known.
    pub confidence: Confidence,
    check: Check,
}

/// What a constraint looks at. A check gives what it found wrong, or nothing.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// Each op of one of the subjects.
    Op(&'static [Subject], fn(&Site<'_>) -> Option<Finding>),
    /// Each parameter and each output.
    Port(fn(&Chip, &TensorType) -> Option<Finding>),
    /// The function as a whole.
    Function(fn(&Chip, &Function) -> Option<Finding>),
}

/// What is wrong.
#[derive(Debug)]
struct Finding {
    /// What was expected.
    limit: String,
    /// What was found.
    actual: String,
}

impl Finding {
    fn new(limit: impl fmt::Display, actual: impl fmt::Display) -> Self {
        Self { limit: limit.to_string(), actual: actual.to_string() }
    }
}

/// Groups of ops that constraints are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// Every op but constants.
    Computation,
    Constant,
    Fill,
    /// `rsqrt` and `log`.
    Epsilon,
    /// `sqrt` and `rsqrt`.
    Root,
    /// Ops of one operand that are looked up in a table.
    Nonlinear,
    Square,
    Mul,
    Softmax,
    Matmul,
    Linear,
    Convolution,
    Attention,
    Concat,
    Split,
    Tile,
}

/// The groups that an op belongs to. An op that is new here belongs at least to `Computation`; `data/ops.toml` has to have
/// it, too.
fn subjects(op: &Op) -> &'static [Subject] {
    match op {
        Op::Const(_) => &[Subject::Constant],
        Op::Unary { kind, .. } => match kind {
            Unary::Square => &[Subject::Computation, Subject::Square],
            Unary::Sqrt => &[Subject::Computation, Subject::Nonlinear, Subject::Root],
            Unary::Rsqrt { .. } => {
                &[Subject::Computation, Subject::Nonlinear, Subject::Root, Subject::Epsilon]
            }
            Unary::Log { .. } | Unary::Inverse { .. } => {
                &[Subject::Computation, Subject::Nonlinear, Subject::Epsilon]
            }
            Unary::Exp
            | Unary::Exp2
            | Unary::Erf
            | Unary::Sin
            | Unary::Cos
            | Unary::Tan
            | Unary::Asin
            | Unary::Acos
            | Unary::Atan
            | Unary::Atanh
            | Unary::Sinh
            | Unary::Cosh
            | Unary::Tanh
            | Unary::Sigmoid
            | Unary::Silu
            | Unary::Gelu(_)
            | Unary::Elu { .. }
            | Unary::ScaledTanh { .. }
            | Unary::Softplus
            | Unary::Softsign => &[Subject::Computation, Subject::Nonlinear],
            Unary::Abs
            | Unary::Identity
            | Unary::Sign
            | Unary::Floor
            | Unary::Ceil
            | Unary::Round
            | Unary::Clip { .. }
            | Unary::Threshold { .. }
            | Unary::Not
            | Unary::Relu
            | Unary::Relu6
            | Unary::LeakyRelu { .. }
            | Unary::ClampedRelu { .. }
            | Unary::ThresholdedRelu { .. }
            | Unary::SigmoidHard { .. }
            | Unary::LinearActivation { .. } => &[Subject::Computation],
        },
        Op::Binary { kind: Binary::Mul, .. } => &[Subject::Computation, Subject::Mul],
        Op::Softmax { .. } => &[Subject::Computation, Subject::Softmax],
        Op::Matmul { .. } => &[Subject::Computation, Subject::Matmul],
        Op::Linear { .. } => &[Subject::Computation, Subject::Linear],
        Op::Convolution(_) => &[Subject::Computation, Subject::Convolution],
        Op::ScaledDotProductAttention { .. } => &[Subject::Computation, Subject::Attention],
        Op::Concat { .. } => &[Subject::Computation, Subject::Concat],
        Op::Split { .. } => &[Subject::Computation, Subject::Split],
        Op::Tile { .. } => &[Subject::Computation, Subject::Tile],
        Op::Fill { .. } => &[Subject::Computation, Subject::Fill],
        Op::Binary { .. }
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Dimensions(_)
        | Op::Rearrange(_)
        | Op::Join(_)
        | Op::Make(_)
        | Op::Index(_)
        | Op::Sample(_)
        | Op::Cast { .. }
        | Op::Compare { .. }
        | Op::Logical { .. }
        | Op::Select { .. }
        | Op::Reduce { .. }
        | Op::Einsum(_)
        | Op::Normalisation(_)
        | Op::Channelwise(_)
        | Op::AlongAxis(_)
        | Op::Random(_)
        | Op::Gather { .. }
        | Op::GatherAlongAxis { .. }
        | Op::Scatter { .. }
        | Op::ScatterAlongAxis { .. }
        | Op::Reshape { .. }
        | Op::TransposedConvolution(_)
        | Op::Pool(_)
        | Op::Quantization(_)
        | Op::Recurrent(_)
        | Op::State(_)
        | Op::Constexpr(_)
        | Op::Transpose { .. } => &[Subject::Computation],
    }
}

/// A constraint that a function violates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The constraint.
    pub id: &'static str,
    /// What becomes of the program.
    pub severity: Severity,
    /// The op; `parameter`, `output` or `function` for what is none.
    pub op: &'static str,
    /// The path of the op's first result, or the name of the port or the function.
    pub path: String,
    /// What was expected.
    pub limit: String,
    /// What was found.
    pub actual: String,
    /// What happens.
    pub message: &'static str,
    /// What to do instead.
    pub remedy: &'static str,
    /// Who measured or said it.
    pub source: &'static str,
    /// How well it is known.
    pub confidence: Confidence,
}

impl Violation {
    /// Whether the chip does not run the program, or runs it wrongly.
    pub fn is_fatal(&self) -> bool {
        self.severity > Severity::Note
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, op, path, limit, actual, message, remedy, .. } = self;
        write!(f, "{path} ({op}): {id} {message}: limit {limit}, found {actual}; remedy: {remedy}")
    }
}

impl Constraint {
    /// Whether a chip has it.
    pub fn applies_to(&self, chip: &Chip) -> bool {
        (self.families.0..=self.families.1).contains(&chip.family)
            && (self.chips.is_empty() || self.chips.contains(&chip.name.as_str()))
    }

    fn violation(&self, op: &'static str, path: &str, finding: Finding) -> Violation {
        Violation {
            id: self.id,
            severity: self.severity,
            op,
            path: path.into(),
            limit: finding.limit,
            actual: finding.actual,
            message: self.message,
            remedy: self.remedy,
            source: self.source,
            confidence: self.confidence,
        }
    }
}

/// The table of constraints, without those of whole ops ([`legality`]).
pub fn constraints() -> &'static [Constraint] {
    table::CONSTRAINTS
}

fn applying(chip: &Chip) -> impl Iterator<Item = &'static Constraint> + '_ {
    table::CONSTRAINTS.iter().filter(|c| c.applies_to(chip))
}

/// Everything that a chip's engine has against a function: against its ports, then against it as a whole, then op by op.
///
/// A parameter of the role [`arcane_mil::Role::Constant`] is taken for a constant.
pub fn violations(chip: &Chip, function: &Function) -> Vec<Violation> {
    let mut found = Vec::new();
    let parameters = function.parameters().iter().filter(|p| !site::stands_for_constant(p));
    let parameters = parameters.map(|p| ("parameter", &p.name, p.value));
    let outputs = function.outputs().iter().map(|o| ("output", &o.name, o.value));
    for (kind, name, value) in parameters.chain(outputs) {
        for c in applying(chip) {
            if let Check::Port(check) = c.check
                && let Some(finding) = check(chip, function.ty(value))
            {
                found.push(c.violation(kind, name, finding));
            }
        }
    }
    for c in applying(chip) {
        if let Check::Function(check) = c.check
            && let Some(finding) = check(chip, function)
        {
            found.push(c.violation("function", function.name(), finding));
        }
    }
    found.extend((0..function.operations().len()).flat_map(|i| op_violations(chip, function, i)));
    found
}

/// What a chip's engine has against one op of a function, by its index, whatever the ports and the other ops.
///
/// # Panics
/// If the function has no such op.
pub fn op_violations(chip: &Chip, function: &Function, index: usize) -> Vec<Violation> {
    let site = Site::new(chip, function, &function.operations()[index]);
    // An op that the engine does not have needs no further reasons.
    if let Some(violation) = missing(&site) {
        return vec![violation];
    }
    let subjects = subjects(&site.operation.op);
    let mut found = Vec::new();
    for c in applying(chip) {
        if let Check::Op(of, check) = c.check
            && of.iter().any(|subject| subjects.contains(subject))
            && let Some(finding) = check(&site)
        {
            found.push(c.violation(site.operation.op.name(), site.path(), finding));
        }
    }
    found
}

/// Whether a chip's engine runs an op of a function, and rightly.
///
/// # Panics
/// If the function has no such op.
pub fn is_legal(chip: &Chip, function: &Function, index: usize) -> bool {
    !op_violations(chip, function, index).iter().any(Violation::is_fatal)
}

/// The violation of an op that the family does not run as it is.
fn missing(site: &Site<'_>) -> Option<Violation> {
    let op = &site.operation.op;
    if matches!(op, Op::Const(_)) {
        return None;
    }
    let family = site.chip.family;
    let row = legality(op.name());
    let support = row.map_or(Support::None, |row| row.on(family));
    let message = match support {
        Support::Native => return None,
        Support::Composed => "the engine does not run this op as it is",
        Support::None => "the engine has no such op",
    };
    Some(Violation {
        id: row.map_or("O17", |row| &row.id),
        severity: Severity::Refused,
        op: op.name(),
        path: site.path().into(),
        limit: format!("ops that {family} runs natively"),
        actual: op.name().into(),
        message,
        remedy: row.and_then(|row| row.remedy.as_deref()).unwrap_or("compute it on the host"),
        source: row.map_or("", |row| &row.source),
        confidence: row.map_or(Confidence::Inferred, |row| row.confidence),
    })
}
