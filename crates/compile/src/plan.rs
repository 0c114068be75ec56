//! What a session runs, as plain data.

mod build;
mod files;
mod schedule;

use std::collections::BTreeSet;
use std::fmt::{Display, Formatter, Result as Formatted};

use arcane_mil::{Function, Program, Role, TensorType};

pub use build::{PlanError, PlanOptions, TrainingProgram, plan, plan_functions};
pub use files::PlanFilesError;

use crate::canonical;

/// The version of the form of [`Plan`].
pub const FORMAT_VERSION: u32 = 3;

/// Where an op or a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// On the processor.
    Host,
    /// On the Neural Engine, or what plays it.
    Engine,
}

impl Place {
    /// The name in a printed plan.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Engine => "engine",
        }
    }
}

/// Functions, the buffers that they run on, and the calls that tie them together.
///
/// Two plans are compared with `==`, or line by line in their printed form; [`Plan::hash`] tells them apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// [`FORMAT_VERSION`] of the code that made it.
    pub format_version: u32,
    /// The chip that the engine's functions are for; without one all functions are the host's.
    pub chip: Option<String>,
    /// The functions that steps name.
    pub program: Program,
    /// Where each of the functions runs.
    pub places: Vec<Place>,
    /// The buffers; steps refer to them by index. Names are unique.
    pub buffers: Vec<PlanBuffer>,
    /// The calls. Names are unique.
    pub calls: Vec<Call>,
    /// Why things are where they are, in sentences.
    pub reasons: Vec<String>,
}

/// The name of the call that computes what is made of weights alone. It has to run before any other after the weights
/// have changed.
pub const PREPARE: &str = "prepare";

/// Memory of one type that lives as long as the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanBuffer {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// What it holds.
    pub kind: BufferKind,
    /// Whose memory it is. The engine's is padded to whole rows; the host reads and writes it where that leaves no gaps.
    pub place: Place,
    /// Whether calls add to it, so that the host has to zero it at the start of each update.
    pub zeroed: bool,
}

/// What a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BufferKind {
    /// A weight: the only one that there is, or the master of a copy.
    Weight,
    /// A weight rounded to the type that a function computes with. An update writes it; who sets the weight sets it too.
    Copy {
        /// The weight's buffer.
        of: usize,
    },
    /// A moment of the optimiser.
    Moment,
    /// A gradient, or another sum over the calls of an update.
    Accumulator,
    /// Data of one batch.
    Batch,
    /// A number that the host sets.
    Scalar,
    /// State that a call reads and replaces.
    State,
    /// What a call writes for the host.
    Result,
    /// What is made of weights alone.
    Prepared,
    /// What one step of a call writes and another reads. Values that are never needed at once share a buffer.
    Value,
    /// Another buffer's elements, with the engine's gaps between rows.
    Staged,
}

impl BufferKind {
    /// The name in a printed plan.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Copy { .. } => "copy",
            Self::Moment => "moment",
            Self::Accumulator => "accumulator",
            Self::Batch => "batch",
            Self::Scalar => "scalar",
            Self::State => "state",
            Self::Result => "result",
            Self::Prepared => "prepared",
            Self::Value => "value",
            Self::Staged => "staged",
        }
    }
}

/// Steps that the host starts as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The steps. Those of one place run one after another in this order.
    pub steps: Vec<Step>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub work: Work,
    /// Steps before it that have to be done; those of its own place are understood.
    pub after: Vec<usize>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Runs a function on buffers.
    Run {
        /// Where.
        place: Place,
        /// The function's name.
        function: String,
        /// Every parameter of the function, then every output, in declared order.
        ports: Vec<PortBinding>,
    },
    /// Copies the elements of a buffer into another that has other gaps between rows. The host does it.
    Copy {
        /// The index of the buffer that is read.
        from: usize,
        /// The index of the buffer that is written.
        to: usize,
    },
}

