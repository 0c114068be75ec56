//! `arcane plan`.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arcane_chip::Chip;
use arcane_chip::price::{compile_ns, load_ns, op_prices, program_ns, relative_half_width, staging_ns};
use arcane_compile::{
    Place, Placement, Plan, PlanOptions, Precision, Prediction, Work, plan, plan_functions,
};
use arcane_mil::{Function, Op};
use arcane_models::LlamaConfig;
use arcane_tensor::write_atomically;
use arcane_train::config::{Config, OptimizerConfig};
use arcane_train::model::{Model, known_preset, read_model_config};
use arcane_train::program::{ProgramOptions, training_program};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::program::ProgramFile;
use crate::train::read_text;

/// The precision in which plans are made, and what it is called.
const PRECISION: Precision = Precision::Engine;

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Arguments {
    /// A configuration of training, a preset, a Hugging Face config.json, or a MIL program.
    what: PathBuf,
    /// The chip.
    #[arg(long, value_name = "CHIP", default_value = "m4")]
    chip: String,
    /// Sequences in a micro-batch [default: the configuration's, else 1].
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Predictions in a sequence [default: the configuration's, else 256].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seq: Option<u32>,
    /// Tokens of an update, in as many micro-batches as that takes [default: the configuration's, else one].
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u64).range(1..))]
    tokens_per_update: Option<u64>,
    /// The function of a program [default: the only one, or main].
    #[arg(long, value_name = "F")]
    function: Option<String>,
    /// Price a program exactly as it is written.
    #[arg(long)]
    as_is: bool,
    /// Put everything on the engine that it accepts, small programs without a matrix product, too
    #[arg(long, conflicts_with = "as_is")]
    all_legal: bool,
    /// Write the plan into this new folder: plan.json, and the text and weights of each program.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say why each thing is where it is.
    #[arg(long)]
    explain: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A plan with what it is for.
struct Planned {
    plan: Plan,
    prediction: Prediction,
    /// Useful floating-point operations, and tokens, of what is predicted.
    flops: f64,
    tokens: u64,
    /// What JSON has beside the contract's keys.
    more: Value,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let chip = Chip::named(&arguments.chip).map_err(|e| Failure::input(format!("--chip: {e}")))?;
    let name = arguments.what.display().to_string();
    let planned = match training(arguments)? {
        Some(training) => planned_training(&training, &arguments.options(chip), chip)
            .map_err(|e| Failure::Failed(e.context(name)))?,
        None => planned_program(arguments, chip)?,
    };
    if let Some(folder) = &arguments.out {
        write_plan(&planned.plan, folder)?;
    }
    let text = if arguments.json {
        format!("{}\n", to_json(&planned, chip))
    } else {
        to_text(&planned, chip, arguments.explain)
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Failure::Failed(e.into()))
}

impl Planned {
    /// Whether it is a single call of a program, and no training.
    fn is_program(&self) -> bool {
        self.tokens == 0
    }
}

/// Writes a plan as files into a folder that does not exist yet.
fn write_plan(plan: &Plan, folder: &Path) -> Result<(), Failure> {
    let wrong = |what: String| Failure::input(format!("--out {}: {what}", folder.display()));
    if folder.symlink_metadata().is_ok() {
        return Err(wrong("it exists, a new folder was expected".into()));
    }
    let files = plan.to_files().map_err(|e| Failure::Failed(e.into()))?;
    // `plan.json` comes last: a folder without it is no plan.
    let write = || -> std::io::Result<()> {
        std::fs::create_dir(folder)?;
        for (path, bytes) in files.iter().rev() {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            write_atomically(&path, |w| w.write_all(bytes)).map_err(std::io::Error::other)?;
        }
        Ok(())
    };
    write().map_err(|e| {
        // Nothing half-written stays; that it cannot be removed either adds nothing to the error.
        let _ = std::fs::remove_dir_all(folder);
        wrong(e.to_string())
    })
}

/// A model and how it is trained.
struct Training {
    model: LlamaConfig,
    optimizer: OptimizerConfig,
    batch: usize,
    seq: usize,
    accumulate: usize,
}

