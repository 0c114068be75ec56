//! Files that are damaged or made up, and round trips of random tensors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arcane_tensor::{
    DType, Data, FileError, SafetensorsFile, Tensor, npy_bytes, read_npy, write_safetensors,
};
use proptest::prelude::*;
use tempfile::TempDir;

struct Scratch {
    folder: TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a.safetensors")
    }

    fn open(&self, bytes: &[u8]) -> Result<SafetensorsFile, FileError> {
        std::fs::write(self.path(), bytes).unwrap();
        SafetensorsFile::open(&self.path())
    }

    /// The message for a file with this header and so many bytes of data; it has to start with the path.
    fn message(&self, header: &str, data: usize) -> String {
        let error = self.open(&file(header, data)).unwrap_err().to_string();
        assert!(error.starts_with(&self.path().display().to_string()), "{error}");
        error
    }
}

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn a_file_cut_anywhere_says_how_long_it_should_be() {
    let scratch = Scratch::new();
    let (a, b) = (Tensor::new(&[2, 3], vec![1.0f32; 6]).unwrap(), Tensor::new(&[5], vec![1u8; 5]).unwrap());
    write_safetensors(&scratch.path(), &[("a".into(), &a), ("b".into(), &b)], None).unwrap();
    let whole = std::fs::read(scratch.path()).unwrap();
    let header_end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap());
    for n in 0..whole.len() {
        let Err(FileError::Length { expected, found, .. }) = scratch.open(&whole[..n]) else {
            panic!("{n} bytes");
        };
        let known = match n as u64 {
            0..8 => 8,
            n if n < header_end => header_end,
            _ => whole.len() as u64,
        };
        assert_eq!((expected, found), (known, n as u64));
    }
    assert!(matches!(scratch.open(&[&whole[..], &[0]].concat()), Err(FileError::Length { .. })));
    assert!(scratch.open(&whole).is_ok());
}

#[test]
fn offsets_that_overlap_or_leave_holes_name_the_tensor() {
    let scratch = Scratch::new();
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{first}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{second}}}}}"#
        )
    };
    assert!(scratch.message(&two("[0,4]", "[2,6]"), 6).contains("tensor `b`"));
    assert!(scratch.message(&two("[0,4]", "[0,4]"), 4).contains("data_offsets of tensor"));
    assert!(scratch.message(&two("[0,4]", "[6,10]"), 10).contains("tensor `b`"));
    assert!(scratch.message(&two("[0,4]", "[4,0]"), 8).contains("tensor `b`"));
    assert!(scratch.message(&two("[0,4]", "[4,8]"), 6).contains("should have"));
    assert!(scratch.message(&two("[0,4]", "[4,18446744073709551615]"), 8).contains("tensor `b`"));
    assert!(scratch.open(&file(&two("[0,4]", "[4,8]"), 8)).is_ok());
}

#[test]
fn sizes_that_do_not_fit_the_shape_name_the_tensor() {
    let scratch = Scratch::new();
    let one = |dtype: &str, shape: &str| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,8]}}}}"#)
    };
    let message = scratch.message(&one("F32", "[3]"), 8);
    assert!(message.contains("tensor `w`") && message.contains("takes 12 bytes"), "{message}");
    let message = scratch.message(&one("F32", "[4294967296,4294967296]"), 8);
    assert!(message.contains("tensor `w`") && message.contains("more bytes than"), "{message}");
    let message = scratch.message(&one("F8_E4M3", "[8]"), 8);
    assert!(message.contains("tensor `w` has element type F8_E4M3"), "{message}");
    scratch.message(&one("F33", "[2]"), 8);
    scratch.message(&one("F32", "[-2]"), 8);
    scratch.message(&one("F32", "\"2\""), 8);
}

