//! Documents: text or token ids, as files and folders hold them.
//!
//! | source | documents |
//! |---|---|
//! | `.txt`, `.text`, `.md` | text; a line `<\|endoftext\|>` separates documents, without one the file is one |
//! | `.jsonl` | the string `text` of each line's object |
//! | a folder | those of all such files in it and below, in the order of their paths |
//! | `.bin`, `.npy` | token ids, one document; see [`crate::tokens`] |
//! | `builtin:austen` | novels by Jane Austen, part of the program; see `data/austen/README.md` |
//!
//! Text files may be packed (`.txt.gz`). Line breaks at the ends of a document belong to the file, not to the document.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::IdDtype;
use crate::tokenizer::END_OF_TEXT;
use crate::tokens::{Tokens, TokensError};

/// What a path of [`BUILTIN`] begins with.
pub(crate) const BUILTIN_PREFIX: &str = "builtin:";
/// Text that is part of the program.
const BUILTIN: [(&str, &str); 1] = [("builtin:austen", include_str!("../../../data/austen/austen.txt"))];
/// The most bytes that a text file may have, unpacked.
const TEXT_BYTES: u64 = 1 << 32;

/// What can be wrong with documents. Every message starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// A file or folder cannot be read.
    #[error("{}: cannot read the text: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It cannot be told what a file holds.
    #[error(
        "{}: expected text (.txt, .text, .md or .jsonl, also with .gz behind it, or a folder of these) or token ids (.bin or \
         .npy)",
        .0.display()
    )]
    Extension(PathBuf),
    /// There is no such text in the program.
    #[error("{}: no such text in this program, expected {}", path.display(), BUILTIN[0].0)]
    Builtin {
        /// What was asked for.
        path: PathBuf,
    },
    /// A file is too large.
    #[error("{}: more than {TEXT_BYTES} bytes of text, expected several smaller files", .0.display())]
    Large(PathBuf),
    /// A line is not a JSON object.
    #[error("{}:{line}:{column}: {what}, expected a JSON object with a string `text`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There is not one document.
    #[error("{}: no text in it, expected at least one document", .0.display())]
    Empty(PathBuf),
    /// Token ids cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Text.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
}

/// Documents in the order of the file, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The documents; none is empty.
    pub documents: Vec<Document>,
    /// What is not among them.
    pub dropped: Dropped,
}

/// What was left out while documents were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dropped {
    /// Documents without a character that is not white space.
    pub empty: u64,
    /// Lines of JSON without a string `text`.
    pub without_text: u64,
    /// Places that are not UTF-8, now U+FFFD.
    pub not_utf8: u64,
}

impl Dropped {
    /// What is missing, in words.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = String> {
        let left_out = [(self.empty, "empty documents"), (self.without_text, "lines without `text`")];
        left_out.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"))
    }

    /// What was replaced, in words.
    pub(crate) fn replaced(&self) -> Option<String> {
        let n = self.not_utf8;
        (n > 0).then(|| format!("{n} places that are not UTF-8 replaced by U+FFFD"))
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.empty += other.empty;
        self.without_text += other.without_text;
        self.not_utf8 += other.not_utf8;
    }
}

/// One line, empty if there is nothing to say.
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left_out: Vec<String> = self.left_out().collect();
        let left_out = (!left_out.is_empty()).then(|| format!("left out: {}", left_out.join(", ")));
        let parts: Vec<String> = left_out.into_iter().chain(self.replaced()).collect();
        f.write_str(&parts.join("; "))
    }
}

/// Reads the documents of a file, a folder or the program itself. `vocab` is how many ids there are: it says how a `.bin` stores
/// them (`u16` up to 65,536), and each id is checked.
///
/// # Errors
/// [`DocumentsError`].
pub fn read(path: &Path, vocab: usize) -> Result<Documents, DocumentsError> {
    if is_text(path)? {
        let (texts, dropped) = read_text(path)?;
        return Ok(Documents { documents: texts.into_iter().map(Document::Text).collect(), dropped });
    }
    let ids = Tokens::open(path, IdDtype::Auto, vocab)?.to_vec();
    if ids.is_empty() {
        return Err(DocumentsError::Empty(path.into()));
    }
    Ok(Documents { documents: vec![Document::Ids(ids)], dropped: Dropped::default() })
}

/// Whether a path is one of text, else of token ids. A `.bin` or `.npy` need not exist.
///
/// # Errors
/// [`DocumentsError::Extension`] if neither; [`DocumentsError::Io`] if there is nothing.
pub(crate) fn is_text(path: &Path) -> Result<bool, DocumentsError> {
    if path.to_string_lossy().starts_with(BUILTIN_PREFIX) || path.is_dir() || TextFile::of(path).is_some() {
        return Ok(true);
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin") || e.eq_ignore_ascii_case("npy")) {
        return Ok(false);
    }
    fs::metadata(path).map_err(io_error(path))?;
    Err(DocumentsError::Extension(path.into()))
}

