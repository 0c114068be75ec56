//! Files of token ids: flat little-endian `.bin`, or `.npy`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use arcane_tensor::{DType, NpyError, npy_header};

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::config::IdDtype;
use crate::order::below;

/// Vocabularies up to this size are kept, and by default stored, in two bytes an id.
const U16_VOCAB: usize = 65_536;
/// Bytes read at once; a multiple of every id's size.
const CHUNK_BYTES: usize = 1 << 20;
/// Enough for the header of any array with a plain element type.
const NPY_HEADER_BYTES: u64 = 1 << 16;

/// What can be wrong with a token file. Every message starts with the path.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("{}: cannot read the tokens: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is not enough memory for it.
    #[error("{}: no memory for {count} tokens", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// Tokens in the file.
        count: u64,
    },
    /// The length is not that of whole ids.
    #[error("{}: {bytes} bytes of data, expected {expected}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes in the file (behind the header).
        bytes: u64,
        /// What the length should be.
        expected: String,
    },
    /// The header of a `.npy` file is not acceptable.
    #[error("{}: {source}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: NpyError,
    },
    /// A `.npy` file is no list of integers.
    #[error("{}: an array of type {dtype} and shape {shape:?}, expected one dimension of integers", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// Its element type.
        dtype: DType,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// An id is negative or not below the size of the vocabulary.
    #[error("{}: token {index} has id {id}, expected an id below the vocabulary's size of {vocab}", path.display())]
    Vocab {
        /// The file.
        path: PathBuf,
        /// Which token, from 0.
        index: u64,
        /// Its id.
        id: i128,
        /// How many ids there are.
        vocab: usize,
    },
    /// There is not one whole sequence.
    #[error("{}: {found} tokens, expected at least {needed} for one sequence of {seq} predictions", path.display())]
    TooFew {
        /// The file.
        path: PathBuf,
        /// Tokens that there are.
        found: usize,
        /// Tokens that are needed.
        needed: u64,
        /// Predictions in a sequence.
        seq: usize,
    },
}

