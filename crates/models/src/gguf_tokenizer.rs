//! A `tokenizer.json` as metadata of a GGUF file, for the two kinds that Llama models have: byte-level BPE (`gpt2` in GGUF) and
//! BPE with byte fallback, as `SentencePiece` makes it (`llama`).

use std::path::Path;

use arcane_tensor::{FileError, GgufValue, read_limited};
use serde_json::{Map, Value};

use crate::export::CHAT_TEMPLATE;
use crate::{ExportError, Source};

/// The largest tokenizers have some ten million bytes.
const TOKENIZER_BYTES: u64 = 1 << 28;
const TEMPLATE_BYTES: u64 = 1 << 20;

/// llama.cpp's kinds of tokens.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

type Metadata = Vec<(String, GgufValue)>;

/// The keys for the tokenizer of a model, or why there are none.
///
/// # Errors
/// [`ExportError::File`] if its file cannot be read.
pub(crate) fn tokenizer_metadata(source: &Source) -> Result<Result<Metadata, String>, ExportError> {
    let Some(path) = source.tokenizer_path() else {
        return Ok(Err("no tokenizer.json was found beside the weights".into()));
    };
    let unread = |why: &str| format!("{}: {why}", path.display());
    if path.extension().is_none_or(|e| e != "json") {
        return Ok(Err(unread("only a tokenizer.json can be converted")));
    }
    let read = |path: &Path, limit| {
        read_limited(path, limit).map_err(|source| FileError::Io { path: path.into(), doing: "read", source })
    };
    let bytes = read(path, TOKENIZER_BYTES)?;
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
    keys.push(set("token_type", GgufValue::I32s(vocabulary.kinds)));
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
    let value = value?;
    let is = |v: &Value, kind: &str| v.get("type").is_some_and(|t| t == kind);
    let whole = |v: &Value| is(v, "ByteLevel") && v.get("use_regex") != Some(&Value::Bool(false));
    let pattern = |v: &Value| v.get("pattern")?.get("Regex")?.as_str().map(String::from);
    let parts = match value.get("pretokenizers").and_then(Value::as_array) {
        Some(parts) => parts.as_slice(),
        None => std::slice::from_ref(value),
    };
    match parts {
        [one] if whole(one) => Some("gpt-2"),
        [digits, words] if is(digits, "Digits") && whole(words) => {
            (digits.get("individual_digits") == Some(&Value::Bool(true))).then_some("smollm")
        }
        [split, bytes] if is(split, "Split") && is(bytes, "ByteLevel") => match pattern(split)?.as_str() {
            LLAMA_3 => Some("llama-bpe"),
            QWEN_2 => Some("qwen2"),
            _ => None,
        },
        _ => None,
    }
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Tokens by id, as many as the model has.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
}

impl Vocabulary {
    fn read(
        json: &Map<String, Value>,
        model: &Map<String, Value>,
        vocab_size: usize,
        byte_fallback: bool,
    ) -> Result<Self, String> {
        let unused = |id: usize| format!("[PAD{id}]");
        let mut all =
            Self { tokens: (0..vocab_size).map(unused).collect(), kinds: vec![kind::UNUSED; vocab_size] };
        let vocab = model.get("vocab").and_then(Value::as_object).ok_or("`model.vocab` is missing")?;
        let is_byte = |t: &str| t.len() == 6 && t.starts_with("<0x") && t.ends_with('>');
        for (token, id) in vocab {
            let kind = if byte_fallback && is_byte(token) { kind::BYTE } else { kind::NORMAL };
            all.set(id, token, kind)?;
        }
        let unknown = model.get("unk_token").and_then(Value::as_str);
        for added in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            let content = added.get("content").and_then(Value::as_str);
            let content = content.ok_or("an added token has no `content`")?;
            let kind = match added.get("special") {
                Some(Value::Bool(true)) if Some(content) == unknown => kind::UNKNOWN,
                Some(Value::Bool(true)) => kind::CONTROL,
                _ => kind::USER_DEFINED,
            };
            all.set(added.get("id").unwrap_or(&Value::Null), content, kind)?;
        }
        Ok(all)
    }

    fn set(&mut self, id: &Value, token: &str, kind: i32) -> Result<(), String> {
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
        let score = |(token, &kind): (&String, &i32)| match kind {
            kind::NORMAL => 0.0 - *rank.get(token).unwrap_or(&merges.len()) as f32,
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
