//! Decoding while ids arrive.

use super::{Tokenizer, TokenizerError};

/// The longest encoding of a character takes four bytes, so a text that still ends within a character after this many tokens
/// is not UTF-8.
const LONGEST_CHARACTER: usize = 4;
/// Tokens of what came before that a token's text may depend on: one, and those that a character is spread over.
const CONTEXT: usize = LONGEST_CHARACTER;

/// Gives text as soon as it is complete: a character whose bytes are spread over several tokens comes with the last of them.
/// The pieces joined are what [`Tokenizer::decode`] makes of all ids at once, as long as that is UTF-8.
#[derive(Debug, Clone)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The last ids: first some whose text has been given, since a decoder treats the start of a text in its own way, then those
    /// whose text has not.
    ids: Vec<u32>,
    /// How many of them have been given.
    given: usize,
}

impl<'a> TokenStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), given: 0 }
    }

    /// Goes on after a text whose ids these are, as after a prompt: only what is pushed from now on is given. Spaces are then
    /// those of the middle of a text.
    pub fn follow(&mut self, ids: &[u32]) {
        self.ids = ids.iter().copied().filter(|&id| !self.tokenizer.is_special(id)).collect();
        self.ids.drain(..self.ids.len().saturating_sub(CONTEXT));
        self.given = self.ids.len();
    }

    /// Takes an id; gives the text that it completes, if it does. Special tokens have none.
    ///
    /// # Errors
    /// [`TokenizerError::Library`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>, TokenizerError> {
        if self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.ids.push(id);
        let text = self.pending()?;
        let waits =
            text.ends_with(char::REPLACEMENT_CHARACTER) && self.ids.len() - self.given < LONGEST_CHARACTER;
        if text.is_empty() || waits {
            return Ok(None);
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(Some(text))
    }

    /// What is left when no more ids come: the bytes of an incomplete character, as U+FFFD.
    ///
    /// # Errors
    /// [`TokenizerError::Library`].
    pub fn finish(self) -> Result<Option<String>, TokenizerError> {
        let text = self.pending()?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// The text of the ids that have not been given.
    fn pending(&self) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(&self.ids[..self.given])?;
        let all = self.tokenizer.decode(&self.ids)?;
        match all.strip_prefix(&before) {
            Some(rest) => Ok(rest.to_string()),
            // Bytes that are no character change how their neighbours are decoded.
            None => self.tokenizer.decode(&self.ids[self.given..]),
        }
    }
}
