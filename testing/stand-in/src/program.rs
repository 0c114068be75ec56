//! Programs: what the daemon and its compiler make of a folder, and the engine's calls of it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcane_chip::surface::{SurfaceLayout, symbol_order};
use arcane_engine::{
    Binding, Buffer, Direction, Engine, EngineError, LoadOptions, Loaded, Port, SimulatedEngine,
};
use arcane_mil::{BlobFolder, Program};
use objc2::rc::Retained;
use objc2::runtime::{AnyObject, Bool};
use sha2::{Digest, Sha256};

use crate::attributes;
use crate::faults::Planted;
use crate::foundation::{fail, is_a, raise};
use crate::request::Request;
use crate::world::{Fate, called, count, violation, world};

pub(crate) const DOMAIN: &str = "com.apple.appleneuralengine";
const COMPILER_DOMAIN: &str = "com.apple.appleneuralengine.compiler";
/// How long a call takes that does not come back: longer than any test waits.
const HANG: Duration = Duration::from_mins(1);

type ErrorPlace = *mut *mut AnyObject;

/// The text and the file of weights in a folder, and a name for both.
struct Contents {
    text: String,
    name: String,
}

/// A program of either class.
#[derive(Default)]
pub(crate) struct Code {
    state: Mutex<Option<Running>>,
}

/// A loaded program.
struct Running {
    loaded: Arc<dyn Loaded>,
    /// For each port of the engine its surface, and how it lies in those of callers.
    ports: Vec<(Port, Buffer, usize)>,
    binding: Binding,
    /// The ports of the symbols, of inputs and of outputs.
    symbols: [Vec<usize>; 2],
}

/// Counts a call; the answer as an error if it was planted.
pub(crate) fn begin(selector: &'static str, domain: &str, error: ErrorPlace) -> Result<(), Bool> {
    match called(selector) {
        Fate::Proceeds => Ok(()),
        Fate::Nothing => Err(Bool::NO),
        Fate::Fails(planted) => {
            let status = planted.status.map_or(String::new(), |s| format!(" Failed with status={s:#x} :"));
            Err(fail(error, domain, planted, &format!("{selector}{status} Program error")))
        }
        Fate::Raises => {
            raise("planted");
            Err(Bool::NO)
        }
        Fate::Hangs => {
            std::thread::sleep(HANG);
            Ok(())
        }
    }
}

/// Whether a factory or a method without an error may go on; false if it is to give nil.
pub(crate) fn proceeds(selector: &'static str) -> bool {
    match called(selector) {
        Fate::Nothing => false,
        Fate::Raises => {
            raise("planted");
            false
        }
        Fate::Proceeds | Fate::Fails(_) | Fate::Hangs => true,
    }
}

/// That options are there, if only an empty dictionary.
pub(crate) fn expect_options(options: *const AnyObject, selector: &str) {
    if !is_a(options, c"NSDictionary") {
        violation(format!("{selector}: options are nil, a dictionary was expected"));
    }
}

fn contents(folder: &Path) -> Option<Contents> {
    let text = std::fs::read(folder.join("model.mil")).ok()?;
    let weights = std::fs::read(folder.join("weights/weight.bin")).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(&text);
    hash.update(&weights);
    let name = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Some(Contents { text: String::from_utf8(text).ok()?, name })
}

/// Whether the daemon has compiled what is in a folder.
pub(crate) fn is_compiled(folder: &Path) -> bool {
    contents(folder).is_some_and(|c| world().compiled.contains(&c.name))
}

/// Makes the daemon forget it.
pub(crate) fn purge(folder: &Path) {
    if let Some(contents) = contents(folder) {
        world().compiled.remove(&contents.name);
    }
}

