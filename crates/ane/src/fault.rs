//! What frameworks report, and what it means.

use std::path::PathBuf;

use arcane_engine::{DeviceError, DeviceStage, EngineError, Recovery, status_meaning};

use crate::attributes::AttributesError;

/// The domain of the framework's own errors.
pub(crate) const DOMAIN: &str = "com.apple.appleneuralengine";

/// One error of a chain of causes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{domain} {code}: {text}")]
pub struct Link {
    /// Who reports it.
    pub domain: String,
    /// The number there.
    pub code: i64,
    /// The status of the driver below it, from the error's dictionary or its text.
    pub status: Option<u32>,
    /// What it says.
    pub text: String,
}

impl Link {
    /// An error; where no status is known it is looked for in the text.
    pub fn new(domain: String, code: i64, status: Option<u32>, text: String) -> Self {
        Self { domain, code, status: status.or_else(|| status_in(&text)), text }
    }
}

/// How a call of a framework failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It said no, with an error and its causes, the outermost first.
    #[error("{}", .0.iter().map(Link::to_string).collect::<Vec<_>>().join("; because of "))]
    Refused(Vec<Link>),
    /// It said no and nothing else.
    #[error("`{call}` failed without an error")]
    Silent {
        /// The selector.
        call: &'static str,
    },
    /// It gave no object.
    #[error("`{call}` gave nil")]
    Nil {
        /// The selector.
        call: &'static str,
    },
    /// It raised an exception.
    #[error("`{call}` raised {name}: {reason}")]
    Exception {
        /// The selector.
        call: &'static str,
        /// The exception's name.
        name: String,
        /// Its reason.
        reason: String,
    },
    /// The ports of a loaded program are not those of its text.
    #[error(transparent)]
    Attributes(#[from] AttributesError),
    /// A surface could not be made or locked.
    #[error("a surface of {bytes} bytes {what}")]
    Surface {
        /// Its size.
        bytes: usize,
        /// What failed.
        what: String,
    },
    /// A file of the program could not be written.
    #[error("{}: cannot {doing}: {why}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        why: String,
    },
    /// The call said yes, and an output is as it was before.
    #[error("output `{0}` was not written")]
    NotWritten(String),
    /// The call did not come back.
    #[error("it did not end before its deadline")]
    Timeout,
    /// An earlier call did not come back.
    #[error("an earlier call of the engine did not end before its deadline")]
    Stuck,
}

/// A code of the framework with its cause, what helps, and what a caller may do.
type Code = (i64, &'static str, &'static str, Recovery);

const ENTITLEMENT: &str = "it is for programs that Apple signs; do not use that call";
const MACHINE: &str = "run on the machine itself, a virtual one has no engine";
const FOLDER: &str = "see that the folder for temporary files can be written and is not cleaned";
const SLOTS: &str = "plan fewer programs, or end other processes that use the engine";
const UNMAPPED: &str = "go on without mapping; if every call fails, restart the machine";

