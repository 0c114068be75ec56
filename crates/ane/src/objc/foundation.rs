//! The few classes of Foundation in use: making and reading strings, numbers, data, lists and dictionaries.
//!
//! The classes are looked up at run time, so that nothing is linked and the library may be another one. All functions want an
//! autorelease pool.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;

use objc2::msg_send;
use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Bool};

use super::catch::attempt;
use crate::attributes::Property;
use crate::fault::{Fault, Link};

/// An object that is owned.
pub(super) type Owned = Retained<AnyObject>;

/// How deep property lists and chains of errors are read.
const DEPTH: usize = 16;

fn class(name: &'static CStr, call: &'static str) -> Result<&'static AnyClass, Fault> {
    AnyClass::get(name).ok_or(Fault::Nil { call })
}

/// A call of a factory, whose nil is an error.
pub(super) fn made(call: &'static str, make: impl FnOnce() -> Option<Owned>) -> Result<Owned, Fault> {
    attempt(call, make)?.ok_or(Fault::Nil { call })
}

/// A string.
pub(super) fn string(s: &str) -> Result<Owned, Fault> {
    const CALL: &str = "initWithBytes:length:encoding:";
    const UTF8: usize = 4;
    let class = class(c"NSString", CALL)?;
    let bytes: *const c_void = s.as_ptr().cast();
    made(CALL, || {
        // SAFETY: an allocated string is given as many bytes as there are.
        unsafe {
            let new: objc2::rc::Allocated<AnyObject> = msg_send![class, alloc];
            msg_send![new, initWithBytes: bytes, length: s.len(), encoding: UTF8]
        }
    })
}

/// A whole number.
pub(super) fn number(n: usize) -> Result<Owned, Fault> {
    const CALL: &str = "numberWithUnsignedLongLong:";
    let class = class(c"NSNumber", CALL)?;
    // SAFETY: the method takes a 64-bit number.
    made(CALL, || unsafe { msg_send![class, numberWithUnsignedLongLong: n as u64] })
}

/// A copy of bytes.
pub(super) fn data(bytes: &[u8]) -> Result<Owned, Fault> {
    const CALL: &str = "dataWithBytes:length:";
    let class = class(c"NSData", CALL)?;
    let start: *const c_void = bytes.as_ptr().cast();
    // SAFETY: there are as many bytes as it is told.
    made(CALL, || unsafe { msg_send![class, dataWithBytes: start, length: bytes.len()] })
}

/// A list.
pub(super) fn array(items: &[Owned]) -> Result<Owned, Fault> {
    const CALL: &str = "arrayWithObjects:count:";
    let class = class(c"NSArray", CALL)?;
    let pointers: Vec<*const AnyObject> = items.iter().map(Retained::as_ptr).collect();
    // SAFETY: there are as many objects as it is told.
    made(CALL, || unsafe { msg_send![class, arrayWithObjects: pointers.as_ptr(), count: items.len()] })
}

/// A dictionary.
pub(super) fn dictionary(entries: &[(Owned, Owned)]) -> Result<Owned, Fault> {
    const CALL: &str = "dictionaryWithObjects:forKeys:count:";
    let class = class(c"NSDictionary", CALL)?;
    let keys: Vec<*const AnyObject> = entries.iter().map(|(k, _)| Retained::as_ptr(k)).collect();
    let values: Vec<*const AnyObject> = entries.iter().map(|(_, v)| Retained::as_ptr(v)).collect();
    let (keys, values, count) = (keys.as_ptr(), values.as_ptr(), entries.len());
    // SAFETY: there are as many keys and values as it is told.
    made(CALL, || unsafe { msg_send![class, dictionaryWithObjects: values, forKeys: keys, count: count] })
}

/// The address of a folder.
pub(super) fn folder_url(path: &Path) -> Result<Owned, Fault> {
    const CALL: &str = "fileURLWithPath:isDirectory:";
    let class = class(c"NSURL", CALL)?;
    let path = string(&path.to_string_lossy())?;
    // SAFETY: the method takes a string and a BOOL.
    made(CALL, || unsafe { msg_send![class, fileURLWithPath: &*path, isDirectory: Bool::YES] })
}

