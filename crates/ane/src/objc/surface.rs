//! Surfaces: memory that the engine and the host share, and the few C functions that it takes.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use arcane_engine::DeviceMemory;
use libloading::Library;
use objc2::encode::{Encoding, RefEncode};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::AnyObject;

use super::catch::attempt;
use super::foundation::{Owned, dictionary, number};
use crate::fault::Fault;
use crate::libraries::Libraries;
use crate::unavailable::Unavailable;

/// The system's surface.
#[repr(C)]
pub(super) struct IoSurfaceRef {
    _opaque: [u8; 0],
}

// SAFETY: this is the type that the framework's signatures carry for it.
unsafe impl RefEncode for IoSurfaceRef {
    const ENCODING_REF: Encoding = Encoding::Pointer(&Encoding::Struct("__IOSurface", &[]));
}

/// The lock option for reading alone.
const READ_ONLY: u32 = 1;
/// Sizes travel as signed 32-bit numbers in places.
const MAX_BYTES: usize = i32::MAX as usize;

/// The C functions in use, and the keys of a surface's properties, which are strings of Core Foundation and Foundation alike.
#[derive(Debug)]
pub(super) struct Functions {
    create: unsafe extern "C-unwind" fn(*const AnyObject) -> *mut IoSurfaceRef,
    lock: unsafe extern "C-unwind" fn(*mut IoSurfaceRef, u32, *mut u32) -> i32,
    unlock: unsafe extern "C-unwind" fn(*mut IoSurfaceRef, u32, *mut u32) -> i32,
    base: unsafe extern "C-unwind" fn(*mut IoSurfaceRef) -> *mut c_void,
    size: unsafe extern "C-unwind" fn(*mut IoSurfaceRef) -> usize,
    release: unsafe extern "C-unwind" fn(*const c_void),
    pub(super) temporary_folder: unsafe extern "C-unwind" fn() -> *mut AnyObject,
    pub(super) system_value:
        unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int,
    keys: [*const AnyObject; 6],
}

// SAFETY: the functions may be called from any thread, and the keys are constants.
unsafe impl Send for Functions {}
// SAFETY: as above.
unsafe impl Sync for Functions {}

/// Opens a library for good: its classes and functions stay in use.
pub(super) fn open(path: &Path) -> Result<&'static Library, Unavailable> {
    // SAFETY: the system's frameworks may be loaded into any process.
    let library = unsafe { Library::new(path) };
    let library = library.map_err(|e| Unavailable::Library { path: path.into(), why: e.to_string() })?;
    Ok(Box::leak(Box::new(library)))
}

/// The value of a symbol.
fn symbol<T: Copy>(library: &Library, path: &Path, name: &'static str) -> Result<T, Unavailable> {
    // SAFETY: the callers name the types that the system's headers give.
    let found = unsafe { library.get::<T>(name.as_bytes()) };
    found.map(|s| *s).map_err(|_| Unavailable::Symbol { path: path.into(), name })
}

impl Functions {
    pub(super) fn load(libraries: &Libraries) -> Result<Arc<Self>, Unavailable> {
        let (surfaces, foundation) = (&libraries.surfaces, &libraries.foundation);
        let (core, system) = (&libraries.core_foundation, &libraries.system);
        let library = open(surfaces)?;
        let key = |name| -> Result<*const AnyObject, Unavailable> {
            let place: *const *const AnyObject = symbol(library, surfaces, name)?;
            // SAFETY: the constant is a pointer to a string.
            Ok(unsafe { *place })
        };
        Ok(Arc::new(Self {
            create: symbol(library, surfaces, "IOSurfaceCreate")?,
            lock: symbol(library, surfaces, "IOSurfaceLock")?,
            unlock: symbol(library, surfaces, "IOSurfaceUnlock")?,
            base: symbol(library, surfaces, "IOSurfaceGetBaseAddress")?,
            size: symbol(library, surfaces, "IOSurfaceGetAllocSize")?,
            release: symbol(open(core)?, core, "CFRelease")?,
            temporary_folder: symbol(open(foundation)?, foundation, "NSTemporaryDirectory")?,
            system_value: symbol(open(system)?, system, "sysctlbyname")?,
            keys: [
                key("kIOSurfaceWidth")?,
                key("kIOSurfaceHeight")?,
                key("kIOSurfaceBytesPerElement")?,
                key("kIOSurfaceBytesPerRow")?,
                key("kIOSurfaceAllocSize")?,
                key("kIOSurfacePixelFormat")?,
            ],
        }))
    }
}

