//! A folder with a tiny model, random tokens and a configuration, and the program run in it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::tiny_model::{save_random, tiny};

pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        save_random(&place.path("model"), &tiny());
        let tokens: Vec<u8> = (0..2000u32).flat_map(|i| ((i * i * 7 % 61) as u16).to_le_bytes()).collect();
        place.write("tokens.bin", &tokens);
        place.write(
            "small.toml",
            b"model.from = \"model\"\n\
              data = { train = \"tokens.bin\", seq = 16 }\n\
              train = { steps = 4, batch = 2 }\n\
              optimizer.lr = 1e-3\n",
        );
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The program, in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcane"));
        command.current_dir(self.folder.path()).args(arguments).env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    pub(crate) fn arcane(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the program, which has to succeed; gives stdout.
    #[track_caller]
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.arcane(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) fn metrics(&self, run: &str) -> Vec<Value> {
        let lines = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
