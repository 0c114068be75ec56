#![no_main]

#[path = "../checks/programs.rs"]
mod programs;

libfuzzer_sys::fuzz_target!(|data: &[u8]| programs::random_program(data));