#[test]
fn headers_that_are_not_headers_are_refused() {
    let scratch = Scratch::new();
    for length in [u64::MAX, u64::MAX - 8, 1 << 62, 100_000_001] {
        let error = scratch.open(&[&length.to_le_bytes()[..], b"{}"].concat()).unwrap_err().to_string();
        assert!(error.contains(&format!("header of {length} bytes")), "{error}");
    }
    for header in ["", "{", "[]", "null", "{\"a\":1}", "{\"__metadata__\":{\"a\":1}}", "\u{0}"] {
        scratch.message(header, 0);
    }
    let mut bytes = file("    ", 0);
    bytes[8..].copy_from_slice(&[0xff; 4]);
    assert!(scratch.open(&bytes).unwrap_err().to_string().contains("UTF-8"));
    let deep = "[".repeat(100_000);
    scratch.message(&deep, 0);
    assert!(SafetensorsFile::open(scratch.folder.path()).is_err());
    assert!(SafetensorsFile::open(&scratch.folder.path().join("missing")).is_err());
}

#[test]
fn a_bool_that_is_neither_is_an_error_when_it_is_read() {
    let scratch = Scratch::new();
    let mut bytes = file(r#"{"b":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}"#, 1);
    *bytes.last_mut().unwrap() = 2;
    let error = scratch.open(&bytes).unwrap().tensor("b").unwrap_err().to_string();
    assert!(error.contains("tensor `b`") && error.contains("neither 0 nor 1"), "{error}");
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    const DTYPES: [DType; 13] = [
        DType::Bool,
        DType::F16,
        DType::Bf16,
        DType::F32,
        DType::F64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
    ];
    (prop::sample::select(&DTYPES[..]), prop::collection::vec(0usize..4, 0..4)).prop_flat_map(
        |(dtype, shape)| {
            let n: usize = shape.iter().product();
            let byte = if dtype == DType::Bool { 0..=1u8 } else { 0..=255 };
            prop::collection::vec(byte, n * dtype.size())
                .prop_map(move |bytes| Tensor::from_bytes(dtype, &shape, &bytes).unwrap())
        },
    )
}

/// NaN differs from itself, so that tensors are compared by their bytes.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.dtype() == b.dtype() && a.shape() == b.shape() && a.bytes() == b.bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn safetensors_round_trip(
        tensors in prop::collection::btree_map("[ -~é\"\\\\]{0,12}", any_tensor(), 0..6),
        metadata in prop::collection::btree_map("[a-z\"]{0,4}", "[ -~]{0,8}", 0..4),
    ) {
        let scratch = Scratch::new();
        let borrowed: Vec<(String, &Tensor)> = tensors.iter().map(|(n, t)| (n.clone(), t)).collect();
        write_safetensors(&scratch.path(), &borrowed, Some(&metadata)).unwrap();
        let file = SafetensorsFile::open(&scratch.path()).unwrap();
        prop_assert_eq!(file.names().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
        prop_assert_eq!(file.metadata(), &metadata);
        for (name, tensor) in &tensors {
            prop_assert!(same(&file.tensor(name).unwrap(), tensor));
        }
    }

    #[test]
    fn npy_round_trip(tensor in any_tensor()) {
        match npy_bytes(&tensor) {
            Ok(bytes) => prop_assert!(same(&read_npy(&bytes).unwrap(), &tensor)),
            Err(_) => prop_assert!(matches!(tensor.data(), Data::Bf16(_))),
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        tensor in any_tensor(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let scratch = Scratch::new();
        write_safetensors(&scratch.path(), &[("w".into(), &tensor)], Some(&BTreeMap::new())).unwrap();
        let mut files = vec![std::fs::read(scratch.path()).unwrap()];
        files.extend(npy_bytes(&tensor));
        for bytes in &mut files {
            for (at, value) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let _ = read_npy(bytes);
            if let Ok(file) = scratch.open(bytes) {
                for name in file.names() {
                    let _ = file.tensor(name);
                }
            }
        }
    }
}
