//! `NumPy`'s `.npy` format: a magic number, a header that is a Python dictionary, then the elements.

use crate::{DType, Tensor, TensorError, element_count};

const MAGIC: &[u8] = b"\x93NUMPY";
/// The elements start at a multiple of this many bytes.
const ALIGNMENT: usize = 64;

/// What can be wrong with the bytes of a `.npy` file, or with a tensor that should become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// The first six bytes are not those of the format.
    #[error("not an npy file: it does not start with \\x93NUMPY")]
    Magic,
    /// The format's version is not 1, 2 or 3.
    #[error("npy version {0}.{1}, expected 1.0, 2.0 or 3.0")]
    Version(u8, u8),
    /// The bytes end inside the header.
    #[error("the npy header takes {expected} bytes, there are {found}")]
    Truncated {
        /// Bytes that the header takes.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// The header is not the dictionary that it should be.
    #[error("npy header at byte {at}: expected {expected}")]
    Header {
        /// Offset in the file, in bytes.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// The element type is not supported.
    #[error("npy element type `{0}`: {1}")]
    Dtype(String, &'static str),
    /// The elements of a matrix are in column-major order.
    #[error("npy array of shape {0:?} is in Fortran order; save it in C order (numpy.ascontiguousarray)")]
    FortranOrder(Vec<usize>),
    /// The length of the data does not fit the header.
    #[error(
        "npy array of type {dtype} and shape {shape:?} takes {expected} bytes of data, there are {found}"
    )]
    Length {
        /// Element type.
        dtype: DType,
        /// Dimensions.
        shape: Vec<usize>,
        /// Bytes that the elements take.
        expected: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// The elements do not make a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// What the header of a `.npy` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpyHeader {
    /// The type of the (little-endian) elements.
    pub dtype: DType,
    /// The dimensions, row-major.
    pub shape: Vec<usize>,
    /// Where the elements start, in bytes from the start of the file.
    pub data_offset: usize,
}

/// Reads the header from the first bytes of a file (or from all of them).
///
/// # Errors
/// [`NpyError`] for a malformed header, big-endian or unsupported elements and Fortran order of more than one dimension.
pub fn npy_header(bytes: &[u8]) -> Result<NpyHeader, NpyError> {
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return Err(NpyError::Magic);
    }
    let truncated = |expected| NpyError::Truncated { expected, found: bytes.len() };
    let (&[major, minor], rest) =
        bytes.get(MAGIC.len()..).and_then(|b| b.split_first_chunk()).ok_or(truncated(MAGIC.len() + 2))?;
    let (start, length) = match (major, minor) {
        (1, 0) => (10, rest.first_chunk().map(|b| usize::from(u16::from_le_bytes(*b)))),
        (2 | 3, 0) => (12, rest.first_chunk().map(|b| u32::from_le_bytes(*b) as usize)),
        _ => return Err(NpyError::Version(major, minor)),
    };
    let data_offset = start + length.ok_or(truncated(start))?;
    let text = bytes.get(start..data_offset).ok_or(truncated(data_offset))?;
    let (descr, fortran_order, shape) = Dictionary { text, at: 0, start }.read()?;
    let dtype = dtype_of(&descr)?;
    if fortran_order && shape.len() > 1 {
        return Err(NpyError::FortranOrder(shape));
    }
    Ok(NpyHeader { dtype, shape, data_offset })
}

/// Reads a whole `.npy` file.
///
/// # Errors
/// Those of [`npy_header`], and [`NpyError::Length`] unless the data has exactly the length that the header calls for.
pub fn read_npy(bytes: &[u8]) -> Result<Tensor, NpyError> {
    let NpyHeader { dtype, shape, data_offset } = npy_header(bytes)?;
    let data = &bytes[data_offset..];
    let expected = element_count(&shape)
        .and_then(|n| n.checked_mul(dtype.size()))
        .ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
    if expected != data.len() {
        return Err(NpyError::Length { dtype, shape, expected, found: data.len() });
    }
    Ok(Tensor::from_bytes(dtype, &shape, data)?)
}

/// The bytes of a `.npy` file (version 1.0, as `numpy.save` writes it).
///
/// # Errors
/// [`NpyError::Dtype`] for `bf16`, which the format lacks.
pub fn npy_bytes(tensor: &Tensor) -> Result<Vec<u8>, NpyError> {
    let mut bytes = npy_prefix(tensor)?;
    bytes.extend_from_slice(tensor.bytes());
    Ok(bytes)
}

