//! Tokenizers: text to token ids and back.
//!
//! Whatever a tokenizer is read from or made of, it becomes the text of a Hugging Face `tokenizer.json` first, which is
//! checked in one place and which checkpoints get a copy of. The ids are then those of the `tokenizers` library.

mod byte_pairs;
mod gpt2;
mod json;
mod llama2c;
mod stream;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer as Inner;

pub use stream::TokenStream;

/// The name of a Hugging Face tokenizer in a folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The token that ends a text in the vocabularies of GPT-2 and of [`Tokenizer::train_bpe`], and the line that separates the
/// documents of a text file.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer takes a few million bytes.
const FILE_BYTES: u64 = 1 << 28;
/// A tokenizer that closes a text with none of its own tokens ends it with the first of these that it has.
const END_TOKENS: [&str; 5] = [END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>"];
/// The same for the start.
const BEGIN_TOKENS: [&str; 3] = ["<s>", "<|begin_of_text|>", "<bos>"];

/// What can be wrong with a tokenizer, or with what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("{}: cannot read the tokenizer: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// A folder holds no tokenizer.
    #[error(
        "{}: no tokenizer in this folder, expected tokenizer.json, tokenizer.bin, or a vocabulary with its merges (vocab.json \
         and merges.txt, or encoder.json and vocab.bpe)",
        .0.display()
    )]
    NoTokenizer(PathBuf),
    /// A vocabulary has no room for what it has to hold.
    #[error("a vocabulary of {found} tokens, expected at least {least}: every byte and {END_OF_TEXT}")]
    TooSmall {
        /// What was asked for.
        found: usize,
        /// What it takes.
        least: usize,
    },
    /// The library refuses a text or an id.
    #[error("the tokenizer cannot {doing} this: {what}")]
    Library {
        /// What was asked of it.
        doing: &'static str,
        /// Its reason.
        what: String,
    },
}