/// Compiles what is in a folder.
pub(crate) fn compile(folder: &Path, selector: &'static str, error: ErrorPlace) -> Bool {
    if let Err(answer) = begin(selector, COMPILER_DOMAIN, error) {
        return answer;
    }
    let refuse = |what: &str, why: &str| {
        let planted = Planted { code: 1, status: None };
        let said = format!("_ANECompiler : ANECCompile() FAILED err=(\"{what}\") {why}");
        fail(error, COMPILER_DOMAIN, planted, &said)
    };
    let Some(contents) = contents(folder) else { return refuse("InvalidMILProgram", "no model.mil") };
    let read = match arcane_mil::read(&contents.text, &BlobFolder::new(folder)) {
        Ok(read) => read,
        Err(e) => return refuse("InvalidMILProgram", &e.to_string()),
    };
    let mut world = world();
    let chip = world.chip;
    let violations = read.functions.iter().flat_map(|f| arcane_chip::violations(chip, f));
    if let Some(v) = violations.into_iter().find(arcane_chip::Violation::is_fatal) {
        return refuse("CompilationFailure", &v.to_string());
    }
    world.compiled.insert(contents.name);
    Bool::YES
}

impl Code {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads what is in a folder.
    pub(crate) fn load(&self, folder: &Path, selector: &'static str, error: ErrorPlace) -> Bool {
        if let Err(answer) = begin(selector, DOMAIN, error) {
            return answer;
        }
        let refuse = |code, said: &str| fail(error, DOMAIN, Planted { code, status: Some(1) }, said);
        let mut state = self.lock();
        if state.is_some() {
            violation(format!("{selector}: the program is loaded already"));
        }
        let Some(contents) = contents(folder) else { return refuse(16, "no model.mil in the folder") };
        if !world().compiled.contains(&contents.name) {
            return refuse(6, "the program was not compiled");
        }
        if !has_slot() {
            return refuse(6, "Program load failure (0x1): no slot is free");
        }
        let read = arcane_mil::read(&contents.text, &BlobFolder::new(folder));
        let running = read.map_err(|e| e.to_string()).and_then(|p| run(&p).map_err(|e| e.to_string()));
        match running {
            Ok(running) => {
                *state = Some(running);
                count("loaded", 1);
                Bool::YES
            }
            Err(why) => refuse(6, &why),
        }
    }

    /// Unloads it.
    pub(crate) fn unload(&self, selector: &'static str, error: ErrorPlace) -> Bool {
        if let Err(answer) = begin(selector, DOMAIN, error) {
            return answer;
        }
        if self.lock().take().is_none() {
            violation(format!("{selector}: the program is not loaded"));
            return Bool::YES;
        }
        count("loaded", -1);
        Bool::YES
    }

    /// Whether it is loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.lock().is_some()
    }

    /// What it says of its ports, if it is to say anything; its pool's.
    pub(crate) fn attributes(&self) -> *mut AnyObject {
        let state = self.lock();
        let Some(running) = state.as_ref().filter(|_| !world().faults.has("no_attributes")) else {
            return std::ptr::null_mut();
        };
        let ports: Vec<(&Port, usize)> = running.ports.iter().map(|(p, _, stride)| (p, *stride)).collect();
        Retained::autorelease_ptr(attributes::of(&ports, &running.symbols))
    }

    /// Evaluates a request.
    pub(crate) fn evaluate(&self, request: &Request, selector: &'static str, error: ErrorPlace) -> Bool {
        if let Err(answer) = begin(selector, DOMAIN, error) {
            return answer;
        }
        let refuse =
            |code, status: Option<u32>, said: &str| fail(error, DOMAIN, Planted { code, status }, said);
        let state = self.lock();
        let Some(running) = state.as_ref() else {
            violation(format!("{selector}: the program is not loaded"));
            return refuse(23, Some(0xe), "Program not found");
        };
        if request.inputs.iter().chain(&request.outputs).any(|(_, s)| s.surface().is_locked()) {
            violation(format!("{selector}: a surface is locked"));
        }
        let unwritten = world().faults.strikes("unwritten", selector);
        match running.evaluate(request, unwritten) {
            Ok(()) => Bool::YES,
            Err(Some(why)) => refuse(8, Some(0x16), &why),
            Err(None) => refuse(
                8,
                Some(0x1d),
                "ANEProgramProcessRequestDirect() Failed with status=0x1d : statusType=0x9: Program Inference error",
            ),
        }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if self.is_loaded() {
            violation("a program was freed while it was loaded");
            count("loaded", -1);
        }
    }
}

/// Whether another program can be loaded.
fn has_slot() -> bool {
    let world = world();
    let slots = world.faults.value("slots").map(|n| n.parse::<u64>().expect("a rule's slots"));
    let slots = slots.unwrap_or(*world.chip.limits.loaded_programs as u64);
    world.counts.get("loaded").copied().unwrap_or(0) < slots
}