/// The framework's codes up to macOS 27. (Framework inspection; 3, 6, 8, 9, 13, 15, 16, 42 and 53 were observed, too.)
const CODES: [Code; 31] = [
    (1, "an entitlement is missing", ENTITLEMENT, Recovery::None),
    (2, "the entitlement for real-time priority is missing", ENTITLEMENT, Recovery::None),
    (3, "the engine timed out", "keep the surfaces alive, restart the process", Recovery::None),
    (4, "the program could not be created", SLOTS, Recovery::Retry),
    (5, "the inference overflowed", "check shapes and scale, report the program", Recovery::None),
    (6, "the program could not be loaded", SLOTS, Recovery::Retry),
    (7, "this program has no signature", "sign it: codesign -s - arcane", Recovery::None),
    (8, "the inference failed", "report it with the program", Recovery::None),
    (9, "a file of the program cannot be read", FOLDER, Recovery::None),
    (10, "the model is invalid", "report it with the program", Recovery::None),
    (11, "the model's key is invalid", "report it", Recovery::None),
    (12, "a model of the system cannot be purged", "purge own models only", Recovery::None),
    (13, "surfaces could not be mapped", UNMAPPED, Recovery::None),
    (14, "surfaces could not be unmapped", UNMAPPED, Recovery::None),
    (15, "programs could not be chained", "do not chain", Recovery::None),
    (16, "a file of the program was not found", FOLDER, Recovery::None),
    (17, "the identifier is unknown", "load the program again", Recovery::Reload),
    (18, "the base model is unknown", "load the program again", Recovery::Reload),
    (19, "the identifier of a cached model has to be nil", "report it", Recovery::None),
    (20, "the instance is invalid", "load the program again", Recovery::Reload),
    (21, "a new instance could not be loaded", ENTITLEMENT, Recovery::None),
    (22, "host and guest have other interfaces", MACHINE, Recovery::None),
    (23, "the program is gone", "load the program again", Recovery::Reload),
    (24, "data was not found", FOLDER, Recovery::None),
    (25, "it is not supported", "leave that call out", Recovery::None),
    (26, "an argument is bad", "report it with the program", Recovery::None),
    (27, "the virtual machine has no engine", MACHINE, Recovery::None),
    (28, "the virtual machine's request failed", MACHINE, Recovery::None),
    (29, "the virtual machine's driver failed", MACHINE, Recovery::None),
    (42, "a surface is smaller than the program expects", "compare sizes and symbols", Recovery::None),
    (53, "there was no memory for the program", SLOTS, Recovery::Retry),
];

/// What a compiler's message contains, and the cause and remedy. The first that fits counts.
/// (The same sources; `model.espresso.net`: maderix, Splash.)
const COMPILER: [(&str, &str, &str); 4] = [
    ("model.espresso.net", "the options did not say that it is MIL", "use the other driver, and report it"),
    ("InvalidMILProgram", "the text or its weight file is not what this system reads", "correct the program"),
    (
        "CompilationFailure",
        "the chip does not run an op or a shape, or the budget of compilations is used up",
        "see arcane check --chip, or start a new process",
    ),
    ("InvalidNetwork", "the program is not one that the engine can hold", "see arcane check --chip"),
];

impl Fault {
    /// An error of the framework's own domain.
    pub fn refused(code: i64, status: Option<u32>, text: impl Into<String>) -> Self {
        Self::Refused(vec![Link::new(DOMAIN.into(), code, status, text.into())])
    }

    /// What a caller of an engine gets: the code and the status with cause and remedy, and behind the cause all that the
    /// framework said.
    pub fn explain(&self, stage: DeviceStage, function: &str) -> EngineError {
        let (code, status, cause, remedy, recovery) = self.meaning(stage);
        let cause = if cause.is_empty() { self.to_string() } else { format!("{cause}: {self}") };
        Box::new(DeviceError { stage, function: function.into(), code, status, cause, remedy, recovery })
            .into()
    }

    /// What a caller may do.
    pub fn recovery(&self, stage: DeviceStage) -> Recovery {
        self.meaning(stage).4
    }

    fn meaning(&self, stage: DeviceStage) -> (u32, Option<u32>, &'static str, &'static str, Recovery) {
        let plain = |remedy| (0, None, "", remedy, Recovery::None);
        match self {
            Self::Refused(chain) => refused(chain, stage),
            Self::Silent { .. } | Self::Exception { .. } => plain("run arcane doctor --full and report it"),
            Self::Nil { .. } => plain("the framework has changed: run arcane doctor --full and report it"),
            Self::Attributes(_) => plain("bind nothing to this program, and report it"),
            Self::Surface { .. } => plain("free memory, or end other processes"),
            Self::File { .. } => plain(FOLDER),
            Self::NotWritten(_) => plain("do not use what the call was to compute; report the program"),
            Self::Timeout | Self::Stuck => {
                (3, Some(0xf), "", "keep the surfaces alive, restart the process", Recovery::None)
            }
        }
    }
}

