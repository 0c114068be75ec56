//! `samples.jsonl`: texts that the model of a run has written, one object each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arcane_tensor::{FileError, write_atomically};
use serde::{Deserialize, Serialize};

/// What can be wrong with the file of samples. Every message starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    /// It cannot be read.
    #[error("{}: cannot read the samples: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is no sample.
    #[error("{}:{line}:1: not a sample ({what}), expected `step`, `prompt` and `text`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

/// A text that a model has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// After which update.
    pub step: u64,
    /// How the text begins.
    pub prompt: String,
    /// How the model goes on.
    pub text: String,
}

/// Reads the samples of a run; there are none without the file.
///
/// # Errors
/// [`SamplesError`].
pub fn read_samples(path: &Path) -> Result<Vec<Sample>, SamplesError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SamplesError::Read { path: path.into(), source }),
    };
    let lines = text.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|e| SamplesError::Line {
                path: path.into(),
                line: index + 1,
                what: e.to_string(),
            })
        })
        .collect()
}

/// Adds a sample in the place of one of the same update and prompt.
///
/// # Errors
/// [`SamplesError`]; the file is as it was then.
pub fn add_sample(path: &Path, sample: Sample) -> Result<(), SamplesError> {
    let mut samples = read_samples(path)?;
    samples.retain(|old| (old.step, &old.prompt) != (sample.step, &sample.prompt));
    samples.push(sample);
    write(path, &samples)
}

/// Removes the samples past update `last_step`.
///
/// # Errors
/// [`SamplesError`]; the file is as it was then.
pub fn cut_samples(path: &Path, last_step: u64) -> Result<(), SamplesError> {
    let mut samples = read_samples(path)?;
    let before = samples.len();
    samples.retain(|sample| sample.step <= last_step);
    if samples.len() == before { Ok(()) } else { write(path, &samples) }
}

fn write(path: &Path, samples: &[Sample]) -> Result<(), SamplesError> {
    write_atomically(path, |w| {
        samples.iter().try_for_each(|sample| {
            serde_json::to_writer(&mut *w, sample)?;
            w.write_all(b"\n")
        })
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_replaced_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        assert_eq!(read_samples(&path).unwrap(), []);
        cut_samples(&path, 0).unwrap();
        assert!(!path.exists());
        let sample = |step, text: &str| Sample { step, prompt: "It".into(), text: text.into() };
        for new in [sample(1, "a\n\"b\""), sample(2, "b"), sample(2, "c"), sample(5, "d")] {
            add_sample(&path, new).unwrap();
        }
        let all = [sample(1, "a\n\"b\""), sample(2, "c"), sample(5, "d")];
        assert_eq!(read_samples(&path).unwrap(), all);
        cut_samples(&path, 4).unwrap();
        assert_eq!(read_samples(&path).unwrap(), all[..2]);
    }

    #[test]
    fn a_line_that_is_no_sample_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.jsonl");
        fs::write(&path, "{\"step\":1,\"prompt\":\"\",\"text\":\"\"}\n{\"step\":2}\n").unwrap();
        let error = read_samples(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}:2:1: not a sample", path.display())), "{error}");
    }
}
