//! From functions to steps on buffers.

use std::collections::{BTreeMap, HashMap};

use arcane_chip::surface::SurfaceLayout;
use arcane_mil::{Builder, Function, Opset, Role, TensorType, ValueId};

use super::build::{Layout, PlanError};
use super::{BufferKind, Call, PREPARE, Place, Plan, PlanBuffer, PortBinding, Step, Work};
use crate::canonical;
use crate::partition::{Limits, Piece, partition};
use crate::placement::{Compiled, Target};

/// A value of a call, and the shape in which an engine's port sees it.
type Staging = (ValueId, TensorType);

pub(super) struct Scheduler {
    target: Target,
    layout: Layout,
    functions: Vec<(Function, Place)>,
    /// Functions by what they compute.
    programs: HashMap<(Place, Vec<u8>), usize>,
    calls: Vec<Call>,
    reasons: Vec<String>,
    /// Buffers that no value needs any more.
    free: BTreeMap<(Place, String), Vec<usize>>,
    values: usize,
    preparation: Preparation,
}

/// What is made of weights alone, for all calls together.
struct Preparation {
    builder: Builder,
    /// By the spelling of the value.
    made: HashMap<String, ValueId>,
    buffers: HashMap<String, usize>,
    ports: Vec<PortBinding>,
    outputs: Vec<(ValueId, usize)>,
    /// Weights and prepared values with the engine's gaps: from, to.
    copies: Vec<(usize, usize)>,
    staged: HashMap<(usize, TensorType), usize>,
}

impl Scheduler {
    pub(super) fn new(target: Target, layout: Layout) -> Self {
        let preparation = Preparation {
            builder: Builder::new(PREPARE, Opset::Ios18),
            made: HashMap::new(),
            buffers: HashMap::new(),
            ports: Vec::new(),
            outputs: Vec::new(),
            copies: Vec::new(),
            staged: HashMap::new(),
        };
        Self {
            target,
            layout,
            functions: Vec::new(),
            programs: HashMap::new(),
            calls: Vec::new(),
            reasons: Vec::new(),
            free: BTreeMap::new(),
            values: 0,
            preparation,
        }
    }

    /// A call of a function as a whole, on the host.
    pub(super) fn add_whole(&mut self, name: &str, function: Function, ports: Vec<PortBinding>) {
        self.calls.push(Call::whole(name, &function, ports));
        self.functions.push((function, Place::Host));
    }