/// What stands before the elements.
pub(crate) fn npy_prefix(tensor: &Tensor) -> Result<Vec<u8>, NpyError> {
    let descr = descr_of(tensor.dtype())?;
    let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    let shape = match dims.as_slice() {
        [one] => format!("({one},)"),
        _ => format!("({})", dims.join(", ")),
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Spaces and a newline bring the elements to their alignment.
    let prefix = MAGIC.len() + 4;
    let padded = (prefix + header.len() + 1).next_multiple_of(ALIGNMENT) - prefix;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');

    let mut bytes = Vec::with_capacity(prefix + padded + 4);
    bytes.extend_from_slice(MAGIC);
    if let Ok(length) = u16::try_from(padded) {
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&length.to_le_bytes());
    } else {
        bytes.extend_from_slice(&[2, 0]);
        bytes.extend_from_slice(&(padded as u32).to_le_bytes());
    }
    bytes.extend_from_slice(header.as_bytes());
    Ok(bytes)
}

fn dtype_of(descr: &str) -> Result<DType, NpyError> {
    let error = |what| NpyError::Dtype(descr.to_string(), what);
    let (order, kind) = match descr.as_bytes() {
        [order @ (b'<' | b'>' | b'|' | b'='), kind @ ..] => (*order, kind),
        kind => (b'=', kind),
    };
    let dtype = match kind {
        b"b1" | b"?" => DType::Bool,
        b"i1" => DType::I8,
        b"u1" => DType::U8,
        b"i2" => DType::I16,
        b"u2" => DType::U16,
        b"i4" => DType::I32,
        b"u4" => DType::U32,
        b"i8" => DType::I64,
        b"u8" => DType::U64,
        b"f2" => DType::F16,
        b"f4" => DType::F32,
        b"f8" => DType::F64,
        [b'O', ..] => return Err(error("arrays of Python objects cannot be read; save numbers")),
        _ => return Err(error("expected b1, i1, i2, i4, i8, u1, u2, u4, u8, f2, f4 or f8")),
    };
    if order == b'>' && dtype.size() > 1 {
        return Err(error("big-endian elements; save them little-endian"));
    }
    Ok(dtype)
}

fn descr_of(dtype: DType) -> Result<&'static str, NpyError> {
    Ok(match dtype {
        DType::Bool => "|b1",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I16 => "<i2",
        DType::U16 => "<u2",
        DType::I32 => "<i4",
        DType::U32 => "<u4",
        DType::I64 => "<i8",
        DType::U64 => "<u8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::Bf16 => return Err(NpyError::Dtype("bf16".into(), "npy has no such type; cast to fp32")),
        DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
            return Err(NpyError::Dtype(dtype.name().into(), "npy has no such type; cast to int8 or uint8"));
        }
    })
}

/// A reader of the header's dictionary literal.
struct Dictionary<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the text starts in the file.
    start: usize,
}