impl Step {
    /// Where it runs.
    pub fn place(&self) -> Place {
        match self.work {
            Work::Run { place, .. } => place,
            Work::Copy { .. } => Place::Host,
        }
    }
}

impl Call {
    /// A call of one function as a whole.
    fn whole(name: &str, function: &Function, ports: Vec<PortBinding>) -> Self {
        let work = Work::Run { place: Place::Host, function: function.name().into(), ports };
        Self { name: name.into(), steps: vec![Step { work, after: Vec::new() }] }
    }

    /// The functions that it runs and their ports.
    pub fn runs(&self) -> impl Iterator<Item = (&str, &[PortBinding])> {
        self.steps.iter().filter_map(|s| match &s.work {
            Work::Run { function, ports, .. } => Some((function.as_str(), ports.as_slice())),
            Work::Copy { .. } => None,
        })
    }

    /// How many programs of the engine it runs.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().filter(|s| s.place() == Place::Engine).count()
    }
}

/// A port and its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBinding {
    /// The port's name.
    pub port: String,
    /// The buffer's index.
    pub buffer: usize,
}

impl Plan {
    /// The index of the buffer of a name.
    pub fn buffer(&self, name: &str) -> Option<usize> {
        self.buffers.iter().position(|b| b.name == name)
    }

    /// The call of a name.
    pub fn call(&self, name: &str) -> Option<&Call> {
        self.calls.iter().find(|c| c.name == name)
    }

    /// Bytes of all buffers. What an engine needs beside them is the engine's to say.
    pub fn memory_bytes(&self) -> usize {
        self.buffers.iter().map(|b| b.ty.bytes()).sum()
    }

    /// A hash of everything in the plan, constants included; the same on every machine.
    pub fn hash(&self) -> u64 {
        let mut sink = canonical::Fnv::new();
        canonical::number(&mut sink, self.format_version as usize);
        canonical::text(&mut sink, self.chip.as_deref().unwrap_or_default());
        canonical::number(&mut sink, self.program.functions.len());
        for (f, place) in self.program.functions.iter().zip(&self.places) {
            canonical::function(&mut sink, f);
            canonical::text(&mut sink, place.name());
        }
        canonical::number(&mut sink, self.buffers.len());
        for b in &self.buffers {
            canonical::text(&mut sink, &b.name);
            canonical::ty(&mut sink, &b.ty);
            canonical::text(&mut sink, b.kind.name());
            canonical::text(&mut sink, b.place.name());
            if let BufferKind::Copy { of } = b.kind {
                canonical::number(&mut sink, of);
            }
            canonical::number(&mut sink, usize::from(b.zeroed));
        }
        canonical::number(&mut sink, self.calls.len());
        for c in &self.calls {
            canonical::text(&mut sink, &c.name);
            canonical::number(&mut sink, c.steps.len());
            c.steps.iter().for_each(|step| put_step(&mut sink, step));
        }
        sink.value()
    }

    /// Where a function runs.
    pub fn place(&self, function: &str) -> Option<Place> {
        let index = self.program.functions.iter().position(|f| f.name() == function)?;
        self.places.get(index).copied()
    }

    /// How many programs of the engine are loaded at once. A function with constants is a program for each list of buffers that
    /// those come from.
    pub fn engine_programs(&self) -> usize {
        let programs = self
            .calls
            .iter()
            .flat_map(Call::runs)
            .filter(|(function, _)| self.place(function) == Some(Place::Engine));
        let keyed: BTreeSet<(&str, Vec<usize>)> =
            programs.map(|(function, ports)| (function, self.constants(function, ports))).collect();
        keyed.len()
    }

    /// The buffers that the constants of a call's programs come from.
    pub fn constants_of(&self, call: &Call) -> Vec<usize> {
        call.runs().flat_map(|(function, ports)| self.constants(function, ports)).collect()
    }

