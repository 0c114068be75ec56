//! `arcane check`.

use std::io::Write;
use std::path::PathBuf;

use arcane_mil::{BlobFolder, NoWeights, check, print, read};

use crate::failure::Failure;
use crate::program::ProgramFile;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// MIL text, or a folder that holds model.mil.
    program: PathBuf,
    /// Print the canonical text; weight files are then read from the program's folder.
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = ProgramFile::read(&arguments.program)?;
    let path = file.path.display();
    let result = if arguments.print {
        let program = read(&file.text, &BlobFolder::new(file.folder())).map_err(|e| file.refused(&e))?;
        print(&program).map_err(|e| Failure::input(format!("{path}: {e}")))?.text
    } else {
        let program = check(&file.text, &NoWeights).map_err(|e| file.refused(&e))?;
        let ops: usize = program.functions.iter().map(|f| f.operations().len()).sum();
        format!("{path}: {} functions, {ops} ops, well-typed\n", program.functions.len())
    };
    std::io::stdout().write_all(result.as_bytes()).map_err(|e| Failure::Failed(e.into()))
}
