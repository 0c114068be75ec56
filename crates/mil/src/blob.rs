//! Weight files, storage version 2.
//!
//! Little endian throughout. A header of 64 bytes (number of arrays, version), then for each array a record of 64 bytes and
//! its data. Records and data start on multiples of 64, gaps are zero, and nothing follows the last array's data. An array
//! is known by the offset of its record.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use arcane_tensor::{DType, Tensor};

const ALIGNMENT: usize = 64;
const VERSION: u32 = 2;
const SENTINEL: u32 = 0xDEAD_BEEF;

/// The code of a dtype in a record; `None` for those that a weight file cannot hold.
pub const fn blob_code(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F16 => Some(1),
        DType::F32 => Some(2),
        DType::U8 => Some(3),
        DType::I8 => Some(4),
        DType::Bf16 => Some(5),
        DType::I16 => Some(6),
        DType::U16 => Some(7),
        DType::I32 => Some(14),
        DType::U32 => Some(15),
        DType::Bool | DType::F64 | DType::I64 | DType::U64 => None,
    }
}

/// Builds a weight file. Arrays of the same dtype and bytes share one record.
#[derive(Clone, Debug, Default)]
pub struct BlobWriter {
    bytes: Vec<u8>,
    count: u32,
    /// Offsets of the records by the hash of their code and data.
    records: HashMap<u64, Vec<usize>>,
}

impl BlobWriter {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an array, if it is not there yet, and gives the offset of its record; `None` where [`blob_code`] has none.
    pub fn add(&mut self, tensor: &Tensor) -> Option<u64> {
        let code = blob_code(tensor.dtype())?;
        let data = tensor.bytes();
        let mut hasher = DefaultHasher::new();
        (code, data).hash(&mut hasher);
        let hash = hasher.finish();
        let same = |&&record: &&usize| self.code(record) == code && self.data(record) == data;
        if let Some(&record) = self.records.get(&hash).into_iter().flatten().find(same) {
            return Some(record as u64);
        }
        let record = self.append(code, data);
        self.records.entry(hash).or_default().push(record);
        Some(record as u64)
    }

    /// The file; empty if no array was added.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn append(&mut self, code: u32, data: &[u8]) -> usize {
        if self.bytes.is_empty() {
            self.bytes.resize(ALIGNMENT, 0);
            self.bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        }
        self.count += 1;
        self.bytes[..4].copy_from_slice(&self.count.to_le_bytes());
        let record = self.bytes.len().next_multiple_of(ALIGNMENT);
        let start = record + ALIGNMENT;
        self.bytes.resize(record, 0);
        self.bytes.extend_from_slice(&SENTINEL.to_le_bytes());
        self.bytes.extend_from_slice(&code.to_le_bytes());
        self.bytes.extend_from_slice(&(data.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(&(start as u64).to_le_bytes());
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(data);
        record
    }

    fn code(&self, record: usize) -> u32 {
        u32::from_le_bytes(self.bytes[record + 4..record + 8].try_into().expect("four bytes"))
    }

    fn data(&self, record: usize) -> &[u8] {
        let size = u64::from_le_bytes(self.bytes[record + 8..record + 16].try_into().expect("eight bytes"));
        &self.bytes[record + ALIGNMENT..][..size as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_file_has_the_documented_layout() {
        let mut file = BlobWriter::new();
        let three = Tensor::from_f64s(DType::F16, &[3], &[1.0, -2.0, 0.5]).unwrap();
        let ints = Tensor::new(&[20], (0..20).collect::<Vec<i32>>()).unwrap();
        assert_eq!(file.add(&three), Some(64));
        assert_eq!(file.add(&ints), Some(192));
        let bytes = file.finish();
        assert_eq!(bytes.len(), 256 + 80, "nothing follows the last array");

        let mut expected = vec![0; bytes.len()];
        expected[0] = 2;
        expected[4] = 2;
        expected[64..68].copy_from_slice(&[0xEF, 0xBE, 0xAD, 0xDE]);
        expected[68] = 1;
        expected[72] = 6;
        expected[80] = 128;
        expected[128..134].copy_from_slice(&[0x00, 0x3C, 0x00, 0xC0, 0x00, 0x38]);
        expected[192..196].copy_from_slice(&[0xEF, 0xBE, 0xAD, 0xDE]);
        expected[196] = 14;
        expected[200] = 80;
        expected[209] = 1;
        for i in 0..20u8 {
            expected[256 + 4 * usize::from(i)] = i;
        }
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_record_and_its_data_are_aligned() {
        let mut file = BlobWriter::new();
        let offsets: Vec<u64> =
            (1..200).map(|n| file.add(&Tensor::new(&[n], vec![n as u8; n]).unwrap()).unwrap()).collect();
        let bytes = file.finish();
        assert_eq!((u32_at(&bytes, 0), u32_at(&bytes, 4)), (199, 2));
        let mut end = 64;
        for (n, &record) in (1..200u64).zip(&offsets) {
            let at = record as usize;
            assert_eq!(record, end, "records follow each other without a hole");
            assert_eq!(u32_at(&bytes, at), SENTINEL);
            assert_eq!((u64_at(&bytes, at + 8), u64_at(&bytes, at + 16)), (n, record + 64));
            assert!(bytes[at + 24..at + 64].iter().all(|&b| b == 0));
            end = (record + 64 + n).next_multiple_of(64);
        }
    }

    #[test]
    fn equal_arrays_of_one_type_share_a_record() {
        let mut file = BlobWriter::new();
        let ones = |dtype, shape: &[usize]| Tensor::from_f64s(dtype, shape, &[1.0; 4]).unwrap();
        let first = file.add(&ones(DType::I8, &[4]));
        assert_eq!(file.add(&ones(DType::I8, &[2, 2])), first);
        assert_ne!(file.add(&ones(DType::U8, &[4])), first, "the same bytes in another type");
        assert_eq!(u32_at(&file.finish(), 0), 2);
    }

    #[test]
    fn types_without_a_code_are_refused() {
        let mut file = BlobWriter::new();
        for dtype in [DType::Bool, DType::F64, DType::I64, DType::U64] {
            assert_eq!(file.add(&Tensor::zeros(dtype, &[16])), None);
        }
        assert!(file.finish().is_empty());
    }
}