    /// Bytes of the constants of all programs.
    pub fn constant_bytes(&self) -> usize {
        let programs: BTreeSet<(&str, Vec<usize>)> = self
            .calls
            .iter()
            .flat_map(Call::runs)
            .map(|(function, ports)| (function, self.constants(function, ports)))
            .collect();
        programs.iter().flat_map(|(_, buffers)| buffers).map(|&b| self.buffers[b].ty.bytes()).sum()
    }

    fn constants(&self, function: &str, ports: &[PortBinding]) -> Vec<usize> {
        let Some(f) = self.program.function(function) else { return Vec::new() };
        let constant = |p: &&PortBinding| f.parameter(&p.port).is_some_and(|p| p.role == Role::Constant);
        ports.iter().filter(constant).map(|p| p.buffer).collect()
    }

    fn buffer_name(&self, index: usize) -> &str {
        self.buffers.get(index).map_or("?", |b| &b.name)
    }
}

fn put_step(sink: &mut canonical::Fnv, step: &Step) {
    match &step.work {
        Work::Run { place, function, ports } => {
            canonical::text(sink, place.name());
            canonical::text(sink, function);
            canonical::number(sink, ports.len());
            for p in ports {
                canonical::text(sink, &p.port);
                canonical::number(sink, p.buffer);
            }
        }
        Work::Copy { from, to } => {
            canonical::text(sink, "copy");
            canonical::number(sink, *from);
            canonical::number(sink, *to);
        }
    }
    canonical::number(sink, step.after.len());
    step.after.iter().for_each(|&s| canonical::number(sink, s));
}

/// A table: functions with their hashes, buffers, and the ports of each call whose buffer has another name.
impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        writeln!(
            f,
            "plan format {} hash {:016x} bytes {}",
            self.format_version,
            self.hash(),
            self.memory_bytes()
        )?;
        for (function, place) in self.program.functions.iter().zip(&self.places) {
            let mut sink = canonical::Fnv::new();
            canonical::function(&mut sink, function);
            writeln!(
                f,
                "function {} {} {} ops {} parameters {} outputs {} hash {:016x}",
                function.name(),
                place.name(),
                function.opset().name(),
                function.operations().len(),
                function.parameters().len(),
                function.outputs().len(),
                sink.value()
            )?;
        }
        let width = self.buffers.iter().map(|b| b.name.len()).max().unwrap_or(0);
        for b in &self.buffers {
            write!(f, "buffer {:width$} {:11} {}", b.name, b.kind.name(), b.ty)?;
            if let BufferKind::Copy { of } = b.kind {
                write!(f, " of {}", self.buffer_name(of))?;
            }
            write!(f, "{}", if b.place == Place::Engine { " engine" } else { "" })?;
            writeln!(f, "{}", if b.zeroed { " zeroed" } else { "" })?;
        }
        for c in &self.calls {
            writeln!(f, "call {}", c.name)?;
            for (i, step) in c.steps.iter().enumerate() {
                self.write_step(f, i, step)?;
            }
        }
        Ok(())
    }
}

impl Plan {
    /// One step, and the ports whose buffer has another name.
    fn write_step(&self, f: &mut Formatter<'_>, index: usize, step: &Step) -> Formatted {
        match &step.work {
            Work::Run { place, function, .. } => write!(f, "  {index} {} {function}", place.name())?,
            Work::Copy { from, to } => {
                write!(f, "  {index} copy {} to {}", self.buffer_name(*from), self.buffer_name(*to))?;
            }
        }
        if !step.after.is_empty() {
            write!(f, " after {:?}", step.after)?;
        }
        writeln!(f)?;
        let Work::Run { ports, .. } = &step.work else { return Ok(()) };
        for p in ports.iter().filter(|p| p.port != self.buffer_name(p.buffer)) {
            writeln!(f, "    {} on {}", p.port, self.buffer_name(p.buffer))?;
        }
        Ok(())
    }
}