    /// A call of a compiled function.
    pub(super) fn add(&mut self, name: &str, compiled: Compiled) -> Result<(), PlanError> {
        let ports = self.layout.ports(&compiled.placed.function)?;
        let Some(chip) = self.target.chip else {
            self.add_whole(name, compiled.placed.function, ports);
            return Ok(());
        };
        self.reasons.extend(compiled.hosted.iter().map(|r| format!("{name}: on the host: {r}")));
        let parts = partition(&compiled.placed, Limits::of(chip));
        self.reasons.extend(parts.cuts.iter().chain(&parts.hosted).map(|c| format!("{name}: {c}")));
        let function = &compiled.placed.function;
        let mut call = CallBuilder::new(function, &ports, &parts.pieces);
        for &v in &parts.prepared {
            let buffer = self.prepared(function, &ports, v);
            call.buffers.insert(v, buffer);
            call.prepared.push(v);
        }
        for (i, piece) in parts.pieces.iter().enumerate() {
            let program = self.program(name, piece);
            self.piece(&mut call, i, piece, program);
        }
        for buffer in call.owned {
            self.release(buffer);
        }
        self.calls.push(Call { name: name.into(), steps: call.steps.finish() });
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Plan, PlanError> {
        if let Some(call) = self.prepare() {
            self.calls.push(call);
        }
        self.layout.finish(self.target.chip, self.functions, self.calls, self.reasons)
    }

    /// The function of a piece: one for all that compute the same.
    fn program(&mut self, call: &str, piece: &Piece) -> usize {
        let mut key = Vec::new();
        canonical::structure(&mut key, &piece.function);
        let next = self.functions.len();
        let index = *self.programs.entry((piece.place, key)).or_insert(next);
        if index == next {
            // A name in MIL text is an identifier.
            let call: String =
                call.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let name = format!("{call}_{}_{}", piece.place.name(), self.programs.len() - 1);
            self.functions.push((renamed(&piece.function, &name), piece.place));
        }
        index
    }

    /// A step for a piece, with the copies before and after it that the engine's rows ask for.
    fn piece(&mut self, call: &mut CallBuilder<'_>, index: usize, piece: &Piece, program: usize) {
        let mut bound = Vec::new();
        for (p, &base) in piece.function.parameters().iter().zip(&piece.inputs) {
            let ty = piece.function.ty(p.value);
            bound.push(match piece.place {
                Place::Host => call.buffers[&base],
                // Not a surface: its elements go into the program.
                Place::Engine if p.role == Role::Constant => call.buffers[&base],
                Place::Engine => self.engine_input(call, base, ty),
            });
        }
        let mut unstage = Vec::new();
        for (o, &base) in piece.function.outputs().iter().zip(&piece.outputs) {
            let ty = piece.function.ty(o.value);
            let fixed = call.outputs.get(&base).map(|&b| is_dense(&self.layout.buffers[b].ty));
            let staged = piece.place == Place::Engine && !(is_dense(ty) && fixed.unwrap_or(true));
            let needs_dense = !staged || call.reads_dense(base, ty);
            if needs_dense {
                let buffer = self.output_buffer(call, base, index);
                call.buffers.insert(base, buffer);
            }
            if staged {
                let buffer = self.value_buffer(Place::Engine, ty, BufferKind::Staged);
                call.staged.insert((base, ty.clone()), buffer);
                call.owned.push(buffer);
                if needs_dense {
                    unstage.push((buffer, call.buffers[&base]));
                }
                bound.push(buffer);
            } else {
                if piece.place == Place::Engine {
                    self.layout.buffers[call.buffers[&base]].place = Place::Engine;
                }
                bound.push(call.buffers[&base]);
            }
        }
        // The names of a shared program are those of its first use.
        let function = &self.functions[program].0;
        let names =
            function.parameters().iter().map(|p| &p.name).chain(function.outputs().iter().map(|o| &o.name));
        let ports: Vec<PortBinding> =
            names.zip(&bound).map(|(port, &buffer)| PortBinding { port: port.clone(), buffer }).collect();
        let inputs = piece.inputs.len();
        let work = Work::Run { place: piece.place, function: function.name().into(), ports };
        call.steps.push(work, &bound[..inputs], &bound[inputs..]);
        for (from, to) in unstage {
            call.steps.push(Work::Copy { from, to }, &[from], &[to]);
        }
        self.release_unused(call, index);
    }

    /// The buffer of an engine's parameter.
    fn engine_input(&mut self, call: &mut CallBuilder<'_>, base: ValueId, ty: &TensorType) -> usize {
        let key = (base, ty.clone());
        if let Some(&staged) = call.staged.get(&key) {
            return staged;
        }
        let buffer = call.buffers[&base];
        if is_dense(ty) && is_dense(&self.layout.buffers[buffer].ty) {
            self.layout.buffers[buffer].place = Place::Engine;
            return buffer;
        }
        if call.is_fixed(base) {
            let staged = self.staged_weight(buffer, ty);
            call.staged.insert(key, staged);
            return staged;
        }
        let staged = self.value_buffer(Place::Engine, ty, BufferKind::Staged);
        call.staged.insert(key, staged);
        call.owned.push(staged);
        call.steps.push(Work::Copy { from: buffer, to: staged }, &[buffer], &[staged]);
        staged
    }

    /// The buffer that a step writes a value of the call to.
    fn output_buffer(&mut self, call: &mut CallBuilder<'_>, base: ValueId, index: usize) -> usize {
        if let Some(&buffer) = call.outputs.get(&base) {
            return buffer;
        }
        let (ty, place) = call.memory(base);
        let buffer = self.value_buffer(place, &ty, BufferKind::Value);
        let last = call.last_use.get(&base).copied().unwrap_or(index);
        call.ends.entry(last).or_default().push(buffer);
        buffer
    }

    fn value_buffer(&mut self, place: Place, ty: &TensorType, kind: BufferKind) -> usize {
        let key = (place, format!("{} {ty}", kind.name()));
        if let Some(buffer) = self.free.get_mut(&key).and_then(Vec::pop) {
            return buffer;
        }
        self.values += 1;
        let name = format!("{}.{}", kind.name(), self.values);
        self.layout.add(PlanBuffer { name, ty: ty.clone(), kind, place, zeroed: false })
    }

    fn release(&mut self, buffer: usize) {
        let b = &self.layout.buffers[buffer];
        self.free.entry((b.place, format!("{} {}", b.kind.name(), b.ty))).or_default().push(buffer);
    }

    /// Gives back the buffers of values that no later piece reads.
    fn release_unused(&mut self, call: &mut CallBuilder<'_>, index: usize) {
        for buffer in call.ends.remove(&index).unwrap_or_default() {
            self.release(buffer);
        }
    }

    /// The buffer of a value that is made of weights alone.
    fn prepared(&mut self, function: &Function, ports: &[PortBinding], v: ValueId) -> usize {
        let spelled = self.spell(function, ports, v);
        if let Some(&buffer) = self.preparation.buffers.get(&spelled) {
            return buffer;
        }
        let new = self.preparation.made[&spelled];
        let name = format!("prepared.{}", self.preparation.outputs.len());
        let ty = self.preparation.builder.ty(new).clone();
        let buffer = self.layout.add(PlanBuffer {
            name,
            ty,
            kind: BufferKind::Prepared,
            place: Place::Host,
            zeroed: false,
        });
        self.preparation.outputs.push((new, buffer));
        self.preparation.buffers.insert(spelled, buffer);
        buffer
    }

    /// Builds a value into the preparation; gives its spelling, by which it is found again.
    fn spell(&mut self, function: &Function, ports: &[PortBinding], v: ValueId) -> String {
        let definitions = function.definitions();
        let Some(d) = definitions[v.index()] else {
            let index = function.parameters().iter().position(|p| p.value == v).expect("a parameter");
            let buffer = ports[index].buffer;
            let spelled = format!("%{buffer}");
            if !self.preparation.made.contains_key(&spelled) {
                let name = self.layout.buffers[buffer].name.clone();
                let new = self.preparation.builder.parameter(&name, function.ty(v).clone(), Role::Batch);
                self.preparation.made.insert(spelled.clone(), new);
                self.preparation.ports.push(PortBinding { port: name, buffer });
            }
            return spelled;
        };
        let operation = &function.operations()[d];
        let operands: Vec<(ValueId, String)> =
            operation.op.operands().into_iter().map(|o| (o, self.spell(function, ports, o))).collect();
        let mut parameters = canonical::Fnv::new();
        canonical::parameters(&mut parameters, &operation.op);
        let names: Vec<&str> = operands.iter().map(|(_, s)| s.as_str()).collect();
        let stem = format!("{}:{:016x}({})", operation.op.name(), parameters.value(), names.join(","));
        let spelled = |n: usize| format!("{stem}#{n}");
        if !self.preparation.made.contains_key(&spelled(0)) {
            let map: HashMap<ValueId, ValueId> =
                operands.iter().map(|(o, s)| (*o, self.preparation.made[s])).collect();
            let path = &function.value(operation.results[0]).path;
            let op = operation.op.map_operands(|o| map[&o]);
            let new = self.preparation.builder.push_at(path, op).expect("a copy is as well-typed");
            for (n, new) in new.into_iter().enumerate() {
                self.preparation.made.insert(spelled(n), new);
            }
        }
        spelled(operation.results.iter().position(|r| *r == v).expect("one of its results"))
    }

    fn staged_weight(&mut self, buffer: usize, ty: &TensorType) -> usize {
        if let Some(&staged) = self.preparation.staged.get(&(buffer, ty.clone())) {
            return staged;
        }
        let name = format!("staged.{}.{}", self.layout.buffers[buffer].name, self.preparation.staged.len());
        let kind = BufferKind::Staged;
        let staged =
            self.layout.add(PlanBuffer { name, ty: ty.clone(), kind, place: Place::Engine, zeroed: false });
        self.preparation.staged.insert((buffer, ty.clone()), staged);
        self.preparation.copies.push((buffer, staged));
        staged
    }

    /// The call that computes what is made of weights alone, if anything is.
    fn prepare(&mut self) -> Option<Call> {
        let preparation = &mut self.preparation;
        let mut steps = Steps::default();
        if !preparation.outputs.is_empty() {
            let opset = Opset::Ios18;
            let mut builder = std::mem::replace(&mut preparation.builder, Builder::new(PREPARE, opset));
            let mut ports = std::mem::take(&mut preparation.ports);
            let inputs: Vec<usize> = ports.iter().map(|p| p.buffer).collect();
            for (value, buffer) in &preparation.outputs {
                let name = self.layout.buffers[*buffer].name.clone();
                builder.output(&name, *value);
                ports.push(PortBinding { port: name, buffer: *buffer });
            }
            let outputs: Vec<usize> = preparation.outputs.iter().map(|(_, b)| *b).collect();
            let function = builder.finish();
            let work = Work::Run { place: Place::Host, function: function.name().into(), ports };
            self.functions.push((function, Place::Host));
            steps.push(work, &inputs, &outputs);
        }
        for &(from, to) in &self.preparation.copies {
            steps.push(Work::Copy { from, to }, &[from], &[to]);
        }
        let steps = steps.finish();
        (!steps.is_empty()).then(|| Call { name: PREPARE.into(), steps })
    }
}

/// Whether an array of a type has no gaps as a surface.
fn is_dense(ty: &TensorType) -> bool {
    SurfaceLayout::of(ty).is_ok_and(|layout| layout.is_dense())
}

/// The function under another name.
fn renamed(function: &Function, name: &str) -> Function {
    let mut builder = Builder::extend(function);
    builder.rename(name);
    for o in function.outputs() {
        builder.output(&o.name, o.value);
    }
    for a in function.aliases() {
        builder.alias(&function.outputs()[a.output].name, &function.parameters()[a.parameter].name);
    }
    builder.finish()
}

/// A call while its steps are made.
struct CallBuilder<'a> {
    function: &'a Function,
    /// The buffers of values: parameters, prepared ones, and what steps so far have written.
    buffers: HashMap<ValueId, usize>,
    /// The buffers of the function's outputs.
    outputs: HashMap<ValueId, usize>,
    prepared: Vec<ValueId>,
    staged: HashMap<Staging, usize>,
    /// How the engine's ports see each value.
    engine_types: HashMap<ValueId, Vec<TensorType>>,
    /// Values that the host reads.
    host_reads: Vec<bool>,
    /// The last piece that reads a value.
    last_use: HashMap<ValueId, usize>,
    /// Buffers whose values end with a piece.
    ends: HashMap<usize, Vec<usize>>,
    /// Buffers that are given back at the end.
    owned: Vec<usize>,
    steps: Steps,
}

