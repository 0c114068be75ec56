//! A `tokenizer.json` as metadata of a GGUF file and back, for the two kinds that Llama models have: byte-level BPE (`gpt2` in
//! GGUF) and BPE with byte fallback, as `SentencePiece` makes it (`llama`).
//!
//! Keys, kinds and names are llama.cpp's (`gguf-py/gguf/constants.py`, `src/llama-vocab.cpp`).

use std::collections::BTreeMap;
use std::path::Path;

use arcane_tensor::{FileError, GgufValue, read_limited};
use serde_json::{Map, Value, json};

use crate::export::CHAT_TEMPLATE;
use crate::gguf::{BOS, EOS, whole};
use crate::tokenizer_json::{
    Around, Token, TokenKind, Words, byte_level, byte_level_json, sentence_piece_json,
};
use crate::{ExportError, Source};

/// The largest tokenizers have some ten million bytes.
const TOKENIZER_BYTES: u64 = 1 << 28;
const TEMPLATE_BYTES: u64 = 1 << 20;

/// llama.cpp's kinds of tokens.
const KINDS: [(i32, TokenKind); 6] = [
    (1, TokenKind::Normal),
    (2, TokenKind::Unknown),
    (3, TokenKind::Control),
    (4, TokenKind::UserDefined),
    (5, TokenKind::Unused),
    (6, TokenKind::Byte),
];

/// The number of a kind.
fn number_of(kind: TokenKind) -> i32 {
    KINDS.iter().find(|(_, k)| *k == kind).map_or(0, |(number, _)| *number)
}

/// How a byte-level tokenizer cuts text into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// As GPT-2.
    Gpt2,
    /// Each digit by itself, the rest as GPT-2.
    Digits,
    /// By a pattern.
    Pattern(&'static str),
}

/// llama.cpp's names for the ways of cutting; of several names for one way the first is written.
const PRE_TOKENIZERS: [(&str, Cut); 8] = [
    ("gpt-2", Cut::Gpt2),
    ("smollm", Cut::Digits),
    ("starcoder", Cut::Digits),
    ("refact", Cut::Digits),
    ("llama-bpe", Cut::Pattern(LLAMA_3)),
    ("llama3", Cut::Pattern(LLAMA_3)),
    ("llama-v3", Cut::Pattern(LLAMA_3)),
    ("qwen2", Cut::Pattern(QWEN_2)),
];

type Metadata = Vec<(String, GgufValue)>;

/// The keys for the tokenizer of a model, or why there are none.
///
/// # Errors
/// [`ExportError::File`] if its file cannot be read.
pub(crate) fn tokenizer_metadata(source: &Source) -> Result<Result<Metadata, String>, ExportError> {
    let read = |path: &Path, limit| {
        read_limited(path, limit).map_err(|source| FileError::Io { path: path.into(), doing: "read", source })
    };
    let (path, bytes) = match source.tokenizer_path() {
        Some(path) if path.extension().is_some_and(|e| e == "json") => (path, read(path, TOKENIZER_BYTES)?),
        Some(path) => return Ok(Err(format!("{}: only a tokenizer.json can be converted", path.display()))),
        None => match source.tokenizer_in_file()? {
            Ok(json) => (source.path(), json.into_bytes()),
            Err(why) => return Ok(Err(why)),
        },
    };
    let unread = |why: &str| format!("{}: {why}", path.display());
    let Ok(Value::Object(json)) = serde_json::from_slice(&bytes) else {
        return Ok(Err(unread("not a JSON object")));
    };
    let mut keys = match keys(&json, source.config().vocab_size) {
        Ok(keys) => keys,
        Err(why) => return Ok(Err(unread(&why))),
    };
    let template = path.with_file_name(CHAT_TEMPLATE);
    if template.is_file()
        && let Ok(text) = String::from_utf8(read(&template, TEMPLATE_BYTES)?)
    {
        keys.push(("tokenizer.chat_template".into(), GgufValue::String(text)));
    }
    Ok(Ok(keys))
}

