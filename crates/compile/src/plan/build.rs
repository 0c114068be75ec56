//! Laying a training program out over buffers, by roles, aliases and names.

use std::collections::HashMap;

use arcane_mil::{Builder, Function, Output, Parameter, Program, Role, TensorType};
use arcane_tensor::DType;

use arcane_chip::Chip;

use super::schedule::Scheduler;
use super::{BufferKind, Call, FORMAT_VERSION, Place, Plan, PlanBuffer, PortBinding};
use crate::placement::{Placement, Target};
use crate::{Precision, simplify};

/// The functions of a training program in fp32 MIL, whose ports are named by contract; W stands for the name of any weight.
///
/// | function | parameters (role) | outputs |
/// |---|---|---|
/// | `forward_backward` | `W` (param), data (batch), `loss_scale` (scalar), optionally `accumulator.W` (accumulator) | `loss_sum`, `weight_sum`, `gradient.W`, `finite`, … |
/// | `update` | `master.W` (master), `moment1.W`, … (moment), `gradient.W` (accumulator), any scalars | `master.W.new`, `moment1.W.new`, …, each aliased to what it replaces; `grad_norm`, … |
/// | `evaluate` | `W` (param), data (batch) | `loss_sum`, `weight_sum`, … |
///
/// An output that is aliased to a parameter overwrites its buffer: a `gradient.W` that adds to `accumulator.W` is aliased to
/// it. A weight without a `master.W` is never updated.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingProgram {
    /// Loss and gradients of one batch.
    pub forward_backward: Function,
    /// One step of the optimiser.
    pub update: Function,
    /// The loss of one batch.
    pub evaluate: Option<Function>,
}

/// How a plan is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanOptions {
    /// The types that `forward_backward` and `evaluate` compute in.
    pub precision: Precision,
    /// The chip on whose engine they run; without one everything is the host's, and so it is with a chip in
    /// [`Precision::Fp32`], which engines do not compute in.
    pub chip: Option<&'static Chip>,
    /// Whether weights that no optimiser updates may be constants of the engine's programs. Each program has its own copy, and
    /// is compiled anew when they change.
    pub freeze: bool,
    /// Which of the ops that the engine has it gets.
    pub placement: Placement,
}

/// Why a training program has no plan. All of them are faults of the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two functions have one name.
    #[error("two functions are called `{0}`")]
    FunctionName(String),
    /// A master is not called `master.W`.
    #[error("{function}: the master `{parameter}` has no name of the form `master.W`")]
    MasterName {
        /// The function.
        function: String,
        /// The parameter.
        parameter: String,
    },
    /// A master belongs to no weight.
    #[error("`master.{0}` was given, but no function has a param `{0}`")]
    NoParam(String),
    /// A master whose new value is not returned.
    #[error("no output of the update is aliased to `master.{0}`")]
    NotReturned(String),
    /// A sum is read that no function writes.
    #[error("`{0}` is read, but no function has an output of this name")]
    NeverWritten(String),
    /// Ports that share a buffer differ in type.
    #[error("{function}: port `{port}` is {found}, buffer `{buffer}` is {expected}")]
    Type {
        /// The function.
        function: String,
        /// The port.
        port: String,
        /// Its type.
        found: Box<TensorType>,
        /// The buffer, by the name of the port that it was made for.
        buffer: String,
        /// Its type.
        expected: Box<TensorType>,
    },
    /// An output would overwrite what only the host or an aliased output may write.
    #[error(
        "{function}: output `{output}` would overwrite the {kind} of the same name: alias it, or rename it"
    )]
    Overwrites {
        /// The function.
        function: String,
        /// The output.
        output: String,
        /// What the buffer holds.
        kind: &'static str,
    },
    /// An output shares its buffer with a port that it is not aliased to.
    #[error("{function}: output `{output}` and port `{port}` are both on buffer `{buffer}` without an alias")]
    Shared {
        /// The function.
        function: String,
        /// The output.
        output: String,
        /// The other port.
        port: String,
        /// The buffer.
        buffer: String,
    },
}