/// Reads documents of text.
///
/// # Errors
/// [`DocumentsError`]; there is at least one document otherwise.
pub(crate) fn read_text(path: &Path) -> Result<(Vec<String>, Dropped), DocumentsError> {
    let (mut documents, mut dropped) = (Vec::new(), Dropped::default());
    if path.to_string_lossy().starts_with(BUILTIN_PREFIX) {
        let Some((_, text)) = BUILTIN.iter().find(|(name, _)| path.as_os_str() == *name) else {
            return Err(DocumentsError::Builtin { path: path.into() });
        };
        split(text, &mut documents, &mut dropped);
    } else if path.is_dir() {
        for file in text_files(path)? {
            read_file(&file, &mut documents, &mut dropped)?;
        }
    } else {
        read_file(path, &mut documents, &mut dropped)?;
    }
    if documents.is_empty() {
        return Err(DocumentsError::Empty(path.into()));
    }
    Ok((documents, dropped))
}

/// How a text file is to be read.
#[derive(Debug, Clone, Copy)]
struct TextFile {
    json_lines: bool,
    packed: bool,
}

impl TextFile {
    /// By the name; `None` if it is not that of a text file.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let (name, packed) = name.strip_suffix(".gz").map_or((name.as_str(), false), |name| (name, true));
        let (_, ending) = name.rsplit_once('.')?;
        let json_lines = ending == "jsonl";
        (json_lines || ["txt", "text", "md"].contains(&ending)).then_some(Self { json_lines, packed })
    }
}

/// The text files of a folder and of those below it, sorted. Links to folders are not followed: they may lead back.
fn text_files(folder: &Path) -> Result<Vec<PathBuf>, DocumentsError> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io_error(&folder))? {
            let entry = entry.map_err(io_error(&folder))?;
            let path = entry.path();
            if entry.file_type().map_err(io_error(&path))?.is_dir() {
                folders.push(path);
            } else if TextFile::of(&path).is_some() && path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, documents: &mut Vec<String>, dropped: &mut Dropped) -> Result<(), DocumentsError> {
    let Some(kind) = TextFile::of(path) else { return Err(DocumentsError::Extension(path.into())) };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_error(path))?;
    if kind.packed {
        flate2::read::MultiGzDecoder::new(file).take(TEXT_BYTES + 1).read_to_end(&mut bytes)
    } else {
        file.take(TEXT_BYTES + 1).read_to_end(&mut bytes)
    }
    .map_err(io_error(path))?;
    if bytes.len() as u64 > TEXT_BYTES {
        return Err(DocumentsError::Large(path.into()));
    }
    let text = decode(bytes, dropped);
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    if kind.json_lines {
        return read_json_lines(path, text, documents, dropped);
    }
    split(text, documents, dropped);
    Ok(())
}

/// UTF-8, with U+FFFD for what is not.
fn decode(bytes: Vec<u8>, dropped: &mut Dropped) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| {
        let mut text = String::new();
        for chunk in e.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                dropped.not_utf8 += 1;
            }
        }
        text
    })
}

/// Cuts a text at its lines `<|endoftext|>`.
fn split(text: &str, documents: &mut Vec<String>, dropped: &mut Dropped) {
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end_matches(['\r', '\n']) == END_OF_TEXT {
            push(&text[start..at], documents, dropped);
            start = at + line.len();
        }
        at += line.len();
    }
    // A separator may also close the last document.
    if !text[start..].trim().is_empty() {
        push(&text[start..], documents, dropped);
    }
}

fn push(text: &str, documents: &mut Vec<String>, dropped: &mut Dropped) {
    if text.trim().is_empty() {
        dropped.empty += 1;
    } else {
        documents.push(text.trim_matches(['\r', '\n']).to_string());
    }
}

fn read_json_lines(
    path: &Path,
    text: &str,
    documents: &mut Vec<String>,
    dropped: &mut Dropped,
) -> Result<(), DocumentsError> {
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |column, what| DocumentsError::Line { path: path.into(), line: index + 1, column, what };
        let value: Value =
            serde_json::from_str(line).map_err(|e| wrong(e.column().max(1), json_reason(&e)))?;
        match value {
            Value::Object(mut object) => match object.remove("text") {
                Some(Value::String(text)) => push(&text, documents, dropped),
                _ => dropped.without_text += 1,
            },
            _ => return Err(wrong(1, "another JSON value".into())),
        }
    }
    Ok(())
}

