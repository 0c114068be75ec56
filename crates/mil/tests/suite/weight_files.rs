//! Weight files: what is read from them, and what is refused.

use std::path::Path;

use arcane_mil::{BlobFile, BlobFolder, BlobWriter, TensorType, WeightSource, read};
use arcane_tensor::{DType, Tensor};
use proptest::prelude::*;

use super::reading::text;
use super::tensor;

fn ty(dtype: DType, shape: &[usize]) -> TensorType {
    TensorType::new(dtype, shape)
}

/// A file of fp16 `[2, 3]` at 64 and int8 `[5]` at 192.
fn bytes() -> Vec<u8> {
    let mut writer = BlobWriter::new();
    assert_eq!(writer.add(&tensor(DType::F16, &[2, 3], &[1.0, -2.0, 0.5, 4.0, 5.0, 6.0])), Some(64));
    assert_eq!(writer.add(&tensor(DType::I8, &[5], &[1.0, 2.0, 3.0, -4.0, 5.0])), Some(192));
    writer.finish()
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weight.bin");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn attempt(bytes: &[u8], offset: u64, ty: &TensorType) -> Result<Tensor, String> {
    let (_folder, path) = written(bytes);
    let found = BlobFile::open(&path).and_then(|file| file.tensor(offset, ty));
    let shown = path.display().to_string();
    found.map_err(|e| e.to_string().strip_prefix(&shown).expect("the message starts with the path").into())
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut Vec<u8>), offset: u64, ty: &TensorType, message: &str) {
    let mut bytes = bytes();
    change(&mut bytes);
    assert_eq!(attempt(&bytes, offset, ty).unwrap_err(), message);
}

#[test]
fn every_type_comes_back() {
    use DType::{Bf16, F16, F32, I4, I8, I16, I32, U1, U2, U3, U4, U6, U8, U16, U32};
    let mut writer = BlobWriter::new();
    let arrays: Vec<Tensor> = [F16, F32, U8, I8, Bf16, I16, U16, I32, U32, U1, U2, U3, U4, U6, I4]
        .into_iter()
        .map(|dtype| tensor(dtype, &[3, 1], &[1.0, 2.0, 7.0]))
        .chain([tensor(F32, &[], &[2.5]), tensor(I32, &[0, 3], &[])])
        .collect();
    let offsets: Vec<u64> = arrays.iter().map(|t| writer.add(t).unwrap()).collect();
    let (_folder, path) = written(&writer.finish());
    let file = BlobFile::open(&path).unwrap();
    for (array, offset) in arrays.iter().zip(offsets) {
        assert_eq!(file.tensor(offset, &ty(array.dtype(), array.shape())).unwrap(), *array);
    }
}

#[test]
fn records_are_checked() {
    let f16 = ty(DType::F16, &[2, 3]);
    refuses(
        |_| {},
        64,
        &ty(DType::F32, &[3]),
        ": at offset 64: the array is fp16, tensor<fp32, [3]> was expected",
    );
    refuses(
        |_| {},
        64,
        &ty(DType::F16, &[7]),
        ": at offset 64: the array has 12 bytes, tensor<fp16, [7]> was expected",
    );
    refuses(|_| {}, 128, &f16, ": at offset 128: found 0xc0003c00, a record with 0xdeadbeef was expected");
    for offset in [0, 63, 256, 1 << 40, u64::MAX] {
        let message =
            format!(": at offset {offset}: a record was expected between the header and the end, at 261");
        refuses(|_| {}, offset, &f16, &message);
    }
    refuses(
        |b| b[68] = 18,
        64,
        &f16,
        ": at offset 64: the array is type code 18, tensor<fp16, [2, 3]> was expected",
    );
    refuses(
        |b| b[80..88].copy_from_slice(&u64::MAX.to_le_bytes()),
        64,
        &f16,
        ": at offset 64: the array is at 18446744073709551615 and has 12 bytes, between 128 and 261 was expected",
    );
    refuses(
        |b| b[80] = 64,
        64,
        &f16,
        ": at offset 64: the array is at 64 and has 12 bytes, between 128 and 261 was expected",
    );
    refuses(
        |b| b.truncate(258),
        192,
        &ty(DType::I8, &[5]),
        ": at offset 192: the array is at 256 and has 5 bytes, between 256 and 258 was expected",
    );
    refuses(
        |_| {},
        64,
        &ty(DType::F16, &[usize::MAX, 2]),
        ": at offset 64: the array has 12 bytes, tensor<fp16, [18446744073709551615, 2]> was expected",
    );
    refuses(|b| b[4] = 1, 64, &f16, ": not a weight file of version 2: its version is 1");
    refuses(
        |b| b.truncate(63),
        64,
        &f16,
        ": not a weight file of version 2: it has 63 bytes, a header of 64 was expected",
    );
}

