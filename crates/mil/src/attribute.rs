//! Attributes that mean nothing here and are kept.

/// An attribute of a program, a function or an op that this version gives no meaning, as it stands in MIL text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    name: String,
    /// Its value's tokens, in the short dialect.
    tokens: Vec<String>,
}

impl Attribute {
    /// An attribute from the tokens of its value, a typed literal in either dialect.
    pub(crate) fn new<'a>(name: &str, tokens: impl Iterator<Item = &'a str>) -> Self {
        let long: Vec<&str> = tokens.collect();
        let mut tokens = Vec::new();
        let mut rest = long.as_slice();
        while let Some((&first, after)) = rest.split_first() {
            // `tensor < T , [ ] >` is T.
            if let ["tensor", "<", scalar, ",", "[", "]", ">", after @ ..] = rest {
                tokens.push((*scalar).to_string());
                rest = after;
            } else if let ["tensor", "<", element, after @ ..] = rest {
                // The element type of a tensor with dimensions is no scalar; the mark keeps the long dialect from making one of it.
                tokens.push(format!("tensor<{element}"));
                rest = after;
            } else {
                tokens.push(first.to_string());
                rest = after;
            }
        }
        Self { name: name.into(), tokens }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value in canonical spelling.
    pub(crate) fn spelled(&self, short: bool) -> String {
        let mut text = String::new();
        for token in &self.tokens {
            match token.as_str() {
                "," => text.push_str(", "),
                "=" => text.push_str(" = "),
                scalar if !short && crate::read::is_scalar(scalar) => {
                    text.push_str("tensor<");
                    text.push_str(scalar);
                    text.push_str(", []>");
                }
                other => text.push_str(other),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Attribute;

    #[test]
    fn values_are_spelled_in_either_dialect() {
        let short = r#"dict<string, tensor<int32, [?, 2]>>({{"x", [[1, 2]]}})"#;
        let long = r#"dict<tensor<string, []>, tensor<int32, [?, 2]>>({{"x", [[1, 2]]}})"#;
        for text in [short, long] {
            let attribute = Attribute::new("a", crate::read::tokens(text));
            assert_eq!(attribute.spelled(true), short);
            assert_eq!(attribute.spelled(false), long);
        }
    }
}
