//! GPT-2's two files: a JSON object of tokens and ids, and the merges, one a line, in order.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{END_OF_TEXT, TokenizerError};

/// The text of the same tokenizer's `tokenizer.json`.
///
/// # Errors
/// [`TokenizerError::Format`].
pub(super) fn to_json(
    vocab: &str,
    vocab_path: &Path,
    merges: &str,
    merges_path: &Path,
) -> Result<String, TokenizerError> {
    let vocab: Map<String, Value> = serde_json::from_str(vocab).map_err(|e| TokenizerError::Format {
        path: vocab_path.into(),
        what: format!("not a vocabulary ({e}), a JSON object of tokens and ids was expected"),
    })?;
    let lines =
        merges.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    let merges = lines.map(|(index, line)| match line.split_once(' ') {
        Some(pair) => Ok(pair),
        None => Err(TokenizerError::Format {
            path: merges_path.into(),
            what: format!("line {}: two tokens with a space between them were expected", index + 1),
        }),
    });
    let merges: Vec<(&str, &str)> = merges.collect::<Result<_, _>>()?;
    let special = vocab.get(END_OF_TEXT).cloned();
    Ok(byte_level(&vocab, &merges, special))
}

/// The text of a byte-level tokenizer with GPT-2's pattern for words; `special` is the id of [`END_OF_TEXT`].
pub(super) fn byte_level(
    vocab: &Map<String, Value>,
    merges: &[(&str, &str)],
    special: Option<Value>,
) -> String {
    let added: Vec<Value> = special
        .into_iter()
        .map(|id| {
            json!({
                "id": id, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges,
        },
    })
    .to_string()
}