fn is_a(object: &AnyObject, class: &CStr) -> bool {
    let Some(class) = AnyClass::get(class) else { return false };
    // SAFETY: every object has this method.
    let is: Bool = unsafe { msg_send![object, isKindOfClass: class] };
    is.as_bool()
}

/// The contents of a string; `None` if it is no string.
pub(super) fn text(object: &AnyObject) -> Option<String> {
    if !is_a(object, c"NSString") {
        return None;
    }
    // SAFETY: strings have this method; what it points to lives until the pool is drained.
    let bytes: *const c_char = unsafe { msg_send![object, UTF8String] };
    // SAFETY: as above, and it ends with a zero.
    (!bytes.is_null()).then(|| unsafe { CStr::from_ptr(bytes) }.to_string_lossy().into_owned())
}

/// A property list, to a limited depth.
pub(super) fn property(object: &AnyObject) -> Property {
    read(object, DEPTH)
}

fn read(object: &AnyObject, depth: usize) -> Property {
    if depth == 0 {
        return Property::Other;
    }
    if let Some(text) = text(object) {
        return Property::Text(text);
    }
    if is_a(object, c"NSNumber") {
        // SAFETY: numbers have this method.
        return Property::Number(unsafe { msg_send![object, longLongValue] });
    }
    if is_a(object, c"NSArray") {
        return Property::Array(items(object).iter().map(|o| read(o, depth - 1)).collect());
    }
    if is_a(object, c"NSDictionary") {
        // SAFETY: dictionaries have this method, which gives an array.
        let keys: Option<Owned> = unsafe { msg_send![object, allKeys] };
        let entries = keys.iter().flat_map(|keys| items(keys)).filter_map(|key| {
            // SAFETY: dictionaries have this method.
            let value: Option<Owned> = unsafe { msg_send![object, objectForKey: &*key] };
            Some((text(&key)?, read(&*value?, depth - 1)))
        });
        return Property::Dictionary(entries.collect::<BTreeMap<_, _>>());
    }
    Property::Other
}

/// The elements of an array.
fn items(array: &AnyObject) -> Vec<Owned> {
    // SAFETY: arrays have these methods, and the index is below the count.
    unsafe {
        let count: usize = msg_send![array, count];
        (0..count).filter_map(|i| msg_send![array, objectAtIndex: i]).collect()
    }
}

/// An error and those below it.
pub(super) fn chain(error: Owned) -> Vec<Link> {
    let mut links = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next.take().filter(|_| links.len() < DEPTH) {
        // SAFETY: errors have these methods.
        let (domain, code, said, info): (Option<Owned>, isize, Option<Owned>, Option<Owned>) = unsafe {
            (
                msg_send![&*error, domain],
                msg_send![&*error, code],
                msg_send![&*error, localizedDescription],
                msg_send![&*error, userInfo],
            )
        };
        let read = |s: Option<Owned>| s.and_then(|s| text(&s)).unwrap_or_default();
        let said = read(said);
        let status = info.as_ref().and_then(|info| entry(info, "_ANEErrorUnderlyingStatus"));
        let status = status.and_then(|n| match property(&n) {
            Property::Number(n) => u32::try_from(n).ok(),
            _ => None,
        });
        next =
            info.as_ref().and_then(|info| entry(info, "NSUnderlyingError")).filter(|e| is_a(e, c"NSError"));
        links.push(Link::new(read(domain), code as i64, status, said));
    }
    links
}

fn entry(dictionary: &AnyObject, key: &str) -> Option<Owned> {
    let key = string(key).ok()?;
    // SAFETY: dictionaries have this method.
    unsafe { msg_send![dictionary, objectForKey: &*key] }
}

/// A call that gives a BOOL and takes the place for an error.
pub(super) fn checked(
    call: &'static str,
    send: impl FnOnce(*mut *mut AnyObject) -> Bool,
) -> Result<(), Fault> {
    let mut error: *mut AnyObject = std::ptr::null_mut();
    let place = &raw mut error;
    let done = attempt(call, || send(place))?;
    if done.as_bool() {
        return Ok(());
    }
    // SAFETY: the callee put an autoreleased object there, or nothing.
    let error = unsafe { Retained::retain(error) };
    match error {
        None => Err(Fault::Silent { call }),
        Some(error) => Err(attempt(call, || chain(error)).map_or_else(|f| f, Fault::Refused)),
    }
}
