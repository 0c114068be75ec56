#![no_main]

#[path = "../checks/files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|data: &[u8]| files::mlpackage(data));
