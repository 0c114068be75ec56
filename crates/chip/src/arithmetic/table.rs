//! Tables of 33 points.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::half::value;
use crate::Confidence;
use crate::chip::parse;

/// Points of a table.
const POINTS: usize = 33;

/// A table as the compiler stores it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) points: [f64; POINTS],
    /// What is outside of the points, where the compiler's block is known.
    pub(super) ends: Ends,
    /// 1 / the distance of points, for tables over x itself.
    pub(super) inverse_step: f64,
}

/// How a table continues.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    /// Below this x the value is constant, and above that one.
    pub(super) x: [f64; 2],
    pub(super) y: [f64; 2],
    /// Slope and bias left and right of the points.
    pub(super) tails: [[f64; 2]; 2],
}

/// The tables of H16.
pub(super) struct Tables {
    pub(super) sigmoid: Table,
    pub(super) tanh: Table,
    pub(super) silu: Table,
    pub(super) gelu: Table,
    pub(super) exp2: Table,
    pub(super) log2: Table,
    pub(super) reciprocal: Table,
    pub(super) rsqrt: Table,
    pub(super) sqrt: Table,
    pub(super) erf: Table,
}

impl Table {
    /// Between point `place` rounded down and the next one, linearly. `place` is from 0 to 32.
    pub(super) fn interpolated(&self, place: f64) -> f64 {
        let at = (place as usize).min(POINTS - 2);
        let (left, right) = (self.points[at], self.points[at + 1]);
        left + (right - left) * (place - at as f64)
    }

    /// The value at x of a table whose first point is at `first`; not rounded.
    pub(super) fn at(&self, x: f64, first: f64) -> f64 {
        let Ends { x: [low, high], y: [below, above], tails: [left, right] } = self.ends;
        let place = (x - first) * self.inverse_step;
        if x < low {
            below
        } else if x > high || x.is_infinite() {
            above
        } else if place < 0.0 {
            left[0] * x + left[1]
        } else if place >= (POINTS - 1) as f64 {
            right[0] * x + right[1]
        } else {
            self.interpolated(place)
        }
    }

    /// The value at x of a table whose middle point is at 0.
    pub(super) fn centred(&self, x: f64) -> f64 {
        self.at(x, -((POINTS / 2) as f64) / self.inverse_step)
    }

    /// The value at x of the table of an odd function, whose first point is at 0.
    pub(super) fn odd(&self, x: f64) -> f64 {
        let y = self.at(x.abs(), 0.0);
        if x < 0.0 { -y } else { y }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    words: String,
    #[expect(dead_code, reason = "every entry has to name them")]
    source: String,
    #[expect(dead_code, reason = "every entry has to name them")]
    confidence: Confidence,
}

/// The tables of H16.
pub(super) fn h16() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let name = "activation-h16";
        let mut entries: BTreeMap<String, Entry> =
            parse(name, include_str!("../../data/activation-h16.toml"));
        let mut take = |function: &str| {
            let entry = entries.remove(function);
            let words = entry.as_ref().and_then(|e| table(&e.words));
            words.unwrap_or_else(|| panic!("data/{name}.toml: {function} is no table of 33 or 43 words"))
        };
        Tables {
            sigmoid: take("sigmoid"),
            tanh: take("tanh"),
            silu: take("silu"),
            gelu: take("gelu"),
            exp2: take("exp2"),
            log2: take("log2"),
            reciprocal: take("reciprocal"),
            rsqrt: take("rsqrt"),
            sqrt: take("sqrt"),
            erf: take("erf"),
        }
    })
}

/// A block of 43 words, or 33 points alone.
fn table(words: &str) -> Option<Table> {
    let words: Result<Vec<u16>, _> =
        words.split_whitespace().map(|word| u16::from_str_radix(word, 16)).collect();
    let words = words.ok()?;
    let number = |i: usize| value(words[i]);
    match words.len() {
        POINTS => {
            Some(Table { points: std::array::from_fn(number), ends: Ends::default(), inverse_step: 1.0 })
        }
        43 => Some(Table {
            points: std::array::from_fn(|i| number(4 + i)),
            ends: Ends {
                x: [number(0), number(1)],
                y: [number(2), number(3)],
                tails: [[number(37), number(38)], [number(39), number(40)]],
            },
            inverse_step: 2f64.powi(i32::from(words[41])),
        }),
        _ => None,
    }
}
