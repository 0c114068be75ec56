//! Surfaces, and the keys and functions that go with them.
#![expect(unreachable_pub, reason = "other programs find these functions by name")]

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use objc2::encode::{Encoding, RefEncode};
use objc2::rc::Retained;
use objc2::runtime::AnyObject;

use crate::foundation::{entry, integer, string, text};
use crate::world::{Fate, called, count, violation, world};

/// Where the real ones are aligned to.
const PAGE: usize = 16_384;
const READ_ONLY: u32 = 1;

/// A surface.
pub(crate) struct IoSurface {
    references: AtomicUsize,
    /// Locks for reading, and for writing.
    readers: AtomicI32,
    writers: AtomicI32,
    start: *mut u8,
    layout: Layout,
}

// SAFETY: this is the type that the framework's signatures carry for it.
unsafe impl RefEncode for IoSurface {
    const ENCODING_REF: Encoding = Encoding::Pointer(&Encoding::Struct("__IOSurface", &[]));
}

macro_rules! keys {
    ($($key:ident),*) => {
        $(
            #[doc = "A key of a surface's properties."]
            #[unsafe(no_mangle)]
            pub static mut $key: *const AnyObject = std::ptr::null();
        )*

        /// Makes the constants.
        pub(crate) fn make_keys() {
            // SAFETY: nobody else runs while a library is loaded.
            unsafe { $($key = Retained::into_raw(string(stringify!($key)));)* }
        }
    };
}

keys! {
    kIOSurfaceWidth, kIOSurfaceHeight, kIOSurfaceBytesPerElement, kIOSurfaceBytesPerRow, kIOSurfaceAllocSize,
    kIOSurfacePixelFormat
}

impl IoSurface {
    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    /// Whether the host holds a lock.
    pub(crate) fn is_locked(&self) -> bool {
        self.readers.load(Ordering::SeqCst) > 0 || self.writers.load(Ordering::SeqCst) > 0
    }

    /// Its bytes.
    ///
    /// # Safety
    /// Nobody writes them.
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: as many were allocated and filled.
        unsafe { std::slice::from_raw_parts(self.start, self.len()) }
    }

    /// Its bytes.
    ///
    /// # Safety
    /// Nobody reads or writes them.
    pub(crate) unsafe fn bytes_mut(&self) -> &mut [u8] {
        // SAFETY: as many were allocated and filled.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len()) }
    }

    fn locks(&self, option: u32) -> &AtomicI32 {
        if option & READ_ONLY == 0 { &self.writers } else { &self.readers }
    }
}

/// One more reference.
///
/// # Safety
/// The surface lives.
pub(crate) unsafe fn retain(surface: *mut IoSurface) {
    // SAFETY: the caller's promise.
    unsafe { (*surface).references.fetch_add(1, Ordering::SeqCst) };
}

/// Makes a surface, filled with what memory might hold: who needs zeros has to write them.
///
/// # Safety
/// `properties` is a dictionary.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn IOSurfaceCreate(properties: *const AnyObject) -> *mut IoSurface {
    if !matches!(called("IOSurfaceCreate"), Fate::Proceeds) {
        return null_mut();
    }
    // SAFETY: the constants are made.
    let keys = unsafe { [kIOSurfaceWidth, kIOSurfaceHeight, kIOSurfaceBytesPerRow, kIOSurfaceAllocSize] };
    let read = |key| entry(properties, &text(key)?).and_then(|n| integer(Retained::as_ptr(&n)));
    let [Some(width), Some(height), Some(row), Some(size)] = keys.map(read) else {
        violation("IOSurfaceCreate: a property is missing");
        return null_mut();
    };
    let Some(bytes) = usize::try_from(size).ok().filter(|_| width * height <= size && row * height <= size)
    else {
        violation(format!("IOSurfaceCreate: {width} by {height} in {size} bytes"));
        return null_mut();
    };
    let Ok(layout) = Layout::from_size_align(bytes.max(1), PAGE) else { return null_mut() };
    // SAFETY: the layout has a size above zero; as many bytes are filled.
    let start = unsafe {
        let start = alloc(layout);
        if start.is_null() {
            return null_mut();
        }
        start.write_bytes(0xa5, bytes);
        start
    };
    count("surfaces", 1);
    Box::into_raw(Box::new(IoSurface {
        references: AtomicUsize::new(1),
        readers: AtomicI32::new(0),
        writers: AtomicI32::new(0),
        start,
        layout,
    }))
}

/// Locks a surface.
///
/// # Safety
/// The surface lives.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn IOSurfaceLock(surface: *mut IoSurface, option: u32, _seed: *mut u32) -> i32 {
    if world().faults.strikes("unlockable", "IOSurfaceLock") {
        return -1;
    }
    // SAFETY: the caller's promise.
    unsafe { (*surface).locks(option).fetch_add(1, Ordering::SeqCst) };
    0
}

/// Unlocks a surface.
///
/// # Safety
/// The surface lives.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn IOSurfaceUnlock(
    surface: *mut IoSurface,
    option: u32,
    _seed: *mut u32,
) -> i32 {
    // SAFETY: the caller's promise.
    if unsafe { (*surface).locks(option).fetch_sub(1, Ordering::SeqCst) } <= 0 {
        violation("IOSurfaceUnlock: it is not locked with this option");
    }
    0
}

/// Where the bytes are.
///
/// # Safety
/// The surface lives.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn IOSurfaceGetBaseAddress(surface: *mut IoSurface) -> *mut c_void {
    // SAFETY: the caller's promise.
    let surface = unsafe { &*surface };
    if !surface.is_locked() {
        violation("IOSurfaceGetBaseAddress: the surface is not locked");
    }
    surface.start.cast()
}

/// How many bytes there are.
///
/// # Safety
/// The surface lives.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn IOSurfaceGetAllocSize(surface: *mut IoSurface) -> usize {
    // SAFETY: the caller's promise.
    unsafe { (*surface).len() }
}

/// Gives a reference back.
///
/// # Safety
/// The surface lives, and the reference is the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn CFRelease(object: *const c_void) {
    let surface: *mut IoSurface = object.cast_mut().cast();
    // SAFETY: the caller's promise.
    unsafe {
        if (*surface).references.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        if (*surface).is_locked() {
            violation("CFRelease: the surface is locked");
        }
        dealloc((*surface).start, (*surface).layout);
        drop(Box::from_raw(surface));
    }
    count("surfaces", -1);
}
