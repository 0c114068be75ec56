//! The grammar of MIL text: programs, functions, statements and types. Literals are in `literal`.

use arcane_tensor::DType;

use super::Fault;
use super::lexer::{Kind, Lexer, Token, shown};
use super::syntax::{Argument, Attribute, Declared, Header, Item, Name, Statement, Type};
use crate::Opset;

/// How deep types and literals may nest.
pub(super) const MAX_DEPTH: usize = 32;

/// Every element type, and those of MIL that have no counterpart here.
const DTYPES: [DType; 18] = [
    DType::Bool,
    DType::F16,
    DType::Bf16,
    DType::F32,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::U1,
    DType::U2,
    DType::U3,
    DType::U4,
    DType::U6,
    DType::I4,
];
const OTHER_DTYPES: [&str; 3] = ["fp64", "fp8e4m3fn", "fp8e5m2"];

const OPSETS: [Opset; 4] = [Opset::Ios15, Opset::Ios16, Opset::Ios17, Opset::Ios18];
const VERSIONS: [&str; 4] = ["1.0", "1.1", "1.2", "1.3"];

/// Reads a text piece by piece.
pub(super) struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// Tokens that have been looked at and not taken.
    ahead: [Option<Token<'a>>; 2],
    /// Where the last token that was taken ends.
    end: usize,
    /// Bytes that splats may still take: they are the one literal that says more than it spells.
    pub(super) splat_bytes: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, lexer: Lexer::new(text), ahead: [None; 2], end: 0, splat_bytes: 1 << 28 }
    }

    /// `program(1.3)[...]{`, and its attributes.
    pub(super) fn open_program(&mut self) -> Result<Vec<Attribute<'a>>, Fault> {
        self.keyword("program")?;
        self.expect(b'(')?;
        let version = self.next()?;
        if version.kind != Kind::Number {
            return Err(version.unexpected("a version such as 1.3"));
        }
        if !VERSIONS.contains(&version.text) {
            let what = format!("the version is {}", shown(version.text));
            return Err(Fault::new(version.at, what, "1.0 or 1.3"));
        }
        self.expect(b')')?;
        let attributes = self.attributes()?;
        self.expect(b'{')?;
        Ok(attributes)
    }

    /// `}` and the end of the text, once there was a function.
    pub(super) fn close_program(&mut self, any: bool) -> Result<(), Fault> {
        let brace = self.next()?;
        if !brace.is(b'}') || !any {
            return Err(brace.unexpected(if any { "`func` or `}`" } else { "`func`" }));
        }
        let end = self.next()?;
        if end.kind == Kind::End { Ok(()) } else { Err(end.unexpected("nothing after the program")) }
    }

    /// `func main<ios18>(...) {`, if a function follows.
    pub(super) fn function(&mut self) -> Result<Option<Header<'a>>, Fault> {
        let token = self.peek()?;
        if token.kind != Kind::Identifier || token.text != "func" {
            return Ok(None);
        }
        self.next()?;
        let name = self.name("the name of the function")?;
        self.expect(b'<')?;
        let opset = self.name("an opset such as ios18")?;
        let Some(opset) = OPSETS.into_iter().find(|o| o.name() == opset.text) else {
            let what = format!("the opset is {}", shown(opset.text));
            return Err(Fault::new(opset.at, what, "ios15, ios16, ios17 or ios18"));
        };
        self.expect(b'>')?;
        self.expect(b'(')?;
        let parameters = self.list(b')', Self::declared)?;
        let attributes = self.attributes()?;
        self.expect(b'{')?;
        Ok(Some(Header { name, opset, parameters, attributes }))
    }

    /// The next statement of a function; `None` at its `}`, which is taken.
    pub(super) fn statement(&mut self) -> Result<Option<Statement<'a>>, Fault> {
        let token = self.peek()?;
        if token.is(b'}') {
            self.next()?;
            return Ok(None);
        }
        if token.kind != Kind::Identifier {
            return Err(token.unexpected("a type, an op or `}`"));
        }
        let results = if self.peek_second()?.is(b'(') { Vec::new() } else { self.results()? };
        let op = self.name("the name of an op")?;
        if self.peek()?.is(b'<') {
            self.next()?;
            self.name("an opset")?;
            self.expect(b'>')?;
        }
        self.expect(b'(')?;
        let arguments = self.list(b')', Self::argument)?;
        let attributes = self.attributes()?;
        if self.peek()?.is(b'{') {
            return Err(self
                .next()?
                .unexpected("`;`: blocks have no known text, they are read from packages"));
        }
        self.semicolon()?;
        Ok(Some(Statement { results, op, arguments, attributes }))
    }

    /// `-> (a, b);`
    pub(super) fn outputs(&mut self) -> Result<Vec<Name<'a>>, Fault> {
        if self.peek()?.kind != Kind::Arrow {
            return Err(self.missing("`->` and the outputs")?);
        }
        self.next()?;
        self.expect(b'(')?;
        let outputs = self.list(b')', |parser| parser.name("the name of an output"))?;
        self.semicolon()?;
        Ok(outputs)
    }

    fn semicolon(&mut self) -> Result<(), Fault> {
        if self.peek()?.is(b';') { self.next().map(drop) } else { Err(self.missing("`;`")?) }
    }

    fn results(&mut self) -> Result<Vec<Declared<'a>>, Fault> {
        let mut results = vec![self.declared()?];
        while self.peek()?.is(b',') {
            self.next()?;
            results.push(self.declared()?);
        }
        self.expect(b'=')?;
        Ok(results)
    }

    fn declared(&mut self) -> Result<Declared<'a>, Fault> {
        let at = self.peek()?.at;
        let ty = self.ty(0)?;
        Ok(Declared { ty, at, name: self.name("a name")? })
    }

    fn argument(&mut self) -> Result<Argument<'a>, Fault> {
        let name = self.name("the name of a parameter")?;
        self.expect(b'=')?;
        let items = if self.peek()?.is(b'(') {
            self.next()?;
            self.list(b')', Self::item)?
        } else {
            vec![self.item()?]
        };
        Ok(Argument { name, items })
    }

    fn item(&mut self) -> Result<Item<'a>, Fault> {
        let token = self.peek()?;
        if token.kind != Kind::Identifier {
            return Err(token.unexpected("a name or a typed value"));
        }
        let second = self.peek_second()?;
        if second.is(b',') || second.is(b')') {
            return Ok(Item::Reference(self.name("a name")?));
        }
        self.value(0).map(Item::Value)
    }

    /// `[name = value, ...]`, if it follows.
    fn attributes(&mut self) -> Result<Vec<Attribute<'a>>, Fault> {
        if !self.peek()?.is(b'[') {
            return Ok(Vec::new());
        }
        self.next()?;
        let attributes = self.list(b']', |parser| {
            let name = parser.name("the name of an attribute")?;
            parser.expect(b'=')?;
            let start = parser.peek()?.at;
            let value = parser.value(0)?;
            Ok(Attribute { name, value, text: &parser.text[start..parser.end] })
        })?;
        unique(attributes.iter().map(|a| a.name), "attribute")?;
        Ok(attributes)
    }

    /// A type, `depth` types inside another.
    pub(super) fn ty(&mut self, depth: usize) -> Result<Type, Fault> {
        let token = self.peek()?;
        if depth > MAX_DEPTH {
            return Err(Fault::new(token.at, "types nest too deep", format!("at most {MAX_DEPTH} levels")));
        }
        let name = self.name("a type")?;
        match name.text {
            "tensor" => self.tensor_type(),
            "string" => Ok(Type::Text),
            "state" => {
                self.expect(b'<')?;
                let ty = self.ty(depth + 1)?;
                self.expect(b'>')?;
                Ok(Type::State(Box::new(ty)))
            }
            "dict" | "tuple" | "list" => {
                self.expect(b'<')?;
                let parts = self.list(b'>', |parser| match parser.peek()?.kind {
                    Kind::Number | Kind::Punctuation(b'?') => Ok(parser.next()?.text.to_string()),
                    _ => parser.ty(depth + 1).map(|ty| ty.to_string()),
                })?;
                Ok(Type::Other(format!("{}<{}>", name.text, parts.join(", "))))
            }
            "tensor_buffer" => {
                Err(Fault::new(name.at, "the type `tensor_buffer` is not supported", "a tensor"))
            }
            _ => match dtype(name)? {
                Some(dtype) => Ok(Type::Tensor(dtype, Vec::new())),
                None => Ok(Type::Other(name.text.into())),
            },
        }
    }

    fn tensor_type(&mut self) -> Result<Type, Fault> {
        self.expect(b'<')?;
        let element = self.name("an element type")?;
        let dtype = if element.text == "string" { None } else { dtype(element)? };
        self.expect(b',')?;
        self.expect(b'[')?;
        let dims = self.list(b']', Self::dimension)?;
        self.expect(b'>')?;
        Ok(match dtype {
            Some(dtype) => Type::Tensor(dtype, dims),
            None if dims.is_empty() && element.text == "string" => Type::Text,
            None => Type::Other(format!("tensor<{}, ...>", element.text)),
        })
    }

    fn dimension(&mut self) -> Result<Option<usize>, Fault> {
        let token = self.next()?;
        if token.is(b'?') {
            return Ok(None);
        }
        let digits = token.kind == Kind::Number && token.text.bytes().all(|b| b.is_ascii_digit());
        match token.text.parse() {
            Ok(dimension) if digits => Ok(Some(dimension)),
            _ => Err(token.unexpected("a dimension: a whole number from 0, or `?`")),
        }
    }

    /// Items with commas between them up to `close`, the opening bracket already taken.
    pub(super) fn list<T>(
        &mut self,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut items = Vec::new();
        if self.peek()?.is(close) {
            self.next()?;
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.goes_on(close)? {
                return Ok(items);
            }
        }
    }

    /// Takes a comma (true) or the closing bracket (false).
    pub(super) fn goes_on(&mut self, close: u8) -> Result<bool, Fault> {
        let token = self.next()?;
        if token.is(b',') || token.is(close) {
            return Ok(token.is(b','));
        }
        Err(token.unexpected(format!("`,` or `{}`", char::from(close))))
    }

    pub(super) fn name(&mut self, expected: &str) -> Result<Name<'a>, Fault> {
        let token = self.next()?;
        if token.kind != Kind::Identifier {
            return Err(token.unexpected(expected));
        }
        Ok(Name { text: token.text, at: token.at })
    }

    fn keyword(&mut self, word: &str) -> Result<(), Fault> {
        let token = self.next()?;
        let found = token.kind == Kind::Identifier && token.text == word;
        if found { Ok(()) } else { Err(token.unexpected(format!("`{word}`"))) }
    }

    pub(super) fn expect(&mut self, punctuation: u8) -> Result<(), Fault> {
        let token = self.next()?;
        if token.is(punctuation) {
            return Ok(());
        }
        Err(token.unexpected(format!("`{}`", char::from(punctuation))))
    }

    pub(super) fn next(&mut self) -> Result<Token<'a>, Fault> {
        let token = self.peek()?;
        self.ahead = [self.ahead[1].take(), None];
        self.end = token.at + token.text.len();
        Ok(token)
    }

    /// The fault that something is missing after the last token, which may stand on another line than the next one.
    fn missing(&mut self, expected: &str) -> Result<Fault, Fault> {
        let end = self.end;
        Ok(Fault { at: end, ..self.peek()?.unexpected(expected) })
    }

    pub(super) fn peek(&mut self) -> Result<Token<'a>, Fault> {
        if let Some(token) = self.ahead[0] {
            return Ok(token);
        }
        let token = self.lexer.next()?;
        self.ahead[0] = Some(token);
        Ok(token)
    }

    pub(super) fn peek_second(&mut self) -> Result<Token<'a>, Fault> {
        self.peek()?;
        if let Some(token) = self.ahead[1] {
            return Ok(token);
        }
        let token = self.lexer.next()?;
        self.ahead[1] = Some(token);
        Ok(token)
    }
}

