//! Byte-pair encoding learnt from text (Sennrich et al. 2016), on bytes (Radford et al. 2019).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use rayon::iter::{ParallelBridge, ParallelIterator};
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::{END_OF_TEXT, TokenizerError, gpt2};

/// Every byte, and the token that ends a text.
const LEAST_VOCAB: usize = 257;
/// A pair that occurs once more would make no text shorter than its own entry.
const LEAST_COUNT: u64 = 2;

type Pair = (u32, u32);

/// The text of a `tokenizer.json` with at most `vocab` tokens.
///
/// # Errors
/// [`TokenizerError::TooSmall`]; [`TokenizerError::Library`] if a document cannot be cut into words.
pub(super) fn train<D: AsRef<str> + Send>(
    documents: impl Iterator<Item = D> + Send,
    vocab: usize,
) -> Result<String, TokenizerError> {
    if vocab < LEAST_VOCAB {
        return Err(TokenizerError::TooSmall { found: vocab, least: LEAST_VOCAB });
    }
    let alphabet: BTreeSet<char> = ByteLevel::alphabet().into_iter().collect();
    let mut tokens = vec![END_OF_TEXT.to_string()];
    tokens.extend(alphabet.iter().map(char::to_string));
    let mut learner = Learner::new(tokens, count_words(documents)?);
    while learner.tokens.len() < vocab && learner.merge_most_frequent() {}
    let Learner { tokens, merges, .. } = &learner;
    let names: Vec<(&str, &str)> =
        merges.iter().map(|&(a, b)| (tokens[a as usize].as_str(), tokens[b as usize].as_str())).collect();
    let ids = tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    Ok(gpt2::byte_level(&ids, &names, Some(json!(0))))
}

/// How often each word occurs, in the letters that stand for bytes.
fn count_words<D: AsRef<str> + Send>(
    documents: impl Iterator<Item = D> + Send,
) -> Result<BTreeMap<String, u64>, TokenizerError> {
    let error = |e: tokenizers::Error| TokenizerError::Library { doing: "cut", what: e.to_string() };
    let cut = ByteLevel::new(false, true, true);
    let count = |document: D| {
        let mut words: HashMap<String, u64> = HashMap::new();
        let mut text = PreTokenizedString::from(document.as_ref());
        cut.pre_tokenize(&mut text).map_err(error)?;
        for (word, _, _) in text.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match words.get_mut(word) {
                Some(count) => *count += 1,
                None => _ = words.insert(word.to_string(), 1),
            }
        }
        Ok(words)
    };
    // Sums do not depend on the order in which the documents are done.
    let sum = documents.par_bridge().map(count).try_reduce(HashMap::new, |a, b| {
        let (mut sum, other) = if a.len() < b.len() { (b, a) } else { (a, b) };
        for (word, count) in other.into_iter().collect::<BTreeMap<_, _>>() {
            *sum.entry(word).or_default() += count;
        }
        Ok(sum)
    })?;
    Ok(sum.into_iter().collect())
}

/// A word as tokens, and how often it occurs.
struct Word {
    tokens: Vec<u32>,
    count: u64,
}

/// Where a pair of neighbours is.
#[derive(Default)]
struct Occurrences {
    count: u64,
    /// All words that it is in, and some that it was in.
    words: Vec<u32>,
}

struct Learner {
    /// The token of each id, and the reverse.
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    merges: Vec<Pair>,
    words: Vec<Word>,
    pairs: HashMap<Pair, Occurrences>,
    /// Pairs by count, the smaller ids first among equals. An entry whose count is no longer right is put in again.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Learner {
    fn new(tokens: Vec<String>, counts: BTreeMap<String, u64>) -> Self {
        let ids: HashMap<String, u32> = (0..).zip(&tokens).map(|(id, token)| (token.clone(), id)).collect();
        let letter = |c: char| ids[c.encode_utf8(&mut [0; 4]) as &str];
        let words: Vec<Word> = counts
            .into_iter()
            .map(|(word, count)| Word { tokens: word.chars().map(letter).collect(), count })
            .collect();
        let mut pairs: HashMap<Pair, Occurrences> = HashMap::new();
        for (index, word) in (0..).zip(&words) {
            for pair in word.tokens.windows(2) {
                let found = pairs.entry((pair[0], pair[1])).or_default();
                found.count += word.count;
                found.words.push(index);
            }
        }
        let mut learner = Self { tokens, ids, merges: Vec::new(), words, pairs, queue: BinaryHeap::new() };
        learner.queue.extend(learner.pairs.iter().map(|(&pair, found)| (found.count, Reverse(pair))));
        learner
    }

    /// Makes a token of the most frequent pair; `false` if none is frequent enough.
    fn merge_most_frequent(&mut self) -> bool {
        let (pair, found) = loop {
            let Some((count, Reverse(pair))) = self.queue.pop() else { return false };
            let now = self.pairs.get(&pair).map_or(0, |found| found.count);
            if now < LEAST_COUNT {
                continue;
            }
            if now != count {
                self.queue.push((now, Reverse(pair)));
                continue;
            }
            match self.pairs.remove(&pair) {
                Some(found) => break (pair, found),
                None => return false,
            }
        };
        let text = format!("{}{}", self.tokens[pair.0 as usize], self.tokens[pair.1 as usize]);
        // Two pairs may spell one token.
        let merged = *self.ids.entry(text).or_insert_with_key(|text| {
            self.tokens.push(text.clone());
            self.tokens.len() as u32 - 1
        });
        self.merges.push(pair);
        let mut words = found.words;
        words.sort_unstable();
        words.dedup();
        let mut risen = BTreeSet::new();
        for index in words {
            self.merge_in_word(index, pair, merged, &mut risen);
        }
        let Self { queue, pairs, .. } = self;
        queue.extend(risen.into_iter().filter_map(|pair| Some((pairs.get(&pair)?.count, Reverse(pair)))));
        true
    }

    /// Replaces a pair in a word and counts the neighbours anew; `risen` gets the pairs that are there now.
    fn merge_in_word(&mut self, index: u32, pair: Pair, merged: u32, risen: &mut BTreeSet<Pair>) {
        let Word { tokens, count } = &mut self.words[index as usize];
        let mut new = Vec::with_capacity(tokens.len());
        let mut rest = tokens.as_slice();
        while let [first, after @ ..] = rest {
            if after.first().is_some_and(|&second| (*first, second) == pair) {
                new.push(merged);
                rest = &after[1..];
            } else {
                new.push(*first);
                rest = after;
            }
        }
        if new.len() == tokens.len() {
            return;
        }
        for old in tokens.windows(2).map(|old| (old[0], old[1])).filter(|&old| old != pair) {
            if let Some(found) = self.pairs.get_mut(&old) {
                found.count -= *count;
            }
        }
        for next in new.windows(2).map(|next| (next[0], next[1])) {
            let found = self.pairs.entry(next).or_default();
            found.count += *count;
            found.words.push(index);
            risen.insert(next);
        }
        *tokens = new;
    }
}
