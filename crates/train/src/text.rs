//! Text as tokens: the tokenizer that goes with it, what each document becomes, what is kept for validation.

use std::fmt;
use std::path::Path;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::{Deserialize, Serialize};

use crate::config::{Config, DataOrder, ModelSource};
use crate::documents::Dropped;
use crate::error::SetupError;
use crate::model::Model;
use crate::order::permutation;
use crate::tokenizer::{TOKENIZER_FILE, Tokenizer, TokenizerError};
use crate::tokens::{Tokens, TokensError};

/// A document above this is encoded in pieces: the library takes some 180 bytes of memory for each byte of a text.
const PIECE_BYTES: usize = 1 << 20;

/// What became of the data of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DataReport {
    /// What is trained on.
    pub train: PartReport,
    /// What is kept for validation.
    pub valid: Option<PartReport>,
    /// Tokens of the tokenizer that was made from the text, if one was.
    pub learnt: Option<usize>,
    /// What was left out when documents were read.
    pub dropped: Dropped,
}

/// What became of a part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartReport {
    /// Documents, where it is text.
    pub documents: Option<usize>,
    /// Tokens.
    pub tokens: usize,
    /// How many of them, at the end, are in no sequence.
    pub unused: usize,
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for training", self.train)?;
        if let Some(valid) = &self.valid {
            write!(f, ", {valid} for validation")?;
        }
        if let Some(learnt) = self.learnt {
            write!(f, "; a tokenizer of {learnt} tokens made from the text")?;
        }
        let unused = self.train.unused + self.valid.map_or(0, |valid| valid.unused);
        let unused = (unused > 0).then(|| format!("{unused} tokens at the end that fill no sequence"));
        let left_out: Vec<String> = self.dropped.left_out().chain(unused).collect();
        if !left_out.is_empty() {
            write!(f, "; left out: {}", left_out.join(", "))?;
        }
        if let Some(replaced) = self.dropped.replaced() {
            write!(f, "; {replaced}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.documents {
            Some(1) => write!(f, "1 document of {} tokens", self.tokens),
            Some(n) => write!(f, "{n} documents of {} tokens", self.tokens),
            None => write!(f, "{} tokens", self.tokens),
        }
    }
}

/// The tokenizer of text data, and whether it was made from the text. It is the model's own (`data.tokenizer` has taken its place
/// where it is given); a model with random weights and without one gets one of `data.vocab` tokens, made from the training
/// documents. The model gets what follows: the tokenizer, the tokens that begin and end a text, and, if it is a preset, `data.vocab`
/// as its number of ids.
///
/// # Errors
/// [`SetupError`] if there is none, or it has more tokens than the model.
pub(crate) fn fit_tokenizer(
    config: &Config,
    model: &mut Model,
    train: Option<&[String]>,
) -> Result<(Tokenizer, bool), SetupError> {
    let key = |key, what| SetupError::Key { key, what };
    let is_new = model.has_random_weights();
    let (tokenizer, learnt) = match (&model.tokenizer, train, config.data.vocab) {
        (Some(json), _, _) => {
            let path = tokenizer_path(config);
            let json = String::from_utf8(json.clone())
                .map_err(|e| TokenizerError::Format { path: path.clone(), what: e.to_string() })?;
            (Tokenizer::from_json(json, &path)?, false)
        }
        (None, Some(train), Some(vocab)) if is_new => {
            let tokenizer = Tokenizer::train_bpe(train.iter().flat_map(|text| pieces(text)), vocab)
                .map_err(|e| key("data.vocab", e.to_string()))?;
            model.tokenizer = Some(tokenizer.to_json().into_bytes());
            (tokenizer, true)
        }
        _ => {
            let or_vocab = if is_new { ", or data.vocab for one made from the text" } else { "" };
            let what = format!("text needs a tokenizer and the model has none; expected its path{or_vocab}");
            return Err(key("data.tokenizer", what));
        }
    };
    let is_preset = matches!(config.model.source(), Some(ModelSource::Preset(_)));
    if is_new && (is_preset || learnt) {
        model.config.bos_token_id = tokenizer.bos();
        model.config.eos_token_id = tokenizer.eos().into_iter().collect();
    }
    if let (true, true, Some(vocab)) = (is_new, is_preset, config.data.vocab) {
        model.config.vocab_size = vocab;
    }
    let (found, known) = (tokenizer.vocab_size(), model.config.vocab_size);
    if found > known {
        let name = if learnt { "data.vocab" } else { "data.tokenizer" };
        return Err(key(name, format!("the tokenizer has {found} ids, but the model has {known}")));
    }
    Ok((tokenizer, learnt))
}

/// Where the tokenizer of a model is from, for messages.
fn tokenizer_path(config: &Config) -> std::path::PathBuf {
    match (&config.data.tokenizer, &config.model.from) {
        (Some(path), _) => path.clone(),
        (None, Some(from)) => from.join(TOKENIZER_FILE),
        (None, None) => TOKENIZER_FILE.into(),
    }
}

/// Cuts off the last documents, `fraction` of all bytes at most but one document at least. Of a single document the last part is
/// cut off, from the start of a line if one begins there, else from a character.
pub(crate) fn split_off(documents: &mut Vec<String>, fraction: f64) -> Vec<String> {
    if let [only] = documents.as_mut_slice() {
        let cut = only.floor_char_boundary(only.len() - (only.len() as f64 * fraction) as usize);
        let cut = only[cut..].find('\n').map_or(cut, |n| cut + n + 1);
        return vec![only.split_off(cut.min(only.len()))];
    }
    let total: usize = documents.iter().map(String::len).sum();
    let allowed = (total as f64 * fraction) as usize;
    let mut taken = 0;
    let fits = |document: &&String| {
        taken += document.len();
        taken <= allowed
    };
    let count = documents.iter().rev().take_while(fits).count().clamp(1, documents.len() - 1);
    documents.split_off(documents.len() - count)
}

