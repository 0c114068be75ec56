//! The `tokenizer.bin` of llama2.c (Karpathy 2023): a SentencePiece byte-pair encoding with scores.
//!
//! The file is a `u32`, the length of the longest token, then for each token an `f32` score, an `i32` length and that many
//! bytes, little-endian, to the end of the file. Token 0 stands for what is not known, 1 begins a text, 2 ends it, 3 to 258 are
//! the bytes as `<0x00>` to `<0xFF>`. Spaces are plain there and `▁` in SentencePiece.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::TokenizerError;

/// Score and length of a token.
const HEAD_BYTES: usize = 8;
/// The first tokens are always these.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// The text of the same tokenizer's `tokenizer.json`. SentencePiece merges the neighbours whose union has the highest score
/// first; so the merges are all ways to cut a token into two, in the order of the tokens' scores.
///
/// # Errors
/// [`TokenizerError::Format`].
pub(super) fn to_json(bytes: &[u8], path: &Path) -> Result<String, TokenizerError> {
    let tokens = tokens(bytes).map_err(|what| TokenizerError::Format { path: path.into(), what })?;
    let mut vocab = Map::new();
    let mut scored = Vec::new();
    for (id, (text, score)) in tokens.iter().enumerate() {
        let is_byte = text.len() == 6 && text.starts_with("<0x");
        let text = match SPECIAL.get(id) {
            Some(special) => (*special).to_string(),
            None if is_byte => text.clone(),
            None => text.replace(' ', "\u{2581}"),
        };
        if id >= SPECIAL.len() && !is_byte {
            scored.push((text.clone(), *score));
        }
        // The first of equal tokens counts.
        vocab.entry(text).or_insert(json!(id));
    }
    let special = |id: usize, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    };
    let added: Vec<Value> = SPECIAL.iter().enumerate().map(|(id, content)| special(id, content)).collect();
    let begin = json!({ "SpecialToken": { "id": "<s>", "type_id": 0 } });
    let text = |id, type_id| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let space = json!({ "String": "\u{2581}" });
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "\u{2581}" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
        ] },
        "pre_tokenizer": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text("A", 0)],
            "pair": [begin, text("A", 0), text("B", 1)],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } },
        },
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": space, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": "<unk>",
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges(&scored),
        },
    });
    Ok(json.to_string())
}

/// Every way to cut a token into two others, by falling score, then by the length of the first part.
fn merges(scored: &[(String, f32)]) -> Vec<[&str; 2]> {
    let known: BTreeSet<&str> = scored.iter().map(|(text, _)| text.as_str()).collect();
    let mut merges: Vec<(f32, usize, [&str; 2])> = Vec::new();
    for (text, score) in scored {
        let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        for (a, b) in cuts.filter(|(a, b)| known.contains(a) && known.contains(b)) {
            merges.push((*score, a.chars().count(), [a, b]));
        }
    }
    // Stable: tokens of one score stay in the order of their ids.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    merges.into_iter().map(|(_, _, pair)| pair).collect()
}

fn tokens(bytes: &[u8]) -> Result<Vec<(String, f32)>, String> {
    let what = "a llama2.c tokenizer";
    let Some((longest, mut rest)) = bytes.split_first_chunk::<4>() else {
        return Err(format!("{} bytes, {what} was expected", bytes.len()));
    };
    let longest = u32::from_le_bytes(*longest) as usize;
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let id = tokens.len();
        let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() else {
            return Err(format!("the file ends within token {id}, {what} was expected"));
        };
        let [s0, s1, s2, s3, l0, l1, l2, l3] = *head;
        let score = f32::from_le_bytes([s0, s1, s2, s3]);
        let length = i32::from_le_bytes([l0, l1, l2, l3]);
        let token = usize::try_from(length)
            .ok()
            .filter(|&n| n <= longest.max(6))
            .and_then(|n| after.split_at_checked(n));
        let Some((token, after)) = token else {
            return Err(format!(
                "token {id} has a length of {length} bytes, at most {longest} and the rest of the file ({}) were expected",
                after.len()
            ));
        };
        let Ok(token) = std::str::from_utf8(token) else {
            return Err(format!("token {id} is not UTF-8"));
        };
        if score.is_nan() {
            return Err(format!("token {id} has the score NaN, a number was expected"));
        }
        tokens.push((token.to_string(), score));
        rest = after;
    }
    if tokens.len() < SPECIAL.len() {
        return Err(format!("{} tokens, at least {} were expected", tokens.len(), SPECIAL.len()));
    }
    Ok(tokens)
}
