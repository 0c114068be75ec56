//! The C functions that objc2 links and GCC's libobjc lacks: the entry points of automatic reference counting, and
//! `object_getClass`, which is inline in GCC's headers. Without state, so that a program and a library in it may have a copy
//! each.
#![cfg(all(feature = "gnustep", not(target_vendor = "apple")))]
#![expect(unsafe_code, reason = "the functions of a runtime in C")]

use std::ffi::{CStr, c_char, c_void};

type Id = *mut c_void;
type Method = unsafe extern "C-unwind" fn(Id, *const c_void) -> Id;

// SAFETY: these are the runtime's declarations.
#[link(name = "objc")]
unsafe extern "C" {
    fn objc_msg_lookup(object: Id, selector: *const c_void) -> Option<Method>;
    fn sel_registerName(name: *const c_char) -> *const c_void;
    fn objc_getClass(name: *const c_char) -> Id;
}

// SAFETY: gnustep-base defines the symbol.
#[link(name = "gnustep-base")]
unsafe extern "C" {
    /// Refers to the library, which linkers leave out otherwise.
    #[link_name = "__objc_class_name_NSAutoreleasePool"]
    static GNUSTEP: c_char;
}

/// Sends a message without arguments; to nil it does nothing.
///
/// # Safety
/// The object has a method of this name that takes nothing and gives an object or nothing.
unsafe fn send(object: Id, name: &CStr) -> Id {
    if object.is_null() {
        return object;
    }
    // SAFETY: the name ends with a zero, the object is one, and the method found is the object's for this selector.
    unsafe {
        let selector = sel_registerName(name.as_ptr());
        objc_msg_lookup(object, selector).map_or(std::ptr::null_mut(), |method| method(object, selector))
    }
}

/// # Safety
/// `object` is an object or nil.
#[unsafe(no_mangle)]
unsafe extern "C" fn object_getClass(object: Id) -> Id {
    // SAFETY: an object begins with the pointer to its class.
    if object.is_null() { object } else { unsafe { *object.cast::<Id>() } }
}

/// # Safety
/// `object` is an object or nil.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_retain(object: Id) -> Id {
    // SAFETY: every object can be retained.
    unsafe { send(object, c"retain") }
}

/// # Safety
/// `object` is an object or nil, and the caller owns a reference.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_release(object: Id) {
    // SAFETY: every object can be released.
    unsafe { send(object, c"release") };
}

/// # Safety
/// As [`objc_release`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_autorelease(object: Id) -> Id {
    // SAFETY: every object can be autoreleased.
    unsafe { send(object, c"autorelease") }
}

/// # Safety
/// As [`objc_release`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_autoreleaseReturnValue(object: Id) -> Id {
    // SAFETY: the caller's promise.
    unsafe { objc_autorelease(object) }
}

/// # Safety
/// As [`objc_retain`].
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_retainAutoreleasedReturnValue(object: Id) -> Id {
    // SAFETY: the caller's promise.
    unsafe { objc_retain(object) }
}

/// # Safety
/// The pool is popped by the same thread.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_autoreleasePoolPush() -> *mut c_void {
    std::hint::black_box(&raw const GNUSTEP);
    // SAFETY: the class is there and can be made.
    unsafe { send(objc_getClass(c"NSAutoreleasePool".as_ptr()), c"new") }
}

/// # Safety
/// `pool` is what [`objc_autoreleasePoolPush`] gave this thread last.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn objc_autoreleasePoolPop(pool: *mut c_void) {
    // SAFETY: a pool is released to drain it.
    unsafe { send(pool, c"release") };
}
