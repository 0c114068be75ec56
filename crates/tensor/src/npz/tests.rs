use super::*;
use crate::DType;
use proptest::prelude::*;

fn sample() -> Vec<(String, Tensor)> {
    vec![
        ("x".into(), Tensor::new(&[2, 3], (0..6).map(|i| i as f32).collect::<Vec<_>>()).unwrap()),
        ("layers.3/q".into(), Tensor::new(&[40], vec![-7i32; 40]).unwrap()),
        ("größe".into(), Tensor::new(&[2], vec![true, false]).unwrap()),
        ("s".into(), Tensor::from_f64s(DType::F16, &[], &[1.5]).unwrap()),
        ("empty".into(), Tensor::zeros(DType::U8, &[0, 3])),
    ]
}

fn borrowed(arrays: &[(String, Tensor)]) -> Vec<(String, &Tensor)> {
    arrays.iter().map(|(name, t)| (name.clone(), t)).collect()
}

fn written(arrays: &[(String, Tensor)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    write_npz(&path, &borrowed(arrays)).unwrap();
    std::fs::read(path).unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    std::fs::write(&path, bytes).unwrap();
    read_npz(&path).map_err(|e| {
        e.to_string()
            .strip_prefix(&format!("{}: ", path.display()))
            .expect("messages start with the path")
            .into()
    })
}

/// An archive of members as they are.
fn archive(method: CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn arrays_come_back_in_order() {
    for arrays in [sample(), Vec::new()] {
        let bytes = written(&arrays);
        assert_eq!(read(&bytes).unwrap(), arrays);
        assert_eq!(written(&arrays), bytes, "the same arrays give the same bytes");
    }
}

#[test]
fn deflated_arrays_are_read() {
    let ones = Tensor::new(&[1000, 100], vec![1.0f32; 100_000]).unwrap();
    let bytes = archive(CompressionMethod::Deflated, &[("ones.npy", &crate::npy_bytes(&ones).unwrap())]);
    assert!(bytes.len() < 4096);
    assert_eq!(read(&bytes).unwrap(), [("ones".into(), ones)]);
}

#[test]
fn what_is_no_archive_of_arrays_is_named() {
    let array = crate::npy_bytes(&Tensor::scalar(1i32)).unwrap();
    let stored = |members: &[(&str, &[u8])]| read(&archive(CompressionMethod::Stored, members)).unwrap_err();
    assert_eq!(
        stored(&[("a.npy", &array), ("b.txt", b"text")]),
        "not a valid npz file: member `b.txt` does not end in .npy"
    );
    assert_eq!(
        stored(&[("a.npy", b"text")]),
        "array `a`: not an npy file: it does not start with \\x93NUMPY"
    );
    assert_eq!(
        stored(&[("a.npy", &[&array[..], &[0]].concat())]),
        "array `a`: npy array of type int32 and shape [] takes 4 bytes of data, there are 5"
    );
    assert!(read(b"text").unwrap_err().starts_with("not a valid npz file: "));
    assert!(read(b"").unwrap_err().starts_with("not a valid npz file: "));
    let folder = tempfile::tempdir().unwrap();
    assert!(read_npz(folder.path()).unwrap_err().to_string().ends_with("it is no regular file"));
    assert!(read_npz(&folder.path().join("none")).unwrap_err().to_string().contains("cannot open"));
}

#[test]
fn what_cannot_be_written_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let write = |arrays: &[(String, Tensor)]| write_npz(&path, &borrowed(arrays)).unwrap_err().to_string();
    let one = Tensor::scalar(1i32);
    let twice = write(&[("a".into(), one.clone()), ("a".into(), one)]);
    assert!(twice.ends_with("tensor name `a` occurs twice"), "{twice}");
    let bf16 = write(&[("a".into(), Tensor::zeros(DType::Bf16, &[1]))]);
    assert!(
        bf16.ends_with("array `a`: npy element type `bf16`: npy has no such type; cast to fp32"),
        "{bf16}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_bomb_is_refused_before_memory_is_taken() {
    // Headers that call for much more than there is.
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    let error = read(&archive(CompressionMethod::Stored, &[("a.npy", &bytes)])).unwrap_err();
    assert!(error.contains("takes 800000000000 bytes of data, there are 0"), "{error}");

    // A directory that says so as well: the uncompressed size is at 24 of its record, which starts with PK\x01\x02.
    let mut lying = archive(CompressionMethod::Deflated, &[("a.npy", &bytes)]);
    let record = lying.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    lying[record + 24..record + 28].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    let error = read(&lying).unwrap_err();
    assert!(error.ends_with("array `a`: it declares more bytes than it can have"), "{error}");
}

#[test]
fn damaged_data_does_not_pass_its_checksum() {
    let mut bytes = written(&sample()[..1]);
    let at = bytes.windows(4).position(|w| w == 5f32.to_le_bytes()).unwrap();
    bytes[at] ^= 1;
    let error = read(&bytes).unwrap_err();
    assert!(error.starts_with("not a valid npz file: array `x`: "), "{error}");
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let bytes = written(&sample());
    for n in 0..bytes.len() {
        assert!(read(&bytes[..n]).is_err(), "{n} bytes");
    }
}

proptest! {
    #[test]
    fn damaged_archives_are_read_or_refused(
        deflated in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = if deflated {
            let members: Vec<(String, Vec<u8>)> = sample()
                .iter()
                .map(|(name, t)| (format!("{name}.npy"), crate::npy_bytes(t).unwrap()))
                .collect();
            let members: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
            archive(CompressionMethod::Deflated, &members)
        } else {
            written(&sample())
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = read(&bytes);
    }
}
