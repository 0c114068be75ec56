//! Packages of Core ML, `.mlpackage`: a folder with a manifest, a program as protobuf, and a weight file.
//!
//! ```text
//! X.mlpackage/Manifest.json
//! X.mlpackage/Data/com.apple.CoreML/model.mlmodel
//! X.mlpackage/Data/com.apple.CoreML/weights/weight.bin
//! ```
//!
//! Of models only ML Programs are read. A program is built of a package as of text: by the same reader, from the same statements,
//! under the same rules; and it is written with the same statements. The messages are declared in `proto/model.proto`, which
//! `proto/generate` turns into `proto.rs`.

mod manifest;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
pub(crate) mod proto;
mod weigh;

use std::path::{Path, PathBuf};

use arcane_tensor::{FileError, read_limited, write_atomically, write_folder_atomically};
use prost::Message;

use self::proto::model::Kind;
use crate::read::package::{Refusal, Weights, program};
use crate::{BlobFolder, PrintError, Program, WeightSource, print};

/// Programs keep large arrays in weight files.
const MODEL_BYTES: u64 = 1 << 26;
/// The folder of the items below `Data`.
const AUTHOR: &str = "com.apple.CoreML";

/// Why a package cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file of it cannot be read.
    #[error("{}: cannot read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The manifest is not one, or not of this version.
    #[error("{}: not a manifest of a package: {what}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// The model is no protobuf, or no ML Program.
    #[error("{}: not an ML Program: {what}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// The program is wrong.
    #[error("{}: {place}: {what}{}{expected}", path.display(), if expected.is_empty() { "" } else { ", expected " })]
    Program {
        /// The file.
        path: PathBuf,
        /// The function and the operation.
        place: String,
        /// What is wrong.
        what: String,
        /// What was expected; empty where `what` says it.
        expected: String,
    },
    /// The program cannot be written.
    #[error(transparent)]
    Print(#[from] PrintError),
    /// A file of it cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The files of a package, but for its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmittedPackage {
    /// The model, `model.mlmodel`.
    pub model: Vec<u8>,
    /// The weight file, `weights/weight.bin` beside the model; empty if the model refers to none.
    pub weights: Vec<u8>,
}

/// An open package: its model decoded, its weights untouched.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    program: proto::Program,
    /// The function that runs where none is named.
    first: String,
}

impl Package {
    /// Whether a path is that of a package: a folder with a manifest, or one that is called so.
    pub fn is_at(path: &Path) -> bool {
        path.is_dir()
            && (path.join(manifest::FILE).exists() || path.extension().is_some_and(|e| e == "mlpackage"))
    }

    /// Opens a package.
    ///
    /// # Errors
    /// [`PackageError::Io`], [`PackageError::Manifest`], [`PackageError::Model`].
    pub fn open(folder: &Path) -> Result<Self, PackageError> {
        let path = manifest::model_of(folder)?;
        let bytes = read_file(&path, MODEL_BYTES)?;
        Self::decode(&path, &bytes)
    }

    /// A package whose `model.mlmodel` has these bytes; `path` is its name in errors, and weight files are looked for beside it.
    ///
    /// # Errors
    /// [`PackageError::Model`].
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self, PackageError> {
        let wrong = |what: String| PackageError::Model { path: path.into(), what };
        weigh::model(bytes).map_err(wrong)?;
        let model = proto::Model::decode(bytes).map_err(|e| wrong(e.to_string()))?;
        let other = |name: &str| Err(wrong(format!("it is a {name}, an mlProgram was expected")));
        let program = match model.kind {
            Some(Kind::MlProgram(program)) => program,
            Some(Kind::Pipeline(_)) => return other("pipeline"),
            Some(Kind::PipelineClassifier(_)) => return other("pipelineClassifier"),
            Some(Kind::PipelineRegressor(_)) => return other("pipelineRegressor"),
            Some(Kind::NeuralNetwork(_)) => return other("neuralNetwork"),
            Some(Kind::NeuralNetworkClassifier(_)) => return other("neuralNetworkClassifier"),
            Some(Kind::NeuralNetworkRegressor(_)) => return other("neuralNetworkRegressor"),
            Some(Kind::LinkedModel(_)) => return other("linkedModel"),
            Some(Kind::SerializedModel(_)) => return other("serializedModel"),
            None => return other("model of an unknown kind"),
        };
        let named = model.description.map(|d| d.default_function_name).filter(|name| !name.is_empty());
        Ok(Self { path: path.into(), program, first: named.unwrap_or_else(|| "main".into()) })
    }

    /// The model's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that `@model_path` stands for.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The name of the function that runs where none is named: the one that the model says, or else `main`.
    pub fn default_function(&self) -> &str {
        &self.first
    }

    /// The program, with the arrays of its weight files; the function that runs by default comes first. As for [`crate::read()`].
    ///
    /// # Errors
    /// [`PackageError::Program`] for the first fault of the program or of a weight file.
    pub fn read(&self, weights: &dyn WeightSource) -> Result<Program, PackageError> {
        program(&self.program, &self.first, weights, Weights::Read).map_err(|r| self.refused(r))
    }

    /// Checks the program as [`crate::check()`] does a text.
    ///
    /// # Errors
    /// [`PackageError::Program`].
    pub fn check(&self, weights: &dyn WeightSource) -> Result<Program, PackageError> {
        program(&self.program, &self.first, weights, Weights::Check).map_err(|r| self.refused(r))
    }

    /// The weight files of the package.
    pub fn weights(&self) -> BlobFolder {
        BlobFolder::new(self.folder())
    }

    fn refused(&self, Refusal { place, what, expected }: Refusal) -> PackageError {
        PackageError::Program { path: self.path.clone(), place, what, expected }
    }
}

/// A program as the files of a package. The same program gives the same bytes.
///
/// # Errors
/// [`PrintError`] if a function breaks an invariant, is open ([`crate::Strictness::Open`]), or holds what a package cannot say:
/// inputs and outputs are fp16 (from ios16 on), fp32 or int32.
pub fn print_package(program: &Program) -> Result<EmittedPackage, PrintError> {
    print::package::emit(program)
}

/// Writes a program as a package, as a whole or not at all.
///
/// # Errors
/// [`PackageError::Print`] as for [`print_package`]; [`PackageError::File`] if there is anything but an empty folder at `path`, or it
/// cannot be written.
pub fn write_package(program: &Program, path: &Path) -> Result<(), PackageError> {
    let EmittedPackage { model, weights } = print_package(program)?;
    write_folder_atomically(path, |folder| {
        let items = folder.join(manifest::DATA).join(AUTHOR);
        let weight_folder = items.join(manifest::WEIGHTS);
        std::fs::create_dir_all(&weight_folder).map_err(|source| FileError::Io {
            path: weight_folder.clone(),
            doing: "create",
            source,
        })?;
        write_atomically(&folder.join(manifest::FILE), |w| w.write_all(manifest::text_of().as_bytes()))?;
        write_atomically(&items.join(manifest::MODEL), |w| w.write_all(&model))?;
        if !weights.is_empty() {
            write_atomically(&weight_folder.join("weight.bin"), |w| w.write_all(&weights))?;
        }
        Ok(())
    })
}

/// A regular file of at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, PackageError> {
    let io = |source| PackageError::Io { path: path.into(), source };
    // Asked before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(io(std::io::Error::other("it is no regular file")));
    }
    read_limited(path, limit).map_err(io)
}
