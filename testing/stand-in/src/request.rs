//! `_ANEIOSurfaceObject` and `_ANERequest`.

use std::ptr::null_mut;
use std::sync::Arc;

use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Sel};
use objc2::sel;

use crate::foundation::{Owned, integer, items};
use crate::objects::{Class, new, state};
use crate::program::proceeds;
use crate::surface::{CFRelease, IoSurface, retain};
use crate::world::violation;

/// Surfaces and indices of one side of a request, at most. (Framework inspection.)
const MOST: usize = 255;
const LARGEST_INDEX: i64 = 254;

/// What an `_ANEIOSurfaceObject` holds.
pub(crate) struct Held(*mut IoSurface);

// SAFETY: surfaces count their references and locks atomically.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// The surface.
    pub(crate) fn surface(&self) -> &IoSurface {
        // SAFETY: it is retained.
        unsafe { &*self.0 }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: it was retained once.
        unsafe { CFRelease(self.0.cast_const().cast()) };
    }
}

/// What an `_ANERequest` holds: surfaces with their symbols.
pub(crate) struct Request {
    pub(crate) inputs: Vec<(i64, Arc<Held>)>,
    pub(crate) outputs: Vec<(i64, Arc<Held>)>,
}

extern "C-unwind" fn wrap(class: &AnyClass, _: Sel, surface: *mut IoSurface) -> *mut AnyObject {
    const SELECTOR: &str = "objectWithIOSurface:";
    if !proceeds(SELECTOR) {
        return null_mut();
    }
    if surface.is_null() {
        violation(format!("{SELECTOR}: the surface is nil"));
        return null_mut();
    }
    // SAFETY: the caller holds it.
    unsafe { retain(surface) };
    new(class, Held(surface))
}

type Id = *const AnyObject;

#[expect(clippy::too_many_arguments, reason = "the signature is the framework's")]
extern "C-unwind" fn make(
    class: &AnyClass,
    _: Sel,
    inputs: Id,
    input_indices: Id,
    outputs: Id,
    output_indices: Id,
    weights: Id,
    statistics: Id,
    procedure: Id,
) -> *mut AnyObject {
    const SELECTOR: &str =
        "requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:procedureIndex:";
    if !proceeds(SELECTOR) {
        return null_mut();
    }
    if !weights.is_null() || !statistics.is_null() || integer(procedure) != Some(0) {
        violation(format!("{SELECTOR}: procedure 0 without weights and statistics was expected"));
    }
    let sides = side(inputs, input_indices, SELECTOR).zip(side(outputs, output_indices, SELECTOR));
    let Some((inputs, outputs)) = sides else { return null_mut() };
    new(class, Request { inputs, outputs })
}

/// Surfaces and symbols of one side; none with a violation if they do not fit each other.
fn side(surfaces: Id, indices: Id, selector: &str) -> Option<Vec<(i64, Arc<Held>)>> {
    let lists = items(surfaces).zip(items(indices));
    let fit = lists.filter(|(s, i)| s.len() == i.len() && (1..=MOST).contains(&s.len()));
    let Some((surfaces, indices)) = fit else {
        violation(format!("{selector}: as many indices as surfaces, 1 to {MOST}, were expected"));
        return None;
    };
    let index = |n: &Owned| integer(Retained::as_ptr(n)).filter(|n| (0..=LARGEST_INDEX).contains(n));
    let held = |s: &Owned| state::<Held>(Retained::as_ptr(s), selector, "a surface");
    let pairs: Option<Vec<_>> =
        surfaces.iter().zip(&indices).map(|(s, i)| Some((index(i)?, held(s)?))).collect();
    let mut seen: Vec<i64> = pairs.iter().flatten().map(|(n, _)| *n).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|w| w[0] == w[1]) {
        violation(format!("{selector}: a symbol has two surfaces"));
    }
    pairs
}

pub(crate) fn register() {
    if let Some(class) = Class::new(c"_ANEIOSurfaceObject") {
        // SAFETY: the function has the framework's signature.
        unsafe { class.class_method(sel!(objectWithIOSurface:), wrap as extern "C-unwind" fn(_, _, _) -> _) }
            .register();
    }
    let Some(class) = Class::new(c"_ANERequest") else { return };
    let selector =
        sel!(requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:procedureIndex:);
    // SAFETY: the function has the framework's signature.
    unsafe { class.class_method(selector, make as extern "C-unwind" fn(_, _, _, _, _, _, _, _, _) -> _) }
        .register();
}