/// What is to be trained, if it is not a program that was given.
fn training(arguments: &Arguments) -> Result<Option<Training>, Failure> {
    let path = &arguments.what;
    let shown = path.display().to_string();
    let is = |extension: &str| path.extension().is_some_and(|e| e == extension);
    let (mut training, tokens) = if is("toml") {
        let (name, text) = read_text(Some(path))?;
        let config = Config::parse(&text, &name, &[]).map_err(|e| Failure::Input(e.into()))?;
        let model = Model::open(&config).map_err(|e| Failure::setup(e, &shown))?.config;
        let optimizer = config.optimizer.clone();
        let (batch, seq, accumulate) = (config.train.batch, config.data.seq, config.train.accumulate);
        (Training { model, optimizer, batch, seq, accumulate }, None)
    } else if is("json") || path.join("config.json").is_file() {
        let file = if is("json") { path.clone() } else { path.join("config.json") };
        let model = read_model_config(&file).map_err(|e| Failure::setup(e, &shown))?;
        (of_model(model), arguments.tokens_per_update)
    } else if !path.exists() {
        let model = known_preset(&shown).map_err(|e| Failure::setup(e, "plan"))?;
        (of_model(model), arguments.tokens_per_update)
    } else {
        return Ok(None);
    };
    training.batch = arguments.batch.map_or(training.batch, |b| b as usize);
    training.seq = arguments.seq.map_or(training.seq, |s| s as usize);
    if let Some(tokens) = tokens.or(arguments.tokens_per_update) {
        let micro_batch = (training.batch * training.seq) as u64;
        training.accumulate = usize::try_from(tokens.div_ceil(micro_batch)).unwrap_or(usize::MAX);
    }
    Ok(Some(training))
}

/// A model with the usual way of training it.
fn of_model(model: LlamaConfig) -> Training {
    Training { model, optimizer: OptimizerConfig::default(), batch: 1, seq: 256, accumulate: 1 }
}

fn planned_training(
    training: &Training,
    options: &PlanOptions,
    chip: &'static Chip,
) -> anyhow::Result<Planned> {
    let Training { model, optimizer, batch, seq, accumulate } = training;
    let (batch, seq, accumulate) = (*batch, *seq, *accumulate);
    let needed = ProgramOptions { batch, seq, accumulate, evaluate: false, optimizer };
    let program = training_program(model, &needed)?;
    let plan = plan(&program, options)?;
    let prediction = plan.predict_update(accumulate, chip);
    let tokens = (batch * seq * accumulate) as u64;
    let attention = 12.0 * model.num_hidden_layers as f64 * model.hidden_size as f64 * seq as f64;
    let flops = (6.0 * model.parameter_count() as f64 + attention) * tokens as f64;
    let more = json!({
        "params": model.parameter_count(),
        "batch": batch,
        "seq": seq,
        "accumulate": accumulate,
        "layers": model.num_hidden_layers,
    });
    Ok(Planned { plan, prediction, flops, tokens, more })
}

impl Arguments {
    fn options(&self, chip: &'static Chip) -> PlanOptions {
        let placement = if self.all_legal { Placement::Legal } else { Placement::Price };
        PlanOptions { precision: PRECISION, chip: Some(chip), freeze: true, placement }
    }
}

fn planned_program(arguments: &Arguments, chip: &'static Chip) -> Result<Planned, Failure> {
    let file = ProgramFile::open(&arguments.what)?;
    // As it is written, equal weights are one; else only types matter, and large files need not be read.
    let read = arguments.as_is.then(|| file.program(None).ok()).flatten();
    let program = match read {
        Some(program) => program,
        None => file.checked()?,
    };
    let function = file.choose(&program, arguments.function.as_deref())?;
    let failed = |e: anyhow::Error| Failure::Failed(e.context(file.path().display().to_string()));
    let flops = program_ns(chip, function).flops;
    let (plan, prediction) = if arguments.as_is {
        as_is(function, chip).map_err(failed)?
    } else {
        compiled(function, &arguments.options(chip), chip).map_err(failed)?
    };
    Ok(Planned { plan, prediction, flops, tokens: 0, more: json!({ "function": function.name() }) })
}