#[test]
fn what_other_writers_leave_in_the_headers_does_not_matter() {
    let mut bytes = bytes();
    let whole = attempt(&bytes, 64, &ty(DType::F16, &[2, 3])).unwrap();
    bytes[..4].fill(0xff);
    bytes[8..64].fill(0xaa);
    bytes[96..128].fill(0x55);
    bytes[72..80].fill(0);
    assert_eq!(attempt(&bytes, 64, &ty(DType::F16, &[2, 3])).unwrap(), whole);
    let message = ": at offset 64: the array is at 128 and has 2000 bytes, between 128 and 261 was expected";
    assert_eq!(attempt(&bytes, 64, &ty(DType::F16, &[1000])).unwrap_err(), message);
    let file = BlobFile::from_bytes(Path::new("w"), bytes).unwrap();
    assert!(file.verify(64, &ty(DType::F16, &[2, 3])).is_ok());
    assert!(file.verify(64, &ty(DType::F16, &[1000])).is_err());
}

#[test]
fn arrays_of_less_than_a_byte_are_packed_and_say_how_many_bits_are_unused() {
    let mut writer = BlobWriter::new();
    let three = tensor(DType::U3, &[5], &[0.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(writer.add(&three), Some(64));
    // The same bytes with one element more are another array.
    assert_ne!(
        writer.add(&tensor(DType::U1, &[2], &[1.0, 0.0])),
        writer.add(&tensor(DType::U1, &[3], &[1.0, 0.0, 0.0]))
    );
    let mut bytes = writer.finish();
    assert_eq!((bytes[68], bytes[72], bytes[88]), (12, 2, 1));
    assert_eq!(bytes[128..130], [0x88, 0x46]);
    let ty = ty(DType::U3, &[5]);
    bytes[88] = 0;
    assert_eq!(attempt(&bytes, 64, &ty).unwrap(), three, "writers that leave the number out");
    bytes[88] = 2;
    assert_eq!(
        attempt(&bytes, 64, &ty).unwrap_err(),
        ": at offset 64: the array has 2 unused bits at its end, 1 were expected"
    );
}

#[test]
fn what_writers_differ_in_does_not_count() {
    let mut bytes = bytes();
    // The number of arrays, the rest of the header and of the record, and no size.
    bytes[0..4].fill(0xFF);
    bytes[8..64].fill(0xAB);
    bytes[88..128].fill(0xCD);
    bytes[72..80].fill(0);
    assert_eq!(attempt(&bytes, 64, &ty(DType::F16, &[2, 3])).unwrap().get(5), 6.0);
}

#[test]
fn int8_under_the_code_of_fp16_is_read() {
    let mut bytes = bytes();
    bytes[196] = 1;
    assert_eq!(attempt(&bytes, 192, &ty(DType::I8, &[5])).unwrap().get(3), -4.0);
}

#[test]
fn a_folder_gives_the_files_below_it_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("secret.bin"), bytes()).unwrap();
    std::fs::write(folder.path().join("model/weight.bin"), bytes()).unwrap();
    let source = BlobFolder::new(&folder.path().join("model"));
    let f16 = ty(DType::F16, &[6]);
    let attempt = |path: &str| source.tensor(path, 64, &f16).map(|t| t.get(5)).map_err(|e| e.to_string());
    assert_eq!(attempt("@model_path/weight.bin"), Ok(6.0));
    assert_eq!(attempt("@model_path/./weight.bin"), Ok(6.0));
    for path in
        ["@model_path/../secret.bin", "weight.bin", "@model_path/", "@model_path//etc/passwd", "/etc/passwd"]
    {
        let message = format!("the weight path `{path}` is not below `@model_path/`");
        assert_eq!(attempt(path), Err(message));
    }
    assert!(attempt("@model_path/none.bin").unwrap_err().contains("none.bin: cannot open: "));
    let not_a_file = BlobFile::open(folder.path()).unwrap_err().to_string();
    assert!(not_a_file.ends_with("it is no regular file"), "{not_a_file}");
}

#[test]
fn texts_take_their_arrays_from_the_file() {
    let (folder, path) = written(&bytes());
    let blob = |dtype: &str, offset: u64| {
        format!(
            "{dtype} w = const()[val = {dtype}(BLOBFILE(offset = uint64({offset}), \
             path = string(\"@model_path/weight.bin\")))];\n {dtype} y = identity(x = w);"
        )
    };
    let read = |dtype, offset| {
        let text = text("", &blob(dtype, offset), "y");
        read(&text, &BlobFolder::new(folder.path())).map_err(|e| e.to_string())
    };
    let program = read("tensor<fp16, [3, 2]>", 64).unwrap();
    let values = arcane_mil::evaluate(&program.functions[0], &std::collections::BTreeMap::new()).unwrap();
    assert_eq!(values["y"].to_f64s(), [1.0, -2.0, 0.5, 4.0, 5.0, 6.0]);
    let error = read("tensor<int8, [4]>", 192).unwrap_err();
    let expected = format!("4:37: {}: at offset 192: the array has 5 bytes, ", Path::display(&path));
    assert!(error.starts_with(&expected), "{error}");
}

proptest! {
    #[test]
    fn damaged_files_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        offset in prop::sample::select(vec![64u64, 192, 65, 128]),
    ) {
        let mut bytes = bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        for wanted in [ty(DType::F16, &[2, 3]), ty(DType::I8, &[5])] {
            let _ = attempt(&bytes, offset, &wanted);
        }
    }
}
