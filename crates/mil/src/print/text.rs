//! Statements as text.

use std::fmt::Write;

use super::PrintError;
use super::literal::{elements, quoted};
use super::names::identifiers;
use super::statements::{Form, Items, Port, Statement, Value, frame};
use crate::blob::BlobWriter;
use crate::{Attribute, Function, Opset, Program, TensorType};

/// How rank-0 types, strings and numbers are spelled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Long,
    Short,
}

impl Dialect {
    pub(super) fn of(program: &Program) -> Self {
        if program.functions.iter().all(|f| f.opset() < Opset::Ios18) && !program.functions.is_empty() {
            Self::Long
        } else {
            Self::Short
        }
    }

    /// What stands before the functions. A program that does not say who wrote it gets what Apple's compiler wants.
    pub(super) fn open(self, attributes: &[Attribute]) -> String {
        let version = match self {
            Self::Long => "1.0",
            Self::Short => "1.3",
        };
        let mut spelled: Vec<(&str, String)> = attributes.iter().map(|a| self.attribute(a)).collect();
        if attributes.iter().all(|a| a.name() != "buildInfo") {
            let string = self.scalar("string");
            let entries = r#"{"coremlc-component-MIL", "3510.2.1"}, {"coremlc-version", "3505.4.1"}"#;
            spelled.push(("buildInfo", format!("dict<{string}, {string}>({{{entries}}})")));
        }
        format!("program({version})\n{}\n{{\n", bracketed(spelled))
    }

    fn attribute(self, attribute: &Attribute) -> (&str, String) {
        (attribute.name(), attribute.spelled(self == Self::Short))
    }

    fn ty(self, ty: &TensorType) -> String {
        if ty.shape.is_empty() { self.scalar(ty.dtype.name()) } else { ty.to_string() }
    }

    fn scalar(self, name: &str) -> String {
        match self {
            Self::Long => format!("tensor<{name}, []>"),
            Self::Short => name.into(),
        }
    }

    fn string(self, text: &str) -> String {
        format!("{}({})", self.scalar("string"), quoted(text))
    }

    /// The type of a constant, and its value.
    fn value(self, value: &Value<'_>) -> (String, String) {
        match value {
            Value::Text(text) => (self.scalar("string"), self.string(text)),
            Value::Inline(tensor) => {
                let ty = self.ty(&TensorType::new(tensor.dtype(), tensor.shape()));
                let value = format!("{ty}({})", elements(tensor));
                (ty, value)
            }
            Value::Blob(ty, offset) => {
                let ty = self.ty(ty);
                let path = self.string(super::package::WEIGHT_PATH);
                let offset = format!("{}({offset})", self.scalar("uint64"));
                let value = format!("{ty}(BLOBFILE(path = {path}, offset = {offset}))");
                (ty, value)
            }
        }
    }

    /// The attributes of a statement in alphabetical order.
    fn attributes<'a>(
        self,
        name: &str,
        others: impl Iterator<Item = (&'a str, String)>,
        kept: &'a [Attribute],
    ) -> String {
        let mut all = vec![("name", self.string(name))];
        all.extend(others);
        all.extend(kept.iter().map(|a| self.attribute(a)));
        bracketed(all)
    }
}

fn bracketed(mut attributes: Vec<(&str, String)>) -> String {
    attributes.sort();
    let all: Vec<String> = attributes.into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
    format!("[{}]", all.join(", "))
}

/// Appends a verified function.
pub(super) fn function(
    function: &Function,
    dialect: Dialect,
    weights: &mut BlobWriter,
    text: &mut String,
) -> Result<(), PrintError> {
    let identifiers = identifiers(function);
    let frame = frame(function, &identifiers, weights, Form::Text)?;
    let parameter = |p: &Port<'_>| {
        let ty = dialect.ty(p.ty);
        if p.is_state { format!("state<{ty}> {}", p.name) } else { format!("{ty} {}", p.name) }
    };
    let parameters: Vec<String> = frame.parameters.iter().map(parameter).collect();
    let (name, opset) = (function.name(), function.opset().name());
    let attributes: Vec<_> = function.attributes().iter().map(|a| dialect.attribute(a)).collect();
    let attributes =
        if attributes.is_empty() { String::new() } else { format!(" {}", bracketed(attributes)) };
    line(text, 4, &format!("func {name}<{opset}>({}){attributes} {{", parameters.join(", ")));
    for one in &frame.statements {
        line(text, 12, &statement(one, dialect));
    }
    let outputs: Vec<&str> = frame.outputs.iter().map(|o| o.name).collect();
    line(text, 8, &format!("}} -> ({});", outputs.join(", ")));
    Ok(())
}

fn statement(statement: &Statement<'_>, dialect: Dialect) -> String {
    match statement {
        Statement::Const { identifier, name, value, attributes } => {
            let (ty, value) = dialect.value(value);
            format!(
                "{ty} {identifier} = const(){};",
                dialect.attributes(name, std::iter::once(("val", value)), attributes)
            )
        }
        Statement::Op { results, op, arguments, name, parameters, attributes } => {
            let mut spelled = Vec::new();
            for (parameter, items) in arguments {
                spelled.push(match items {
                    Items::One(item) => format!("{parameter} = {item}"),
                    Items::Several(items) => format!("{parameter} = ({})", items.join(", ")),
                    Items::Value(value) => format!("{parameter} = {}", dialect.value(value).1),
                });
            }
            let results: Vec<String> =
                results.iter().map(|(ty, name)| format!("{} {name}", dialect.ty(ty))).collect();
            let mut text = results.join(", ");
            if !text.is_empty() {
                text.push_str(" = ");
            }
            // Writing into a string does not fail.
            let _ = write!(text, "{op}({})", spelled.join(", "));
            let parameters = parameters.iter().map(|(name, value)| (*name, dialect.value(value).1));
            format!("{text}{};", dialect.attributes(name, parameters, attributes))
        }
    }
}

fn line(text: &mut String, indent: usize, line: &str) {
    text.extend(std::iter::repeat_n(' ', indent));
    text.push_str(line);
    text.push('\n');
}
