//! Literals.

use arcane_tensor::{Data, Element, Tensor};

/// The elements nested by dimension; a bare one for a scalar.
pub(super) fn elements(tensor: &Tensor) -> String {
    nested(tensor.data(), tensor.shape(), 0)
}

fn nested(data: &Data, shape: &[usize], start: usize) -> String {
    let Some((&length, inner)) = shape.split_first() else {
        return element(data, start);
    };
    let size: usize = inner.iter().product();
    let items: Vec<String> = (0..length).map(|i| nested(data, inner, start + i * size)).collect();
    format!("[{}]", items.join(", "))
}

fn element(data: &Data, i: usize) -> String {
    match data {
        Data::Bool(v) => v[i].to_string(),
        Data::F16(v) => hexadecimal(Element::to_f64(v[i])),
        Data::Bf16(v) => hexadecimal(Element::to_f64(v[i])),
        Data::F32(v) => hexadecimal(f64::from(v[i])),
        Data::F64(v) => hexadecimal(v[i]),
        Data::I8(v) | Data::SubByte(_, v) => v[i].to_string(),
        Data::I16(v) => v[i].to_string(),
        Data::I32(v) => v[i].to_string(),
        Data::I64(v) => v[i].to_string(),
        Data::U8(v) => v[i].to_string(),
        Data::U16(v) => v[i].to_string(),
        Data::U32(v) => v[i].to_string(),
        Data::U64(v) => v[i].to_string(),
    }
}

/// Whether every element is finite.
pub(super) fn is_finite(tensor: &Tensor) -> bool {
    !tensor.dtype().is_float() || (0..tensor.len()).all(|i| tensor.get(i).is_finite())
}

/// C's hexadecimal spelling, normalised (one digit 1 before the point) and without trailing zeros. Finite values of 16- and
/// 32-bit types are normal as `f64`, their own subnormals included.
fn hexadecimal(x: f64) -> String {
    let bits = x.to_bits();
    let sign = if x.is_sign_negative() { "-" } else { "" };
    let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    if exponent == 0 && fraction == 0 {
        return format!("{sign}0x0p+0");
    }
    debug_assert!(exponent != 0 && exponent != 0x7ff, "{x} is a normal number");
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    let point = if digits.is_empty() { "" } else { "." };
    format!("{sign}0x1{point}{digits}p{:+}", exponent as i64 - 1023)
}

/// A string in quotes. Only printable ASCII has a known spelling; other characters become `_`.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('_'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_shortest_normalised_hexadecimal() {
        let cases = [
            (0.0, "0x0p+0"),
            (-0.0, "-0x0p+0"),
            (0.5, "0x1p-1"),
            (-1.0, "-0x1p+0"),
            (3.0 * 2f64.powi(-24), "0x1.8p-23"),
            (65504.0, "0x1.ffcp+15"),
            (f64::from(f32::from_bits(1)), "0x1p-149"),
            (f64::from(f32::MAX), "0x1.fffffep+127"),
            (f64::from(0.1f32), "0x1.99999ap-4"),
        ];
        for (x, text) in cases {
            assert_eq!(hexadecimal(x), text);
        }
    }

    #[test]
    fn tensors_are_nested_by_dimension() {
        let t = Tensor::new(&[2, 1, 2], vec![1, -2, 3, 4i32]).unwrap();
        assert_eq!(elements(&t), "[[[1, -2]], [[3, 4]]]");
        assert_eq!(elements(&Tensor::scalar(true)), "true");
        assert_eq!(elements(&Tensor::scalar(u64::MAX)), "18446744073709551615");
        assert_eq!(elements(&Tensor::zeros(arcane_tensor::DType::I32, &[2, 0])), "[[], []]");
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\u{e9}\n"), r#""a\"b\\c__""#);
    }
}