/// Loads a program on a simulated engine, on surfaces of its own. Each has an engine: the simulated one counts compilations,
/// of which the real one has no limited number.
fn run(program: &Program) -> Result<Running, EngineError> {
    let world = world();
    let engine = SimulatedEngine::new(world.chip, 1)?;
    let function = program.functions.first().map_or("main", |f| f.name());
    let loaded = engine.load(program, function, LoadOptions::default())?;
    let alignment =
        world.faults.value("row_bytes").map_or(64, |n| n.parse::<usize>().expect("a rule's bytes"));
    let mut ports = Vec::new();
    for port in loaded.ports() {
        let buffer = engine.buffer(&port.ty)?;
        let width = port.ty.shape.last().map_or(1, |&w| w) * port.ty.dtype.size();
        ports.push((port.clone(), buffer, width.next_multiple_of(alignment)));
    }
    let bound: Vec<(&str, &Buffer)> = ports.iter().map(|(p, b, _)| (p.name.as_str(), b)).collect();
    let binding = loaded.bind(&bound)?;
    let reversed = world.faults.has("reversed_symbols");
    let symbols = [Direction::Input, Direction::Output].map(|direction| {
        let of: Vec<usize> = (0..ports.len()).filter(|&p| ports[p].0.direction == direction).collect();
        let names: Vec<&str> = of.iter().map(|&p| ports[p].0.name.as_str()).collect();
        let mut order: Vec<usize> = symbol_order(&names).into_iter().map(|i| of[i]).collect();
        if reversed {
            order.reverse();
        }
        order
    });
    Ok(Running { loaded, ports, binding, symbols })
}

impl Running {
    /// Copies surfaces in, runs, copies them out. None as an error: a surface is missing or too small.
    fn evaluate(&self, request: &Request, unwritten: bool) -> Result<(), Option<String>> {
        let said = |e: EngineError| Some(e.to_string());
        let [inputs, outputs] = &self.symbols;
        for (symbol, &port) in inputs.iter().enumerate() {
            let surface = find(&request.inputs, symbol).ok_or(None)?;
            let (port, buffer, stride) = &self.ports[port];
            // SAFETY: the host holds no lock, and nobody else runs on this surface.
            let bytes = unsafe { surface.surface().bytes() };
            let rows = rows(port, bytes.len(), *stride).ok_or(None)?;
            let copy = |to: &mut [u8]| rows.copy(bytes, *stride, to, buffer.row_stride());
            buffer.write_padded(copy).map_err(said)?;
        }
        let ticket = self.loaded.submit(&self.binding).map_err(said)?;
        self.loaded.wait(ticket, Duration::MAX).map_err(said)?;
        for (symbol, &port) in outputs.iter().enumerate() {
            let surface = find(&request.outputs, symbol).ok_or(None)?;
            let (port, buffer, stride) = &self.ports[port];
            // SAFETY: as above.
            let bytes = unsafe { surface.surface().bytes_mut() };
            let rows = rows(port, bytes.len(), *stride).ok_or(None)?;
            if unwritten {
                continue;
            }
            let copy = |from: &[u8]| rows.copy(from, buffer.row_stride(), bytes, *stride);
            buffer.read_padded(copy).map_err(said)?;
        }
        Ok(())
    }
}

fn find(side: &[(i64, Arc<crate::request::Held>)], symbol: usize) -> Option<&crate::request::Held> {
    side.iter().find(|(n, _)| usize::try_from(*n) == Ok(symbol)).map(|(_, held)| &**held)
}

/// The rows of a port.
struct Rows {
    count: usize,
    length: usize,
}

/// The rows of a port, if a surface holds them.
fn rows(port: &Port, bytes: usize, stride: usize) -> Option<Rows> {
    let layout = SurfaceLayout::of(&port.ty).ok()?;
    let length = layout.shape[3] * layout.element;
    let count = layout.shape[..3].iter().product();
    (count * stride <= bytes).then_some(Rows { count, length })
}

impl Rows {
    fn copy(&self, from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
        for row in 0..self.count {
            let (at, to_at) = (row * from_stride, row * to_stride);
            to[to_at..to_at + self.length].copy_from_slice(&from[at..at + self.length]);
        }
    }
}
