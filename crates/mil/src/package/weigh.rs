//! How much memory a model takes when it is decoded, before it is: an empty message takes two bytes of a file and a hundred of memory.

use std::mem::size_of;

use super::proto;

/// Memory that a byte of a model may take: written ones take a third of it.
const PER_BYTE: usize = 32;
/// Memory that any model may take.
const FREE: usize = 1 << 20;
/// How deep messages are followed; the decoder refuses what is deeper.
const DEPTH: usize = 100;

/// Refuses a model that takes much more memory than its bytes account for. What is no protobuf is left to the decoder.
pub(super) fn model(bytes: &[u8]) -> Result<(), String> {
    let most = bytes.len().saturating_mul(PER_BYTE).saturating_add(FREE);
    let mut left = most;
    if walk(bytes, Message::Model, DEPTH, &mut left) {
        return Ok(());
    }
    Err(format!("it has {} bytes and takes more than {most} in memory", bytes.len()))
}

/// The messages that hold others, and what is there many times in one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Description,
    FunctionDescription,
    Feature,
    Program,
    FunctionEntry,
    Function,
    BlockEntry,
    Block,
    Operation,
    ArgumentEntry,
    Argument,
    Binding,
    NamedValueType,
    ValueType,
    TensorType,
    Dimension,
    ListType,
    TupleType,
    DictionaryType,
    StateType,
    ValueEntry,
    Value,
    Immediate,
    Elements,
    Strings,
    Values,
    Pairs,
    Pair,
    Text,
}

#[allow(clippy::enum_glob_use, reason = "a table of all of them")]
use Message::*;

/// Which field of which message holds which.
const FIELDS: [(Message, u64, Message); 52] = [
    (Model, 2, Description),
    (Model, 502, Program),
    (Description, 1, Feature),
    (Description, 10, Feature),
    (Description, 13, Feature),
    (Description, 20, FunctionDescription),
    (FunctionDescription, 2, Feature),
    (FunctionDescription, 3, Feature),
    (FunctionDescription, 6, Feature),
    (Program, 2, FunctionEntry),
    (Program, 4, ValueEntry),
    (FunctionEntry, 2, Function),
    (Function, 1, NamedValueType),
    (Function, 3, BlockEntry),
    (Function, 4, ValueEntry),
    (BlockEntry, 2, Block),
    (Block, 1, NamedValueType),
    (Block, 2, Text),
    (Block, 3, Operation),
    (Operation, 2, ArgumentEntry),
    (Operation, 3, NamedValueType),
    (Operation, 4, Block),
    (Operation, 5, ValueEntry),
    (ArgumentEntry, 2, Argument),
    (Argument, 1, Binding),
    (Binding, 2, Value),
    (NamedValueType, 2, ValueType),
    (ValueType, 1, TensorType),
    (ValueType, 2, ListType),
    (ValueType, 3, TupleType),
    (ValueType, 4, DictionaryType),
    (ValueType, 5, StateType),
    (TensorType, 3, Dimension),
    (ListType, 1, ValueType),
    (ListType, 2, Dimension),
    (TupleType, 1, ValueType),
    (DictionaryType, 1, ValueType),
    (DictionaryType, 2, ValueType),
    (StateType, 1, ValueType),
    (ValueEntry, 2, Value),
    (Value, 2, ValueType),
    (Value, 3, Immediate),
    (Immediate, 1, Elements),
    (Immediate, 2, Values),
    (Immediate, 3, Values),
    (Immediate, 4, Pairs),
    (Elements, 4, Strings),
    (Strings, 1, Text),
    (Values, 1, Value),
    (Pairs, 1, Pair),
    (Pair, 1, Value),
    (Pair, 2, Value),
];

impl Message {
    /// The memory of one, without what it points to. Lists grow by doubling, and the nodes of maps are half empty.
    fn size(self) -> usize {
        let string = size_of::<String>();
        2 * match self {
            Model | Description | Program | Elements | TensorType | Immediate | ListType | TupleType
            | DictionaryType | StateType | Strings | Values | Pairs | Function | Argument => 0,
            FunctionDescription => size_of::<proto::FunctionDescription>(),
            Feature => size_of::<proto::Feature>(),
            FunctionEntry => string + size_of::<proto::Function>(),
            BlockEntry => string + size_of::<proto::Block>(),
            ArgumentEntry => string + size_of::<proto::Argument>(),
            ValueEntry => string + size_of::<proto::Value>(),
            Block => size_of::<proto::Block>(),
            Operation => size_of::<proto::Operation>(),
            Binding => size_of::<proto::Binding>(),
            NamedValueType => size_of::<proto::NamedValueType>(),
            ValueType => size_of::<proto::ValueType>(),
            Dimension => size_of::<proto::Dimension>(),
            Value => size_of::<proto::Value>(),
            Pair => size_of::<proto::Pair>(),
            Text => string,
        }
    }
}

/// Takes the memory of a message and all in it off what is left; false if that is not enough.
fn walk(mut bytes: &[u8], message: Message, depth: usize, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(message.size()) else { return false };
    *left = rest;
    if depth == 0 || message == Text {
        return true;
    }
    while let Some((field, content, after)) = field(bytes) {
        let inner = FIELDS.iter().find(|(m, f, _)| *m == message && *f == field);
        if let (Some((_, _, inner)), Some(content)) = (inner, content)
            && !walk(content, *inner, depth - 1, left)
        {
            return false;
        }
        bytes = after;
    }
    true
}

/// A field's number, its content if it has a length, and what follows it.
type Field<'a> = (u64, Option<&'a [u8]>, &'a [u8]);

/// The first field; `None` at the end or at what is no field.
fn field(bytes: &[u8]) -> Option<Field<'_>> {
    let (key, rest) = varint(bytes)?;
    let skip = |n: usize| Some((key >> 3, None, rest.get(n..)?));
    match key & 7 {
        0 => Some((key >> 3, None, varint(rest)?.1)),
        1 => skip(8),
        2 => {
            let (length, rest) = varint(rest)?;
            let (content, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((key >> 3, Some(content), after))
        }
        5 => skip(4),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, &b) in bytes.iter().enumerate().take(10) {
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::model;

    /// A field with these contents.
    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        let varint = |mut v: u64| {
            let mut bytes = Vec::new();
            while v > 0x7f {
                bytes.push(v as u8 | 0x80);
                v >>= 7;
            }
            bytes.push(v as u8);
            bytes
        };
        [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
    }

    #[test]
    fn many_empty_messages_are_refused() {
        let empty = |path: &[u64]| {
            let (last, outer) = path.split_last().unwrap();
            let many = field(*last, &[]).repeat(1 << 16);
            outer.iter().rev().fold(many, |inner, &number| field(number, &inner))
        };
        for path in [&[502, 2, 2, 3, 2, 3][..], &[2, 1], &[502, 2, 2, 1], &[502, 4]] {
            assert!(model(&empty(path)).is_err(), "{path:?}");
        }
        // Bytes that are skipped take nothing.
        assert!(model(&empty(&[502, 9])).is_ok());
        assert!(model(&[0xff; 20]).is_ok() && model(&[]).is_ok());
    }
}
