//! The `tokenizer.bin` of llama2.c (Karpathy 2023): a `SentencePiece` byte-pair encoding with scores.
//!
//! The file is a `u32`, the length of the longest token, then for each token an `f32` score, an `i32` length and that many
//! bytes, little-endian, to the end of the file. Token 0 stands for what is not known, 1 begins a text, 2 ends it, 3 to 258 are
//! the bytes as `<0x00>` to `<0xFF>`. Spaces are plain there and `▁` in `SentencePiece`.

use std::path::Path;

use arcane_models::{Around, Token, TokenKind, sentence_piece_json};

use super::TokenizerError;

/// Score and length of a token.
const HEAD_BYTES: usize = 8;
/// The first tokens are always these.
const SPECIAL: [(&str, TokenKind); 3] =
    [("<unk>", TokenKind::Unknown), ("<s>", TokenKind::Control), ("</s>", TokenKind::Control)];
/// The token before each text.
const BEGIN: u32 = 1;

/// The text of the same tokenizer's `tokenizer.json`.
///
/// # Errors
/// [`TokenizerError::Format`].
pub(super) fn to_json(bytes: &[u8], path: &Path) -> Result<String, TokenizerError> {
    let format = |what| TokenizerError::Format { path: path.into(), what };
    let token = |(id, (text, score)): (usize, (String, f32))| {
        let is_byte = text.len() == 6 && text.starts_with("<0x");
        let (text, kind) = match SPECIAL.get(id) {
            Some((special, kind)) => ((*special).to_string(), *kind),
            None if is_byte => (text, TokenKind::Byte),
            None => (text.replace(' ', "\u{2581}"), TokenKind::Normal),
        };
        Token { text, kind, score }
    };
    let tokens: Vec<Token> = tokens(bytes).map_err(format)?.into_iter().enumerate().map(token).collect();
    sentence_piece_json(&tokens, Around { begin: Some(BEGIN), end: None }, true).map_err(format)
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
