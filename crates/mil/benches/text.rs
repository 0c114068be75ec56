//! How fast text is read: `cargo bench -p arcane-mil --bench text`. Prints JSON, rates in MB/s of text, best of several runs.
//!
//! `program` is text as the writer makes it, mostly ops and their parameters, `literals` one of large constants in place. Reading
//! is all of it: tokens, syntax, types of each op, and the verifier at the end.

use std::fmt::Write;
use std::time::Instant;

use arcane_mil::{NoWeights, check};

const RUNS: usize = 7;

fn main() {
    let (program, literals) = (program(), literals());
    let rates = [("program", &program), ("literals", &literals)].map(|(name, text)| {
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let start = Instant::now();
            let read = check(text, &NoWeights);
            best = best.min(start.elapsed().as_secs_f64());
            assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
        }
        let megabytes = text.len() as f64 / 1e6;
        format!("\"{name}\": {{\"bytes\": {}, \"mb_s\": {:.1}}}", text.len(), megabytes / best)
    });
    #[expect(clippy::print_stdout, reason = "the result of the benchmark")]
    {
        println!("{{{}}}", rates.join(", "));
    }
}

/// The decoder block of the golden files many times over.
fn program() -> String {
    let block = include_str!("../tests/cases/decoder_block.mil");
    let start = block.find("    func main").expect("the golden text has a function");
    let (frame, function) = (&block[..start], block[start..].trim_end().trim_end_matches('}'));
    let mut text = frame.to_string();
    for i in 0..1000 {
        text.push_str(&function.replacen("func main", &format!("func layer_{i}"), 1));
    }
    text + "}\n"
}

fn literals() -> String {
    let mut text = String::from("program(1.3)\n{\n    func main<ios18>(tensor<fp16, [1]> x) {\n");
    for i in 0..20 {
        // Writing into a string does not fail.
        let _ = write!(text, "tensor<fp16, [100000]> c{i} = const()[val = tensor<fp16, [100000]>([");
        for k in 0..100_000_u32 {
            let _ = write!(text, "{}0x1.{:x}p-{}", if k == 0 { "" } else { ", " }, k % 15 + 1, k % 14);
        }
        text.push_str("])];\n");
    }
    text + "tensor<fp16, [1]> y = square(x = x); } -> (y); }\n"
}
