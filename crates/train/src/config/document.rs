//! A TOML document with `--set` overrides on top that knows where each of its values was written.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::ConfigError;

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Somewhere in the file, or nowhere (a missing key).
    File(PathBuf),
    /// A position in the file; line and column count from 1, the column in characters.
    Position {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An override, as given.
    Override(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Position { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Override(text) => write!(f, "--set {text}"),
        }
    }
}

/// The text of a configuration and of its overrides.
///
/// Byte offsets from the TOML parser refer to the file followed by the overrides: each override is parsed behind as many
/// spaces as there are bytes before it, so that one offset tells both which text is meant and where in it.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    /// The offsets of each override, and the override.
    overrides: Vec<(Range<usize>, &'a str)>,
    /// Where the value (or table) of each dotted key is.
    positions: BTreeMap<String, Range<usize>>,
}

impl<'a> Document<'a> {
    /// Parses the text, applies the overrides in order and deserialises the result.
    pub(super) fn parse<T: DeserializeOwned>(
        text: &'a str,
        path: &'a Path,
        overrides: &'a [String],
    ) -> Result<(T, Self), ConfigError> {
        let mut document = Self { path, text, overrides: Vec::new(), positions: BTreeMap::new() };
        let mut root = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
            place: document.place(e.span()),
            what: e.message().replace('\n', ", "),
        })?;
        let mut sources = Vec::new();
        let mut start = text.len() + 1;
        for given in overrides {
            let source = override_source(given, start)?;
            let end = source.len();
            sources.push(source);
            document.overrides.push((start..end, given));
            start = end + 1;
        }
        for (source, given) in sources.iter().zip(overrides) {
            let table = DeTable::parse(source).map_err(|e| malformed(given, e.message()))?;
            merge(root.get_mut(), table.into_inner());
        }
        document.note_positions("", root.get_ref());
        match T::deserialize(Deserializer::from(root)) {
            Ok(value) => Ok((value, document)),
            Err(e) => Err(document.explain(&e)),
        }
    }

    /// The error for a key whose value is not acceptable.
    pub(super) fn reject(&self, key: &'static str, what: String) -> ConfigError {
        ConfigError::Value { place: self.place(self.positions.get(key).cloned()), key: key.into(), what }
    }

    /// Whether a key has been given by an override.
    pub(super) fn is_override(&self, key: &str) -> bool {
        self.positions.get(key).is_some_and(|at| at.start > self.text.len())
    }

    fn place(&self, at: Option<Range<usize>>) -> Place {
        let Some(at) = at else { return Place::File(self.path.into()) };
        if let Some((_, given)) = self.overrides.iter().find(|(range, _)| range.contains(&at.start)) {
            return Place::Override((*given).to_string());
        }
        let start = self.text.floor_char_boundary(at.start.min(self.text.len()));
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.matches('\n').count() + 1;
        Place::Position { path: self.path.into(), line, column: before[line_start..].chars().count() + 1 }
    }

    fn note_positions(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let key = format!("{prefix}{}", key.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                self.note_positions(&format!("{key}."), inner);
            }
            self.positions.insert(key, value.span());
        }
    }

    /// Turns serde's error into one that names the key.
    fn explain(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message();
        let message =
            message.replacen("unknown field", "unknown key", 1).replacen("missing field", "missing key", 1);
        let place = self.place(error.span());
        let inside = |at: &Range<usize>| {
            error.span().is_some_and(|span| at.start <= span.start && span.end <= at.end && !span.is_empty())
        };
        // The innermost value around the error is the shortest one.
        let key = self.positions.iter().filter(|(_, at)| inside(at)).min_by_key(|(_, at)| at.len());
        match key {
            // The message has the name already, and the place is that of the key.
            _ if message.starts_with("unknown key") => ConfigError::Key { place, what: message },
            Some((key, _)) => ConfigError::Value { place, key: key.clone(), what: message },
            None => ConfigError::Key { place, what: message },
        }
    }
}

fn malformed(given: &str, what: &str) -> ConfigError {
    ConfigError::Override { given: given.to_string(), what: what.replace('\n', ", ") }
}

/// The override as a line of TOML behind `start` spaces. A value that is not TOML is a string.
fn override_source(given: &str, start: usize) -> Result<String, ConfigError> {
    let Some((key, value)) = given.split_once('=') else {
        return Err(malformed(given, "expected key=value, for example train.steps=100"));
    };
    let key = key.trim();
    if key.is_empty() || key.contains(['\n', '#', '[', '{']) {
        return Err(malformed(given, "expected a dotted key before `=`, for example train.steps=100"));
    }
    let padding = " ".repeat(start);
    let source = format!("{padding}{key} = {}", value.trim());
    if !value.contains('\n') && DeTable::parse(&source).is_ok() {
        return Ok(source);
    }
    Ok(format!("{padding}{key} = {}", toml::Value::String(value.to_string())))
}

/// Puts the values of one table into another, table by table.
fn merge<'a>(into: &mut DeTable<'a>, from: DeTable<'a>) {
    for (key, value) in from {
        let span = value.span();
        match (into.get_mut(&key).map(toml::Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(old)), DeValue::Table(new)) => merge(old, new),
            (_, value) => {
                // A key keeps its place when only its value is replaced; its place is now the override.
                into.remove(&key);
                into.insert(key, toml::Spanned::new(span, value));
            }
        }
    }
}
