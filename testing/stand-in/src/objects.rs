//! Objects with state in Rust: classes that are made when the library is loaded, and a table of what belongs to each object.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};

use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, ClassBuilder, MethodImplementation, Sel};
use objc2::{msg_send, sel};

use crate::world::{count, violation, world};

type State = Arc<dyn Any + Send + Sync>;

static STATES: Mutex<BTreeMap<usize, State>> = Mutex::new(BTreeMap::new());

/// A class that is being made. What a planted rule names is left out or gets another signature.
pub(crate) struct Class {
    builder: ClassBuilder,
}

extern "C-unwind" fn dealloc(this: *mut AnyObject, _: Sel) {
    // SAFETY: the object is there until its superclass has freed it.
    let class = unsafe { (*this).class() };
    count(&class.name().to_string_lossy(), -1);
    let state = STATES.lock().unwrap_or_else(PoisonError::into_inner).remove(&this.addr());
    // It may hold objects of such classes itself.
    drop(state);
    let root = AnyClass::get(c"NSObject").expect("there is a root class");
    // SAFETY: the class was made with this superclass.
    let () = unsafe { msg_send![super(this, root), dealloc] };
}

impl Class {
    /// A class of a name, unless it is to be missing.
    pub(crate) fn new(name: &'static CStr) -> Option<Self> {
        if world().faults.names("missing_class", &name.to_string_lossy()) {
            return None;
        }
        let root = AnyClass::get(c"NSObject").expect("there is a root class");
        let mut builder = ClassBuilder::new(name, root).expect("the class is new");
        // SAFETY: this is the signature of `dealloc`.
        unsafe { builder.add_method(sel!(dealloc), dealloc as extern "C-unwind" fn(_, _)) };
        Some(Self { builder })
    }

    /// Adds a method.
    ///
    /// # Safety
    /// The function does what the selector's callers expect.
    pub(crate) unsafe fn method<F: MethodImplementation<Callee = AnyObject>>(
        self,
        selector: Sel,
        function: F,
    ) -> Self {
        // SAFETY: the caller's promise.
        self.add(selector, |builder| unsafe { builder.add_method(selector, function) }, false)
    }

    /// Adds a method of the class itself.
    ///
    /// # Safety
    /// As [`Class::method`].
    pub(crate) unsafe fn class_method<F: MethodImplementation<Callee = AnyClass>>(
        self,
        selector: Sel,
        function: F,
    ) -> Self {
        // SAFETY: the caller's promise.
        self.add(selector, |builder| unsafe { builder.add_class_method(selector, function) }, true)
    }

    fn add(mut self, selector: Sel, add: impl FnOnce(&mut ClassBuilder), of_class: bool) -> Self {
        let name = selector.name().to_string_lossy().into_owned();
        let (missing, changed) = {
            let world = world();
            (world.faults.names("missing_method", &name), world.faults.names("changed_method", &name))
        };
        if changed {
            self.add_changed(selector, of_class);
        } else if !missing {
            add(&mut self.builder);
        }
        self
    }

    /// Adds a method that takes and gives floats.
    fn add_changed(&mut self, selector: Sel, of_class: bool) {
        macro_rules! arities {
            ($($count:literal: ($($argument:ident),*);)*) => {
                match selector.name().to_bytes().iter().filter(|&&b| b == b':').count() {
                    $($count => {
                        extern "C-unwind" fn object(_: *mut AnyObject, _: Sel $(, $argument: f64)*) -> f64 { 0.0 $(+ $argument)* }
                        extern "C-unwind" fn class(_: &AnyClass, _: Sel $(, $argument: f64)*) -> f64 { 0.0 $(+ $argument)* }
                        // SAFETY: nobody calls it: callers compare signatures, which is what this is for.
                        unsafe {
                            if of_class {
                                self.builder.add_class_method(selector, class as extern "C-unwind" fn(_, _ $(, arities!(@any $argument))*) -> _);
                            } else {
                                self.builder.add_method(selector, object as extern "C-unwind" fn(_, _ $(, arities!(@any $argument))*) -> _);
                            }
                        }
                    })*
                    _ => panic!("no changed signature for {selector}"),
                }
            };
            (@any $argument:ident) => { f64 };
        }
        arities! {
            0: ();
            1: (a);
            2: (a, b);
            3: (a, b, c);
            4: (a, b, c, d);
            5: (a, b, c, d, e);
            7: (a, b, c, d, e, f, g);
        }
    }

    /// Makes it known.
    pub(crate) fn register(self) {
        self.builder.register();
    }
}

/// An object of a class with its state; its pool's to release.
pub(crate) fn new<T: Any + Send + Sync>(class: &AnyClass, state: T) -> *mut AnyObject {
    // SAFETY: the classes here are made with the root's `alloc` and `init`.
    let object: Option<Retained<AnyObject>> = unsafe {
        let new: objc2::rc::Allocated<AnyObject> = msg_send![class, alloc];
        msg_send![new, init]
    };
    let object = object.expect("an object can be made");
    count(&class.name().to_string_lossy(), 1);
    let address = Retained::as_ptr(&object).addr();
    STATES.lock().unwrap_or_else(PoisonError::into_inner).insert(address, Arc::new(state));
    Retained::autorelease_ptr(object)
}

/// The state of an object; a violation if it is nil, freed, or of another class.
pub(crate) fn state<T: Any + Send + Sync>(
    object: *const AnyObject,
    selector: &str,
    argument: &str,
) -> Option<Arc<T>> {
    let found = STATES.lock().unwrap_or_else(PoisonError::into_inner).get(&object.addr()).cloned();
    let state = found.and_then(|s| s.downcast::<T>().ok());
    if state.is_none() {
        violation(format!("{selector}: {argument} is not what it should be"));
    }
    state
}
