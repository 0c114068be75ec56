//! `arcane check`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use arcane_mil::{BlobFolder, NoWeights, check, print, read};

use crate::failure::Failure;

/// The file that holds the program where a folder is given.
const PROGRAM_FILE: &str = "model.mil";
/// Programs keep large arrays in weight files.
const PROGRAM_BYTES: u64 = 1 << 28;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// MIL text, or a folder that holds model.mil.
    program: PathBuf,
    /// Print the canonical text; weight files are then read from the program's folder.
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let given = &arguments.program;
    let path = if given.is_dir() { given.join(PROGRAM_FILE) } else { given.clone() };
    let text = read_program(&path)?;
    let refused = |e: &dyn std::fmt::Display| Failure::input(format!("{}:{e}", path.display()));
    let result = if arguments.print {
        let folder = path.parent().unwrap_or(Path::new(""));
        let program = read(&text, &BlobFolder::new(folder)).map_err(|e| refused(&e))?;
        print(&program).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?.text
    } else {
        let program = check(&text, &NoWeights).map_err(|e| refused(&e))?;
        let ops: usize = program.functions.iter().map(|f| f.operations().len()).sum();
        format!("{}: {} functions, {ops} ops, well-typed\n", path.display(), program.functions.len())
    };
    std::io::stdout().write_all(result.as_bytes()).map_err(|e| Failure::Failed(e.into()))
}

fn read_program(path: &Path) -> Result<String, Failure> {
    let wrong = |what: String| Failure::input(format!("{}: {what}", path.display()));
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(PROGRAM_BYTES + 1).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read().map_err(|e| wrong(format!("cannot read the program: {e}")))?;
    if bytes.len() as u64 > PROGRAM_BYTES {
        return Err(wrong(format!("more than {PROGRAM_BYTES} bytes, MIL text was expected")));
    }
    String::from_utf8(bytes).map_err(|e| wrong(format!("not UTF-8 ({e}), MIL text was expected")))
}