/// A tokenizer whose model is a byte-pair encoding (Sennrich et al. 2016), as all models here use.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Inner,
    json: String,
    vocab_size: usize,
    special: BTreeSet<u32>,
    begin: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`, a llama2.c `tokenizer.bin` (any file that ends in `.bin`), or what a folder holds:
    /// `tokenizer.json`, else `tokenizer.bin`, else GPT-2's two files under either of their names (`vocab.json` and
    /// `merges.txt`, or `encoder.json` and `vocab.bpe`). A file whose name ends in `.gz` is unpacked.
    ///
    /// # Errors
    /// [`TokenizerError`]; every message starts with the path.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        if path.is_dir() {
            return Self::open_folder(path);
        }
        let bytes = read(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if name.trim_end_matches(".gz").ends_with(".bin") {
            return Self::from_json(llama2c::to_json(&bytes, path)?, path);
        }
        let text = utf8(bytes, path)?;
        Self::from_json(text, path)
    }

    fn open_folder(folder: &Path) -> Result<Self, TokenizerError> {
        for name in [TOKENIZER_FILE, "tokenizer.bin"] {
            let path = folder.join(name);
            if path.exists() {
                return Self::open(&path);
            }
        }
        for (vocab, merges) in [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")] {
            let (vocab, merges) = (folder.join(vocab), folder.join(merges));
            if vocab.exists() && merges.exists() {
                let json = gpt2::to_json(
                    &utf8(read(&vocab)?, &vocab)?,
                    &vocab,
                    &utf8(read(&merges)?, &merges)?,
                    &merges,
                )?;
                return Self::from_json(json, &vocab);
            }
        }
        Err(TokenizerError::NoTokenizer(folder.into()))
    }

    /// Reads the text of a `tokenizer.json`; `path` is where it is from, for messages.
    ///
    /// # Errors
    /// [`TokenizerError::Format`].
    pub fn from_json(json: String, path: &Path) -> Result<Self, TokenizerError> {
        let format = |what: String| TokenizerError::Format { path: path.into(), what };
        let inner = json::library_tokenizer(&json).map_err(format)?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        // What is put around a text tells the model's own start and end.
        let around = |special| inner.encode_fast("a", special).map(|encoding| encoding.get_ids().to_vec());
        let (bare, full) = (around(false), around(true));
        let (bare, full) =
            (bare.map_err(|e| format(e.to_string()))?, full.map_err(|e| format(e.to_string()))?);
        let at = full.windows(bare.len().max(1)).position(|ids| ids == bare).unwrap_or(0);
        let begin = full[..at].to_vec();
        let end = full.get(at + bare.len()..).unwrap_or_default();
        let known = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let bos = begin.last().copied().or_else(|| known(&BEGIN_TOKENS));
        let eos = end.first().copied().or_else(|| known(&END_TOKENS));
        let special = inner.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special);
        let special = special.map(|(id, _)| id).collect();
        Ok(Self { inner, json, vocab_size, special, begin, bos, eos })
    }

    /// Makes a byte-level tokenizer of at most `vocab` tokens from documents: [`END_OF_TEXT`] is 0, the 256 bytes follow, then
    /// the most frequent pairs of tokens one by one. Words are cut as GPT-2 cuts them (Radford et al. 2019). The result is a
    /// function of the documents and `vocab` alone, whatever the order of the documents; there are fewer tokens than `vocab` if
    /// no pair is left that occurs twice.
    ///
    /// # Errors
    /// [`TokenizerError::TooSmall`] if `vocab` is below 257.
    pub fn train_bpe<D: AsRef<str> + Send>(
        documents: impl Iterator<Item = D> + Send,
        vocab: usize,
    ) -> Result<Self, TokenizerError> {
        Self::from_json(byte_pairs::train(documents, vocab)?, Path::new("trained tokenizer"))
    }

    /// The largest id + 1, those of added tokens among them.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The ids of a text. With `special` the tokenizer puts its own tokens around it: those that its post-processor names, for
    /// Llama the token that begins a text. A token of the vocabulary that is marked as special and is spelled out in the text is
    /// that token.
    ///
    /// # Errors
    /// [`TokenizerError::Library`]: the tokenizer's own pattern gave up.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        match self.inner.encode_fast(text, special) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(TokenizerError::Library { doing: "encode", what: e.to_string() }),
        }
    }

    /// The text of ids, special tokens left out. Bytes that are not UTF-8 become U+FFFD; ids that are not in the vocabulary are
    /// left out.
    ///
    /// # Errors
    /// [`TokenizerError::Library`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, true)
            .map_err(|e| TokenizerError::Library { doing: "decode", what: e.to_string() })
    }

    /// A decoder that takes ids one by one.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream::new(self)
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether an id is that of a special token, which has no text.
    fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The tokens that [`Tokenizer::encode`] with `special` puts before a text.
    pub fn begin(&self) -> &[u32] {
        &self.begin
    }

    /// The token that begins a text: the one that `encode` with `special` puts there, else one with a usual name.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text: the one that `encode` with `special` puts there, else one with a usual name. Only
    /// `tokenizer.json` decides, since a checkpoint has no other file of a tokenizer.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The text of a `tokenizer.json` that [`Tokenizer::open`] makes this tokenizer of again.
    pub fn to_json(&self) -> String {
        self.json.clone()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let read = || {
        let mut bytes = Vec::new();
        let file = File::open(path)?.take(FILE_BYTES + 1);
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
            flate2::read::MultiGzDecoder::new(file).take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
        } else {
            { file }.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    let bytes = read().map_err(|source| TokenizerError::Read { path: path.into(), source })?;
    if bytes.len() as u64 > FILE_BYTES {
        let what = format!("more than {FILE_BYTES} bytes, a tokenizer was expected");
        return Err(TokenizerError::Format { path: path.into(), what });
    }
    Ok(bytes)
}

fn utf8(bytes: Vec<u8>, path: &Path) -> Result<String, TokenizerError> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let what = format!("byte {at} is not UTF-8, the text of a tokenizer was expected");
        TokenizerError::Format { path: path.into(), what }
    })
}

#[cfg(test)]
mod tests;
