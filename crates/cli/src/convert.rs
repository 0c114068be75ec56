//! `arcane convert`.

mod program;

use std::io::Write;
use std::path::{Path, PathBuf};

use arcane_models::{ExportError, Llama2cVersion, write_gguf, write_hugging_face, write_llama2c};
use arcane_tensor::{Encoding, FileError};
use arcane_train::model::open_source;
use clap::ValueEnum;

use crate::failure::Failure;
use crate::program::ProgramFile;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The model: a run, a checkpoint, a Hugging Face folder, a llama2.c .bin or a GGUF file. Or a program, for mlpackage and mil:
    /// MIL text, a folder that holds model.mil, or an .mlpackage.
    source: PathBuf,
    /// What to write; nothing may be there but, for a folder, an empty one.
    destination: PathBuf,
    /// The format.
    #[arg(long, value_enum)]
    to: Format,
    /// How weights are stored [default: as they are; a .bin always holds fp32]. Gains in GGUF are always fp32. Of a model that
    /// becomes a program, what it computes in: fp16, as Core ML has it, or fp32 [default: fp16].
    #[arg(long, value_enum)]
    dtype: Option<Stored>,
    /// The version of a .bin; llama2.c's run reads 0 [default: 0].
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(u8).range(0..=1))]
    bin_version: Option<u8>,
    /// Tokens that a call of the program takes, where a model becomes one [default: the model's context, at most 256].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seq: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Hugging Face folder.
    Hf,
    /// A .bin file of llama2.c.
    Bin,
    /// A GGUF file.
    Gguf,
    /// A package of Core ML: `main(tokens) -> logits` of a model, or a program as it is.
    Mlpackage,
    /// The same as text: a folder with model.mil and its weights.
    Mil,
}

impl Format {
    fn is_program(self) -> bool {
        matches!(self, Self::Mlpackage | Self::Mil)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stored {
    #[value(alias = "f32")]
    Fp32,
    #[value(alias = "f16")]
    Fp16,
    Bf16,
    /// Blocks of 32 signed bytes with a scale; GGUF only.
    #[value(name = "q8_0")]
    Q8_0,
}

impl Stored {
    fn encoding(self) -> Encoding {
        match self {
            Self::Fp32 => Encoding::F32,
            Self::Fp16 => Encoding::F16,
            Self::Bf16 => Encoding::Bf16,
            Self::Q8_0 => Encoding::Q8_0,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (to, path) = (arguments.to, &arguments.destination);
    let encoding = arguments.dtype.map(Stored::encoding);
    if arguments.bin_version.is_some() && to != Format::Bin {
        return Err(Failure::input("--bin-version: only a .bin has one, expected --to bin"));
    }
    if to == Format::Bin && encoding.is_some_and(|e| e != Encoding::F32) {
        return Err(Failure::input("--dtype: a .bin holds fp32 alone, expected fp32"));
    }
    if to == Format::Hf && encoding.is_some_and(|e| e.dtype().is_none()) {
        return Err(Failure::input(
            "--dtype: a Hugging Face folder holds no q8_0, expected fp32, fp16 or bf16",
        ));
    }
    if to.is_program() && !matches!(arguments.dtype, None | Some(Stored::Fp32 | Stored::Fp16)) {
        return Err(Failure::input("--dtype: a program computes in fp32 or fp16"));
    }
    if ProgramFile::is_at(&arguments.source) {
        program::convert(arguments)?;
        return done(path);
    }
    if !to.is_program() && arguments.seq.is_some() {
        return Err(Failure::input(
            "--seq: only a program takes a number of tokens, expected --to mlpackage or mil",
        ));
    }
    let source = open_source(&arguments.source).map_err(|e| Failure::setup(e, "SOURCE"))?;
    let remarks = match to {
        Format::Mlpackage | Format::Mil => {
            program::export(arguments, &source)?;
            return done(path);
        }
        Format::Hf => write_hugging_face(&source, path, encoding.and_then(Encoding::dtype)),
        Format::Bin if arguments.bin_version == Some(1) => write_llama2c(&source, path, Llama2cVersion::V1),
        Format::Bin => write_llama2c(&source, path, Llama2cVersion::V0),
        Format::Gguf => write_gguf(&source, path, encoding),
    };
    for remark in remarks.map_err(failure)? {
        let _ = writeln!(std::io::stderr(), "{remark}");
    }
    done(path)
}

fn done(path: &Path) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{}", path.display()).map_err(|e| Failure::Failed(e.into()))
}

/// A place that cannot be written to is wrong input; what goes wrong while writing is not.
fn failure(error: ExportError) -> Failure {
    match &error {
        ExportError::File(file) if is_writing(file) => Failure::Failed(error.into()),
        _ => Failure::Input(error.into()),
    }
}

fn is_writing(error: &FileError) -> bool {
    matches!(error, FileError::Io { doing, .. } if *doing == "write" || doing.starts_with("sync"))
}