fn compiled(
    function: &Function,
    options: &PlanOptions,
    chip: &'static Chip,
) -> anyhow::Result<(Plan, Prediction)> {
    let plan = plan_functions(std::slice::from_ref(function), options)?;
    let call = plan.call(function.name()).context("the plan has no call of the function")?;
    let prediction = plan.predict(call, chip);
    Ok((plan, prediction))
}

/// The function as one program of the engine, whatever the chip's rules.
fn as_is(function: &Function, chip: &'static Chip) -> anyhow::Result<(Plan, Prediction)> {
    let mut plan = plan_functions(std::slice::from_ref(function), &PlanOptions::default())?;
    plan.chip = Some(chip.name.clone());
    plan.places.fill(Place::Engine);
    plan.program.functions = vec![function.clone()];
    for step in plan.calls.iter_mut().flat_map(|c| &mut c.steps) {
        if let Work::Run { place, .. } = &mut step.work {
            *place = Place::Engine;
        }
    }
    let call = plan.call(function.name()).context("the plan has no call of the function")?;
    let mut prediction = plan.predict(call, chip);
    // A caller has plain arrays.
    let staging = staging_ns(chip, function) * 1e-6;
    prediction.transfer_ms += staging;
    prediction.total_ms += staging;
    Ok((plan, prediction))
}

/// The engine's programs of a plan.
fn engine_functions(plan: &Plan) -> impl Iterator<Item = &Function> {
    let placed = plan.program.functions.iter().zip(&plan.places);
    placed.filter(|(_, place)| **place == Place::Engine).map(|(f, _)| f)
}

/// What each op of the engine's programs takes, constants left out.
fn op_list(plan: &Plan, chip: &Chip) -> Vec<Value> {
    let mut list = Vec::new();
    for f in engine_functions(plan) {
        for (operation, price) in f.operations().iter().zip(op_prices(chip, f)) {
            if matches!(operation.op, Op::Const(_)) {
                continue;
            }
            list.push(json!({
                "program": f.name(),
                "path": f.value(operation.results[0]).path,
                "op": operation.op.name(),
                "ms": price.total_ns * 1e-6,
                "compute_ms": price.compute_ns * 1e-6,
                "weight_ms": price.weight_ns * 1e-6,
                "activation_ms": price.activation_ns * 1e-6,
            }));
        }
    }
    list
}

/// Useful operations a second as a part of the engine's peak.
fn utilization(planned: &Planned, chip: &Chip) -> f64 {
    let peak = *chip.rates.peak_tflops * 1e9;
    if planned.prediction.total_ms > 0.0 { planned.flops / (planned.prediction.total_ms * peak) } else { 0.0 }
}

fn to_json(planned: &Planned, chip: &Chip) -> Value {
    let p = &planned.prediction;
    let mut json = json!({
        "chip": chip.name,
        "predicted_ms": p.total_ms,
        "engine_ms": p.engine_ms,
        "host_ms": p.host_ms,
        "transfer_ms": p.transfer_ms,
        "critical_host_share": p.critical_host_share,
        "dispatches": p.dispatches,
        "programs": planned.plan.engine_programs(),
        "flops": planned.flops,
        "tokens": planned.tokens,
        "utilization": utilization(planned, chip),
        "predicted_mj": p.energy_mj,
        "uncertainty": relative_half_width(chip),
        "floor_ms": p.dispatches as f64 * *chip.rates.floor_us * 1e-3,
        "compile_ms": engine_functions(&planned.plan).fold(0.0, |ns, f| ns + compile_ns(chip, f)) * 1e-6,
        "load_ms": engine_functions(&planned.plan).count() as f64 * load_ns(chip) * 1e-6,
        "hash": format!("{:016x}", planned.plan.hash()),
        "reasons": planned.plan.reasons,
    });
    if let (Value::Object(json), Value::Object(more)) = (&mut json, &planned.more) {
        json.extend(more.clone());
        if planned.is_program() {
            json.insert("ops".into(), op_list(&planned.plan, chip).into());
        }
    }
    json
}