impl Dictionary<'_> {
    fn read(mut self) -> Result<(String, bool, Vec<usize>), NpyError> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect(b'{', "{")?;
        while !self.take(b'}') {
            let key = self.string("a key in quotes")?;
            self.expect(b':', ": after the key")?;
            match key.as_str() {
                "descr" => descr = Some(self.string("an element type in quotes, not a record")?),
                "fortran_order" => fortran_order = Some(self.boolean()?),
                "shape" => shape = Some(self.tuple()?),
                _ => return Err(self.error("one of the keys descr, fortran_order and shape")),
            }
            if !self.take(b',') {
                self.expect(b'}', ", or }")?;
                break;
            }
        }
        self.skip_spaces();
        if self.at != self.text.len() {
            return Err(self.error("nothing after the dictionary"));
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok((descr, fortran_order, shape)),
            _ => Err(self.error("the keys descr, fortran_order and shape")),
        }
    }

    fn error(&self, expected: &'static str) -> NpyError {
        NpyError::Header { at: self.start + self.at, expected }
    }

    fn skip_spaces(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_spaces();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), NpyError> {
        if self.take(byte) { Ok(()) } else { Err(self.error(expected)) }
    }

    fn string(&mut self, expected: &'static str) -> Result<String, NpyError> {
        self.skip_spaces();
        let rest = &self.text[self.at..];
        let (Some(&quote @ (b'\'' | b'"')), body) = (rest.first(), rest.get(1..).unwrap_or_default()) else {
            return Err(self.error(expected));
        };
        let end = body.iter().position(|&b| b == quote).ok_or_else(|| self.error("a closing quote"))?;
        let text = std::str::from_utf8(&body[..end]).map_err(|_| self.error("text"))?.to_string();
        self.at += end + 2;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.skip_spaces();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.error("True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, NpyError> {
        self.expect(b'(', "( of the shape")?;
        let mut dims = Vec::new();
        while !self.take(b')') {
            dims.push(self.number()?);
            if !self.take(b',') {
                self.expect(b')', ", or ) in the shape")?;
                break;
            }
        }
        Ok(dims)
    }

    fn number(&mut self) -> Result<usize, NpyError> {
        self.skip_spaces();
        let digits = self.text[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let value =
            std::str::from_utf8(&self.text[self.at..self.at + digits]).ok().and_then(|t| t.parse().ok());
        let value = value.ok_or_else(|| self.error("a dimension that fits in 64 bits"))?;
        self.at += digits;
        // Python 2 wrote dimensions as `3L`.
        self.take(b'L');
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header text, of version 1.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn every_dtype_and_rank_comes_back() {
        use DType::{Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        for dtype in [Bool, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64] {
            for shape in [&[][..], &[4], &[2, 3], &[0, 5]] {
                let n = element_count(shape).unwrap();
                let values: Vec<f64> = (0..n).map(|i| (i % 2) as f64).collect();
                let tensor = Tensor::from_f64s(dtype, shape, &values).unwrap();
                let bytes = npy_bytes(&tensor).unwrap();
                assert_eq!(npy_header(&bytes).unwrap().data_offset % ALIGNMENT, 0);
                assert_eq!(read_npy(&bytes).unwrap(), tensor);
            }
        }
    }

    #[test]
    fn writes_what_numpy_writes() {
        let bytes = npy_bytes(&Tensor::new(&[2], vec![1u16, 2]).unwrap()).unwrap();
        let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }";
        let mut expected = file(&format!("{header:<117}\n"), &[1, 0, 2, 0]);
        assert_eq!(bytes, expected);
        // Versions 2 and 3 have a longer length.
        expected.splice(6..10, [2, 0, 118, 0, 0, 0]);
        assert_eq!(read_npy(&expected).unwrap(), read_npy(&bytes).unwrap());
        expected[6] = 3;
        assert_eq!(read_npy(&expected).unwrap(), read_npy(&bytes).unwrap());
        expected[6] = 4;
        assert_eq!(read_npy(&expected), Err(NpyError::Version(4, 0)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let matrix = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }";
        assert_eq!(read_npy(&file(matrix, &[0; 24])), Err(NpyError::FortranOrder(vec![2, 3])));
        let vector = "{'descr': '<f4', 'fortran_order': True, 'shape': (3,), }";
        assert_eq!(read_npy(&file(vector, &[0; 12])).unwrap().shape(), [3]);
        for (descr, word) in
            [(">f4", "big-endian"), ("|O", "objects"), ("<c8", "expected b1"), ("|V2", "expected")]
        {
            let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}");
            let error = read_npy(&file(&text, &[0; 8])).unwrap_err().to_string();
            assert!(error.contains(descr) && error.contains(word), "{error}");
        }
        let records = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }";
        assert!(matches!(read_npy(&file(records, &[0; 4])), Err(NpyError::Header { at: 20, .. })));
        assert!(matches!(npy_bytes(&Tensor::zeros(DType::Bf16, &[1])), Err(NpyError::Dtype(..))));
    }

    #[test]
    fn a_declared_size_allocates_nothing() {
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }";
        assert!(matches!(
            read_npy(&file(huge, &[0; 8])),
            Err(NpyError::Length { expected: 8_000_000_000_000, found: 8, .. })
        ));
        let overflow = "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }";
        assert!(matches!(read_npy(&file(overflow, &[])), Err(NpyError::Tensor(TensorError::TooLarge(_)))));
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let bytes = npy_bytes(&Tensor::new(&[3], vec![1.0f32, 2.0, 3.0]).unwrap()).unwrap();
        for n in 0..bytes.len() {
            assert!(read_npy(&bytes[..n]).is_err(), "{n} bytes");
        }
        assert!(read_npy(&[&bytes[..], &[0]].concat()).is_err());
    }
}
