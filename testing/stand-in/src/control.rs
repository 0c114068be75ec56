//! What tests ask and tell the library: C functions that the real ones lack.
#![expect(unreachable_pub, reason = "other programs find these functions by name")]

use std::ffi::{CStr, CString, c_char};

use crate::faults::Faults;
use crate::world::world;

/// Plants rules in place of those that are there. (See `faults`.)
///
/// # Safety
/// `rules` ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stand_in_plant(rules: *const c_char) {
    // SAFETY: the caller's promise.
    let rules = unsafe { CStr::from_ptr(rules) }.to_string_lossy();
    world().faults = Faults::parse(&rules);
}

/// How many calls of a selector there were, or how many things of a kind are alive: `surfaces`, `_ANERequest`, `mapped`, ...
///
/// # Safety
/// `kind` ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stand_in_count(kind: *const c_char) -> u64 {
    // SAFETY: the caller's promise.
    let kind = unsafe { CStr::from_ptr(kind) }.to_string_lossy();
    world().counts.get(&*kind).copied().unwrap_or(0)
}

/// What callers did wrong since the last time, one a line; the caller's, to be given to `stand_in_free`.
#[unsafe(no_mangle)]
pub extern "C" fn stand_in_violations() -> *mut c_char {
    let violations = std::mem::take(&mut world().violations).join("\n");
    CString::new(violations).unwrap_or_default().into_raw()
}

/// Frees what `stand_in_violations` gave.
///
/// # Safety
/// `text` came from there and is freed once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stand_in_free(text: *mut c_char) {
    // SAFETY: the caller's promise.
    drop(unsafe { CString::from_raw(text) });
}