fn keys(json: &Map<String, Value>, vocab_size: usize) -> Result<Metadata, String> {
    let model = json.get("model").and_then(Value::as_object).ok_or("`model` is missing")?;
    if model.get("type").is_some_and(|t| t != "BPE") {
        return Err(format!("`model.type` is {}, only BPE can be converted", model["type"]));
    }
    let byte_fallback = model.get("byte_fallback") == Some(&Value::Bool(true));
    let byte_level = mentions(json.get("pre_tokenizer"), "ByteLevel");
    let mut vocabulary = Vocabulary::read(json, model, vocab_size, byte_fallback)?;
    let merges = merges(model)?;
    let set = |key: &str, value| (format!("tokenizer.ggml.{key}"), value);
    let text = |text: &str| GgufValue::String(text.into());
    let mut keys = match (byte_level, byte_fallback) {
        (true, false) => {
            let pre = pre_tokenizer(json.get("pre_tokenizer"))
                .ok_or("llama.cpp has no name for this `pre_tokenizer`")?;
            let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
            vec![
                set("model", text("gpt2")),
                set("pre", text(pre)),
                set("merges", GgufValue::Strings(merges)),
                set("add_space_prefix", GgufValue::Bool(false)),
            ]
        }
        (false, true) => {
            let scores = vocabulary.scores(&merges);
            let prefix = mentions(json.get("normalizer"), "Prepend")
                || mentions(json.get("pre_tokenizer"), "Metaspace");
            vec![
                set("model", text("llama")),
                set("pre", text("default")),
                set("scores", GgufValue::F32s(scores)),
                set("add_space_prefix", GgufValue::Bool(prefix)),
            ]
        }
        _ => return Err("neither byte-level BPE nor BPE with byte fallback".into()),
    };
    keys.push(set("tokens", GgufValue::Strings(std::mem::take(&mut vocabulary.tokens))));
    let kinds = vocabulary.kinds.into_iter().map(number_of).collect();
    keys.push(set("token_type", GgufValue::I32s(kinds)));
    let adds_bos = json.get("post_processor").and_then(|p| p.get("single")?.get(0)?.get("SpecialToken"));
    keys.push(set("add_bos_token", GgufValue::Bool(adds_bos.is_some())));
    Ok(keys)
}

/// Whether an object or one in its lists has this type.
fn mentions(value: Option<&Value>, kind: &str) -> bool {
    let Some(value) = value else { return false };
    let inner = ["pretokenizers", "normalizers"].into_iter().filter_map(|key| value.get(key)?.as_array());
    value.get("type").is_some_and(|t| t == kind) || inner.flatten().any(|v| mentions(Some(v), kind))
}

/// llama.cpp's name for the way in which a byte-level tokenizer cuts text into words.
fn pre_tokenizer(value: Option<&Value>) -> Option<&'static str> {
    let cut = cut(value)?;
    PRE_TOKENIZERS.iter().find(|(_, c)| *c == cut).map(|(name, _)| *name)
}