/// The reason without the place, which counts lines from that of the value.
fn json_reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_string()
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DocumentsError {
    move |source| DocumentsError::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// The documents of a file with this name and content, and the message of an error without the folder.
    fn read_bytes(name: &str, bytes: &[u8]) -> Result<Documents, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
        let message = |e: DocumentsError| e.to_string().replace(&format!("{}/", folder.path().display()), "");
        read(&folder.path().join(name), 512).map_err(message)
    }

    fn texts(documents: &Documents) -> Vec<&str> {
        let texts = documents.documents.iter().map(|document| match document {
            Document::Text(text) => text.as_str(),
            Document::Ids(_) => panic!("ids"),
        });
        texts.collect()
    }

    #[test]
    fn separators_are_lines_of_their_own() {
        let text = "one\n\ntwo <|endoftext|>\n<|endoftext|>\n\n<|endoftext|>\r\n  three\r\n<|endoftext|>\n";
        let found = read_bytes("a.txt", text.as_bytes()).unwrap();
        assert_eq!(texts(&found), ["one\n\ntwo <|endoftext|>", "  three"]);
        assert_eq!(found.dropped, Dropped { empty: 1, ..Dropped::default() });
        assert_eq!(texts(&read_bytes("a.md", b"\xEF\xBB\xBFwhole\nfile\n").unwrap()), ["whole\nfile"]);
    }

    #[test]
    fn json_lines_give_their_text() {
        let found =
            read_bytes("a.jsonl", b"{\"text\":\"one\\n\"}\n\n{\"id\":3}\n{\"text\":7}\n{\"text\":\" \"}\r\n");
        let found = found.unwrap();
        assert_eq!(texts(&found), ["one"]);
        assert_eq!(found.dropped, Dropped { empty: 1, without_text: 2, not_utf8: 0 });
        let line = Dropped { not_utf8: 3, ..found.dropped }.to_string();
        let expected = "left out: 1 empty documents, 2 lines without `text`; 3 places that are not UTF-8 replaced by U+FFFD";
        assert_eq!((line.as_str(), Dropped::default().to_string()), (expected, String::new()));
        let expected = "expected a JSON object with a string `text`";
        let error = |text: &str| read_bytes("a.jsonl", text.as_bytes()).unwrap_err();
        assert_eq!(
            error("{\"text\":\"one\"}\n{\"text\":\n"),
            format!("a.jsonl:2:8: EOF while parsing a value, {expected}")
        );
        assert_eq!(error("\n[\"one\"]\n"), format!("a.jsonl:2:1: another JSON value, {expected}"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_counted() {
        let found = read_bytes("a.txt", b"caf\xC3\xA9 caf\xE9 \xF0\x9F\x98.\n").unwrap();
        assert_eq!(texts(&found), ["café caf\u{FFFD} \u{FFFD}."]);
        assert_eq!(found.dropped.not_utf8, 2);
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_paths() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("z.txt", b"last");
        write("b/c/x.jsonl", b"{\"text\":\"second\"}");
        write("b/notes.pdf", b"no text");
        write("a.text", b"first");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"third\n<|endoftext|>\nfourth").unwrap();
        let packed = packed.finish().unwrap();
        write("b/d.txt.gz", &packed);
        let found = read(folder.path(), 512).unwrap();
        assert_eq!(texts(&found), ["first", "second", "third", "fourth", "last"]);
        write("b/d.txt.gz", &packed[..packed.len() / 2]);
        let error = read(folder.path(), 512).unwrap_err().to_string();
        assert!(error.contains("b/d.txt.gz: cannot read the text: "), "{error}");
    }

    #[test]
    fn what_is_no_text_is_named() {
        assert!(read_bytes("a.csv", b"one").unwrap_err().starts_with("a.csv: expected text (.txt, "));
        assert!(read_bytes("a.gz", b"one").unwrap_err().starts_with("a.gz: expected text"));
        assert_eq!(
            read_bytes("a.txt", b"\n \n").unwrap_err(),
            "a.txt: no text in it, expected at least one document"
        );
        let missing = read(Path::new("/no/such/folder"), 512).unwrap_err().to_string();
        assert!(missing.starts_with("/no/such/folder: cannot read the text: "), "{missing}");
        let builtin = read(Path::new("builtin:bible"), 512).unwrap_err().to_string();
        assert_eq!(builtin, "builtin:bible: no such text in this program, expected builtin:austen");
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(read(empty.path(), 512), Err(DocumentsError::Empty(_))));
    }

    #[test]
    fn a_file_of_ids_is_one_document() {
        let found = read_bytes("a.bin", &[5, 0, 1, 1]).unwrap();
        assert_eq!(found.documents, [Document::Ids(vec![5, 257])]);
        assert!(read_bytes("a.bin", &[5, 0, 0, 2]).unwrap_err().contains("token 1 has id 512"));
        assert!(read_bytes("a.bin", &[]).unwrap_err().contains("no text in it"));
    }

    #[test]
    fn the_text_in_the_program_is_two_novels_in_chapters() {
        let found = read(Path::new("builtin:austen"), 512).unwrap();
        assert_eq!((found.documents.len(), found.dropped), (116, Dropped::default()));
        assert!(texts(&found)[0].starts_with("It is a truth universally acknowledged"));
    }
}
