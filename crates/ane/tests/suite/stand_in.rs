//! The stand-in: opened once, its faults and counters for one test at a time.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arcane_ane::{AneEngine, Driver, Frameworks, Libraries, Options};
use arcane_chip::Chip;
use arcane_engine::{Buffer, Engine, LoadOptions, Loaded};
use arcane_mil::{Builder, Opset, Program, Role, TensorType};
use arcane_tensor::{DType, Tensor};
use libloading::Library;
use tempfile::TempDir;

pub(crate) const DRIVERS: [&str; 2] = ["client", "in_memory"];

/// A deadline that no call of a test comes near, unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The stand-in, for one test at a time.
pub(crate) struct StandIn {
    library: &'static Library,
    pub(crate) frameworks: &'static Frameworks,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());
static OPENED: OnceLock<(Library, Frameworks)> = OnceLock::new();

fn library() -> PathBuf {
    let path = std::env::var_os("ARCANE_STAND_IN_LIBRARY");
    path.expect("ARCANE_STAND_IN_LIBRARY names the library: see .ci/macos/gnustep-test.sh").into()
}

/// Opens the frameworks in this process.
pub(crate) fn open() -> Result<Frameworks, arcane_ane::Unavailable> {
    Frameworks::open(&Libraries::stand_in(&library()))
}

impl StandIn {
    /// With rules planted.
    pub(crate) fn new(rules: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (library, frameworks) = OPENED.get_or_init(|| {
            let frameworks = open().expect("the stand-in opens");
            #[expect(unsafe_code, reason = "a library is opened")]
            // SAFETY: it is open already.
            let library = unsafe { Library::new(library()) }.expect("it is open already");
            (library, frameworks)
        });
        let folder = tempfile::tempdir().expect("a folder can be made");
        let new = Self { library, frameworks, folder, _alone: alone };
        new.plant(rules);
        new.violations();
        new
    }

    pub(crate) fn plant(&self, rules: &str) {
        let rules = CString::new(rules).expect("no zeros");
        #[expect(unsafe_code, reason = "a call of a C function")]
        // SAFETY: this is the function's type, and the rules end with a zero.
        unsafe {
            let plant = self.library.get::<unsafe extern "C" fn(*const c_char)>(b"stand_in_plant");
            plant.expect("the stand-in has it")(rules.as_ptr());
        }
    }

    /// How many calls, or things alive.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        let kind = CString::new(kind).expect("no zeros");
        #[expect(unsafe_code, reason = "a call of a C function")]
        // SAFETY: this is the function's type, and the kind ends with a zero.
        unsafe {
            let count = self.library.get::<unsafe extern "C" fn(*const c_char) -> u64>(b"stand_in_count");
            count.expect("the stand-in has it")(kind.as_ptr())
        }
    }

    /// What was done wrong since the last time.
    pub(crate) fn violations(&self) -> String {
        #[expect(unsafe_code, reason = "calls of C functions")]
        // SAFETY: these are the functions' types; the text is freed once, after it was read.
        unsafe {
            let take = self.library.get::<unsafe extern "C" fn() -> *mut c_char>(b"stand_in_violations");
            let free = self.library.get::<unsafe extern "C" fn(*mut c_char)>(b"stand_in_free");
            let text = take.expect("the stand-in has it")();
            let violations = CStr::from_ptr(text).to_string_lossy().into_owned();
            free.expect("the stand-in has it")(text);
            violations
        }
    }

    pub(crate) fn driver(&self, name: &str) -> Arc<dyn Driver> {
        let drivers = self.frameworks.drivers();
        let driver = drivers.into_iter().find(|(n, _)| *n == name).expect("there is such a driver").1;
        driver.expect("the stand-in has all of it")
    }

    pub(crate) fn options(&self) -> Options {
        let began = Instant::now();
        let clock = Arc::new(move || began.elapsed());
        let chip = Chip::named("m4").expect("it is known");
        let options = Options::new(chip, self.folder.path().into(), clock);
        Options { pause: Duration::ZERO, deadline: DEADLINE, ..options }
    }

    pub(crate) fn engine(&self, driver: &str) -> AneEngine {
        AneEngine::new(self.driver(driver), self.options()).expect("it starts")
    }

    /// Where engines make their folders.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.violations(), "", "the stand-in has something against its caller");
        for kind in ["surfaces", "loaded", "mapped", "_ANERequest", "_ANEModel", "_ANEInMemoryModel"] {
            assert_eq!(self.count(kind), 0, "{kind} leak");
        }
    }
}

/// `y = x + c`, on 64 channels of 64 columns.
pub(crate) fn adding(c: f64) -> Program {
    let mut f = Builder::new("add", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F16, &[1, 64, 1, 64]), Role::Batch);
    let c = f.scalar(DType::F16, c);
    let y = f.add(x, c).expect("it is well-typed");
    f.output("y", y);
    Program::new(vec![f.finish()])
}

/// The adding program with buffers.
pub(crate) struct Adding {
    pub(crate) loaded: Arc<dyn Loaded>,
    binding: arcane_engine::Binding,
    input: Buffer,
    pub(crate) output: Buffer,
}

impl Adding {
    pub(crate) fn new(engine: &AneEngine, c: f64) -> Result<Self, arcane_engine::EngineError> {
        let loaded = engine.load(&adding(c), "add", LoadOptions::default())?;
        let ty = TensorType::new(DType::F16, &[1, 64, 1, 64]);
        let (input, output) = (engine.buffer(&ty)?, engine.buffer(&ty)?);
        let binding = loaded.bind(&[("x", &input), ("y", &output)])?;
        Ok(Self { loaded, binding, input, output })
    }

    /// Fills the input, calls, and gives the output's elements if they are all the same.
    pub(crate) fn call(&self, x: f64) -> Result<f64, arcane_engine::EngineError> {
        let values = vec![x; self.input.ty().len()];
        self.input.set(&Tensor::from_f64s(DType::F16, &self.input.ty().shape, &values).expect("as many"))?;
        self.submit_and_wait(DEADLINE)?;
        let y = self.output.to_tensor()?.to_f64s();
        assert!(y.iter().all(|v| *v == y[0]), "the elements differ");
        Ok(y[0])
    }

    pub(crate) fn submit_and_wait(&self, deadline: Duration) -> Result<(), arcane_engine::EngineError> {
        let ticket = self.loaded.submit(&self.binding)?;
        self.loaded.wait(ticket, deadline).map(|_| ())
    }
}
