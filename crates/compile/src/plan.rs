//! What a session runs, as plain data.

mod build;

use std::fmt::{Display, Formatter, Result as Formatted};

use arcane_mil::{Program, TensorType};

pub use build::{PlanError, PlanOptions, TrainingProgram, plan, plan_functions};

use crate::canonical;

/// The version of the form of [`Plan`].
pub const FORMAT_VERSION: u32 = 1;

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
    /// The functions that calls name.
    pub program: Program,
    /// The buffers; a call refers to them by index. Names are unique.
    pub buffers: Vec<PlanBuffer>,
    /// The calls. Names are unique.
    pub calls: Vec<Call>,
}

/// Memory of one type that lives as long as the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanBuffer {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// What it holds.
    pub kind: BufferKind,
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
        }
    }
}

/// A function on buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The function's name.
    pub function: String,
    /// Every parameter of the function, then every output, in declared order.
    pub ports: Vec<PortBinding>,
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
        canonical::number(&mut sink, self.program.functions.len());
        for f in &self.program.functions {
            canonical::function(&mut sink, f);
        }
        canonical::number(&mut sink, self.buffers.len());
        for b in &self.buffers {
            canonical::text(&mut sink, &b.name);
            canonical::ty(&mut sink, &b.ty);
            canonical::text(&mut sink, b.kind.name());
            if let BufferKind::Copy { of } = b.kind {
                canonical::number(&mut sink, of);
            }
            canonical::number(&mut sink, usize::from(b.zeroed));
        }
        canonical::number(&mut sink, self.calls.len());
        for c in &self.calls {
            canonical::text(&mut sink, &c.name);
            canonical::text(&mut sink, &c.function);
            canonical::number(&mut sink, c.ports.len());
            for p in &c.ports {
                canonical::text(&mut sink, &p.port);
                canonical::number(&mut sink, p.buffer);
            }
        }
        sink.value()
    }

    fn buffer_name(&self, index: usize) -> &str {
        self.buffers.get(index).map_or("?", |b| &b.name)
    }
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
        for function in &self.program.functions {
            let mut sink = canonical::Fnv::new();
            canonical::function(&mut sink, function);
            writeln!(
                f,
                "function {} {} ops {} parameters {} outputs {} hash {:016x}",
                function.name(),
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
            writeln!(f, "{}", if b.zeroed { " zeroed" } else { "" })?;
        }
        for c in &self.calls {
            writeln!(f, "call {} of {}", c.name, c.function)?;
            for p in c.ports.iter().filter(|p| p.port != self.buffer_name(p.buffer)) {
                writeln!(f, "  {} on {}", p.port, self.buffer_name(p.buffer))?;
            }
        }
        Ok(())
    }
}
