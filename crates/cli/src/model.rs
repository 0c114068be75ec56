//! A model that is given on the command line, and its tokenizer.

use std::path::{Path, PathBuf};

use arcane_train::model::{Model, open_source};
use arcane_train::tokenizer::{TOKENIZER_FILE, Tokenizer};

use crate::failure::Failure;

#[derive(Debug, clap::Args)]
pub(crate) struct ModelArguments {
    /// A run, a checkpoint, a Hugging Face folder, a llama2.c .bin or a .gguf.
    model: PathBuf,
    /// The tokenizer [default: the model's own].
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
}

impl ModelArguments {
    /// A model with its own tokenizer.
    pub(crate) fn new(model: &Path) -> Self {
        Self { model: model.into(), tokenizer: None }
    }

    /// What was given.
    pub(crate) fn path(&self) -> &Path {
        &self.model
    }

    /// The model, before its weights are read.
    pub(crate) fn open(&self) -> Result<Model, Failure> {
        Model::from_path(&self.model).map_err(|e| Failure::setup(e, &self.model.display().to_string()))
    }

    /// Its tokenizer, whose tokens the model has to know.
    pub(crate) fn open_tokenizer(&self, model: &Model) -> Result<Tokenizer, Failure> {
        let of_model = self.model.join(TOKENIZER_FILE);
        let path = self.tokenizer.as_deref().unwrap_or(&of_model);
        let tokenizer = match (&self.tokenizer, &model.tokenizer) {
            (Some(path), _) => Tokenizer::open(path),
            (None, Some(json)) => Tokenizer::from_json(String::from_utf8_lossy(json).into_owned(), &of_model),
            (None, None) => {
                let why = open_source(&self.model).ok().and_then(|s| s.tokenizer_in_file().ok()?.err());
                let why = why.map_or(String::new(), |why| format!(" ({why})"));
                let what = format!("the model has no tokenizer{why}, expected one with --tokenizer");
                return Err(Failure::input(format!("{}: {what}", self.model.display())));
            }
        };
        let tokenizer = tokenizer.map_err(|e| Failure::Input(e.into()))?;
        let (tokens, vocab) = (tokenizer.vocab_size(), model.config.vocab_size);
        if tokens > vocab {
            let what =
                format!("the tokenizer has {tokens} tokens, the model's {vocab} at most were expected");
            return Err(Failure::input(format!("{}: {what}", path.display())));
        }
        Ok(tokenizer)
    }
}
