//! Errors that are made on purpose.

use crate::api::{DeviceError, DeviceStage, EngineError, Recovery};

/// What a simulated engine is to fail at. Numbers count from 1, over all programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// This compilation fails.
    pub compile: Option<u64>,
    /// This load fails, once: it can be tried again.
    pub load: Option<u64>,
    /// This execution fails with a status.
    pub evaluate: Option<(u64, u32)>,
    /// No more than this many programs can be loaded.
    pub slots: Option<u64>,
    /// This execution never ends.
    pub hang: Option<u64>,
}

/// What is known of a status: its cause, what helps, and what a caller may do.
pub type StatusMeaning = (&'static str, &'static str, Recovery);

/// (Error tables of the framework up to macOS 27: maderix, libane, ck-synapse, framework inspection.)
const STATUSES: [(u32, StatusMeaning); 8] = [
    (0x1, ("the request is stale", "rebuild the request", Recovery::Reload)),
    (0x2, ("symbol numbers of another procedure", "bind by the program's own symbols", Recovery::None)),
    (0x9, ("a surface is narrower than a row", "pad the last axis to 64 bytes", Recovery::None)),
    (0xe, ("the program is gone", "load it again", Recovery::Reload)),
    (0xf, ("the engine timed out", "keep the surfaces alive, restart the process", Recovery::None)),
    (0x12, ("the request was cancelled by a power transition", "try again after 3 ms", Recovery::Retry)),
    (0x16, ("inference failed", "the program cannot be used", Recovery::None)),
    (0x1d, ("a surface is missing, too small or another's", "compare sizes and symbols", Recovery::None)),
];

/// What an execution's status means.
pub fn status_meaning(status: u32) -> StatusMeaning {
    let unknown = ("an unknown status", "report it with the program", Recovery::None);
    STATUSES.iter().find(|(s, _)| *s == status).map_or(unknown, |&(_, meaning)| meaning)
}

/// The error of an execution with a status.
pub(super) fn evaluation(function: &str, status: u32) -> EngineError {
    let (cause, remedy, recovery) = status_meaning(status);
    Box::new(DeviceError {
        stage: DeviceStage::Evaluate,
        function: function.into(),
        code: 8,
        status: Some(status),
        cause: cause.into(),
        remedy,
        recovery,
    })
    .into()
}

/// The error of a load.
pub(super) fn load(function: &str, cause: String, remedy: &'static str, recovery: Recovery) -> EngineError {
    let stage = DeviceStage::Load;
    Box::new(DeviceError {
        stage,
        function: function.into(),
        code: 6,
        status: Some(0x1),
        cause,
        remedy,
        recovery,
    })
    .into()
}

/// The error of an execution that did not end before its deadline.
pub(super) fn timeout(function: &str) -> EngineError {
    Box::new(DeviceError {
        stage: DeviceStage::Evaluate,
        function: function.into(),
        code: 3,
        status: Some(0xf),
        cause: "the execution did not end before its deadline".into(),
        remedy: "keep the surfaces alive, restart the process",
        recovery: Recovery::None,
    })
    .into()
}

impl Faults {
    pub(super) fn compile(&self, count: u64, function: &str) -> Option<EngineError> {
        (self.compile == Some(count)).then(|| {
            super::compile_error(
                function,
                "CompilationFailure: ANECCompile() failed".into(),
                "wait 15 s, the service restarts",
            )
        })
    }

    pub(super) fn load(&self, count: u64, loaded: u64, limit: u64, function: &str) -> Option<EngineError> {
        let slots = self.slots.unwrap_or(limit).min(limit);
        if loaded >= slots {
            let cause = format!("all {slots} slots for programs are taken");
            return Some(load(
                function,
                cause,
                "plan fewer programs, or end other processes",
                Recovery::None,
            ));
        }
        let cause = || "the program could not be loaded".to_string();
        (self.load == Some(count)).then(|| load(function, cause(), "try again after 100 ms", Recovery::Retry))
    }

    pub(super) fn evaluate(&self, count: u64, function: &str) -> Option<EngineError> {
        let (at, status) = self.evaluate?;
        (at == count).then(|| evaluation(function, status))
    }
}
