//! Typed literals: `tensor<int32, [2]>([1, 2])`, `fp16(0x1p-1)`, `string("x")`, places in weight files.

use std::sync::Arc;

use arcane_tensor::{DType, Data, Element, Tensor, round_to};

use super::Fault;
use super::lexer::{Kind, Token, shown};
use super::parser::{MAX_DEPTH, Parser, unique};
use super::syntax::{Blob, Content, Name, Type, Value};
use crate::TensorType;

impl Parser<'_> {
    /// A typed literal, `depth` literals inside another.
    pub(super) fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        let at = self.peek()?.at;
        let ty = self.ty(depth)?;
        self.expect(b'(')?;
        let token = self.peek()?;
        let content = if token.kind == Kind::Identifier && token.text == "BLOBFILE" {
            self.blob(&ty, at, depth)?
        } else {
            match &ty {
                Type::Tensor(_, dims) if !dims.contains(&None) => {
                    Content::Tensor(Arc::new(self.tensor(&ty.literal(at)?)?))
                }
                Type::Text => Content::Text(text(self.next()?)?),
                Type::Tensor(..) | Type::State(_) | Type::Other(_) => {
                    self.untyped(depth)?;
                    Content::Other
                }
            }
        };
        self.expect(b')')?;
        Ok(Value { at, ty, content })
    }

    /// `BLOBFILE(path = string("..."), offset = uint64(64))`
    fn blob(&mut self, ty: &Type, at: usize, depth: usize) -> Result<Content, Fault> {
        let keyword = self.name("BLOBFILE")?;
        if depth >= MAX_DEPTH {
            return Err(too_deep(keyword.at));
        }
        self.expect(b'(')?;
        let fields = self.list(b')', |parser| {
            let name = parser.name("`path` or `offset`")?;
            parser.expect(b'=')?;
            Ok((name, parser.value(depth + 1)?))
        })?;
        unique(fields.iter().map(|(name, _)| *name), "field")?;
        let (mut path, mut offset) = (None, None);
        for (Name { text, at }, value) in fields {
            match (text, value.content) {
                ("path", Content::Text(p)) => path = Some(p),
                ("offset", Content::Tensor(t)) if t.dtype().is_int() && t.shape().is_empty() => {
                    offset = whole(&t);
                    if offset.is_none() {
                        return Err(Fault::new(value.at, "the offset is negative", "an offset in bytes"));
                    }
                }
                ("path", _) => {
                    return Err(Fault::new(value.at, "the path is no string", "`string(\"...\")`"));
                }
                ("offset", _) => {
                    return Err(Fault::new(value.at, "the offset is no number", "`uint64(...)`"));
                }
                _ => {
                    return Err(Fault::new(at, format!("found {}", shown(text)), "`path` or `offset`"));
                }
            }
        }
        let (Some(path), Some(offset)) = (path, offset) else {
            return Err(Fault::new(keyword.at, "the path or the offset is missing", "both"));
        };
        match ty {
            Type::Tensor(..) => ty.literal(at).map(|_| Content::Blob(Blob { path, offset })),
            Type::Text => Err(Fault::new(keyword.at, "a weight file holds no strings", "`\"`")),
            Type::State(_) | Type::Other(_) => Ok(Content::Other),
        }
    }

    fn tensor(&mut self, ty: &TensorType) -> Result<Tensor, Fault> {
        let mut data = Data::zeros(ty.dtype, 0);
        let open = self.peek()?;
        if !open.is(b'[') {
            push(&mut data, self.next()?)?;
            if !ty.shape.is_empty() {
                data = self.splat(&data, ty, open.at)?;
            }
        } else if ty.shape.is_empty() {
            return Err(open.unexpected(format!("one {} without brackets", ty.dtype)));
        } else if self.peek_second()?.is(b'[') {
            self.nested(&mut data, &ty.shape)?;
        } else {
            self.row(&mut data, ty.len())?;
        }
        Tensor::from_data(&ty.shape, data).map_err(|e| Fault::new(open.at, e.to_string(), ""))
    }

    /// One element for all of a tensor.
    fn splat(&mut self, element: &Data, ty: &TensorType, at: usize) -> Result<Data, Fault> {
        let Some(left) = self.splat_bytes.checked_sub(ty.bytes()) else {
            let what =
                format!("with this one number for all of {ty} such numbers stand for more than 256 MiB");
            return Err(Fault::new(at, what, "large constants in a weight file"));
        };
        self.splat_bytes = left;
        macro_rules! repeat {
            ($($variant:ident),*) => {
                match element {
                    $(Data::$variant(v) => Data::$variant(vec![v[0]; ty.len()]),)*
                    Data::SubByte(dtype, v) => Data::SubByte(*dtype, vec![v[0]; ty.len()]),
                }
            };
        }
        Ok(repeat!(Bool, F16, Bf16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64))
    }

    /// Elements nested by dimension.
    fn nested(&mut self, data: &mut Data, shape: &[usize]) -> Result<(), Fault> {
        let Some((&length, inner)) = shape.split_first().filter(|(_, inner)| !inner.is_empty()) else {
            return self.row(data, shape.iter().product());
        };
        self.expect(b'[')?;
        let mut found = 0;
        let mut more = !self.peek()?.is(b']');
        while more {
            if found == length {
                return Err(self.peek()?.unexpected(format!("{length} in this dimension, not more")));
            }
            self.nested(data, inner)?;
            found += 1;
            more = self.goes_on_or(found, length, b']')?;
        }
        if length == 0 { self.expect(b']') } else { self.all(found, length) }
    }

    /// `count` elements in brackets.
    fn row(&mut self, data: &mut Data, count: usize) -> Result<(), Fault> {
        self.expect(b'[')?;
        let mut found = 0;
        let mut more = !self.peek()?.is(b']');
        while more {
            let token = self.next()?;
            if found == count {
                return Err(token.unexpected(format!("{count} values here, not more")));
            }
            push(data, token)?;
            found += 1;
            more = self.goes_on_or(found, count, b']')?;
        }
        if count == 0 { self.expect(b']') } else { self.all(found, count) }
    }

    /// As `goes_on`, with the fault of too few values at the closing bracket.
    fn goes_on_or(&mut self, found: usize, count: usize, close: u8) -> Result<bool, Fault> {
        let token = self.next()?;
        if token.is(b',') {
            return Ok(true);
        }
        if !token.is(close) {
            return Err(token.unexpected(format!("`,` or `{}`", char::from(close))));
        }
        if found < count {
            return Err(token.unexpected(format!("{count} values, not {found}")));
        }
        Ok(false)
    }

    fn all(&mut self, found: usize, count: usize) -> Result<(), Fault> {
        if found == count {
            return Ok(());
        }
        Err(self.peek()?.unexpected(format!("{count} values, not {found}")))
    }

    /// A literal of a type that nothing here takes.
    fn untyped(&mut self, depth: usize) -> Result<(), Fault> {
        let token = self.peek()?;
        if depth >= MAX_DEPTH {
            return Err(too_deep(token.at));
        }
        let close = match token.kind {
            Kind::Punctuation(b'[') => b']',
            Kind::Punctuation(b'(') => b')',
            Kind::Punctuation(b'{') => b'}',
            Kind::Identifier if matches!(self.peek_second()?.kind, Kind::Punctuation(b'<' | b'(')) => {
                return self.value(depth + 1).map(drop);
            }
            Kind::Identifier | Kind::Number => return self.next().map(drop),
            Kind::Text => return text(self.next()?).map(drop),
            _ => return Err(token.unexpected("a value")),
        };
        self.next()?;
        self.list(close, |parser| parser.untyped(depth + 1)).map(drop)
    }
}

