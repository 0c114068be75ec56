//! `arcane eval`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use arcane_train::documents::{self, Document, Dropped};
use arcane_train::evaluation::{Evaluation, default_window, evaluate};
use arcane_train::model::Model;
use serde_json::json;

use crate::device::{Device, DeviceArguments};
use crate::failure::Failure;
use crate::model::ModelArguments;

/// The longest window: the causal mask takes the square of it in bytes.
const MAX_SEQ: i64 = 1 << 16;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Text whose documents are separated by a line <|endoftext|>, JSONL with a field text, or token ids (.bin, .npy).
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Only the first N documents.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Predictions in a window [default: the model's context, at most 1024].
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=MAX_SEQ))]
    seq: Option<u32>,
    /// Print JSON, which is what is printed anyway.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    let (documents, dropped) = read_documents(arguments, &model)?;
    if dropped != Dropped::default() {
        let _ = writeln!(std::io::stderr(), "{}: {dropped}", arguments.data.display());
    }
    let seq = arguments.seq.map_or_else(|| default_window(&model.config), |s| s as usize);
    let chosen = arguments.device.choose(Device::Cpu)?;
    let predictions: u64 = documents.iter().map(|d| d.len().saturating_sub(1) as u64).sum();
    let mut progress = |sums: Evaluation| {
        if std::io::stderr().is_terminal() {
            let (done, loss) = (sums.tokens, sums.loss());
            let _ = write!(std::io::stderr(), "\r{done}/{predictions} predictions  loss {loss:.4} ");
        }
    };
    let start = chosen.environment.clock.now();
    let result = evaluate(&model, &documents, seq, &chosen.environment, &mut progress)
        .map_err(|e| Failure::setup(e, &arguments.data.display().to_string()))?
        .map_err(|e| Failure::Failed(e.into()))?;
    let seconds = chosen.environment.clock.now().saturating_sub(start).as_secs_f64();
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr());
    }
    let value = json!({
        "loss": result.loss(),
        "perplexity": result.loss().exp(),
        "tokens": result.tokens,
        "documents": documents.len(),
        "dropped": {
            "empty": dropped.empty,
            "without_text": dropped.without_text,
            "not_utf8": dropped.not_utf8,
        },
        "seq": seq,
        "device": chosen.device,
        "tok_s": result.tokens as f64 / seconds,
    });
    writeln!(std::io::stdout(), "{value}").map_err(|e| Failure::Failed(e.into()))
}

/// The token ids of each document, and what of the whole file is not among them.
fn read_documents(arguments: &Arguments, model: &Model) -> Result<(Vec<Vec<u32>>, Dropped), Failure> {
    let read = documents::read(&arguments.data, model.config.vocab_size);
    let read = read.map_err(|e| Failure::Input(e.into()))?;
    let limit = arguments.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut tokenizer = None;
    let mut all = Vec::new();
    for document in read.documents.into_iter().take(limit) {
        all.push(match document {
            Document::Ids(ids) => ids,
            Document::Text(text) => {
                if tokenizer.is_none() {
                    tokenizer = Some(arguments.model.open_tokenizer(model)?);
                }
                let tokenizer = tokenizer.as_ref().expect("it was just opened");
                let mut ids = tokenizer.begin().to_vec();
                ids.extend(tokenizer.encode(&text, false).map_err(|e| Failure::Input(e.into()))?);
                ids
            }
        });
    }
    Ok((all, read.dropped))
}
