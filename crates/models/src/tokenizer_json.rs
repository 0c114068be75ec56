//! The text of a Hugging Face `tokenizer.json`, made of a vocabulary that comes in another form.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

/// `SentencePiece`'s mark for a space.
const SPACE: &str = "\u{2581}";

/// What a token of a vocabulary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// What stands for text that no token spells.
    Unknown,
    /// A mark without text, as the start of a text.
    Control,
    /// Text that is this token wherever it occurs.
    UserDefined,
    /// A place without a token.
    Unused,
    /// A byte, spelt `<0x0A>`.
    Byte,
}

/// A token of a vocabulary; its id is its place there.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its text as the vocabulary spells it.
    pub text: String,
    /// What it is for.
    pub kind: TokenKind,
    /// Of two merges, `SentencePiece` does the one that makes the token with the higher score.
    pub score: f32,
}

/// Tokens that are put around each text, by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Around {
    /// Before it.
    pub begin: Option<u32>,
    /// Behind it.
    pub end: Option<u32>,
}

/// A byte-pair encoding with scores as `SentencePiece` makes it (Kudo & Richardson 2018), spaces as `▁`. With `space_prefix` a
/// text is encoded as if a space preceded it.
///
/// It merges the neighbours whose union has the highest score first; so the merges are all ways to cut a token into two, in the
/// order of the tokens' scores.
///
/// # Errors
/// If a token of `around` is not in the vocabulary.
pub fn sentence_piece_json(tokens: &[Token], around: Around, space_prefix: bool) -> Result<String, String> {
    let normal = tokens.iter().filter(|token| token.kind == TokenKind::Normal);
    let scored: Vec<(&str, f32)> = normal.map(|token| (token.text.as_str(), token.score)).collect();
    let unknown = tokens.iter().find(|token| token.kind == TokenKind::Unknown);
    let prepend = json!({ "type": "Prepend", "prepend": SPACE });
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let strip = json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 });
    let decoders = [
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    let normalizers: Vec<Value> = space_prefix.then_some(prepend).into_iter().chain([replace]).collect();
    let decoders: Vec<Value> = decoders.into_iter().chain(space_prefix.then_some(strip)).collect();
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokens),
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": post_processor(tokens, around)?,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.map(|token| &token.text),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocab(tokens),
            "merges": cuts(&scored),
        },
    });
    Ok(json.to_string())
}

/// How a byte-level tokenizer treats text before its merges.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    /// `normalizer`.
    pub(crate) normalizer: Value,
    /// `pre_tokenizer`.
    pub(crate) pre_tokenizer: Value,
    /// Whether a word that is a token is that token, whatever the merges make of it.
    pub(crate) ignore_merges: bool,
}

/// A byte-pair encoding over bytes (Radford et al. 2019), which are spelt as printable characters.
///
/// # Errors
/// If a token of `around` or of a merge is not in the vocabulary.
pub(crate) fn byte_level_json(
    tokens: &[Token],
    merges: &[(String, String)],
    around: Around,
    words: &Words,
) -> Result<String, String> {
    let known: HashSet<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    for (index, (left, right)) in merges.iter().enumerate() {
        let both = format!("{left}{right}");
        if let Some(token) = [left, right, &both].into_iter().find(|token| !known.contains(token.as_str())) {
            return Err(format!("merge {index} has {token:?}, which is not a token"));
        }
    }
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokens),
        "normalizer": words.normalizer,
        "pre_tokenizer": words.pre_tokenizer,
        "post_processor": post_processor(tokens, around)?,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": words.ignore_merges,
            "vocab": vocab(tokens),
            "merges": merges,
        },
    });
    Ok(json.to_string())
}

/// The part that spells bytes as characters; with `cuts_words` it cuts text as GPT-2 does, too.
pub(crate) fn byte_level(cuts_words: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cuts_words })
}

/// Tokens and ids; the first of equal tokens counts.
fn vocab(tokens: &[Token]) -> Map<String, Value> {
    let mut vocab = Map::new();
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind != TokenKind::Unused) {
        vocab.entry(token.text.as_str()).or_insert(json!(id));
    }
    vocab
}

fn added_tokens(tokens: &[Token]) -> Vec<Value> {
    let added = |(id, token): (usize, &Token)| {
        let special = match token.kind {
            TokenKind::Control | TokenKind::Unknown => true,
            TokenKind::UserDefined => false,
            TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
        };
        Some(json!({
            "id": id, "content": token.text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": special,
        }))
    };
    tokens.iter().enumerate().filter_map(added).collect()
}

fn post_processor(tokens: &[Token], around: Around) -> Result<Value, String> {
    if around == Around::default() {
        return Ok(Value::Null);
    }
    let mut special = Map::new();
    let mut piece = |id: Option<u32>| -> Result<Option<Value>, String> {
        let Some(id) = id else { return Ok(None) };
        let token = tokens.get(id as usize).filter(|token| token.kind != TokenKind::Unused);
        let token = token.ok_or_else(|| format!("no token has the id {id}, which is put around texts"))?;
        let text = &token.text;
        special.insert(text.clone(), json!({ "id": text, "ids": [id], "tokens": [text] }));
        Ok(Some(json!({ "SpecialToken": { "id": text, "type_id": 0 } })))
    };
    let (begin, end) = (piece(around.begin)?, piece(around.end)?);
    let text = |id, type_id| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let sides = |texts: Vec<Value>| begin.iter().cloned().chain(texts).chain(end.clone()).collect::<Vec<_>>();
    Ok(json!({
        "type": "TemplateProcessing",
        "single": sides(vec![text("A", 0)]),
        "pair": sides(vec![text("A", 0), text("B", 1)]),
        "special_tokens": special,
    }))
}

/// Every way to cut a token into two others, by falling score, then by the length of the first part.
fn cuts<'a>(scored: &[(&'a str, f32)]) -> Vec<[&'a str; 2]> {
    let known: HashSet<&str> = scored.iter().map(|(text, _)| *text).collect();
    let mut cuts: Vec<(f32, usize, [&str; 2])> = Vec::new();
    for &(text, score) in scored {
        let all = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        for (a, b) in all.filter(|(a, b)| known.contains(a) && known.contains(b)) {
            cuts.push((score, a.chars().count(), [a, b]));
        }
    }
    // Stable: tokens of one score stay in the order of their ids.
    cuts.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    cuts.into_iter().map(|(_, _, pair)| pair).collect()
}