fn refused(chain: &[Link], stage: DeviceStage) -> (u32, Option<u32>, &'static str, &'static str, Recovery) {
    let status = chain.iter().find_map(|l| l.status);
    let code = chain.iter().find(|l| l.domain == DOMAIN).or(chain.first()).map_or(0, |l| l.code);
    let number = u32::try_from(code).unwrap_or(0);
    if stage == DeviceStage::Compile {
        let says = |part: &str| chain.iter().any(|l| l.text.contains(part));
        let known = COMPILER.iter().find(|(part, ..)| says(part));
        let (_, cause, remedy) =
            known.copied().unwrap_or(("", "the compiler refused the program", "report it with the program"));
        return (number, status, cause, remedy, Recovery::None);
    }
    if stage == DeviceStage::Evaluate
        && let (8, Some(status)) = (code, status)
    {
        let (cause, remedy, recovery) = status_meaning(status);
        return (number, Some(status), cause, remedy, recovery);
    }
    let unknown = (code, "an unknown error", "report it with the program", Recovery::None);
    let (_, cause, remedy, recovery) = CODES.iter().copied().find(|(c, ..)| *c == code).unwrap_or(unknown);
    (number, status, cause, remedy, recovery)
}

/// The status that a text of the framework names: `status=0x1d`, `(0x12)`.
fn status_in(text: &str) -> Option<u32> {
    let after = ["status=0x", "(0x"].iter().find_map(|mark| text.split_once(mark).map(|(_, rest)| rest))?;
    let end = after.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(after.len());
    u32::from_str_radix(&after[..end], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(fault: &Fault, stage: DeviceStage) -> DeviceError {
        match fault.explain(stage, "f") {
            EngineError::Device(e) => *e,
            other => panic!("{other} is no error of a device"),
        }
    }

    #[test]
    fn statuses_are_found_in_texts() {
        let text = "ANEProgramProcessRequestDirect() Failed with status=0x1d : statusType=0x9: Program Inference error";
        assert_eq!(status_in(text), Some(0x1d));
        assert_eq!(status_in("surfaces could not be mapped (0x12)"), Some(0x12));
        assert_eq!(status_in("no status (0xZ), status=0x"), None);
    }

    #[test]
    fn every_code_has_a_cause_and_a_remedy() {
        for (code, cause, remedy, recovery) in CODES {
            let e = device(&Fault::refused(code, None, "said"), DeviceStage::Load);
            assert_eq!((i64::from(e.code), e.remedy, e.recovery), (code, remedy, recovery));
            assert!(e.cause.starts_with(cause) && e.cause.ends_with("said"), "{e}");
        }
        assert!(device(&Fault::refused(99, None, "said"), DeviceStage::Load).cause.contains("unknown"));
    }

    #[test]
    fn an_evaluation_is_explained_by_its_status_and_keeps_the_chain() {
        let below = Link { domain: "IOKit".into(), code: -1, status: Some(0xe), text: "gone".into() };
        let above = Link { domain: DOMAIN.into(), code: 8, status: None, text: "failed".into() };
        let e = device(&Fault::Refused(vec![above, below]), DeviceStage::Evaluate);
        assert_eq!((e.code, e.status, e.recovery), (8, Some(0xe), Recovery::Reload));
        assert!(e.cause.ends_with("failed; because of IOKit -1: gone"), "{e}");
    }

    #[test]
    fn the_compilers_messages_are_told_apart() {
        for (part, cause, _) in COMPILER {
            let link = Link {
                domain: format!("{DOMAIN}.compiler"),
                code: 1,
                status: None,
                text: format!("_ANECompiler : {part}"),
            };
            let e = device(&Fault::Refused(vec![link]), DeviceStage::Compile);
            assert!(e.cause.starts_with(cause), "{e}");
        }
    }
}
