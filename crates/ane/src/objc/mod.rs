//! The engine through Apple's frameworks.
//!
//! Nothing is linked but the Objective-C runtime. Libraries are opened and classes looked up at run time, and before the first
//! call every method is compared with the signature that its call is written for: what is missing or has changed makes a way
//! to the engine unavailable, by name.
#![expect(unsafe_code, reason = "messages to objects and calls of C functions")]

mod catch;
mod client;
mod foundation;
mod in_memory;
mod request;
mod surface;

use std::ffi::{CStr, c_void};
use std::sync::Arc;

use arcane_engine::{Buffer, DeviceMemory};
use objc2::encode::{EncodeArguments, EncodeReturn};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::{AnyClass, AnyObject, Bool, Sel};
use objc2::{msg_send, sel};

use self::catch::attempt;
use self::client::Client;
use self::foundation::{Owned, text};
use self::in_memory::InMemory;
use self::request::Requests;
use self::surface::{Functions, IoSurface, open};
use crate::driver::{Driver, Way};
use crate::fault::Fault;
use crate::libraries::Libraries;
use crate::machine::Machine;
use crate::unavailable::Unavailable;

/// The usual quality of service.
const QOS: u32 = 21;

/// The types of arguments and results in signatures.
type Id = *const AnyObject;
type ErrorPlace = *mut *mut AnyObject;

/// The frameworks, opened.
pub struct Frameworks {
    machine: Machine,
    functions: Arc<Functions>,
}

impl Frameworks {
    /// Opens them.
    ///
    /// # Errors
    /// [`Unavailable`] if a library or a function of one is missing, or the machine has no engine.
    pub fn open(libraries: &Libraries) -> Result<Self, Unavailable> {
        open(&libraries.foundation)?;
        let functions = Functions::load(libraries)?;
        open(&libraries.engine)?;
        let machine = autoreleasepool(|_| machine(&functions))?;
        machine.check()?;
        Ok(Self { machine, functions })
    }

    /// What the system says of itself.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The ways to the engine, the better one first.
    pub fn drivers(&self) -> Vec<Way> {
        let client =
            autoreleasepool(|_| Client::new(&self.functions)).map(|d| Arc::new(d) as Arc<dyn Driver>);
        let memory =
            autoreleasepool(|_| InMemory::new(&self.functions)).map(|d| Arc::new(d) as Arc<dyn Driver>);
        vec![(client::NAME, client), (in_memory::NAME, memory)]
    }
}

/// A class by name.
fn class(name: &CStr) -> Result<&'static AnyClass, Unavailable> {
    AnyClass::get(name).ok_or_else(|| Unavailable::Class { name: name.to_string_lossy().into_owned() })
}

/// That a class has a method of a signature.
fn has<A: EncodeArguments, R: EncodeReturn>(class: &AnyClass, selector: Sel) -> Result<(), Unavailable> {
    class.verify_sel::<A, R>(selector).map_err(|e| Unavailable::Method {
        class: class.name().to_string_lossy().into_owned(),
        selector: selector.name().to_string_lossy().into_owned(),
        why: e.to_string(),
    })
}

/// A surface behind a buffer, if it is one of the system's.
fn surface(buffer: &Buffer) -> Option<&IoSurface> {
    buffer.device_memory()
}

/// Surfaces for both drivers.
fn new_surface(functions: &Arc<Functions>, bytes: usize) -> Result<Arc<dyn DeviceMemory>, Fault> {
    Ok(Arc::new(IoSurface::new(functions, bytes)?))
}

/// What the system and the framework say.
fn machine(functions: &Functions) -> Result<Machine, Unavailable> {
    let mut machine = Machine {
        processor: system_text(functions, c"machdep.cpu.brand_string"),
        version: system_text(functions, c"kern.osproductversion"),
        build: system_text(functions, c"kern.osversion"),
        translated: system_number(functions, c"sysctl.proc_translated") == Some(1),
        virtual_machine: system_number(functions, c"kern.hv_vmm_present") == Some(1),
        ..Machine::default()
    };
    // What is not said is not held against the engine: programs will tell.
    let Some(info) = AnyClass::get(c"_ANEDeviceInfo") else { return Ok(machine) };
    let says = |result: Result<(), Unavailable>| result.is_ok();
    let failed = |fault: Fault| Unavailable::Framework(fault.to_string());
    if says(has::<(), Bool>(info.metaclass(), sel!(hasANE))) {
        // SAFETY: the signature was compared.
        let has_engine: Bool = attempt("hasANE", || unsafe { msg_send![info, hasANE] }).map_err(failed)?;
        machine.has_engine = Some(has_engine.as_bool());
    }
    if says(has::<(), u32>(info.metaclass(), sel!(numANEs))) {
        // SAFETY: the signature was compared.
        machine.engines = attempt("numANEs", || unsafe { msg_send![info, numANEs] }).map_err(failed)?;
    }
    if says(has::<(), u32>(info.metaclass(), sel!(numANECores))) {
        // SAFETY: the signature was compared.
        machine.cores = attempt("numANECores", || unsafe { msg_send![info, numANECores] }).map_err(failed)?;
    }
    if says(has::<(), Id>(info.metaclass(), sel!(aneArchitectureType))) {
        const CALL: &str = "aneArchitectureType";
        // SAFETY: the signature was compared.
        let name: Option<Owned> =
            attempt(CALL, || unsafe { msg_send![info, aneArchitectureType] }).map_err(failed)?;
        machine.architecture = name.and_then(|n| text(&n)).unwrap_or_default();
    }
    Ok(machine)
}

/// A text that the system has under a name, or nothing.
fn system_text(functions: &Functions, name: &CStr) -> String {
    let mut bytes = [0u8; 256];
    let mut length = bytes.len();
    // SAFETY: the name ends with a zero, and the place has as many bytes as it is told.
    let failed = unsafe {
        (functions.system_value)(
            name.as_ptr(),
            bytes.as_mut_ptr().cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    let text = CStr::from_bytes_until_nul(&bytes).map(|s| s.to_string_lossy().into_owned());
    if failed == 0 { text.unwrap_or_default() } else { String::new() }
}

/// A 32-bit number that the system has under a name.
fn system_number(functions: &Functions, name: &CStr) -> Option<i32> {
    let mut value = 0i32;
    let mut length = size_of::<i32>();
    let place: *mut c_void = (&raw mut value).cast();
    // SAFETY: as for texts.
    let failed =
        unsafe { (functions.system_value)(name.as_ptr(), place, &raw mut length, std::ptr::null_mut(), 0) };
    (failed == 0 && length == size_of::<i32>()).then_some(value)
}

/// An object that may go to another thread: its own retain count is atomic, and messages to it are sent by one thread at a time.
struct Held(Option<Owned>);

// SAFETY: as said above.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    fn new(object: Owned) -> Self {
        Self(Some(object))
    }

    /// The object, which is there until it is dropped.
    fn object(&self) -> Id {
        self.0.as_ref().map_or(std::ptr::null(), Retained::as_ptr)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let object = self.0.take();
        // A dealloc that raises leaves the object to the process's end.
        let _ = autoreleasepool(|_| attempt("release", move || drop(object)));
    }
}

/// The parts that both drivers share.
#[derive(Clone)]
struct Shared {
    functions: Arc<Functions>,
    requests: Arc<Requests>,
}

impl Shared {
    fn new(functions: &Arc<Functions>) -> Result<Self, Unavailable> {
        Ok(Self { functions: Arc::clone(functions), requests: Arc::new(Requests::new()?) })
    }
}