impl<'a> CallBuilder<'a> {
    fn new(function: &'a Function, ports: &[PortBinding], pieces: &[Piece]) -> Self {
        let mut buffers: HashMap<ValueId, usize> =
            function.parameters().iter().zip(ports).map(|(p, b)| (p.value, b.buffer)).collect();
        let first = function.parameters().len();
        let outputs: HashMap<ValueId, usize> =
            function.outputs().iter().zip(&ports[first..]).map(|(o, b)| (o.value, b.buffer)).collect();
        buffers.extend(outputs.iter().map(|(v, b)| (*v, *b)));
        let mut engine_types: HashMap<ValueId, Vec<TensorType>> = HashMap::new();
        let mut host_reads = vec![false; function.values().len()];
        let mut last_use = HashMap::new();
        for (i, piece) in pieces.iter().enumerate() {
            for (p, &base) in piece.function.parameters().iter().zip(&piece.inputs) {
                last_use.insert(base, i);
                if p.role == Role::Constant {
                    host_reads[base.index()] = true;
                } else if piece.place == Place::Engine {
                    engine_types.entry(base).or_default().push(piece.function.ty(p.value).clone());
                } else {
                    host_reads[base.index()] = true;
                }
            }
            for (o, &base) in piece.function.outputs().iter().zip(&piece.outputs) {
                if piece.place == Place::Engine {
                    engine_types.entry(base).or_default().push(piece.function.ty(o.value).clone());
                }
            }
        }
        Self {
            function,
            buffers,
            outputs,
            prepared: Vec::new(),
            staged: HashMap::new(),
            engine_types,
            host_reads,
            last_use,
            ends: HashMap::new(),
            owned: Vec::new(),
            steps: Steps::default(),
        }
    }

