//! A library that plays `AppleNeuralEngine`, `IOSurface`, `CoreFoundation` and the few functions of the system that
//! `arcane-ane` uses, on Linux and `GNUstep`. Behind it is the simulated engine, so that a program gives the bits that it gives
//! there.
//!
//! It looks at its callers harder than the real ones do: types of arguments, retained and released surfaces, locks, symbols
//! and sizes, use after unload, autorelease pools. What is wrong is counted and can be asked for (module `control`). It fails on
//! demand, with every error that is known of the real ones (`faults`).
#![cfg(all(feature = "gnustep", not(target_vendor = "apple")))]
#![expect(unsafe_code, reason = "it plays libraries in Objective-C and C")]

mod attributes;
mod client;
mod control;
mod device_info;
mod faults;
mod foundation;
mod in_memory;
mod objects;
mod program;
mod request;
mod surface;
mod system;
mod world;

use arcane_arc_shim as _;

/// Runs when the library is loaded, as the `+load` of a framework's classes would.
#[used]
#[unsafe(link_section = ".init_array")]
static INITIALISE: extern "C" fn() = {
    extern "C" fn initialise() {
        surface::make_keys();
        client::register();
        in_memory::register();
        request::register();
        device_info::register();
    }
    initialise
};
