//! A tiny model, random tokens, and runs of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arcane_compile::Precision;
use arcane_engine::SoftwareEngine;
use arcane_session::Engines;
use arcane_train::clock::Clock;
use arcane_train::config::Config;
use arcane_train::run::{Run, Start, Summary};
use arcane_train::trainer::Environment;
use arcane_train::{RunError, SetupError};
use serde_json::Value;
use tempfile::TempDir;

use crate::tiny_model::{save_random, tiny};

/// A folder with a model, tokens and runs.
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        save_random(&bench.path("model"), &tiny());
        fs::write(bench.path("model").join("tokenizer.json"), "{}").unwrap();
        // A linear congruential generator is random enough.
        let mut state = 1u32;
        let ids = (0..1501).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 26) as u16
        });
        bench.write_tokens("tokens.bin", ids);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write_tokens(&self, name: &str, ids: impl IntoIterator<Item = u16>) {
        fs::write(self.path(name), ids.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).unwrap();
    }

    pub(crate) fn config(&self, overrides: &[&str]) -> Config {
        let text = r#"
            model.from = "model"
            data = { train = "tokens.bin", seq = 16, order = "shuffle" }
            train = { steps = 6, batch = 2 }
            optimizer.lr = 1e-2
        "#;
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Config::parse(text, &self.path("run.toml"), &overrides).unwrap()
    }

    pub(crate) fn open(
        &self,
        run: &str,
        start: Start,
        overrides: &[&str],
        environment: &Environment,
    ) -> Result<Run, SetupError> {
        Run::open(&self.config(overrides), &self.path(run), start, environment)
    }

    /// A new run up to its end.
    pub(crate) fn run(&self, run: &str, overrides: &[&str], environment: &Environment) -> Summary {
        let mut run = self.open(run, Start::New, overrides, environment).unwrap();
        run.train(&|| false, &mut |_| {}).unwrap()
    }

    /// Goes on with a run.
    pub(crate) fn resume(
        &self,
        run: &str,
        overrides: &[&str],
        environment: &Environment,
    ) -> Result<Summary, RunError> {
        let mut run = self.open(run, Start::Resume, overrides, environment).unwrap();
        run.train(&|| false, &mut |_| {})
    }

    pub(crate) fn metrics(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

pub(crate) fn environment(threads: usize, precision: Precision) -> Environment {
    Environment {
        engines: Engines::host(Arc::new(SoftwareEngine::new(threads).unwrap())),
        chip: None,
        precision,
        clock: Arc::new(Stopped),
        available_bytes: Some(1 << 30),
    }
}

/// Checks that two folders hold the same files with the same bytes.
#[track_caller]
pub(crate) fn assert_same_files(a: &Path, b: &Path) {
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b));
    for name in names(a) {
        let same = fs::read(a.join(&name)).unwrap() == fs::read(b.join(&name)).unwrap();
        assert!(same, "{} differs between {} and {}", name.display(), a.display(), b.display());
    }
}