/// Puts training documents into the order of the seed, if the data are to be shuffled.
pub(crate) fn shuffle(documents: Vec<String>, config: &Config) -> Vec<String> {
    if config.data.order != DataOrder::Shuffle {
        return documents;
    }
    let mut documents: Vec<Option<String>> = documents.into_iter().map(Some).collect();
    let order = permutation(documents.len() as u64, config.train.seed, b"documents", 0);
    order.into_iter().filter_map(|i| documents[i as usize].take()).collect()
}

/// Cuts a long text before line breaks that no white space follows. A line break is a word of its own there for GPT-2's pattern,
/// so the pieces have the tokens of the whole; other patterns see at most a token more for each piece.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while rest.len() > PIECE_BYTES {
        let from = rest.ceil_char_boundary(PIECE_BYTES);
        let begins_word = |at: &usize| rest[at + 1..].starts_with(|c: char| !c.is_whitespace());
        let Some(cut) = rest[from..].match_indices('\n').map(|(n, _)| from + n).find(begins_word) else {
            break;
        };
        pieces.push(&rest[..cut]);
        rest = &rest[cut..];
    }
    pieces.push(rest);
    pieces
}

/// Documents as tokens.
pub(crate) struct Encoded<'a> {
    tokenizer: &'a Tokenizer,
    texts: &'a [String],
    ids: Vec<Vec<u32>>,
}

impl<'a> Encoded<'a> {
    /// Encodes each document with the tokens that the tokenizer puts around it, and the one that ends a text behind it.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub(crate) fn new(texts: &'a [String], tokenizer: &'a Tokenizer) -> Result<Self, TokenizerError> {
        let encode = |text: &String| {
            let mut ids = match pieces(text).as_slice() {
                [whole] => tokenizer.encode(whole, true)?,
                pieces => {
                    let encode = |piece: &&str| tokenizer.encode(piece, false);
                    let ids: Vec<Vec<u32>> = pieces.par_iter().map(encode).collect::<Result<_, _>>()?;
                    [tokenizer.begin(), &ids.concat()].concat()
                }
            };
            ids.extend(tokenizer.eos().filter(|eos| ids.last() != Some(eos)));
            Ok(ids)
        };
        Ok(Self { tokenizer, texts, ids: texts.par_iter().map(encode).collect::<Result<_, _>>()? })
    }

    /// All of them, one after the other. `path` is where they are from, for messages.
    ///
    /// # Errors
    /// [`TokensError::Memory`].
    pub(crate) fn tokens(&self, path: &Path, vocab: usize) -> Result<Tokens, TokensError> {
        let count = self.ids.iter().map(Vec::len).sum();
        Tokens::from_ids(path, count, self.ids.iter().flatten().copied(), vocab)
    }

    /// How many bytes the text of the tokens 1 to `predicted` has. Tokens of the tokenizer's own have none.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub(crate) fn predicted_bytes(&self, predicted: usize) -> Result<u64, TokenizerError> {
        let mut bytes = 0;
        let mut rest = predicted + 1;
        for (text, ids) in self.texts.iter().zip(&self.ids) {
            if ids.len() > rest {
                bytes += self.tokenizer.decode(&ids[..rest])?.len();
                break;
            }
            bytes += text.len();
            rest -= ids.len();
        }
        let first = self.ids.iter().flatten().next();
        let unpredicted = first.map_or(Ok(0), |&id| self.tokenizer.decode(&[id]).map(|text| text.len()))?;
        Ok(bytes.saturating_sub(unpredicted) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_document_has_the_tokens_of_the_whole() {
        let line = "It was a long text, with gaps.\n\n  And  some\n\n\nmore lines.\n";
        let text = line.repeat(PIECE_BYTES * 5 / 2 / line.len());
        assert_eq!((pieces(&text).len(), pieces(&text).concat()), (3, text.clone()));
        let tokenizer = Tokenizer::train_bpe([line, line].into_iter(), 290).unwrap();
        let texts = [text];
        let encoded = Encoded::new(&texts, &tokenizer).unwrap();
        let mut whole = tokenizer.encode(&texts[0], true).unwrap();
        whole.extend(tokenizer.eos());
        assert!(encoded.ids[0] == whole);
        // A text without lines stays whole.
        assert_eq!(pieces(&"é".repeat(PIECE_BYTES)).len(), 1);
    }

    #[test]
    fn the_last_documents_are_cut_off_at_least_one_and_never_all() {
        let split = |lengths: &[usize], fraction| {
            let mut documents: Vec<String> = lengths.iter().map(|&n| "a".repeat(n)).collect();
            let cut = split_off(&mut documents, fraction);
            (documents.len(), cut.len())
        };
        assert_eq!(split(&[10, 10, 10, 10], 0.5), (2, 2));
        assert_eq!(split(&[10, 10, 10, 10], 0.49), (3, 1));
        assert_eq!(split(&[1, 99], 0.01), (1, 1));
        assert_eq!(split(&[1, 1, 1], 0.99), (1, 2));
        assert_eq!(split(&[10], 0.3), (1, 1));
    }
}
