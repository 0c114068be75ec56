//! What a framework says of a loaded program's ports: names, symbols, strides.
//!
//! (The keys: framework inspection, ironmill's dump, cgt/ane.) Every key but `LiveOutputList` may be missing; what is missing
//! follows the rules of [`arcane_chip::surface`]. What contradicts the program makes it unusable.

use std::collections::BTreeMap;

use arcane_chip::surface::{SurfaceLayout, symbol_order};
use arcane_tensor::DType;

/// A property list.
#[derive(Clone, Debug, PartialEq)]
pub enum Property {
    /// A dictionary with texts as keys.
    Dictionary(BTreeMap<String, Property>),
    /// A list.
    Array(Vec<Property>),
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Anything else.
    Other,
}

/// Why attributes cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's attributes: {key} of `{port}` is {found}, {expected} was expected")]
pub struct AttributesError {
    /// The key.
    pub key: &'static str,
    /// The port.
    pub port: String,
    /// What it holds.
    pub found: String,
    /// What would be right.
    pub expected: String,
}

/// A port as a program's text has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The identifier.
    pub(crate) name: String,
    /// The element type.
    pub(crate) dtype: DType,
    /// Its layout by the rules of the chip.
    pub(crate) layout: SurfaceLayout,
}

/// Where a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortPlace {
    /// The number of its symbol.
    pub(crate) symbol: usize,
    /// Bytes from a row to the next.
    pub(crate) row_stride: usize,
    /// Bytes that its surface has at least.
    pub(crate) bytes: usize,
}

/// Which side of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// What it reads.
    Inputs,
    /// What it writes.
    Outputs,
}

impl Side {
    const fn symbols(self) -> &'static str {
        match self {
            Self::Inputs => "kANEFModelInputSymbolsArrayKey",
            Self::Outputs => "kANEFModelOutputSymbolsArrayKey",
        }
    }

    const fn live(self) -> &'static str {
        match self {
            Self::Inputs => "LiveInputList",
            Self::Outputs => "LiveOutputList",
        }
    }
}

/// Where the expected ports of one side are: by the attributes where they say, else by the chip's rules.
///
/// # Errors
/// [`AttributesError`] for a port that the attributes lack or describe otherwise.
pub(crate) fn places(
    attributes: Option<&Property>,
    side: Side,
    expected: &[Expected],
) -> Result<Vec<PortPlace>, AttributesError> {
    let names: Vec<&str> = expected.iter().map(|e| e.name.as_str()).collect();
    let order = symbol_order(&names);
    let by_rule = |port: usize| order.iter().position(|&p| p == port).unwrap_or(port);
    let listed = attributes.and_then(|a| a.get("ANEFModelDescription")?.get(side.symbols())?.array());
    let live =
        attributes.and_then(|a| a.get("NetworkStatusList")?.array()?.first()?.get(side.live())?.array());
    expected
        .iter()
        .enumerate()
        .map(|(port, e)| {
            let symbol = match listed {
                Some(list) => symbol_of(list, side, e)?,
                None => by_rule(port),
            };
            place(live.and_then(|l| entry(l, &e.name)), symbol, e)
        })
        .collect()
}

impl Property {
    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dictionary(entries) => entries.get(key),
            _ => None,
        }
    }

    fn array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Self::Number(n) => Some(*n),
            _ => None,
        }
    }
}

/// `y@output` is `y`.
fn plain(symbol: &str) -> &str {
    symbol.strip_suffix("@output").unwrap_or(symbol)
}

fn symbol_of(list: &[Property], side: Side, e: &Expected) -> Result<usize, AttributesError> {
    let found = list.iter().position(|s| s.text().is_some_and(|s| plain(s) == e.name));
    found.ok_or_else(|| AttributesError {
        key: side.symbols(),
        port: e.name.clone(),
        found: format!("{:?}", list.iter().filter_map(Property::text).collect::<Vec<_>>()),
        expected: "its name in the list".into(),
    })
}

fn entry<'a>(live: &'a [Property], name: &str) -> Option<&'a Property> {
    live.iter().find(|p| p.get("Name").and_then(Property::text).is_some_and(|n| plain(n) == name))
}

