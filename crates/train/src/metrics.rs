//! `metrics.jsonl`: one object an update.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use arcane_tensor::{FileError, write_atomically};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::alarm::{Alarm, Outlier, Quantity};

/// What can be wrong with the file of metrics. Every message starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// It cannot be read or written.
    #[error("{}: cannot {doing} the metrics: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A line that is not the last one is no object with a step.
    #[error("{}:{line}:1: not a metrics line ({what}), expected an object with a `step`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be replaced by its first part.
    #[error(transparent)]
    Replace(#[from] FileError),
}

/// What is recorded of an update.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Metrics {
    /// The update, from 1.
    pub step: u64,
    /// The unscaled mean loss before the update, in nats.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// The norm of all gradients together, before clipping; NaN for an update that was skipped.
    pub grad_norm: f64,
    /// Tokens taken from the data so far.
    pub tokens: u64,
    /// How long the update took, in milliseconds.
    pub ms: f64,
    /// The factor on the loss.
    pub loss_scale: f64,
    /// Whether the update was skipped because a gradient was not finite; written where true.
    pub skipped: bool,
    /// The mean loss over the validation data after the update, where it was computed.
    pub valid_loss: Option<f64>,
    /// The same in bits a byte of text, where the validation data are text.
    pub valid_bits_per_byte: Option<f64>,
    /// On the simulated engine: predicted time, in milliseconds.
    pub predicted_ms: Option<f64>,
    /// On the simulated engine: predicted energy, in millijoules.
    pub predicted_mj: Option<f64>,
    /// Where the loss is far above those before.
    pub loss_outlier: Option<Outlier>,
    /// Where the norm of the gradients is far above those before.
    pub grad_norm_outlier: Option<Outlier>,
}

/// A line as it is read.
#[derive(Deserialize)]
struct Line {
    step: u64,
    #[serde(default)]
    loss: Option<f64>,
    #[serde(default)]
    lr: f64,
    #[serde(default)]
    grad_norm: Option<f64>,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    ms: f64,
    #[serde(default)]
    loss_scale: f64,
    #[serde(default)]
    skipped: bool,
    #[serde(default)]
    valid_loss: Option<f64>,
    #[serde(default)]
    valid_bits_per_byte: Option<f64>,
    #[serde(default)]
    predicted_ms: Option<f64>,
    #[serde(default)]
    predicted_mj: Option<f64>,
    #[serde(default)]
    nonfinite: BTreeMap<String, String>,
    #[serde(default)]
    alarms: Vec<Alarm>,
}

impl Metrics {
    /// What is unusual about the update.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> + use<> {
        let outlier = |of, value, outlier: Option<Outlier>| {
            outlier.map(|outlier| Alarm::Outlier { of, value, outlier })
        };
        let not_finite = |of, value: f64| (!value.is_finite()).then_some(Alarm::NotFinite { of, value });
        let (loss, grad_norm) = (self.loss, self.grad_norm);
        [
            not_finite(Quantity::Loss, loss).or(outlier(Quantity::Loss, loss, self.loss_outlier)),
            self.skipped
                .then_some(Alarm::Skipped { loss_scale: self.loss_scale })
                .or(not_finite(Quantity::GradNorm, grad_norm))
                .or(outlier(Quantity::GradNorm, grad_norm, self.grad_norm_outlier)),
        ]
        .into_iter()
        .flatten()
    }

    /// Reads a line; the same metrics as those that were written.
    fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let line: Line = serde_json::from_slice(line)?;
        // What is `null` was not finite.
        let value = |key: &str, value: Option<f64>| {
            value.or_else(|| line.nonfinite.get(key).and_then(|text| text.parse().ok()))
        };
        let outlier_of = |quantity| {
            line.alarms.iter().find_map(|alarm| match alarm {
                Alarm::Outlier { of, outlier, .. } if *of == quantity => Some(*outlier),
                _ => None,
            })
        };
        Ok(Self {
            step: line.step,
            loss: value("loss", line.loss).unwrap_or(f64::NAN),
            lr: line.lr,
            grad_norm: value("grad_norm", line.grad_norm).unwrap_or(f64::NAN),
            tokens: line.tokens,
            ms: line.ms,
            loss_scale: line.loss_scale,
            skipped: line.skipped,
            valid_loss: value("valid_loss", line.valid_loss),
            valid_bits_per_byte: value("valid_bits_per_byte", line.valid_bits_per_byte),
            predicted_ms: line.predicted_ms,
            predicted_mj: line.predicted_mj,
            loss_outlier: outlier_of(Quantity::Loss),
            grad_norm_outlier: outlier_of(Quantity::GradNorm),
        })
    }

    /// The line, with the newline. Numbers have as many digits as it takes to read the same `f64` back. JSON has no NaN and
    /// no infinity: they are `null`, and the object `nonfinite` says which (`{"loss":"NaN"}`). Where there are alarms,
    /// `alarms` lists them (`[{"kind":"outlier","of":"loss","mean":2.3,"deviations":7.5}]`).
    fn line(&self) -> String {
        let mut line = Map::new();
        let mut nonfinite = Map::new();
        let mut put = |key: &str, value: Option<f64>| {
            let Some(value) = value else { return };
            if !value.is_finite() {
                nonfinite.insert(key.into(), json!(value.to_string()));
            }
            line.insert(key.into(), json!(value));
        };
        put("loss", Some(self.loss));
        put("lr", Some(self.lr));
        put("grad_norm", Some(self.grad_norm));
        put("ms", Some(self.ms));
        put("loss_scale", Some(self.loss_scale));
        put("valid_loss", self.valid_loss);
        put("valid_bits_per_byte", self.valid_bits_per_byte);
        put("predicted_ms", self.predicted_ms);
        put("predicted_mj", self.predicted_mj);
        line.shift_insert(0, "step".into(), json!(self.step));
        line.shift_insert(4, "tokens".into(), json!(self.tokens));
        if self.skipped {
            line.insert("skipped".into(), json!(true));
        }
        if !nonfinite.is_empty() {
            line.insert("nonfinite".into(), Value::Object(nonfinite));
        }
        let alarms: Vec<Alarm> = self.alarms().collect();
        if !alarms.is_empty() {
            line.insert("alarms".into(), json!(alarms));
        }
        format!("{}\n", Value::Object(line))
    }
}