fn cut(value: Option<&Value>) -> Option<Cut> {
    let value = value?;
    let is = |v: &Value, kind: &str| v.get("type").is_some_and(|t| t == kind);
    let with_words = |v: &Value| is(v, "ByteLevel") && v.get("use_regex") != Some(&Value::Bool(false));
    let pattern = |v: &Value| v.get("pattern")?.get("Regex")?.as_str().map(String::from);
    let parts = match value.get("pretokenizers").and_then(Value::as_array) {
        Some(parts) => parts.as_slice(),
        None => std::slice::from_ref(value),
    };
    match parts {
        [one] if with_words(one) => Some(Cut::Gpt2),
        [digits, words] if is(digits, "Digits") && with_words(words) => {
            (digits.get("individual_digits") == Some(&Value::Bool(true))).then_some(Cut::Digits)
        }
        [split, bytes] if is(split, "Split") && is(bytes, "ByteLevel") => {
            let pattern = pattern(split)?;
            [LLAMA_3, QWEN_2].into_iter().find(|known| *known == pattern).map(Cut::Pattern)
        }
        _ => None,
    }
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The text of a `tokenizer.json` with the ids of the tokenizer in the metadata of a GGUF file, or why there is none.
pub(crate) fn tokenizer_json(metadata: &BTreeMap<String, GgufValue>) -> Result<String, String> {
    let get = |key: &str| metadata.get(&format!("tokenizer.ggml.{key}"));
    let name = |key: &str| match get(key) {
        Some(GgufValue::String(name)) => Ok(name.as_str()),
        Some(_) => Err(format!("tokenizer.ggml.{key} is no string")),
        None => Err(format!("tokenizer.ggml.{key} is missing")),
    };
    let flag = |key: &str, default| match get(key) {
        None => Ok(default),
        Some(GgufValue::Bool(flag)) => Ok(*flag),
        Some(_) => Err(format!("tokenizer.ggml.{key} is neither true nor false")),
    };
    let around = |begins| -> Result<Around, String> {
        let id = |key: &str, name: &str| {
            let id = metadata.get(key).and_then(whole).and_then(|id| u32::try_from(id).ok());
            id.map(Some).ok_or_else(|| format!("{key} is missing, though tokenizer.ggml.{name} wants it"))
        };
        Ok(Around {
            begin: if flag("add_bos_token", begins)? { id(BOS, "add_bos_token")? } else { None },
            end: if flag("add_eos_token", false)? { id(EOS, "add_eos_token")? } else { None },
        })
    };
    let model = name("model")?;
    let is_scored = match model {
        "llama" => true,
        "gpt2" => false,
        _ => return Err(format!("tokenizer.ggml.model is {model:?}, \"llama\" or \"gpt2\" was expected")),
    };
    let tokens = stored_tokens(get("tokens"), get("token_type"), get("scores"), is_scored)?;
    if is_scored {
        return sentence_piece_json(&tokens, around(true)?, flag("add_space_prefix", true)?);
    }
    let pre = name("pre")?;
    let Some((_, cut)) = PRE_TOKENIZERS.iter().find(|(name, _)| *name == pre) else {
        let known: Vec<&str> = PRE_TOKENIZERS.iter().map(|(name, _)| *name).collect();
        return Err(format!("tokenizer.ggml.pre is {pre:?}, one of {} was expected", known.join(", ")));
    };
    // llama.cpp begins a text where nothing is said with models of Llama 3, and with no others.
    let around = around(*cut == Cut::Pattern(LLAMA_3))?;
    byte_level_json(&tokens, &stored_merges(get("merges"))?, around, &words(*cut))
}

/// The parts of a `tokenizer.json` that stand for a way of cutting, with what models that cut so do beside it: those of Qwen
/// compose characters, those of Llama 3 look a word up before they merge.
fn words(cut: Cut) -> Words {
    let sequence = |first: Value, cuts_words| json!({ "type": "Sequence", "pretokenizers": [first, byte_level(cuts_words)] });
    let pre_tokenizer = match cut {
        Cut::Gpt2 => byte_level(true),
        Cut::Digits => sequence(json!({ "type": "Digits", "individual_digits": true }), true),
        Cut::Pattern(pattern) => {
            let pattern = json!({ "Regex": pattern });
            let split =
                json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
            sequence(split, false)
        }
    };
    let normalizer = if cut == Cut::Pattern(QWEN_2) { json!({ "type": "NFC" }) } else { Value::Null };
    Words { normalizer, pre_tokenizer, ignore_merges: cut == Cut::Pattern(LLAMA_3) }
}

fn stored_tokens(
    tokens: Option<&GgufValue>,
    kinds: Option<&GgufValue>,
    scores: Option<&GgufValue>,
    is_scored: bool,
) -> Result<Vec<Token>, String> {
    let Some(GgufValue::Strings(texts)) = tokens else {
        return Err("tokenizer.ggml.tokens is no array of strings".into());
    };
    let length = |key: &str, found: usize| {
        let count = texts.len();
        if found == count {
            return Ok(());
        }
        Err(format!("tokenizer.ggml.{key} has {found} elements, {count} were expected"))
    };
    let kinds = match kinds {
        Some(GgufValue::I32s(kinds)) => {
            length("token_type", kinds.len())?;
            Some(kinds)
        }
        Some(_) => return Err("tokenizer.ggml.token_type is no array of int32".into()),
        None => None,
    };
    let scores = match scores {
        Some(GgufValue::F32s(scores)) if is_scored => {
            length("scores", scores.len())?;
            Some(scores)
        }
        _ if is_scored => return Err("tokenizer.ggml.scores is no array of fp32".into()),
        _ => None,
    };
    let token = |(id, text): (usize, &String)| {
        let number = kinds.map_or(number_of(TokenKind::Normal), |kinds| kinds[id]);
        let kind = KINDS.iter().find(|(n, _)| *n == number).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| format!("token {id} is of kind {number}, 1 to 6 were expected"))?;
        let score = scores.map_or(0.0, |scores| scores[id]);
        if score.is_nan() {
            return Err(format!("token {id} has the score NaN, a number was expected"));
        }
        Ok(Token { text: text.clone(), kind, score })
    };
    texts.iter().enumerate().map(token).collect()
}

