//! The Neural Engine of a Mac, through Apple's private frameworks.
//!
//! [`Frameworks::open`] opens the libraries and compares every class and method with what the calls are written for; each of
//! its [drivers](Frameworks::drivers) is a way to the engine, `client` by folders and the system's daemon, `in_memory` by text
//! and data. [`AneEngine`] is an [`arcane_engine::Engine`] on one of them. [`self_test()`] tries small programs with known results,
//! and has the engine refuse what it does not do.
//!
//! Everything but the messages themselves is compiled on every system. The messages are there on macOS and, with the feature
//! `gnustep`, on Linux, where a library of this project plays the frameworks. What only a Mac can tell is unverified: no line
//! here has run on one.
//!
//! Exceptions of Objective-C are caught at every message; where they are not caught is inside the few C functions that lock a
//! surface and ask the system for its name, which raise none.

#[cfg(not(any(target_vendor = "apple", feature = "gnustep")))]
mod absent;
mod attributes;
mod capability;
mod dispatch;
mod driver;
mod engine;
mod fault;
mod libraries;
mod machine;
#[cfg(any(target_vendor = "apple", feature = "gnustep"))]
mod objc;
mod poison;
mod program;
mod self_test;
mod staging;
mod unavailable;
mod worker;

#[cfg(all(feature = "gnustep", not(target_vendor = "apple")))]
use arcane_arc_shim as _;

#[cfg(not(any(target_vendor = "apple", feature = "gnustep")))]
pub use absent::Frameworks;
pub use attributes::{AttributesError, Property};
pub use capability::{Capabilities, Capability};
pub use driver::{Driver, Model, Placed, Request, Source, Way};
pub use engine::{AneEngine, Clock, Counters, Options};
pub use fault::{Fault, Link};
pub use libraries::Libraries;
pub use machine::Machine;
#[cfg(any(target_vendor = "apple", feature = "gnustep"))]
pub use objc::Frameworks;
pub use self_test::{Consequence, Outcome, ProbeResult, Report, self_test};
pub use unavailable::Unavailable;