/// An open file of metrics.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Starts a new file.
    ///
    /// # Errors
    /// [`MetricsError::Io`], also if the file exists.
    pub fn create(path: &Path) -> Result<Self, MetricsError> {
        let file = File::options().append(true).create_new(true).open(path);
        let file = file.map_err(|source| MetricsError::Io { path: path.into(), doing: "create", source })?;
        Ok(Self { path: path.into(), file })
    }

    /// Goes on after update `last_step`: lines past it and a torn last line are cut first, all at once. A file that does not
    /// exist is started. Gives the metrics that are left, too.
    ///
    /// # Errors
    /// [`MetricsError`]; a line that cannot be read and is not the last is an error, nothing is cut then.
    pub fn resume(path: &Path, last_step: u64) -> Result<(Self, Vec<Metrics>), MetricsError> {
        let io = |doing| move |source| MetricsError::Io { path: path.into(), doing, source };
        let old = match fs::read(path) {
            Ok(old) => old,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Self::create(path)?, Vec::new())),
            Err(e) => return Err(io("read")(e)),
        };
        let Kept { text, metrics } = kept_lines(path, &old, last_step)?;
        if text != old {
            write_atomically(path, |w| w.write_all(&text))?;
        }
        let file = File::options().append(true).open(path).map_err(io("open"))?;
        Ok((Self { path: path.into(), file }, metrics))
    }

    /// Adds a line; it is with the operating system when this returns.
    ///
    /// # Errors
    /// [`MetricsError::Io`].
    pub fn append(&mut self, metrics: &Metrics) -> Result<(), MetricsError> {
        // One write, no buffer: a line is never half in the file unless the disk is full.
        self.file.write_all(metrics.line().as_bytes()).map_err(|source| MetricsError::Io {
            path: self.path.clone(),
            doing: "write",
            source,
        })
    }

    /// Makes all lines durable, as a checkpoint that counts on them has to.
    ///
    /// # Errors
    /// [`MetricsError::Io`].
    pub fn sync(&self) -> Result<(), MetricsError> {
        self.file.sync_data().map_err(|source| MetricsError::Io {
            path: self.path.clone(),
            doing: "synchronise",
            source,
        })
    }
}

/// Reads the metrics of a run; a torn last line is left out, and nothing is changed.
///
/// # Errors
/// [`MetricsError`].
pub fn read_metrics(path: &Path) -> Result<Vec<Metrics>, MetricsError> {
    let text =
        fs::read(path).map_err(|source| MetricsError::Io { path: path.into(), doing: "read", source })?;
    Ok(kept_lines(path, &text, u64::MAX)?.metrics)
}

struct Kept {
    text: Vec<u8>,
    metrics: Vec<Metrics>,
}

