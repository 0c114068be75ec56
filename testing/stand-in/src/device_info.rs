//! `_ANEDeviceInfo`.

use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Bool, Sel};
use objc2::sel;

use crate::foundation::string;
use crate::objects::Class;
use crate::program::proceeds;
use crate::world::world;

extern "C-unwind" fn has_engine(_: &AnyClass, _: Sel) -> Bool {
    Bool::new(proceeds("hasANE") && !world().faults.has("no_engine"))
}

extern "C-unwind" fn engines(_: &AnyClass, _: Sel) -> u32 {
    *world().chip.engines as u32
}

extern "C-unwind" fn cores(_: &AnyClass, _: Sel) -> u32 {
    const CORES: u32 = 16;
    CORES * *world().chip.engines as u32
}

extern "C-unwind" fn architecture(_: &AnyClass, _: Sel) -> *mut AnyObject {
    let name = world().chip.architecture.to_string();
    Retained::autorelease_ptr(string(&name))
}

pub(crate) fn register() {
    let Some(class) = Class::new(c"_ANEDeviceInfo") else { return };
    // SAFETY: the functions have the framework's signatures.
    let class = unsafe {
        class
            .class_method(sel!(hasANE), has_engine as extern "C-unwind" fn(_, _) -> _)
            .class_method(sel!(numANEs), engines as extern "C-unwind" fn(_, _) -> _)
            .class_method(sel!(numANECores), cores as extern "C-unwind" fn(_, _) -> _)
            .class_method(sel!(aneArchitectureType), architecture as extern "C-unwind" fn(_, _) -> _)
    };
    class.register();
}
