//! As `files.rs`, for what takes the trainer.

use arcane_train::tokenizer::Tokenizer;

/// A llama2.c tokenizer: whatever is read takes a text apart and puts it together.
pub(crate) fn tokenizer_bin(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.bin");
    std::fs::write(&path, data).expect("a temporary file");
    let Ok(tokenizer) = Tokenizer::open(&path) else { return };
    if let Ok(ids) = tokenizer.encode("Once upon a time, 3 \u{1f600}", true) {
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        let _ = tokenizer.decode(&ids);
    }
}