/// Whether a name is that of an element type, or `string`.
pub(crate) fn is_scalar(name: &str) -> bool {
    name == "string" || DTYPES.iter().any(|d| d.name() == name) || OTHER_DTYPES.contains(&name)
}

/// The element type of a name; `None` for one that MIL has and tensors here have not.
fn dtype(name: Name<'_>) -> Result<Option<DType>, Fault> {
    let found = DTYPES.into_iter().find(|d| d.name() == name.text);
    if found.is_some() || OTHER_DTYPES.contains(&name.text) {
        return Ok(found);
    }
    Err(Fault::new(
        name.at,
        format!("unknown type {}", shown(name.text)),
        "a type such as fp16 or tensor<fp16, [2]>",
    ))
}

/// Refuses a name that occurs twice.
pub(super) fn unique<'a>(names: impl Iterator<Item = Name<'a>>, kind: &str) -> Result<(), Fault> {
    /// Up to here names are compared with each other: a set of a few takes longer to make.
    const FEW: usize = 16;
    let (mut few, mut many): (Vec<&str>, _) = (Vec::new(), std::collections::HashSet::new());
    for name in names {
        let fresh = if few.len() < FEW {
            let fresh = !few.contains(&name.text);
            few.push(name.text);
            fresh
        } else {
            !few.contains(&name.text) && many.insert(name.text)
        };
        if !fresh {
            let what = format!("the {kind} {} is given twice", shown(name.text));
            return Err(Fault::new(name.at, what, "it once"));
        }
    }
    Ok(())
}