/// The tokens of a file, every id checked against the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    path: PathBuf,
    ids: Ids,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ids {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Tokens {
    /// Reads a file: `.npy` by its name (one dimension of any integer type), anything else as flat little-endian ids of
    /// `id_dtype`. The ids have to be below `vocab`.
    ///
    /// # Errors
    /// [`TokensError`]; an empty file is fine here (see [`Tokens::whole_sequences`]).
    pub fn open(path: &Path, id_dtype: IdDtype, vocab: usize) -> Result<Self, TokensError> {
        let io = |source| TokensError::Io { path: path.into(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let is_npy = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"));
        let (dtype, data_offset) = if is_npy {
            npy_layout(path, &mut file, length)?
        } else {
            let dtype = match id_dtype {
                IdDtype::U16 => DType::U16,
                IdDtype::Auto if vocab <= U16_VOCAB => DType::U16,
                IdDtype::U32 | IdDtype::Auto => DType::U32,
            };
            (dtype, 0)
        };
        let bytes = length - data_offset;
        let size = dtype.size() as u64;
        if bytes % size != 0 {
            let expected = format!("a multiple of {size} (ids of type {dtype})");
            return Err(TokensError::Length { path: path.into(), bytes, expected });
        }
        file.seek(SeekFrom::Start(data_offset)).map_err(io)?;
        let reader = Reader { path, source: file.take(bytes), dtype, vocab, count: bytes / size };
        let ids = if vocab <= U16_VOCAB { Ids::U16(reader.read()?) } else { Ids::U32(reader.read()?) };
        Ok(Self { path: path.into(), ids })
    }

    /// Random ids below `vocab`, a function of the seed. `name` stands for a path in errors.
    ///
    /// # Errors
    /// [`TokensError::Memory`].
    ///
    /// # Panics
    /// If `vocab` is 0.
    pub fn random(name: &Path, count: u64, vocab: usize, seed: u64) -> Result<Self, TokensError> {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..21].copy_from_slice(b"random tokens");
        let mut rng = ChaCha8Rng::from_seed(key);
        let mut ids: Vec<u32> = Vec::new();
        let no_memory = || TokensError::Memory { path: name.into(), count };
        ids.try_reserve_exact(usize::try_from(count).map_err(|_| no_memory())?).map_err(|_| no_memory())?;
        ids.extend((0..count).map(|_| below(&mut rng, vocab as u64) as u32));
        Ok(Self { path: name.into(), ids: Ids::U32(ids) })
    }

    /// Ids from elsewhere: `count` of them, all below `vocab`. `name` stands for a path in errors.
    ///
    /// # Errors
    /// [`TokensError::Memory`].
    pub(crate) fn from_ids(
        name: &Path,
        count: usize,
        ids: impl Iterator<Item = u32>,
        vocab: usize,
    ) -> Result<Self, TokensError> {
        let no_memory = |_| TokensError::Memory { path: name.into(), count: count as u64 };
        let ids = if vocab <= U16_VOCAB {
            let mut kept = Vec::new();
            kept.try_reserve_exact(count).map_err(no_memory)?;
            kept.extend(ids.map(|id| id as u16));
            Ids::U16(kept)
        } else {
            let mut kept = Vec::new();
            kept.try_reserve_exact(count).map_err(no_memory)?;
            kept.extend(ids);
            Ids::U32(kept)
        };
        Ok(Self { path: name.into(), ids })
    }

    /// All ids.
    pub fn to_vec(&self) -> Vec<u32> {
        match &self.ids {
            Ids::U16(ids) => ids.iter().copied().map(u32::from).collect(),
            Ids::U32(ids) => ids.clone(),
        }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        match &self.ids {
            Ids::U16(ids) => ids.len(),
            Ids::U32(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many whole sequences of `seq` predictions there are: (tokens − 1) / seq.
    pub fn sequences(&self, seq: usize) -> u64 {
        (self.len().saturating_sub(1) as u64).checked_div(seq as u64).unwrap_or(0)
    }

    /// The same, where at least one is needed.
    ///
    /// # Errors
    /// [`TokensError::TooFew`] with the numbers of tokens there are and are needed.
    pub fn whole_sequences(&self, seq: usize) -> Result<NonZeroU64, TokensError> {
        NonZeroU64::new(self.sequences(seq)).ok_or_else(|| TokensError::TooFew {
            path: self.path.clone(),
            found: self.len(),
            needed: seq as u64 + 1,
            seq,
        })
    }

    /// Sequence `i` of `seq` predictions: inputs are the tokens `i·seq .. (i+1)·seq`, targets those one further.
    ///
    /// # Panics
    /// If there is no such sequence (see [`Tokens::sequences`]) or a slice is not `seq` long.
    pub fn sequence(&self, i: u64, seq: usize, inputs: &mut [i32], targets: &mut [i32]) {
        assert!(i < self.sequences(seq), "sequence {i} of {}", self.sequences(seq));
        assert_eq!((inputs.len(), targets.len()), (seq, seq));
        let start = i as usize * seq;
        match &self.ids {
            Ids::U16(ids) => copy_sequence(&ids[start..=start + seq], inputs, targets),
            Ids::U32(ids) => copy_sequence(&ids[start..=start + seq], inputs, targets),
        }
    }

    /// Cuts off the last part, `fraction` of all tokens (0 to 1, rounded down), for validation.
    #[must_use]
    pub fn split_off(&mut self, fraction: f64) -> Self {
        let kept = self.len() - ((self.len() as f64 * fraction.clamp(0.0, 1.0)) as usize).min(self.len());
        let ids = match &mut self.ids {
            Ids::U16(ids) => Ids::U16(ids.split_off(kept)),
            Ids::U32(ids) => Ids::U32(ids.split_off(kept)),
        };
        Self { path: self.path.clone(), ids }
    }
}

fn copy_sequence<T: Copy + Into<u32>>(ids: &[T], inputs: &mut [i32], targets: &mut [i32]) {
    for (slots, ids) in [(inputs, &ids[..ids.len() - 1]), (targets, &ids[1..])] {
        for (slot, &id) in slots.iter_mut().zip(ids) {
            let id: u32 = id.into();
            *slot = id as i32;
        }
    }
}

/// The element type of a `.npy` file and where its elements start; they go on to the end of the file.
fn npy_layout(path: &Path, file: &mut File, length: u64) -> Result<(DType, u64), TokensError> {
    let mut head = Vec::new();
    file.take(NPY_HEADER_BYTES)
        .read_to_end(&mut head)
        .map_err(|source| TokensError::Io { path: path.into(), source })?;
    let header = npy_header(&head).map_err(|source| TokensError::Npy { path: path.into(), source })?;
    let (&[count], true) = (header.shape.as_slice(), header.dtype.is_int()) else {
        return Err(TokensError::Array { path: path.into(), dtype: header.dtype, shape: header.shape });
    };
    let bytes = length.saturating_sub(header.data_offset as u64);
    if (count as u64).checked_mul(header.dtype.size() as u64) != Some(bytes) {
        let expected = format!("{count} ids of type {}", header.dtype);
        return Err(TokensError::Length { path: path.into(), bytes, expected });
    }
    Ok((header.dtype, header.data_offset as u64))
}

/// Reads ids of any integer type, checks them and keeps them in a type that is wide enough for the vocabulary.
struct Reader<'a> {
    path: &'a Path,
    source: io::Take<File>,
    dtype: DType,
    vocab: usize,
    count: u64,
}

impl Reader<'_> {
    fn read<T: TryFrom<u64>>(mut self) -> Result<Vec<T>, TokensError> {
        let mut ids = Vec::new();
        let count = self.count;
        let no_memory = || TokensError::Memory { path: self.path.into(), count };
        ids.try_reserve_exact(usize::try_from(count).map_err(|_| no_memory())?).map_err(|_| no_memory())?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            (&mut self.source)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)
                .map_err(|source| TokensError::Io { path: self.path.into(), source })?;
            if chunk.is_empty() {
                break;
            }
            self.convert(&chunk, &mut ids)?;
        }
        // The file may have been cut while it was read.
        if ids.len() as u64 != count {
            let bytes = ids.len() as u64 * self.dtype.size() as u64;
            return Err(TokensError::Length {
                path: self.path.into(),
                bytes,
                expected: format!("{count} ids"),
            });
        }
        Ok(ids)
    }

    fn convert<T: TryFrom<u64>>(&self, chunk: &[u8], ids: &mut Vec<T>) -> Result<(), TokensError> {
        match self.dtype {
            DType::U8 => self.push(chunk, u8::from_le_bytes, ids),
            DType::I8 => self.push(chunk, i8::from_le_bytes, ids),
            DType::U16 => self.push(chunk, u16::from_le_bytes, ids),
            DType::I16 => self.push(chunk, i16::from_le_bytes, ids),
            DType::U32 => self.push(chunk, u32::from_le_bytes, ids),
            DType::I32 => self.push(chunk, i32::from_le_bytes, ids),
            DType::U64 => self.push(chunk, u64::from_le_bytes, ids),
            DType::I64 => self.push(chunk, i64::from_le_bytes, ids),
            DType::Bool
            | DType::F16
            | DType::Bf16
            | DType::F32
            | DType::F64
            | DType::U1
            | DType::U2
            | DType::U3
            | DType::U4
            | DType::U6
            | DType::I4 => {
                Err(TokensError::Array { path: self.path.into(), dtype: self.dtype, shape: vec![] })
            }
        }
    }

    fn push<const N: usize, S, T>(
        &self,
        chunk: &[u8],
        decode: impl Fn([u8; N]) -> S,
        ids: &mut Vec<T>,
    ) -> Result<(), TokensError>
    where
        S: Copy + Into<i128> + TryInto<u64>,
        T: TryFrom<u64>,
    {
        let (elements, _) = chunk.as_chunks::<N>();
        for &bytes in elements {
            let id = decode(bytes);
            let known = id.try_into().ok().filter(|&id: &u64| id < self.vocab as u64);
            let Some(kept) = known.and_then(|id| T::try_from(id).ok()) else {
                return Err(TokensError::Vocab {
                    path: self.path.into(),
                    index: ids.len() as u64,
                    id: id.into(),
                    vocab: self.vocab,
                });
            };
            ids.push(kept);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcane_tensor::{Tensor, npy_bytes};

    fn open(name: &str, bytes: &[u8], id_dtype: IdDtype, vocab: usize) -> Result<Tokens, TokensError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Tokens::open(&path, id_dtype, vocab)
    }

    fn flat(ids: &[u16]) -> Vec<u8> {
        ids.iter().flat_map(|id| id.to_le_bytes()).collect()
    }

    fn sequence(tokens: &Tokens, i: u64, seq: usize) -> (Vec<i32>, Vec<i32>) {
        let (mut inputs, mut targets) = (vec![-1; seq], vec![-1; seq]);
        tokens.sequence(i, seq, &mut inputs, &mut targets);
        (inputs, targets)
    }

    #[test]
    fn targets_are_one_further_and_the_last_is_the_next_input() {
        let tokens = open("a.bin", &flat(&[10, 11, 12, 13, 14, 15, 16, 17]), IdDtype::Auto, 512).unwrap();
        assert_eq!(
            (tokens.len(), tokens.sequences(3), tokens.sequences(7), tokens.sequences(8)),
            (8, 2, 1, 0)
        );
        assert_eq!(sequence(&tokens, 0, 3), (vec![10, 11, 12], vec![11, 12, 13]));
        assert_eq!(sequence(&tokens, 1, 3), (vec![13, 14, 15], vec![14, 15, 16]));
        assert_eq!(tokens.whole_sequences(3).unwrap().get(), 2);
        let error = tokens.whole_sequences(8).unwrap_err().to_string();
        assert!(error.contains("8 tokens, expected at least 9"), "{error}");
    }

    #[test]
    fn the_width_follows_the_vocabulary_unless_given() {
        let bytes = [1, 0, 2, 0, 3, 0, 4, 0];
        assert_eq!(open("a.bin", &bytes, IdDtype::Auto, 65_536).unwrap().len(), 4);
        assert_eq!(open("a.bin", &bytes, IdDtype::Auto, 1 << 20).unwrap().len(), 2);
        assert_eq!(open("a.bin", &bytes, IdDtype::U16, 1 << 20).unwrap().len(), 4);
        let error = open("a.bin", &bytes, IdDtype::U32, 512).unwrap_err().to_string();
        assert!(
            error.contains("token 0 has id 131073, expected an id below the vocabulary's size of 512"),
            "{error}"
        );
    }

    #[test]
    fn broken_files_say_what_is_wrong() {
        let odd = open("a.bin", &[1, 0, 2], IdDtype::Auto, 512).unwrap_err().to_string();
        assert!(odd.contains("a.bin: 3 bytes of data, expected a multiple of 2"), "{odd}");
        let id = open("a.bin", &flat(&[1, 2, 512]), IdDtype::Auto, 512).unwrap_err().to_string();
        assert!(id.contains("token 2 has id 512"), "{id}");
        let empty = open("a.bin", &[], IdDtype::Auto, 512).unwrap();
        assert!(empty.is_empty() && empty.whole_sequences(1).is_err());
        let missing = Tokens::open(Path::new("/no/such/file.bin"), IdDtype::Auto, 512);
        assert!(missing.unwrap_err().to_string().starts_with("/no/such/file.bin: "));
        assert!(Tokens::open(&std::env::temp_dir(), IdDtype::Auto, 512).is_err());
    }

    #[test]
    fn npy_of_every_integer_type_gives_the_same_tokens() {
        use DType::{I8, I16, I32, I64, U8, U16, U32, U64};
        let ids = [5.0, 0.0, 100.0, 7.0];
        let expected = (vec![5, 0, 100], vec![0, 100, 7]);
        for dtype in [I8, I16, I32, I64, U8, U16, U32, U64] {
            for vocab in [101, 70_000] {
                let bytes = npy_bytes(&Tensor::from_f64s(dtype, &[4], &ids).unwrap()).unwrap();
                let tokens = open("a.npy", &bytes, IdDtype::Auto, vocab).unwrap();
                assert_eq!(sequence(&tokens, 0, 3), expected, "{dtype}");
            }
        }
    }

    #[test]
    fn npy_that_is_no_list_of_ids_is_refused() {
        let message = |tensor: &Tensor| {
            open("a.npy", &npy_bytes(tensor).unwrap(), IdDtype::Auto, 512).unwrap_err().to_string()
        };
        let negative = message(&Tensor::new(&[2], vec![3i64, -1]).unwrap());
        assert!(negative.contains("token 1 has id -1"), "{negative}");
        let huge = message(&Tensor::new(&[1], vec![u64::MAX]).unwrap());
        assert!(huge.contains("id 18446744073709551615"), "{huge}");
        assert!(message(&Tensor::new(&[1, 2], vec![1i32, 2]).unwrap()).contains("expected one dimension"));
        assert!(
            message(&Tensor::new(&[1], vec![1.0f32]).unwrap()).contains("expected one dimension of integers")
        );
        let mut cut = npy_bytes(&Tensor::new(&[3], vec![1u16, 2, 3]).unwrap()).unwrap();
        cut.truncate(cut.len() - 2);
        let cut = open("a.npy", &cut, IdDtype::Auto, 512).unwrap_err().to_string();
        assert!(cut.contains("4 bytes of data, expected 3 ids"), "{cut}");
        assert!(open("a.npy", &[1, 2], IdDtype::Auto, 512).is_err());
    }

    #[test]
    fn files_longer_than_a_chunk_are_read_whole() {
        let ids: Vec<u16> = (0..CHUNK_BYTES as u32).map(|i| (i % 509) as u16).collect();
        let tokens = open("a.bin", &flat(&ids), IdDtype::Auto, 512).unwrap();
        assert_eq!(tokens.ids, Ids::U16(ids));
    }

    #[test]
    fn random_ids_are_a_function_of_the_seed_and_below_the_vocabulary() {
        let random = |seed| Tokens::random(Path::new("random"), 1000, 7, seed).unwrap();
        assert_eq!(random(1), random(1));
        assert_ne!(random(1), random(2));
        let (inputs, _) = sequence(&random(1), 0, 999);
        assert!((0..7).all(|id| inputs.contains(&id)) && inputs.iter().all(|id| (0..7).contains(id)));
        assert!(Tokens::random(Path::new("random"), u64::MAX, 7, 1).is_err());
    }

    #[test]
    fn the_last_part_is_cut_off() {
        let mut tokens = open("a.bin", &flat(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), IdDtype::Auto, 512).unwrap();
        let valid = tokens.split_off(0.25);
        assert_eq!((tokens.len(), valid.len()), (8, 2));
        assert_eq!(sequence(&valid, 0, 1), (vec![8], vec![9]));
    }
}
