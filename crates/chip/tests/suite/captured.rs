//! Outputs that were read from real engines.

use std::path::Path;

use arcane_chip::arithmetic::{Accumulator, Tables, binary, int8_product, rounded, value};
use arcane_mil::Binary;
use serde_json::Value;

/// The captured cases, with infinities as numbers that fp16 takes for infinite.
fn captured() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/hw-vectors/captured.json");
    let text = std::fs::read_to_string(file).unwrap();
    serde_json::from_str(&text.replace("Infinity", "1e300")).unwrap()
}

/// The fp16 bits of a number of the file; a product takes 65536 and more for what infinities and NaN are decoded as.
fn bits(number: &Value) -> u16 {
    let x = number.as_f64().unwrap();
    match x.abs() {
        65536.0..=131_008.0 => {
            let bits = 0x7c00 | ((x.abs() - 65536.0) / 64.0) as u16;
            if x < 0.0 { bits | 0x8000 } else { bits }
        }
        _ => rounded(x),
    }
}

#[track_caller]
fn same(found: u16, case: &Value) {
    assert_eq!(value(found), value(rounded(case["ane"].as_f64().unwrap())), "{case}");
}

#[test]
#[ignore = "needs ../shared"]
fn products_are_those_that_were_read() {
    let captured = captured();
    let cases = captured["mac"].as_array().unwrap();
    for case in cases {
        let mut sum = Accumulator::new(bits(&case["bias"]));
        for term in case["terms"].as_array().unwrap() {
            sum.add(bits(&term[0]), bits(&term[1]));
        }
        same(sum.result(), case);
    }
    assert!(cases.len() >= 130);
}

#[test]
#[ignore = "needs ../shared"]
fn elementwise_results_are_those_that_were_read() {
    for case in captured()["elementwise"].as_array().unwrap() {
        let kind = match case["op"].as_str().unwrap() {
            "add" => Binary::Add,
            "sub" => Binary::Sub,
            "mul" => Binary::Mul,
            other => panic!("{other}"),
        };
        same(binary(Tables::H16, kind, bits(&case["a"]), bits(&case["b"])).unwrap(), case);
    }
}

/// A case gives the sum of its N equal products and not the operands; any pair with that product will do.
#[test]
#[ignore = "needs ../shared"]
fn int8_products_are_those_that_were_read() {
    for case in captured()["int8"].as_array().unwrap() {
        let n = case["N"].as_i64().unwrap();
        let product = case["S"].as_i64().unwrap() / n;
        let x = (1..=128).find(|x| product % x == 0 && product / x <= 128).unwrap();
        let pair = [x, product / x].map(|factor| i8::try_from(-factor).unwrap());
        let pair = (pair[0], pair[1]);
        same(int8_product(std::iter::repeat_n(pair, n as usize), case["scale"].as_f64().unwrap()), case);
    }
}