/// Makes the plan of a training program: calls `forward_backward`, `update` and, if there is one, `evaluate`.
///
/// The functions are simplified and typed; the update stays in fp32. Ports of one buffer name share a buffer:
///
/// | buffer | ports |
/// |---|---|
/// | `W` | `master.W`, `master.W.new`, and `W` unless it has become fp16; a frozen `W` in the type that it has |
/// | `copy.W` | `W` if it has become fp16, and an output of that name which the update gets |
/// | `gradient.W` | the output, the accumulator that it is aliased to, and the update's parameter; zeroed if it adds up |
/// | any other name | parameters of this name, outputs aliased to them, and other outputs of this name |
///
/// # Errors
/// See [`PlanError`].
pub fn plan(training: &TrainingProgram, options: &PlanOptions) -> Result<Plan, PlanError> {
    let target = Target::new(options);
    let update = simplify(&training.update);
    let is_frozen = |weight: &str| {
        options.freeze
            && !update
                .parameters()
                .iter()
                .any(|p| p.role == Role::Master && weight_of(&update, p) == Ok(weight))
    };
    let forward_backward = target.compile(&training.forward_backward, is_frozen);
    let evaluate = training.evaluate.as_ref().map(|f| target.compile(f, is_frozen));
    let computing: Vec<&Function> =
        std::iter::once(&forward_backward).chain(&evaluate).map(|p| &p.placed.function).collect();
    let copied = copied_weights(&computing, &update)?;
    let update = with_copies(&update, &copied)?;

    let mut layout = Layout { copied, ..Layout::default() };
    // The weights come first: a copy refers to its weight.
    let update_ports = layout.ports(&update)?;
    let mut scheduler = Scheduler::new(target, layout);
    scheduler.add("forward_backward", forward_backward)?;
    scheduler.add_whole("update", update, update_ports);
    if let Some(evaluate) = evaluate {
        scheduler.add("evaluate", evaluate)?;
    }
    scheduler.finish()
}

/// Makes the plan of functions that are called as they are, without an optimiser: a program from elsewhere, generation. Each
/// function is a call of its own name.
///
/// The functions are simplified and typed. Ports of one name share a buffer, and an output is on the buffer of the parameter
/// that it is aliased to. No weight is updated.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_functions(functions: &[Function], options: &PlanOptions) -> Result<Plan, PlanError> {
    let target = Target::new(options);
    let mut scheduler = Scheduler::new(target, Layout::default());
    for f in functions {
        scheduler.add(f.name(), target.compile(f, |_| options.freeze))?;
    }
    scheduler.finish()
}

/// The weight that a master belongs to.
fn weight_of<'a>(update: &Function, master: &'a Parameter) -> Result<&'a str, PlanError> {
    master.name.strip_prefix("master.").ok_or_else(|| PlanError::MasterName {
        function: update.name().into(),
        parameter: master.name.clone(),
    })
}

/// The weights whose param is not of the master's dtype, with that of the param. All masters have a param.
fn copied_weights(computing: &[&Function], update: &Function) -> Result<HashMap<String, DType>, PlanError> {
    let mut copied = HashMap::new();
    for master in update.parameters().iter().filter(|p| p.role == Role::Master) {
        let weight = weight_of(update, master)?;
        let mut params = computing.iter().filter_map(|f| {
            let p = f.parameter(weight).filter(|p| p.role == Role::Param)?;
            Some(f.ty(p.value).dtype)
        });
        let dtype = params.next().ok_or_else(|| PlanError::NoParam(weight.into()))?;
        if dtype != update.ty(master.value).dtype {
            copied.insert(weight.into(), dtype);
        }
    }
    Ok(copied)
}

/// The update with an output `copy.W`, the new master in the type of the param, for each weight that needs one.
fn with_copies(update: &Function, copied: &HashMap<String, DType>) -> Result<Function, PlanError> {
    let mut builder = Builder::extend(update);
    for o in update.outputs() {
        builder.output(&o.name, o.value);
    }
    for a in update.aliases() {
        builder.alias(&update.outputs()[a.output].name, &update.parameters()[a.parameter].name);
    }
    for (i, master) in update.parameters().iter().enumerate() {
        if master.role != Role::Master {
            continue;
        }
        let weight = weight_of(update, master)?;
        let alias = update.aliases().iter().find(|a| a.parameter == i);
        let new = alias.ok_or_else(|| PlanError::NotReturned(weight.into()))?.output;
        if let Some(&dtype) = copied.get(weight) {
            let name = copy_name(weight);
            let copy = builder.cast(update.outputs()[new].value, dtype);
            builder.set_path(copy, name.clone());
            builder.output(&name, copy);
        }
    }
    Ok(builder.finish())
}

fn copy_name(weight: &str) -> String {
    format!("copy.{weight}")
}

/// The buffers so far.
#[derive(Default)]
pub(super) struct Layout {
    copied: HashMap<String, DType>,
    pub(super) buffers: Vec<PlanBuffer>,
    by_name: HashMap<String, usize>,
    written: Vec<bool>,
}

impl Layout {
    /// Puts every port of a function on a buffer.
    pub(super) fn ports(&mut self, f: &Function) -> Result<Vec<PortBinding>, PlanError> {
        let mut ports = Vec::new();
        for (i, p) in f.parameters().iter().enumerate() {
            let alias = f.aliases().iter().find(|a| a.parameter == i);
            let overwritten_by = alias.map(|a| &f.outputs()[a.output]);
            let buffer = self.parameter(f, p, overwritten_by)?;
            ports.push(PortBinding { port: p.name.clone(), buffer });
        }
        for (i, o) in f.outputs().iter().enumerate() {
            let alias = f.aliases().iter().find(|a| a.output == i);
            let buffer = match alias {
                Some(a) => ports[a.parameter].buffer,
                None => self.output(f, o)?,
            };
            self.written[buffer] = true;
            let partner = alias.map(|a| a.parameter);
            let other = ports.iter().enumerate().find(|(j, p)| p.buffer == buffer && Some(*j) != partner);
            if let Some((_, other)) = other {
                return Err(PlanError::Shared {
                    function: f.name().into(),
                    output: o.name.clone(),
                    port: other.port.clone(),
                    buffer: self.buffers[buffer].name.clone(),
                });
            }
            ports.push(PortBinding { port: o.name.clone(), buffer });
        }
        Ok(ports)
    }

