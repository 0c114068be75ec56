//! The text of a `tokenizer.json`, checked for what the library takes on trust.

use serde_json::{Map, Value};
use tokenizers::Tokenizer as Inner;

/// The library's tokenizer. Truncation and padding are left out: whoever encodes a text wants all of it and nothing more.
///
/// # Errors
/// What is wrong, and what was expected.
pub(super) fn library_tokenizer(json: &str) -> Result<Inner, String> {
    let mut value: Value = serde_json::from_str(json)
        .map_err(|e| format!("not JSON ({e}), a Hugging Face tokenizer was expected"))?;
    let Some(root) = value.as_object_mut() else {
        return Err("a JSON object was expected, with the keys of a Hugging Face tokenizer".into());
    };
    root.remove("truncation");
    root.remove("padding");
    check_model(root.get("model"))?;
    check_parts(root.get("post_processor"))?;
    check_parts(root.get("decoder"))?;
    Inner::from_bytes(value.to_string()).map_err(|e| format!("not a tokenizer: {e}"))
}

/// Checks that the model is a deterministic byte-pair encoding and that each merge gives a token of the vocabulary.
fn check_model(model: Option<&Value>) -> Result<(), String> {
    let Some(Value::Object(model)) = model else {
        return Err("`model` is missing, an object was expected".into());
    };
    let kind = model.get("type").and_then(Value::as_str);
    // Older files do not say what they are; merges do.
    if kind != Some("BPE") && !(kind.is_none() && model.contains_key("merges")) {
        let found = kind.map_or("missing".into(), |kind| format!("{kind:?}"));
        return Err(format!("`model.type` is {found}, \"BPE\" was expected"));
    }
    if model.get("dropout").and_then(Value::as_f64).is_some_and(|p| p != 0.0) {
        return Err("`model.dropout` is set, null was expected: a text has one encoding here".into());
    }
    let Some(Value::Object(vocab)) = model.get("vocab") else {
        return Err("`model.vocab` is missing, an object of tokens and ids was expected".into());
    };
    if vocab.is_empty() {
        return Err("`model.vocab` is empty, tokens were expected".into());
    }
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    let Some(Value::Array(merges)) = model.get("merges") else {
        return Err("`model.merges` is missing, an array was expected".into());
    };
    for (index, merge) in merges.iter().enumerate() {
        let wrong = |what: String| format!("`model.merges` {index}: {what}");
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(a), Value::String(b)] => Some((a.as_str(), b.as_str())),
                _ => None,
            },
            _ => None,
        };
        let Some((a, b)) = pair else {
            return Err(wrong("two tokens were expected".into()));
        };
        let Some(rest) = b.strip_prefix(prefix) else {
            return Err(wrong(format!("{b:?} does not start with the prefix {prefix:?}")));
        };
        for token in [a, b, &format!("{a}{rest}")] {
            if !vocab.contains_key(token) {
                return Err(wrong(format!("{token:?} is not in the vocabulary")));
            }
        }
    }
    Ok(())
}

/// Checks post-processors and decoders, nested ones among them, for what would make the library panic.
fn check_parts(part: Option<&Value>) -> Result<(), String> {
    match part {
        Some(Value::Object(part)) => {
            match part.get("type").and_then(Value::as_str) {
                Some("TemplateProcessing") => check_template(part)?,
                Some("Strip") if part.get("stop").and_then(Value::as_u64) != Some(0) => {
                    return Err(
                        "a decoder of type Strip cuts the end of tokens, `stop` = 0 was expected".into()
                    );
                }
                _ => {}
            }
            part.values().try_for_each(|value| check_parts(Some(value)))
        }
        Some(Value::Array(parts)) => parts.iter().try_for_each(|value| check_parts(Some(value))),
        _ => Ok(()),
    }
}

/// Checks that a template for one text uses that text alone and special tokens that it defines.
fn check_template(template: &Map<String, Value>) -> Result<(), String> {
    let pieces = template.get("single").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for piece in pieces {
        if let Some(id) = piece.pointer("/SpecialToken/id").and_then(Value::as_str) {
            let ids = template.get("special_tokens").and_then(|known| known.get(id)?.get("ids")?.as_array());
            if ids.is_none_or(Vec::is_empty) {
                return Err(format!(
                    "the post-processor puts in {id:?}, which `special_tokens` does not have"
                ));
            }
        }
        if piece.pointer("/Sequence/id").is_some_and(|id| id != "A") {
            return Err("the post-processor wants a second text where there is one".into());
        }
    }
    Ok(())
}
