//! Programs as files.

use std::path::{Path, PathBuf};

use arcane_mil::{Function, Program, ReadError};
use arcane_tensor::read_limited;

use crate::failure::Failure;

/// The file that holds the program where a folder is given.
const PROGRAM_FILE: &str = "model.mil";
/// The function that is run where a program has several and none is named.
const MAIN: &str = "main";
/// Programs keep large arrays in weight files.
const PROGRAM_BYTES: u64 = 1 << 28;

/// The text of a program and where it is from.
pub(crate) struct ProgramFile {
    /// The file.
    pub(crate) path: PathBuf,
    /// What it holds.
    pub(crate) text: String,
}

impl ProgramFile {
    /// Reads a file of MIL text, or `model.mil` of a folder.
    pub(crate) fn read(given: &Path) -> Result<Self, Failure> {
        let path = if given.is_dir() { given.join(PROGRAM_FILE) } else { given.to_path_buf() };
        let wrong = |what: String| Failure::input(format!("{}: {what}", path.display()));
        let bytes =
            read_limited(&path, PROGRAM_BYTES).map_err(|e| wrong(format!("cannot read the program: {e}")))?;
        let text =
            String::from_utf8(bytes).map_err(|e| wrong(format!("not UTF-8 ({e}), MIL text was expected")))?;
        Ok(Self { path, text })
    }

    /// The folder that `@model_path` stands for by default.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The failure of a text that was refused.
    pub(crate) fn refused(&self, error: &ReadError) -> Failure {
        Failure::input(format!("{}:{error}", self.path.display()))
    }
}

/// The function of a name; without one the only function, or else `main`.
pub(crate) fn choose<'a>(
    program: &'a Program,
    name: Option<&str>,
    path: &Path,
) -> Result<&'a Function, Failure> {
    let found = match (name, program.functions.as_slice()) {
        (None, [only]) => Some(only),
        (name, _) => program.function(name.unwrap_or(MAIN)),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = program.functions.iter().map(Function::name).collect();
        let missing = name.unwrap_or(MAIN);
        let names = names.join(", ");
        Failure::input(format!("{}: no function `{missing}`, expected one of {names}", path.display()))
    })
}
