//! Programs as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arcane_mil::{BlobFolder, Function, Package, Program, ReadError, check, read, read_for};
use arcane_tensor::{Tensor, read_limited};

use crate::failure::Failure;

/// The file that holds the program where a folder is given.
const PROGRAM_FILE: &str = "model.mil";
/// The function that is run where a program has several and none is named.
const MAIN: &str = "main";
/// Programs keep large arrays in weight files.
const PROGRAM_BYTES: u64 = 1 << 28;

/// A program that has been opened, not yet read.
pub(crate) enum ProgramFile {
    /// MIL text.
    Text {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// A package.
    Package {
        /// The folder.
        path: PathBuf,
        /// The model in it.
        package: Package,
    },
}

impl ProgramFile {
    /// Opens a file of MIL text, `model.mil` of a folder, or an `.mlpackage`.
    pub(crate) fn open(given: &Path) -> Result<Self, Failure> {
        if Package::is_at(given) {
            let package = Package::open(given).map_err(|e| Failure::Input(e.into()))?;
            return Ok(Self::Package { path: given.into(), package });
        }
        let path = if given.is_dir() { given.join(PROGRAM_FILE) } else { given.to_path_buf() };
        let wrong = |what: String| Failure::input(format!("{}: {what}", path.display()));
        let bytes =
            read_limited(&path, PROGRAM_BYTES).map_err(|e| wrong(format!("cannot read the program: {e}")))?;
        let text =
            String::from_utf8(bytes).map_err(|e| wrong(format!("not UTF-8 ({e}), MIL text was expected")))?;
        Ok(Self::Text { path, text })
    }

    /// Whether a path is one of a program, not of a model.
    pub(crate) fn is_at(given: &Path) -> bool {
        Package::is_at(given)
            || given.join(PROGRAM_FILE).is_file()
            || given.extension().is_some_and(|e| e.eq_ignore_ascii_case("mil"))
    }

    /// What was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Text { path, .. } | Self::Package { path, .. } => path,
        }
    }

    /// The folder that `@model_path` stands for by default.
    fn folder(&self) -> &Path {
        match self {
            Self::Text { path, .. } => path.parent().unwrap_or(Path::new("")),
            Self::Package { package, .. } => package.folder(),
        }
    }

    /// The program with its weights, from `weights` or the default folder.
    pub(crate) fn program(&self, weights: Option<&Path>) -> Result<Program, Failure> {
        let weights = BlobFolder::new(weights.unwrap_or(self.folder()));
        match self {
            Self::Text { text, .. } => read(text, &weights).map_err(|e| self.refused(&e)),
            Self::Package { package, .. } => package.read(&weights).map_err(|e| Failure::Input(e.into())),
        }
    }

    /// As [`ProgramFile::program`]; dimensions that a text leaves open are those for the given inputs.
    pub(crate) fn program_for(
        &self,
        weights: Option<&Path>,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Result<Program, Failure> {
        match self {
            Self::Text { text, .. } => {
                let weights = BlobFolder::new(weights.unwrap_or(self.folder()));
                read_for(text, &weights, inputs).map_err(|e| self.refused(&e))
            }
            Self::Package { .. } => self.program(weights),
        }
    }

    /// The program, checked without its weights but for those that are there.
    pub(crate) fn checked(&self) -> Result<Program, Failure> {
        let weights = BlobFolder::new(self.folder());
        match self {
            Self::Text { text, .. } => check(text, &weights).map_err(|e| self.refused(&e)),
            Self::Package { package, .. } => package.check(&weights).map_err(|e| Failure::Input(e.into())),
        }
    }

    /// The failure of a text that was refused.
    fn refused(&self, error: &ReadError) -> Failure {
        Failure::input(format!("{}:{error}", self.path().display()))
    }

    /// The function of a name; without one the only function, or else the package's default, in text `main`.
    pub(crate) fn choose<'a>(
        &self,
        program: &'a Program,
        name: Option<&str>,
    ) -> Result<&'a Function, Failure> {
        let default = match self {
            Self::Text { .. } => MAIN,
            Self::Package { package, .. } => package.default_function(),
        };
        let found = match (name, program.functions.as_slice()) {
            (None, [only]) => Some(only),
            (name, _) => program.function(name.unwrap_or(default)),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = program.functions.iter().map(Function::name).collect();
            let (missing, names) = (name.unwrap_or(default), names.join(", "));
            let path = self.path().display();
            Failure::input(format!("{path}: no function `{missing}`, expected one of {names}"))
        })
    }
}