fn too_deep(at: usize) -> Fault {
    Fault::new(at, "values nest too deep", format!("at most {MAX_DEPTH} levels"))
}

/// The contents of a string.
fn text(token: Token<'_>) -> Result<String, Fault> {
    if token.kind != Kind::Text {
        return Err(token.unexpected("a string in quotes"));
    }
    let content = &token.text[1..token.text.len() - 1];
    if !content.contains('\\') {
        return Ok(content.into());
    }
    let mut found = String::new();
    let mut chars = content.char_indices();
    while let Some((i, c)) = chars.next() {
        if c != '\\' {
            found.push(c);
            continue;
        }
        match chars.next().map(|(_, c)| c) {
            Some(c @ ('\\' | '"')) => found.push(c),
            Some('n') => found.push('\n'),
            Some('t') => found.push('\t'),
            _ => {
                return Err(Fault::new(token.at + 1 + i, "an unknown escape", r#"`\\`, `\"`, `\n` or `\t`"#));
            }
        }
    }
    Ok(found)
}

/// A scalar integer that is not negative.
pub(super) fn whole(tensor: &Tensor) -> Option<u64> {
    match tensor.data() {
        Data::U64(v) => v.first().copied(),
        _ => integer(tensor, 0).and_then(|i| u64::try_from(i).ok()),
    }
}

/// An element of an integer tensor; `None` of another type, or beyond `i64`.
pub(super) fn integer(tensor: &Tensor, i: usize) -> Option<i64> {
    match tensor.data() {
        Data::I8(v) | Data::SubByte(_, v) => Some(v[i].into()),
        Data::I16(v) => Some(v[i].into()),
        Data::I32(v) => Some(v[i].into()),
        Data::I64(v) => Some(v[i]),
        Data::U8(v) => Some(v[i].into()),
        Data::U16(v) => Some(v[i].into()),
        Data::U32(v) => Some(v[i].into()),
        Data::U64(v) => i64::try_from(v[i]).ok(),
        Data::Bool(_) | Data::F16(_) | Data::Bf16(_) | Data::F32(_) | Data::F64(_) => None,
    }
}

/// Appends the element that a token spells.
fn push(data: &mut Data, token: Token<'_>) -> Result<(), Fault> {
    match data {
        Data::Bool(v) => v.push(match token.text {
            "true" => true,
            "false" => false,
            _ => return Err(token.unexpected("true or false")),
        }),
        Data::F16(v) => v.push(Element::from_f64(narrow(token)?)),
        Data::Bf16(v) => v.push(Element::from_f64(narrow(token)?)),
        Data::F32(v) => v.push(single(token)?),
        Data::F64(v) => v.push(narrow(token)?),
        Data::I8(v) => v.push(int(token, DType::I8)?),
        Data::I16(v) => v.push(int(token, DType::I16)?),
        Data::I32(v) => v.push(int(token, DType::I32)?),
        Data::I64(v) => v.push(int(token, DType::I64)?),
        Data::U8(v) => v.push(int(token, DType::U8)?),
        Data::U16(v) => v.push(int(token, DType::U16)?),
        Data::U32(v) => v.push(int(token, DType::U32)?),
        Data::U64(v) => v.push(int(token, DType::U64)?),
        Data::SubByte(dtype, v) => {
            let value: i8 = int(token, *dtype)?;
            if round_to(*dtype, value.into()) != f64::from(value) {
                return Err(token.unexpected(format!("an integer that {dtype} holds")));
            }
            v.push(value);
        }
    }
    Ok(())
}

fn int<T: std::str::FromStr>(token: Token<'_>, dtype: DType) -> Result<T, Fault> {
    let digits = token.text.strip_prefix('-').unwrap_or(token.text);
    if token.kind != Kind::Number || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(token.unexpected(format!("an integer of type {dtype}")));
    }
    // `-0` is an integer of every type.
    let text = if digits.bytes().all(|b| b == b'0') { "0" } else { token.text };
    text.parse().map_err(|_| token.unexpected(format!("an integer that {dtype} holds")))
}

/// An `fp32` element, rounded once.
fn single(token: Token<'_>) -> Result<f32, Fault> {
    let decimal = token.kind == Kind::Number && !token.text.contains(['x', 'X']);
    match token.text.parse() {
        Ok(x) if decimal => Ok(x),
        _ => narrow(token).map(|x| x as f32),
    }
}

/// A number that is going to be rounded to 16 or 32 bits.
fn narrow(token: Token<'_>) -> Result<f64, Fault> {
    let fault = || token.unexpected("a number");
    if token.kind == Kind::Identifier && matches!(token.text, "inf" | "nan") {
        return token.text.parse().map_err(|_| fault());
    }
    if token.kind != Kind::Number {
        return Err(fault());
    }
    let (sign, body) = token.text.strip_prefix('-').map_or((1.0, token.text), |body| (-1.0, body));
    match body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        Some(digits) => hexadecimal(digits).map(|x| sign * x).ok_or_else(fault),
        None => token.text.parse().map_err(|_| fault()),
    }
}