fn place(entry: Option<&Property>, symbol: usize, e: &Expected) -> Result<PortPlace, AttributesError> {
    let rule = PortPlace { symbol, row_stride: e.layout.row_stride, bytes: e.layout.strided_bytes() };
    let Some(entry) = entry else { return Ok(rule) };
    let wrong =
        |key, found: String, expected: String| AttributesError { key, port: e.name.clone(), found, expected };
    if let (Some(found), Some(expected)) = (entry.get("Type").and_then(Property::text), type_name(e.dtype))
        && found != expected
    {
        return Err(wrong("Type", found.into(), expected.into()));
    }
    let [batches, channels, height, width] = e.layout.shape;
    let sizes = [("Channels", channels), ("Height", height), ("Width", width)];
    for (key, expected) in sizes {
        match entry.number(key) {
            Some(found) if usize::try_from(found) != Ok(expected) => {
                return Err(wrong(key, found.to_string(), expected.to_string()));
            }
            _ => {}
        }
    }
    let Some(stride) = entry.number("RowStride") else { return Ok(rule) };
    let least = width * e.layout.element;
    let row_stride =
        usize::try_from(stride).ok().filter(|s| *s >= least && s.is_multiple_of(e.layout.element));
    let row_stride = row_stride.ok_or_else(|| {
        wrong("RowStride", stride.to_string(), format!("{least} or more, of whole elements"))
    })?;
    // A buffer has rows at equal distances, so planes and batches must follow one another.
    let overflow = || wrong("RowStride", stride.to_string(), "a size that memory can have".into());
    let plane = height.checked_mul(row_stride).ok_or_else(overflow)?;
    let batch = channels.checked_mul(plane).ok_or_else(overflow)?;
    for (key, expected, count) in [("PlaneStride", plane, channels), ("BatchStride", batch, batches)] {
        match entry.number(key) {
            Some(found) if count > 1 && usize::try_from(found) != Ok(expected) => {
                return Err(wrong(key, found.to_string(), expected.to_string()));
            }
            _ => {}
        }
    }
    let bytes = batches.checked_mul(batch).ok_or_else(overflow)?;
    Ok(PortPlace { symbol, row_stride, bytes })
}

/// The framework's name of a type; `None` where it is not known.
fn type_name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F16 => Some("Float16"),
        DType::F32 => Some("Float32"),
        DType::I8 => Some("Int8"),
        DType::U8 => Some("UInt8"),
        DType::Bool
        | DType::Bf16
        | DType::F64
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::U1
        | DType::U2
        | DType::U3
        | DType::U4
        | DType::U6
        | DType::I4 => None,
    }
}

#[cfg(test)]
mod tests {
    use arcane_mil::TensorType;

    use super::*;

    fn expected(name: &str, shape: &[usize]) -> Expected {
        let layout = SurfaceLayout::of(&TensorType::new(DType::F16, shape)).unwrap();
        Expected { name: name.into(), dtype: DType::F16, layout }
    }

    fn dictionary(entries: &[(&str, Property)]) -> Property {
        Property::Dictionary(entries.iter().map(|(k, v)| ((*k).into(), v.clone())).collect())
    }

    fn texts(names: &[&str]) -> Property {
        Property::Array(names.iter().map(|n| Property::Text((*n).into())).collect())
    }

    fn attributes(symbols: &[&str], live: Vec<Property>) -> Property {
        let description = dictionary(&[("kANEFModelInputSymbolsArrayKey", texts(symbols))]);
        let status = dictionary(&[("LiveInputList", Property::Array(live))]);
        dictionary(&[
            ("ANEFModelDescription", description),
            ("NetworkStatusList", Property::Array(vec![status])),
        ])
    }

    #[test]
    fn without_attributes_symbols_are_sorted_and_rows_padded() {
        let ports = ["x", "gate", "up", "down"].map(|n| expected(n, &[1, 4, 1, 4]));
        let found = places(None, Side::Inputs, &ports).unwrap();
        assert_eq!(found.iter().map(|p| p.symbol).collect::<Vec<_>>(), [3, 1, 2, 0]);
        assert_eq!((found[0].row_stride, found[0].bytes), (64, 256));
    }

    #[test]
    fn what_the_attributes_say_counts() {
        let live = dictionary(&[
            ("Name", Property::Text("x".into())),
            ("Type", Property::Text("Float16".into())),
            ("Channels", Property::Number(4)),
            ("RowStride", Property::Number(128)),
            ("PlaneStride", Property::Number(128)),
        ]);
        let given = attributes(&["x", "a@output"], vec![live]);
        let ports = [expected("a", &[1, 4, 1, 4]), expected("x", &[1, 4, 1, 4])];
        let found = places(Some(&given), Side::Inputs, &ports).unwrap();
        assert_eq!(found[0], PortPlace { symbol: 1, row_stride: 64, bytes: 256 });
        assert_eq!(found[1], PortPlace { symbol: 0, row_stride: 128, bytes: 512 });
    }

    #[test]
    fn contradictions_name_the_key() {
        let ports = [expected("x", &[1, 4, 2, 4])];
        for (key, value) in [
            ("Type", Property::Text("Int8".into())),
            ("Channels", Property::Number(5)),
            ("RowStride", Property::Number(7)),
            ("PlaneStride", Property::Number(64)),
            ("RowStride", Property::Number(i64::MAX - 1)),
        ] {
            let name = ("Name", Property::Text("x".into()));
            let stride = ("RowStride", Property::Number(64));
            let given = attributes(&["x"], vec![dictionary(&[name, stride, (key, value)])]);
            assert_eq!(places(Some(&given), Side::Inputs, &ports).unwrap_err().key, key);
        }
        let given = attributes(&["y"], vec![]);
        let error = places(Some(&given), Side::Inputs, &ports).unwrap_err();
        assert_eq!(error.key, "kANEFModelInputSymbolsArrayKey");
    }
}