    /// Whether a value changes with the weights only.
    fn is_fixed(&self, v: ValueId) -> bool {
        let parameter = self.function.parameters().iter().find(|p| p.value == v);
        parameter.is_some_and(|p| matches!(p.role, Role::Param | Role::Constant))
            || self.prepared.contains(&v)
    }

    /// Whether anything reads a value otherwise than as a surface of a type.
    fn reads_dense(&self, v: ValueId, ty: &TensorType) -> bool {
        self.host_reads[v.index()]
            || self.outputs.contains_key(&v)
            || self.engine_types.get(&v).is_some_and(|types| types.iter().any(|t| t != ty))
    }

    /// The type and place of a value's buffer: as an engine's port sees it, where that leaves no gaps.
    fn memory(&self, v: ValueId) -> (TensorType, Place) {
        let seen = self.engine_types.get(&v).and_then(|types| types.iter().find(|t| is_dense(t)));
        seen.map_or_else(|| (self.function.ty(v).clone(), Place::Host), |ty| (ty.clone(), Place::Engine))
    }
}

/// Steps, with what each has to wait for.
#[derive(Default)]
struct Steps {
    list: Vec<Step>,
    writer: HashMap<usize, usize>,
    readers: HashMap<usize, Vec<usize>>,
}

impl Steps {
    /// Appends a step that reads and writes buffers.
    fn push(&mut self, work: Work, reads: &[usize], writes: &[usize]) {
        let index = self.list.len();
        let mut after: Vec<usize> = reads.iter().filter_map(|b| self.writer.get(b)).copied().collect();
        for b in writes {
            after.extend(self.writer.get(b));
            after.extend(self.readers.get(b).into_iter().flatten());
        }
        let mut step = Step { work, after: Vec::new() };
        // Steps of one place run in order: the last of the other place is enough.
        let other = |s: &usize| self.list[*s].place() != step.place();
        step.after.extend(after.into_iter().filter(other).max());
        for &b in reads {
            self.readers.entry(b).or_default().push(index);
        }
        for &b in writes {
            self.writer.insert(b, index);
            self.readers.remove(&b);
        }
        self.list.push(step);
    }

    fn finish(self) -> Vec<Step> {
        self.list
    }
}