/// C's hexadecimal float without its `0x`, rounded to odd: every narrower type then rounds it as if it were exact.
fn hexadecimal(text: &str) -> Option<f64> {
    /// Exponents beyond what any digits could bring back are all the same.
    const FAR: i64 = 1 << 40;
    let bytes = text.as_bytes();
    let (mut bits, mut lost, mut after_point) = (0u64, false, false);
    let mut exponent = 0i64;
    let mut rest: &[u8] = &[];
    for (i, &b) in bytes.iter().enumerate() {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            b'A'..=b'F' => b - b'A' + 10,
            b'.' => {
                after_point = true;
                continue;
            }
            b'p' | b'P' => {
                rest = &bytes[i + 1..];
                break;
            }
            _ => return None,
        };
        if bits >> 48 == 0 {
            bits = bits << 4 | u64::from(digit);
            exponent -= if after_point { 4 } else { 0 };
        } else {
            lost |= digit != 0;
            exponent += if after_point { 0 } else { 4 };
        }
    }
    let (negative, digits) = match rest {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let grow = |n: i64, &b: &u8| (10 * n + i64::from(b.wrapping_sub(b'0'))).min(FAR);
    let written = digits.iter().fold(0, grow);
    exponent += if negative { -written } else { written };
    if bits == 0 {
        return Some(0.0);
    }
    // At most 52 bits, so that the odd bit for what was lost is the last of the 53 of an f64.
    let odd = (bits << 1 | u64::from(lost)) as f64;
    // In halves, since 2 to the whole exponent need not be a normal number where the product is.
    let exponent = (exponent - 1).clamp(-2000, 2000);
    let power = |e: i64| f64::from_bits(((e + 1023) as u64) << 52);
    Some(odd * power(exponent / 2) * power(exponent - exponent / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Value, Fault> {
        let mut parser = Parser::new(text);
        let value = parser.value(0)?;
        match parser.next()? {
            Token { kind: Kind::End, .. } => Ok(value),
            token => Err(token.unexpected("the end")),
        }
    }

    fn tensor(text: &str) -> Tensor {
        match one(text).unwrap().content {
            Content::Tensor(t) => Tensor::clone(&t),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refuses(text: &str, at: usize, message: &str) {
        let fault = one(text).unwrap_err();
        assert_eq!(
            (fault.at, format!("{}, {}", fault.what, fault.expected).as_str()),
            (at, message),
            "{text}"
        );
    }

    #[test]
    fn floats_round_once_to_their_type() {
        for (literal, expected) in [
            ("0x1.5p-17", 1.3125 * 2f64.powi(-17)),
            ("-0x1.8p-23", -1.5 * 2f64.powi(-23)),
            ("0x1.002p+0", 1.0),
            ("0x1.00200000000000000000000001p0", 1.0 + 2f64.powi(-10)),
            ("0x1.006p+0", 1.0 + 2f64.powi(-9)),
            ("0x0.0000000000000000000008p84", 0.5),
            ("0x10000000000000000000p-76", 1.0),
            ("0X1P4", 16.0),
            ("0x.8", 0.5),
            ("65519.9", 65504.0),
            ("65520", f64::INFINITY),
            ("0x1p99999999999999999999", f64::INFINITY),
            ("0x1p-99999999999999999999", 0.0),
            ("1.", 1.0),
            (".5", 0.5),
            ("1e-05", 1.001_358_03e-05),
            ("-3", -3.0),
            ("-inf", f64::NEG_INFINITY),
        ] {
            let found = tensor(&format!("fp16({literal})")).get(0);
            let expected = arcane_tensor::round_to(DType::F16, expected);
            assert_eq!(found, expected, "{literal}");
        }
        assert!(tensor("fp32(-0.0)").get(0).is_sign_negative());
        assert!(tensor("fp16(-0x0p+0)").get(0).is_sign_negative());
        assert!(tensor("fp32(nan)").get(0).is_nan());
        // A double rounding would give 1.
        assert_eq!(tensor("fp32(1.00000005960464477540)").get(0), 1.0 + 2f64.powi(-23));
        assert_eq!(tensor("fp32(0x1p-149)").get(0), 2f64.powi(-149));
        assert_eq!(tensor("fp32(0x0.fffffffp-126)").get(0), 2f64.powi(-126));
    }

    #[test]
    fn tensors_are_nested_or_flat_or_one_number() {
        let expected = Tensor::new(&[2, 3], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(tensor("tensor<int32,[2,3]>([[1,2,3],[4,5,6]])"), expected);
        assert_eq!(tensor("tensor<int32, [2, 3]>([1, 2, 3, 4, 5, 6])"), expected);
        assert_eq!(tensor("tensor<uint8, [2, 1]>(7)"), Tensor::new(&[2, 1], vec![7u8, 7]).unwrap());
        assert_eq!(tensor("tensor<int32, []>(-7)"), Tensor::scalar(-7));
        assert_eq!(tensor("tensor<fp16, [2, 0]>([[], []])").shape(), [2, 0]);
        assert_eq!(tensor("tensor<fp16, [0, 2]>([])").shape(), [0, 2]);
        assert_eq!(tensor("uint64(18446744073709551615)"), Tensor::scalar(u64::MAX));
    }

    #[test]
    fn elements_fit_their_type_and_count() {
        refuses("int8(128)", 5, "found `128`, an integer that int8 holds");
        refuses("uint8(-1)", 6, "found `-1`, an integer that uint8 holds");
        refuses("int32(1.0)", 6, "found `1.0`, an integer of type int32");
        refuses("bool(1)", 5, "found `1`, true or false");
        refuses("fp16(true)", 5, "found `true`, a number");
        refuses("fp16([1])", 5, "found `[`, one fp16 without brackets");
        refuses("tensor<int32, [2]>([1])", 21, "found `]`, 2 values, not 1");
        refuses("tensor<int32, [2]>([1, 2, 3])", 26, "found `3`, 2 values here, not more");
        refuses("tensor<int32, [2, 2]>([[1, 2], [3]])", 33, "found `]`, 2 values, not 1");
        refuses("tensor<int32, [2, 1]>([[1]])", 26, "found `]`, 2 values, not 1");
        refuses("tensor<int32, [1, 1]>([[1], [1]])", 28, "found `[`, 1 in this dimension, not more");
        refuses("tensor<int32, [2]>([])", 20, "found `]`, 2 values, not 0");
        refuses("string(\"a\\q\")", 9, r#"an unknown escape, `\\`, `\"`, `\n` or `\t`"#);
    }

    #[test]
    fn nothing_is_allocated_for_a_declaration() {
        refuses("tensor<fp32, [1000000000]>([1])", 29, "found `]`, 1000000000 values, not 1");
        let fault = one("tensor<fp32, [1000000000]>(1)").unwrap_err();
        assert!(fault.what.ends_with("stand for more than 256 MiB"), "{}", fault.what);
        let fault = one("tensor<fp32, [4294967296, 4294967296]>(1)").unwrap_err();
        assert!(fault.what.ends_with("is larger than memory can be"), "{}", fault.what);
    }

    #[test]
    fn nesting_is_limited() {
        for text in [
            format!("{}int32{}", "list<".repeat(100_000), ", 1>".repeat(100_000)),
            format!("list<int32, 1>({}", "[".repeat(100_000)),
            format!("list<int32, 1>({}", "list<int32, 1>(".repeat(100_000)),
            "tensor<fp16, [1]>(BLOBFILE(path = ".repeat(100_000),
        ] {
            let fault = one(&text).unwrap_err();
            assert!(fault.what.ends_with("nest too deep"), "{}", fault.what);
        }
    }
}