/// A surface of one row.
#[derive(Debug)]
pub(super) struct IoSurface {
    surface: NonNull<IoSurfaceRef>,
    start: NonNull<u8>,
    bytes: usize,
    functions: Arc<Functions>,
}

// SAFETY: surfaces are for several processes at once, and so for several threads.
unsafe impl Send for IoSurface {}
// SAFETY: as above.
unsafe impl Sync for IoSurface {}

impl IoSurface {
    /// A zeroed surface.
    pub(super) fn new(functions: &Arc<Functions>, bytes: usize) -> Result<Self, Fault> {
        let failed = |what: &str| Fault::Surface { bytes, what: what.into() };
        if bytes == 0 || bytes > MAX_BYTES {
            return Err(failed("cannot be: 1 to 2147483647 were expected"));
        }
        let surface = autoreleasepool(|_| {
            let properties = properties(functions, bytes)?;
            // SAFETY: the dictionary has the keys that the function reads.
            attempt("IOSurfaceCreate", || unsafe { (functions.create)(Retained::as_ptr(&properties)) })
        })?;
        let surface = NonNull::new(surface).ok_or_else(|| failed("could not be made"))?;
        let functions = Arc::clone(functions);
        // From here on dropping it releases the surface.
        let mut made = Self { surface, start: NonNull::dangling(), bytes: 0, functions };
        if !made.lock(true) {
            return Err(failed("could not be locked"));
        }
        // SAFETY: the surface is locked.
        let (start, size) =
            unsafe { ((made.functions.base)(surface.as_ptr()), (made.functions.size)(surface.as_ptr())) };
        let start = NonNull::new(start.cast::<u8>()).filter(|s| s.addr().get().is_multiple_of(64));
        if let Some(start) = start.filter(|_| size >= bytes) {
            // SAFETY: the surface is locked for writing and has as many bytes.
            unsafe { start.as_ptr().write_bytes(0, bytes) };
            (made.start, made.bytes) = (start, bytes);
        }
        made.unlock(true);
        if made.bytes == 0 {
            return Err(failed(&format!("has {size} at an address of no use")));
        }
        Ok(made)
    }

    /// The system's surface.
    pub(super) fn reference(&self) -> *mut IoSurfaceRef {
        self.surface.as_ptr()
    }
}

/// The dictionary of a surface of one row.
fn properties(functions: &Functions, bytes: usize) -> Result<Owned, Fault> {
    let values = [bytes, 1, 1, bytes, bytes, 0];
    let entries: Result<Vec<(Owned, Owned)>, Fault> = functions
        .keys
        .iter()
        .zip(values)
        .map(|(&key, value)| {
            // SAFETY: the keys are objects that live for ever.
            let key = unsafe { Retained::retain(key.cast_mut()) };
            Ok((key.ok_or(Fault::Nil { call: "kIOSurface" })?, number(value)?))
        })
        .collect();
    dictionary(&entries?)
}

// SAFETY: the system gives a surface's address for good; `new` has checked that it is aligned and has as many bytes, which
// may be read and written between a lock and its unlock, and has zeroed them.
unsafe impl DeviceMemory for IoSurface {
    fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn len(&self) -> usize {
        self.bytes
    }

    fn lock(&self, write: bool) -> bool {
        let option = if write { 0 } else { READ_ONLY };
        // SAFETY: the surface lives.
        unsafe { (self.functions.lock)(self.reference(), option, std::ptr::null_mut()) == 0 }
    }

    fn unlock(&self, write: bool) {
        let option = if write { 0 } else { READ_ONLY };
        // SAFETY: the surface lives, and was locked with this option. A failure leaves it locked, which the next lock reports.
        unsafe { (self.functions.unlock)(self.reference(), option, std::ptr::null_mut()) };
    }
}

impl Drop for IoSurface {
    fn drop(&mut self) {
        let (release, surface) = (self.functions.release, self.reference());
        // SAFETY: the reference is this one's, and is given back once. An exception leaves the surface to the process's end.
        let _ = autoreleasepool(|_| attempt("CFRelease", || unsafe { release(surface.cast_const().cast()) }));
    }
}