/// Pairs of tokens. Byte-level vocabularies spell a space as another character.
fn stored_merges(merges: Option<&GgufValue>) -> Result<Vec<(String, String)>, String> {
    let Some(GgufValue::Strings(merges)) = merges else {
        return Err("tokenizer.ggml.merges is no array of strings".into());
    };
    let pair = |(index, merge): (usize, &String)| {
        let (left, right) = merge
            .split_once(' ')
            .ok_or_else(|| format!("merge {index} is {merge:?}, two tokens were expected"))?;
        Ok((left.to_string(), right.to_string()))
    };
    merges.iter().enumerate().map(pair).collect()
}

/// Tokens by id, as many as the model has.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
}

impl Vocabulary {
    fn read(
        json: &Map<String, Value>,
        model: &Map<String, Value>,
        vocab_size: usize,
        byte_fallback: bool,
    ) -> Result<Self, String> {
        let unused = |id: usize| format!("[PAD{id}]");
        let mut all = Self {
            tokens: (0..vocab_size).map(unused).collect(),
            kinds: vec![TokenKind::Unused; vocab_size],
        };
        let vocab = model.get("vocab").and_then(Value::as_object).ok_or("`model.vocab` is missing")?;
        let is_byte = |t: &str| t.len() == 6 && t.starts_with("<0x") && t.ends_with('>');
        for (token, id) in vocab {
            let kind = if byte_fallback && is_byte(token) { TokenKind::Byte } else { TokenKind::Normal };
            all.set(id, token, kind)?;
        }
        let unknown = model.get("unk_token").and_then(Value::as_str);
        for added in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            let content = added.get("content").and_then(Value::as_str);
            let content = content.ok_or("an added token has no `content`")?;
            let kind = match added.get("special") {
                Some(Value::Bool(true)) if Some(content) == unknown => TokenKind::Unknown,
                Some(Value::Bool(true)) => TokenKind::Control,
                _ => TokenKind::UserDefined,
            };
            all.set(added.get("id").unwrap_or(&Value::Null), content, kind)?;
        }
        Ok(all)
    }

    fn set(&mut self, id: &Value, token: &str, kind: TokenKind) -> Result<(), String> {
        let count = self.tokens.len();
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < count);
        let id = id.ok_or_else(|| format!("token `{token}` has no id below the model's {count}"))?;
        self.tokens[id] = token.into();
        self.kinds[id] = kind;
        Ok(())
    }

    /// What `SentencePiece` calls the score of a piece: the earlier a merge makes it, the higher.
    fn scores(&self, merges: &[(String, String)]) -> Vec<f32> {
        let mut rank = std::collections::HashMap::new();
        for (i, (left, right)) in merges.iter().enumerate() {
            rank.entry(format!("{left}{right}")).or_insert(i);
        }
        let score = |(token, &kind): (&String, &TokenKind)| match kind {
            TokenKind::Normal => 0.0 - *rank.get(token).unwrap_or(&merges.len()) as f32,
            _ => 0.0,
        };
        self.tokens.iter().zip(&self.kinds).map(score).collect()
    }
}

/// The merges in their order; older files join the two sides by a space.
fn merges(model: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    let merges = model.get("merges").and_then(Value::as_array).ok_or("`model.merges` is missing")?;
    let merge = |merge: &Value| {
        let (left, right) = match merge {
            Value::String(joined) => joined.split_once(' ')?,
            Value::Array(sides) => match sides.as_slice() {
                [left, right] => (left.as_str()?, right.as_str()?),
                _ => return None,
            },
            _ => return None,
        };
        Some((left.to_string(), right.to_string()))
    };
    let malformed = |at: usize| format!("merge {at} is not a pair of tokens");
    merges.iter().enumerate().map(|(i, m)| merge(m).ok_or_else(|| malformed(i))).collect()
}
