//! Why there is no engine here.

use std::path::PathBuf;

/// Why the engine, or one of the ways to it, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// This program was built for another system.
    #[error(
        "the Neural Engine is part of Macs with Apple silicon, this program is for {system} on {machine}"
    )]
    Platform {
        /// The system.
        system: &'static str,
        /// The processor.
        machine: &'static str,
    },
    /// A library cannot be opened.
    #[error("{} cannot be opened: {why}", path.display())]
    Library {
        /// Its path.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A library lacks a function or a constant.
    #[error("{} has no `{name}`", path.display())]
    Symbol {
        /// The library.
        path: PathBuf,
        /// The name.
        name: &'static str,
    },
    /// There is no such class.
    #[error("the framework has no class `{name}`")]
    Class {
        /// Its name.
        name: String,
    },
    /// A class lacks a method, or has it with another signature.
    #[error("`{class} {selector}`: {why}")]
    Method {
        /// The class.
        class: String,
        /// The selector.
        selector: String,
        /// What is different.
        why: String,
    },
    /// The framework failed before any program was tried.
    #[error("the framework fails: {0}")]
    Framework(String),
    /// The system says that it has no engine, or that this process cannot reach it.
    #[error("{0}")]
    Machine(String),
    /// The self-test failed.
    #[error("probe {probe} of the self-test failed: {why}")]
    SelfTest {
        /// The probe.
        probe: String,
        /// What was found.
        why: String,
    },
}

impl Unavailable {
    /// That of a build without the engine.
    pub fn platform() -> Self {
        Self::Platform { system: std::env::consts::OS, machine: std::env::consts::ARCH }
    }
}
