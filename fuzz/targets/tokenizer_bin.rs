#![no_main]

#[path = "../checks/tokenizer.rs"]
mod tokenizer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| tokenizer::tokenizer_bin(data));