    fn parameter(
        &mut self,
        f: &Function,
        p: &Parameter,
        overwritten_by: Option<&Output>,
    ) -> Result<usize, PlanError> {
        let (name, kind) = match p.role {
            Role::Param if self.copied.contains_key(&p.name) => {
                let of = self.by_name[&p.name];
                (copy_name(&p.name), BufferKind::Copy { of })
            }
            Role::Param | Role::Constant => (p.name.clone(), BufferKind::Weight),
            Role::Master => (weight_of(f, p)?.to_string(), BufferKind::Weight),
            Role::Moment => (p.name.clone(), BufferKind::Moment),
            // A sum is known by what it is after the call.
            Role::Accumulator => {
                (overwritten_by.map_or(&p.name, |o| &o.name).clone(), BufferKind::Accumulator)
            }
            Role::Batch => (p.name.clone(), BufferKind::Batch),
            Role::Scalar => (p.name.clone(), BufferKind::Scalar),
            Role::State => (p.name.clone(), BufferKind::State),
        };
        let buffer = self.buffer(f, &p.name, name, f.ty(p.value), kind)?;
        self.buffers[buffer].zeroed |= p.role == Role::Accumulator && overwritten_by.is_some();
        Ok(buffer)
    }

    /// The buffer of an output that overwrites no parameter of its function.
    fn output(&mut self, f: &Function, o: &Output) -> Result<usize, PlanError> {
        let copied = o.name.strip_prefix("copy.").filter(|w| self.copied.contains_key(*w));
        let kind = match copied {
            Some(weight) => BufferKind::Copy { of: self.by_name[weight] },
            None => BufferKind::Result,
        };
        let buffer = self.buffer(f, &o.name, o.name.clone(), f.ty(o.value), kind)?;
        match self.buffers[buffer].kind {
            BufferKind::Result | BufferKind::Accumulator | BufferKind::Copy { .. } => Ok(buffer),
            kind => Err(PlanError::Overwrites {
                function: f.name().into(),
                output: o.name.clone(),
                kind: kind.name(),
            }),
        }
    }

    /// The buffer of a name, made where it is new.
    fn buffer(
        &mut self,
        f: &Function,
        port: &str,
        name: String,
        ty: &TensorType,
        kind: BufferKind,
    ) -> Result<usize, PlanError> {
        let Some(&i) = self.by_name.get(&name) else {
            let i = self.buffers.len();
            self.by_name.insert(name.clone(), i);
            self.buffers.push(PlanBuffer { name, ty: ty.clone(), kind, place: Place::Host, zeroed: false });
            self.written.push(false);
            return Ok(i);
        };
        let existing = &self.buffers[i];
        if existing.ty != *ty {
            return Err(PlanError::Type {
                function: f.name().into(),
                port: port.into(),
                found: Box::new(ty.clone()),
                buffer: name,
                expected: Box::new(existing.ty.clone()),
            });
        }
        Ok(i)
    }

    /// A buffer that no port of a whole function is on.
    pub(super) fn add(&mut self, buffer: PlanBuffer) -> usize {
        self.by_name.insert(buffer.name.clone(), self.buffers.len());
        self.buffers.push(buffer);
        self.written.push(true);
        self.buffers.len() - 1
    }

    /// The plan of the functions on these buffers.
    pub(super) fn finish(
        self,
        chip: Option<&Chip>,
        functions: Vec<(Function, Place)>,
        calls: Vec<Call>,
        reasons: Vec<String>,
    ) -> Result<Plan, PlanError> {
        if let Some(b) = self.never_written() {
            return Err(PlanError::NeverWritten(b.name.clone()));
        }
        for (i, (f, _)) in functions.iter().enumerate() {
            if functions[..i].iter().any(|(g, _)| g.name() == f.name()) {
                return Err(PlanError::FunctionName(f.name().into()));
            }
        }
        let (functions, places) = functions.into_iter().unzip();
        Ok(Plan {
            format_version: FORMAT_VERSION,
            chip: chip.map(|c| c.name.clone()),
            program: Program { functions },
            places,
            buffers: self.buffers,
            calls,
            reasons,
        })
    }

    /// A sum that no call writes.
    fn never_written(&self) -> Option<&PlanBuffer> {
        let unwritten = |(b, written): &(&PlanBuffer, &bool)| b.kind == BufferKind::Accumulator && !**written;
        self.buffers.iter().zip(&self.written).find(unwritten).map(|(b, _)| b)
    }
}
