//! The few classes of Foundation in use.

use std::ffi::{CStr, c_char, c_void};

use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Bool};
use objc2::{msg_send, sel};

use crate::faults::Planted;

pub(crate) type Owned = Retained<AnyObject>;

fn class(name: &CStr) -> &'static AnyClass {
    AnyClass::get(name).expect("Foundation has the class")
}

pub(crate) fn string(s: &str) -> Owned {
    let bytes: *const c_void = s.as_ptr().cast();
    // SAFETY: an allocated string is given as many bytes as there are, in UTF-8.
    unsafe {
        let new: objc2::rc::Allocated<AnyObject> = msg_send![class(c"NSString"), alloc];
        let made: Option<Owned> = msg_send![new, initWithBytes: bytes, length: s.len(), encoding: 4usize];
        made.expect("a string can be made")
    }
}

pub(crate) fn number(n: i64) -> Owned {
    // SAFETY: the method takes a 64-bit number.
    let made: Option<Owned> = unsafe { msg_send![class(c"NSNumber"), numberWithLongLong: n] };
    made.expect("a number can be made")
}

pub(crate) fn array(items: &[Owned]) -> Owned {
    let pointers: Vec<*const AnyObject> = items.iter().map(Retained::as_ptr).collect();
    // SAFETY: there are as many objects as it is told.
    let made: Option<Owned> =
        unsafe { msg_send![class(c"NSArray"), arrayWithObjects: pointers.as_ptr(), count: items.len()] };
    made.expect("an array can be made")
}

pub(crate) fn dictionary(entries: &[(&str, Owned)]) -> Owned {
    let keys: Vec<Owned> = entries.iter().map(|(k, _)| string(k)).collect();
    let keys: Vec<*const AnyObject> = keys.iter().map(Retained::as_ptr).collect();
    let values: Vec<*const AnyObject> = entries.iter().map(|(_, v)| Retained::as_ptr(v)).collect();
    let (keys, values, count) = (keys.as_ptr(), values.as_ptr(), entries.len());
    // SAFETY: there are as many keys and values as it is told.
    let made: Option<Owned> = unsafe {
        msg_send![class(c"NSDictionary"), dictionaryWithObjects: values, forKeys: keys, count: count]
    };
    made.expect("a dictionary can be made")
}

/// Whether an object is of a class.
pub(crate) fn is_a(object: *const AnyObject, name: &CStr) -> bool {
    if object.is_null() {
        return false;
    }
    // SAFETY: every object has this method.
    let is: Bool = unsafe { msg_send![object, isKindOfClass: class(name)] };
    is.as_bool()
}

/// The contents of a string.
pub(crate) fn text(object: *const AnyObject) -> Option<String> {
    if !is_a(object, c"NSString") {
        return None;
    }
    // SAFETY: strings have this method; what it points to ends with a zero and lives until the pool is drained.
    unsafe {
        let bytes: *const c_char = msg_send![object, UTF8String];
        Some(CStr::from_ptr(bytes).to_string_lossy().into_owned())
    }
}

/// The contents of data.
pub(crate) fn bytes(object: *const AnyObject) -> Option<Vec<u8>> {
    if !is_a(object, c"NSData") {
        return None;
    }
    // SAFETY: data has these methods, and as many bytes as it says.
    unsafe {
        let length: usize = msg_send![object, length];
        let start: *const c_void = msg_send![object, bytes];
        let some = length > 0 && !start.is_null();
        Some(if some { std::slice::from_raw_parts(start.cast::<u8>(), length).to_vec() } else { Vec::new() })
    }
}

/// A number.
pub(crate) fn integer(object: *const AnyObject) -> Option<i64> {
    // SAFETY: numbers have this method.
    is_a(object, c"NSNumber").then(|| unsafe { msg_send![object, longLongValue] })
}

/// The elements of an array.
pub(crate) fn items(object: *const AnyObject) -> Option<Vec<Owned>> {
    if !is_a(object, c"NSArray") {
        return None;
    }
    // SAFETY: arrays have these methods, and the index is below the count.
    unsafe {
        let count: usize = msg_send![object, count];
        (0..count).map(|i| msg_send![object, objectAtIndex: i]).collect()
    }
}

/// The value of a key.
pub(crate) fn entry(object: *const AnyObject, key: &str) -> Option<Owned> {
    if !is_a(object, c"NSDictionary") {
        return None;
    }
    // SAFETY: dictionaries have this method.
    unsafe { msg_send![object, objectForKey: &*string(key)] }
}

/// The keys of a dictionary that are strings.
pub(crate) fn keys(object: *const AnyObject) -> Vec<String> {
    // SAFETY: dictionaries have this method.
    let keys: Option<Owned> =
        is_a(object, c"NSDictionary").then(|| unsafe { msg_send![object, allKeys] }).flatten();
    let keys = keys.and_then(|k| items(Retained::as_ptr(&k))).unwrap_or_default();
    keys.iter().filter_map(|k| text(Retained::as_ptr(k))).collect()
}

/// An error.
fn error(domain: &str, planted: Planted, said: &str, below: Option<Owned>) -> Owned {
    let status = planted.status.map(|s| ("_ANEErrorUnderlyingStatus", number(i64::from(s))));
    // GNUstep has the description under another key than macOS.
    let said = [("NSLocalizedDescription", string(said)), ("NSLocalizedDescriptionKey", string(said))];
    let below = below.map(|below| ("NSUnderlyingError", below));
    let entries: Vec<(&str, Owned)> = said.into_iter().chain(status).chain(below).collect();
    let (domain, info) = (string(domain), dictionary(&entries));
    // SAFETY: the class has this method.
    let error: Option<Owned> = unsafe {
        msg_send![class(c"NSError"), errorWithDomain: &*domain, code: planted.code as isize, userInfo: &*info]
    };
    error.expect("an error can be made")
}

/// Puts an error into the caller's place, if there is one, and says no. Below it is another one, of the driver.
pub(crate) fn fail(place: *mut *mut AnyObject, domain: &str, planted: Planted, said: &str) -> Bool {
    if !place.is_null() {
        let below = error("IOKit", Planted { status: None, ..planted }, "the driver refused", None);
        let error = error(domain, planted, said, Some(below));
        // SAFETY: the caller gave the place of a pointer; the object lives until its pool is drained.
        unsafe { *place = Retained::autorelease_ptr(error) };
    }
    Bool::NO
}

/// Raises an exception.
pub(crate) fn raise(reason: &str) {
    let (name, reason) = (string("StandInException"), string(reason));
    let nothing: *const AnyObject = std::ptr::null();
    // SAFETY: the class has this method, and its objects the other.
    unsafe {
        let exception: Option<Owned> = msg_send![class(c"NSException"), exceptionWithName: &*name, reason: &*reason,
            userInfo: nothing];
        // Unwinding does not come back to release it; its pool does.
        let exception = Retained::autorelease_ptr(exception.expect("an exception can be made"));
        let () = msg_send![exception, raise];
    }
}

/// Whether the thread has an autorelease pool; true where the runtime does not say.
pub(crate) fn has_pool() -> bool {
    let class = class(c"NSAutoreleasePool");
    // SAFETY: the class answers whether it has the method, which gives a pool or nil.
    unsafe {
        let says: Bool = msg_send![class, respondsToSelector: sel!(currentPool)];
        let pool: *const AnyObject =
            if says.as_bool() { msg_send![class, currentPool] } else { return true };
        !pool.is_null()
    }
}
