//! `arcane run`.

use std::io::Write;
use std::path::{Path, PathBuf};

use arcane_compile::{Plan, plan_functions};
use arcane_mil::{BlobFolder, Function, TensorType, read};
use arcane_session::{Session, SessionError};
use arcane_tensor::{Tensor, read_npz, write_npz};

use crate::device::{Chosen, Device, DeviceArguments};
use crate::failure::Failure;
use crate::program::{ProgramFile, choose};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// MIL text, or a folder that holds model.mil.
    program: PathBuf,
    /// The folder that `@model_path` in the program stands for [default: the program's].
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
    /// An array for each parameter, by name.
    #[arg(long, value_name = "IN.npz")]
    inputs: PathBuf,
    /// Gets an array for each output, by name.
    #[arg(long, value_name = "OUT.npz")]
    outputs: PathBuf,
    /// The function to run [default: the only one, or main].
    #[arg(long, value_name = "F")]
    function: Option<String>,
    #[command(flatten)]
    device: DeviceArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = ProgramFile::read(&arguments.program)?;
    let weights = BlobFolder::new(arguments.weights.as_deref().unwrap_or(file.folder()));
    let program = read(&file.text, &weights).map_err(|e| file.refused(&e))?;
    let function = choose(&program, arguments.function.as_deref(), &file.path)?;
    let inputs = read_inputs(&arguments.inputs, function)?;
    let chosen = arguments.device.choose(Device::Cpu)?;
    let in_program = |e: &dyn std::fmt::Display| Failure::input(format!("{}: {e}", file.path.display()));
    let plan = plan_functions(std::slice::from_ref(function), &chosen.environment.planning())
        .map_err(|e| in_program(&e))?;
    chosen.report_unmodelled(&plan);
    check_memory(&plan, &chosen).map_err(|e| in_program(&e))?;
    let session = Session::new(plan, &chosen.environment.engines).map_err(|e| in_program(&e))?;
    let outputs = execute(&session, function, &inputs).map_err(|e| Failure::Failed(e.into()))?;
    report_non_finite(&outputs);
    let arrays: Vec<(String, &Tensor)> = outputs.iter().map(|(name, t)| (name.clone(), t)).collect();
    write_npz(&arguments.outputs, &arrays).map_err(|e| Failure::Input(e.into()))
}

/// An array of the declared type for each parameter, in their order.
fn read_inputs(path: &Path, function: &Function) -> Result<Vec<(String, Tensor)>, Failure> {
    let wrong = |what: String| Failure::input(format!("{}: {what}", path.display()));
    let mut arrays = read_npz(path).map_err(|e| Failure::Input(e.into()))?;
    let mut inputs = Vec::with_capacity(arrays.len());
    for p in function.parameters() {
        let expected = function.ty(p.value);
        let Some(i) = arrays.iter().position(|(name, _)| *name == p.name) else {
            return Err(wrong(format!("no array `{}`, {expected} was expected", p.name)));
        };
        let (name, tensor) = arrays.swap_remove(i);
        let found = TensorType::new(tensor.dtype(), tensor.shape());
        if found != *expected {
            return Err(wrong(format!("array `{name}` is {found}, {expected} was expected")));
        }
        inputs.push((name, tensor));
    }
    if let Some((name, _)) = arrays.first() {
        let names: Vec<&str> = function.parameters().iter().map(|p| p.name.as_str()).collect();
        let names = names.join(", ");
        return Err(wrong(format!("array `{name}` belongs to no parameter, expected only {names}")));
    }
    Ok(inputs)
}

/// Refuses a function that takes more memory than there is, before any is taken.
fn check_memory(plan: &Plan, chosen: &Chosen) -> anyhow::Result<()> {
    let Some(available) = chosen.environment.available_bytes else { return Ok(()) };
    let needed = chosen.environment.engines.required_bytes(plan)?;
    if needed > available {
        anyhow::bail!("running it takes {needed} bytes of memory, {available} are available");
    }
    Ok(())
}

fn execute(
    session: &Session,
    function: &Function,
    inputs: &[(String, Tensor)],
) -> Result<Vec<(String, Tensor)>, SessionError> {
    for (name, tensor) in inputs {
        session.set(name, tensor)?;
    }
    session.call(function.name())?;
    function.outputs().iter().map(|o| Ok((o.name.clone(), session.get(&o.name)?))).collect()
}

/// Says on stderr which outputs hold infinities or NaN: they may be meant, but never pass unseen.
fn report_non_finite(outputs: &[(String, Tensor)]) {
    for (name, tensor) in outputs.iter().filter(|(_, t)| t.dtype().is_float()) {
        let count = tensor.to_f64s().iter().filter(|x| !x.is_finite()).count();
        if count > 0 {
            let total = tensor.len();
            let _ = writeln!(std::io::stderr(), "output `{name}`: {count} of {total} values are not finite");
        }
    }
}
