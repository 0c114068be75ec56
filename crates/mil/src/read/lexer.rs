//! Tokens of MIL text.

use super::Fault;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, also `inf`, `true` and the names of types and ops.
    Identifier,
    /// An integer, a decimal or hexadecimal float, or a signed `inf` or `nan`.
    Number,
    /// A string with its quotes and escapes.
    Text,
    /// One of `()[]{}<>,;=?.`.
    Punctuation(u8),
    /// `->`
    Arrow,
    /// The end of the text.
    End,
}

/// A token and where it starts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl Token<'_> {
    pub(super) fn is(&self, punctuation: u8) -> bool {
        self.kind == Kind::Punctuation(punctuation)
    }

    /// The fault that this token stands where something else should.
    pub(super) fn unexpected(&self, expected: impl Into<String>) -> Fault {
        let what = match self.kind {
            Kind::End => "the text ends here".into(),
            _ => format!("found {}", shown(self.text)),
        };
        Fault::new(self.at, what, expected)
    }
}

/// Text in back quotes, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// Cuts tokens off the front of a text. A copy looks ahead.
#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token; [`Kind::End`] again and again at the end.
    pub(super) fn next(&mut self) -> Result<Token<'a>, Fault> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let rest = &bytes[self.at..];
        let Some(&first) = rest.first() else {
            return Ok(Token { kind: Kind::End, text: "", at: self.at });
        };
        let second = rest.get(1);
        let (kind, length) = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => (Kind::Identifier, word(rest)),
            b'-' if second == Some(&b'>') => (Kind::Arrow, 2),
            b'.' if !second.is_some_and(u8::is_ascii_digit) => (Kind::Punctuation(first), 1),
            b'0'..=b'9' | b'.' | b'-' => (Kind::Number, self.number(rest)?),
            b'"' => (Kind::Text, self.string(rest)?),
            b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b',' | b';' | b'=' | b'?' => {
                (Kind::Punctuation(first), 1)
            }
            _ => {
                let c = self.text[self.at..].chars().next().unwrap_or_default();
                return Err(Fault::new(self.at, format!("found the character {c:?}"), "MIL text"));
            }
        };
        let at = self.at;
        self.at += length;
        Ok(Token { kind, text: &self.text[at..self.at], at })
    }

    /// The length of a number: everything that could belong to it has to.
    fn number(&self, rest: &[u8]) -> Result<usize, Fault> {
        let sign = usize::from(rest[0] == b'-');
        let body = &rest[sign..];
        let length = if body.starts_with(b"0x") || body.starts_with(b"0X") {
            hexadecimal(&body[2..]).map(|n| n + 2)
        } else if body.starts_with(b"inf") || body.starts_with(b"nan") {
            Some(3)
        } else {
            decimal(body)
        };
        let known = length.unwrap_or(0);
        let rest = word(&body[known..]);
        match length {
            Some(n) if rest == 0 => Ok(sign + n),
            _ => {
                let end = self.at + (sign + known + rest).max(1);
                Err(Fault::new(self.at, format!("found {}", shown(&self.text[self.at..end])), "a number"))
            }
        }
    }

    fn string(&self, rest: &[u8]) -> Result<usize, Fault> {
        let mut i = 1;
        loop {
            match rest.get(i) {
                Some(b'"') => return Ok(i + 1),
                Some(b'\\') if rest.get(i + 1).is_some_and(|b| *b != b'\n') => i += 2,
                None | Some(b'\n') => {
                    return Err(Fault::new(self.at, "the string has no end", "`\"` on the same line"));
                }
                Some(_) => i += 1,
            }
        }
    }
}

/// Which bytes names are made of.
const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = (b as u8).is_ascii_alphanumeric() || matches!(b as u8, b'_' | b'@');
        b += 1;
    }
    table
};

fn word(rest: &[u8]) -> usize {
    rest.iter().position(|&b| !WORD[usize::from(b)]).unwrap_or(rest.len())
}

fn digits(rest: &[u8], is_digit: impl Fn(&u8) -> bool) -> usize {
    rest.iter().take_while(|b| is_digit(b)).count()
}

/// Digits with at most one point between, before or after them: the length and whether there are digits.
fn mantissa(rest: &[u8], is_digit: impl Fn(&u8) -> bool) -> (usize, bool) {
    let whole = digits(rest, &is_digit);
    if rest.get(whole) != Some(&b'.') {
        return (whole, whole > 0);
    }
    let fraction = digits(&rest[whole + 1..], &is_digit);
    (whole + 1 + fraction, whole + fraction > 0)
}

/// The letter, a sign if any, and digits.
fn exponent(rest: &[u8], letter: u8) -> Option<usize> {
    if !rest.first().is_some_and(|b| b.eq_ignore_ascii_case(&letter)) {
        return None;
    }
    let sign = usize::from(matches!(rest.get(1), Some(b'+' | b'-')));
    match digits(&rest[1 + sign..], u8::is_ascii_digit) {
        0 => None,
        n => Some(1 + sign + n),
    }
}

fn decimal(body: &[u8]) -> Option<usize> {
    let (length, any) = mantissa(body, u8::is_ascii_digit);
    any.then(|| length + exponent(&body[length..], b'e').unwrap_or(0))
}

fn hexadecimal(body: &[u8]) -> Option<usize> {
    let (length, any) = mantissa(body, u8::is_ascii_hexdigit);
    any.then(|| length + exponent(&body[length..], b'p').unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, &str)> {
        let mut lexer = Lexer::new(text);
        let mut found = Vec::new();
        loop {
            let token = lexer.next().unwrap();
            if token.kind == Kind::End {
                return found;
            }
            found.push((token.kind, token.text));
        }
    }

    #[test]
    fn tokens_need_no_space_between_them() {
        use Kind::{Arrow, Identifier, Number, Punctuation, Text};
        assert_eq!(
            kinds("a=b@2(-1,.5)->\"x\\\"y\";"),
            [
                (Identifier, "a"),
                (Punctuation(b'='), "="),
                (Identifier, "b@2"),
                (Punctuation(b'('), "("),
                (Number, "-1"),
                (Punctuation(b','), ","),
                (Number, ".5"),
                (Punctuation(b')'), ")"),
                (Arrow, "->"),
                (Text, "\"x\\\"y\""),
                (Punctuation(b';'), ";"),
            ]
        );
    }

    #[test]
    fn numbers_are_taken_whole_or_refused() {
        for text in
            ["0", "-12", "1.", ".5", "1e-05", "-2.5E+3", "0x1.5p-17", "-0x0p+0", "0x1F", "-inf", "-nan"]
        {
            assert_eq!(kinds(text), [(Kind::Number, text)]);
        }
        for text in ["1x", "0x", "0x1.5q", "1e", "-", "--1", "0x1p", "1_000", "-infinity", "1e5x"] {
            assert!(Lexer::new(text).next().is_err(), "{text}");
        }
    }

    #[test]
    fn long_tokens_are_cut_in_messages() {
        assert_eq!(shown(&"é".repeat(50)), format!("`{}...`", "é".repeat(40)));
    }
}
