//! What becomes a program: programs in another form, and models.


use arcane_compile::{Precision, mixed, simplify};
use arcane_mil::{PackageError, Program, print, write_package};
use arcane_models::{Source, inference};
use arcane_tensor::{FileError, write_atomically, write_folder_atomically};

use super::{Arguments, Format, Stored, is_writing};
use crate::failure::Failure;
use crate::program::ProgramFile;

/// Tokens that a call takes where neither the user nor the model's context says fewer.
const TOKENS: usize = 256;

/// Writes a program in another form, as it is.
pub(super) fn convert(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.dtype.is_some() || arguments.seq.is_some() || arguments.bin_version.is_some() {
        let what = "it is a program, which keeps its types and shapes; --dtype, --seq and --bin-version are for models";
        return Err(Failure::input(format!("{}: {what}", arguments.source.display())));
    }
    if !arguments.to.is_program() {
        let what = "it is a program, expected --to mlpackage or mil";
        return Err(Failure::input(format!("{}: {what}", arguments.source.display())));
    }
    let program = ProgramFile::open(&arguments.source)?.program(None)?;
    write(&program, arguments)
}

/// Writes the function of a model that gives the logits of a text.
pub(super) fn export(arguments: &Arguments, source: &Source) -> Result<(), Failure> {
    let context = source.config().max_position_embeddings;
    let tokens = arguments.seq.map_or(context.min(TOKENS), |seq| seq as usize);
    if tokens > context {
        return Err(Failure::input(format!(
            "--seq: {tokens} tokens, at most the model's context of {context} were expected"
        )));
    }
    let precision = match arguments.dtype {
        Some(Stored::Fp32) => Precision::Fp32,
        _ => Precision::Fp16,
    };
    let function = inference(source.config(), tokens)
        .map_err(|e| Failure::input(format!("{}: {e}", arguments.source.display())))?;
    let typed = mixed(&simplify(&function), precision);
    let with_weights = source.with_weights(&simplify(&typed));
    write(&Program::new(vec![with_weights]), arguments)
}

fn write(program: &Program, arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.destination;
    if arguments.to == Format::Mil {
        return write_text(program, arguments);
    }
    write_package(program, path).map_err(|error| match &error {
        PackageError::File(file) if is_writing(file) => Failure::Failed(error.into()),
        PackageError::Print(reason) => unwritable(arguments, reason),
        _ => Failure::Input(error.into()),
    })
}

fn unwritable(arguments: &Arguments, reason: &arcane_mil::PrintError) -> Failure {
    Failure::input(format!("{}: {reason}", arguments.source.display()))
}

/// A folder with `model.mil` and the weight file that it refers to.
fn write_text(program: &Program, arguments: &Arguments) -> Result<(), Failure> {
    let emitted = print(program).map_err(|e| unwritable(arguments, &e))?;
    let written = write_folder_atomically(&arguments.destination, |folder| {
        write_atomically(&folder.join("model.mil"), |w| w.write_all(emitted.text.as_bytes()))?;
        if emitted.weights.is_empty() {
            return Ok(());
        }
        let weights = folder.join("weights");
        let create = |source| FileError::Io { path: weights.clone(), doing: "create", source };
        std::fs::create_dir(&weights).map_err(create)?;
        write_atomically(&weights.join("weight.bin"), |w| w.write_all(&emitted.weights))
    });
    written.map_err(|e| if is_writing(&e) { Failure::Failed(e.into()) } else { Failure::Input(e.into()) })
}