fn to_text(planned: &Planned, chip: &Chip, explain: bool) -> String {
    let (plan, p) = (&planned.plan, &planned.prediction);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: {:.3} ms modelled (± {:.0} %), of which engine {:.3}, host {:.3}, transfer {:.3} beside each other",
        chip.name,
        p.total_ms,
        relative_half_width(chip) * 100.0,
        p.engine_ms,
        p.host_ms,
        p.transfer_ms
    );
    let _ = writeln!(
        text,
        "{} dispatches of {} programs, {:.1} % of the peak, host on {:.0} % of the critical path, {:.1} mJ",
        p.dispatches,
        plan.engine_programs(),
        utilization(planned, chip) * 100.0,
        p.critical_host_share * 100.0,
        p.energy_mj
    );
    if planned.tokens > 0 {
        let rate = planned.tokens as f64 / p.total_ms * 1e3;
        let _ = writeln!(text, "{} tokens an update, {rate:.0} tokens/s", planned.tokens);
    }
    let _ = writeln!(
        text,
        "\n{:32} {:6} {:>5} {:>5} {:>8} {:>9}",
        "program", "place", "runs", "ops", "moves", "ms"
    );
    for (f, place) in plan.program.functions.iter().zip(&plan.places) {
        let runs =
            plan.calls.iter().flat_map(arcane_compile::Call::runs).filter(|(name, _)| *name == f.name());
        let ns = match place {
            Place::Engine => program_ns(chip, f).total_ns,
            Place::Host => arcane_chip::price::host_ns(chip, f),
        };
        let moves =
            f.operations().iter().filter(|o| matches!(o.op, Op::Reshape { .. } | Op::Transpose { .. }));
        let _ = writeln!(
            text,
            "{:32} {:6} {:5} {:5} {:8} {:9.3}",
            f.name(),
            place.name(),
            runs.count(),
            f.operations().len(),
            moves.count(),
            ns * 1e-6
        );
    }
    if planned.is_program() {
        let _ = writeln!(
            text,
            "\n{:32} {:24} {:>9} {:>9} {:>9} {:>9}",
            "op", "path", "ms", "products", "weights", "moves"
        );
        for op in op_list(plan, chip) {
            let ms = |key: &str| op[key].as_f64().unwrap_or_default();
            let name = |key: &str| op[key].as_str().unwrap_or_default();
            let _ = writeln!(
                text,
                "{:32} {:24} {:9.4} {:9.4} {:9.4} {:9.4}",
                name("op"),
                name("path"),
                ms("ms"),
                ms("compute_ms"),
                ms("weight_ms"),
                ms("activation_ms")
            );
        }
    }
    if explain {
        let _ = writeln!(text);
        for reason in &plan.reasons {
            let _ = writeln!(text, "{reason}");
        }
        let _ = writeln!(text, "\n{plan}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_planned_with_everything_the_contract_names() {
        let chip = Chip::named("m4").unwrap();
        let training = Training { accumulate: 2, ..of_model(known_preset("stories260k").unwrap()) };
        let planned = planned_training(
            &training,
            &PlanOptions { precision: PRECISION, chip: Some(chip), ..PlanOptions::default() },
            chip,
        )
        .unwrap();
        let json = to_json(&planned, chip);
        for key in [
            "predicted_ms",
            "engine_ms",
            "host_ms",
            "transfer_ms",
            "critical_host_share",
            "flops",
            "utilization",
            "predicted_mj",
            "uncertainty",
        ] {
            assert!(json[key].as_f64().is_some_and(|x| x.is_finite() && x >= 0.0), "{key} in {json}");
        }
        assert_eq!((json["tokens"].as_u64(), json["chip"].as_str()), (Some(512), Some("m4")));
        assert!(to_text(&planned, chip, true).contains("ops repeat"));
    }
}