fn kept_lines(path: &Path, old: &[u8], last_step: u64) -> Result<Kept, MetricsError> {
    let mut kept = Kept { text: Vec::with_capacity(old.len()), metrics: Vec::new() };
    let mut lines = old.split_inclusive(|&b| b == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match Metrics::parse(text) {
            Ok(metrics) if metrics.step <= last_step => {
                kept.text.extend_from_slice(text);
                kept.text.push(b'\n');
                kept.metrics.push(metrics);
            }
            Ok(_) => {}
            Err(_) if lines.peek().is_none() => {}
            Err(e) => {
                return Err(MetricsError::Line { path: path.into(), line: index + 1, what: e.to_string() });
            }
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: u64) -> Metrics {
        Metrics {
            step,
            loss: 0.1 + 0.2,
            lr: 3e-4,
            grad_norm: 1e-300,
            tokens: step * 1024,
            ..Metrics::default()
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_documented_keys_in_order_and_all_digits() {
        let line = metrics(1).line();
        assert_eq!(
            line,
            "{\"step\":1,\"loss\":0.30000000000000004,\"lr\":0.0003,\"grad_norm\":1e-300,\"tokens\":1024,\"ms\":0.0,\
             \"loss_scale\":0.0}\n"
        );
        let sim =
            Metrics { predicted_ms: Some(1.5), predicted_mj: Some(2.0), skipped: true, ..metrics(1) }.line();
        assert!(sim.ends_with(",\"predicted_ms\":1.5,\"predicted_mj\":2.0,\"skipped\":true,\"alarms\":[{\"kind\":\"skipped\"}]}\n"), "{sim}");
    }

    #[test]
    fn values_that_are_not_finite_are_null_and_marked() {
        let line = Metrics { loss: f64::NAN, grad_norm: f64::INFINITY, ..metrics(1) }.line();
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["loss"], &value["grad_norm"], &value["lr"]),
            (&Value::Null, &Value::Null, &json!(3e-4))
        );
        assert_eq!(value["nonfinite"], json!({"loss": "NaN", "grad_norm": "inf"}));
        assert!(serde_json::from_str::<Value>(&metrics(1).line()).unwrap().get("nonfinite").is_none());
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let outlier = Outlier { mean: 0.1 + 0.7, deviations: 9.0 / 1.1 };
        let all = Metrics {
            ms: 1.0 / 3.0,
            loss_scale: 65536.0,
            valid_loss: Some(f64::INFINITY),
            valid_bits_per_byte: Some(1.7),
            predicted_ms: Some(1.5),
            predicted_mj: Some(2.5),
            loss_outlier: Some(outlier),
            grad_norm_outlier: Some(Outlier { mean: 2.0, ..outlier }),
            ..metrics(7)
        };
        assert_eq!(Metrics::parse(all.line().as_bytes()).unwrap(), all);
        // Losses of many magnitudes: a digit that is lost changes what is computed from them after a stop.
        for i in 1..2000 {
            let loss = (f64::from(i) * 0.37).exp2() / 1e120 * 1.1;
            let line = Metrics { loss, ..metrics(1) }.line();
            assert_eq!(Metrics::parse(line.as_bytes()).unwrap().loss, loss);
        }
        let lost = Metrics { loss: f64::NEG_INFINITY, grad_norm: f64::NAN, skipped: true, ..metrics(1) };
        let read = Metrics::parse(lost.line().as_bytes()).unwrap();
        assert!(read.grad_norm.is_nan());
        assert_eq!((read.loss, read.skipped, read.loss_outlier), (f64::NEG_INFINITY, true, None));
    }

    #[test]
    fn alarms_are_in_the_line() {
        let alarms = |metrics: Metrics| {
            let line: Value = serde_json::from_str(&metrics.line()).unwrap();
            line.get("alarms").cloned()
        };
        assert_eq!(alarms(metrics(1)), None);
        let outlier = Some(Outlier { mean: 2.5, deviations: 7.5 });
        assert_eq!(
            alarms(Metrics { loss_outlier: outlier, grad_norm: f64::INFINITY, ..metrics(1) }),
            Some(json!([
                {"kind": "outlier", "of": "loss", "mean": 2.5, "deviations": 7.5},
                {"kind": "not_finite", "of": "grad_norm"},
            ]))
        );
        // A skipped update has no norm; that is one alarm.
        assert_eq!(
            alarms(Metrics { skipped: true, grad_norm: f64::NAN, loss: f64::NAN, ..metrics(1) }),
            Some(json!([{"kind": "not_finite", "of": "loss"}, {"kind": "skipped"}]))
        );
    }

    #[test]
    fn resuming_cuts_later_lines_and_a_torn_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        (1..=5).for_each(|step| log.append(&metrics(step)).unwrap());
        assert!(MetricsLog::create(&path).is_err());
        drop(log);
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\"step\":6,\"lo");
        fs::write(&path, &text).unwrap();

        let (mut log, before) = MetricsLog::resume(&path, 3).unwrap();
        assert_eq!(before, [1, 2, 3].map(metrics));
        log.append(&metrics(4)).unwrap();
        log.sync().unwrap();
        let steps: Vec<_> = lines(&path).iter().map(|l| l["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_cut_anywhere_resumes_with_its_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text: String = (1..=3).map(|step| metrics(step).line()).collect();
        for n in 0..=text.len() {
            fs::write(&path, &text[..n]).unwrap();
            MetricsLog::resume(&path, 100).unwrap().0.append(&metrics(9)).unwrap();
            // A line that lacks its newline only is whole.
            let whole = text[..n].matches('}').count();
            let lines = lines(&path);
            assert_eq!((lines.len(), &lines[whole]["step"]), (whole + 1, &json!(9)), "{n} bytes");
        }
    }

    #[test]
    fn a_broken_line_in_the_middle_is_named_and_nothing_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text = format!("{}nonsense\n{}", metrics(1).line(), metrics(2).line());
        fs::write(&path, &text).unwrap();
        let error = MetricsLog::resume(&path, 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:2:1: ", path.display())), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
