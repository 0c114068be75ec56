//! Chips and their numbers.

use std::fmt;
use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Fact;
use crate::arithmetic::Arithmetic;

/// Generations of the engine, as its compiler names them: an M1 is an H13, each later generation one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the compiler's")]
pub enum Family {
    H13,
    H14,
    H15,
    H16,
    H17,
    H18,
}

impl Family {
    /// The name in the data files: `h13`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H13 => "h13",
            Self::H14 => "h14",
            Self::H15 => "h15",
            Self::H16 => "h16",
            Self::H17 => "h17",
            Self::H18 => "h18",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A chip.
#[derive(Clone, Debug, PartialEq)]
pub struct Chip {
    /// Its name: `m4-pro`.
    pub name: String,
    /// The generation of its engine.
    pub family: Family,
    /// The name of its engine for the compiler.
    pub architecture: Fact<String>,
    /// How many engines it has; all other numbers are those of one.
    pub engines: Fact<usize>,
    /// What the engine and its driver accept.
    pub limits: Limits,
    /// How fast it is.
    pub rates: Rates,
    /// What it draws.
    pub energy: Energy,
    /// What is known of how it computes.
    pub arithmetic: Arithmetic,
    /// Which MIL text its compiler reads.
    pub dialect: Dialect,
}

/// Which MIL text an engine's compiler reads.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialect {
    /// The newest opset: `ios17` is `program(1.0)`, `ios18` is `program(1.3)`.
    pub newest: Fact<String>,
}

/// What an engine and its driver accept. Lengths and counts are the largest that work.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Length of the last axis.
    pub max_width: Fact<usize>,
    /// Length of the last axis but one.
    pub max_height: Fact<usize>,
    /// Length of the last axis but two.
    pub max_channels: Fact<usize>,
    /// Length of all axes before those together.
    pub max_batch: Fact<usize>,
    /// Rank of the operands of a matrix product.
    pub max_matmul_rank: Fact<usize>,
    /// Contracted length of a matrix product of two run-time values.
    pub max_inner: Fact<usize>,
    /// What the contracted length of such a product has to be a multiple of.
    pub inner_multiple: Fact<usize>,
    /// Output features of a product with a constant.
    pub max_output_channels: Fact<usize>,
    /// Input features of a product with a constant.
    pub max_input_channels: Fact<usize>,
    /// Rows of a product with a constant, at least.
    pub min_positions: Fact<usize>,
    /// The remainder of the width modulo 128 of a square that a non-linear op reads.
    pub max_square_remainder: Fact<usize>,
    /// Length of a convolution's kernel along the last axis.
    pub max_kernel_width: Fact<usize>,
    /// Length of a convolution's kernel along the last axis but one.
    pub max_kernel_height: Fact<usize>,
    /// Distance of the elements that a convolution's kernel takes.
    pub max_dilation: Fact<usize>,
    /// Zeros that a convolution pads on one side.
    pub max_padding: Fact<usize>,
    /// Operands of one op; more take the compiler seconds.
    pub max_fan_in: Fact<usize>,
    /// Queries or keys of a fused attention.
    pub max_attention_length: Fact<usize>,
    /// The smaller one of queries and keys of a fused attention.
    pub max_attention_shorter: Fact<usize>,
    /// The smallest ε that products do not take for zero.
    pub min_epsilon: Fact<f64>,
    /// Products that depend on one another in one program.
    pub max_depth: Fact<usize>,
    /// Ops of one program.
    pub max_operations: Fact<usize>,
    /// Bytes of constants of one program.
    pub max_weight_bytes: Fact<usize>,
    /// Weight files of one program.
    pub max_weight_files: Fact<usize>,
    /// Arrays in one weight file.
    pub max_weights_per_file: Fact<usize>,
    /// Inputs and outputs of one execution together.
    pub max_surfaces: Fact<usize>,
    /// Programs that are loaded at once, in all processes together: more fail to load.
    pub loaded_programs: Fact<usize>,
    /// Programs that a plan should keep loaded, so that others and reloads have room.
    pub planned_programs: Fact<usize>,
    /// Compilations of one process, after which all fail.
    pub compiles_per_process: Fact<usize>,
    /// Bytes of an operand that stays on the engine whole; larger ones are streamed in tiles.
    pub resident_operand_bytes: Fact<usize>,
    /// Bytes of a constant that stays on the engine, so that another op of the program can read it again.
    pub resident_weight_bytes: Fact<usize>,
}

/// How fast an engine and its host are. G is 10⁹.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// The engine's clock, in GHz.
    pub clock_ghz: Fact<f64>,
    /// How much faster products of int8 activations and weights are than those of fp16.
    pub int8_speedup: Fact<f64>,
    /// fp16 TFLOP/s of one engine at most; a multiplication and an addition are two.
    pub peak_tflops: Fact<f64>,
    /// Positions (rows of the other operand) at which a product with a constant runs at half of the peak.
    pub half_rate_positions: Fact<f64>,
    /// The part of that speed at which a product of two run-time values runs.
    pub matmul_fraction: Fact<f64>,
    /// One execution of a loaded program that computes nothing, in µs.
    pub floor_us: Fact<f64>,
    /// GB/s at which weights are read.
    pub weight_gb_s: Fact<f64>,
    /// MiB of the other operand for which weights are read once, if they do not stay on the engine.
    pub pass_mib: Fact<f64>,
    /// GB/s at which a host puts arrays of several rows a channel into surfaces and takes them out.
    pub staging_gb_s: Fact<f64>,
    /// GB/s at which activations are read, and at which they are written at the same time.
    pub activation_gb_s: Fact<f64>,
    /// Compiling a program, in ms, beside what its constants take.
    pub compile_ms: Fact<f64>,
    /// Compiling a MB of constants, in ms.
    pub compile_ms_per_mb: Fact<f64>,
    /// Loading a compiled program, in ms.
    pub load_ms: Fact<f64>,
    /// GB/s of the memory that all parts of the chip share.
    pub dram_gb_s: Fact<f64>,
    /// fp32 GFLOP/s of the processor cores in large products.
    pub host_gflops: Fact<f64>,
    /// GB/s at which the processor cores read and write memory.
    pub host_gb_s: Fact<f64>,
}

/// What an engine and its host draw, in W.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Energy {
    /// The engine's rail while executions compute next to nothing.
    pub rail_floor_w: Fact<f64>,
    /// The engine's rail at its peak.
    pub rail_full_w: Fact<f64>,
    /// The rest of the package while the engine works: submitting, waiting, memory.
    pub host_share_w: Fact<f64>,
    /// The processor cores while they compute.
    pub host_w: Fact<f64>,
}

/// There is no chip of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown chip `{name}`, one of {} was expected", Chip::names().collect::<Vec<_>>().join(", "))]
pub struct UnknownChip {
    /// The name that was given.
    pub name: String,
}

impl Chip {
    /// All chips, by generation and size.
    pub fn all() -> &'static [Self] {
        static CHIPS: OnceLock<Vec<Chip>> = OnceLock::new();
        CHIPS.get_or_init(|| CHIP_FILES.iter().map(|(name, text)| read_chip(name, text)).collect())
    }

    /// The chip of a name.
    ///
    /// # Errors
    /// [`UnknownChip`] if there is none.
    pub fn named(name: &str) -> Result<&'static Self, UnknownChip> {
        Self::all().iter().find(|c| c.name == name).ok_or_else(|| UnknownChip { name: name.into() })
    }

    /// The names of all chips.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CHIP_FILES.iter().map(|(name, _)| *name)
    }
}

/// A file of one chip.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipFile {
    family: Family,
    architecture: Fact<String>,
    engines: Fact<usize>,
    rates: Rates,
    energy: Energy,
}

/// A file of a family: what all its chips have in common.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FamilyFile {
    dialect: Dialect,
    arithmetic: Arithmetic,
    limits: Limits,
}

/// The data files of a list of names.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../data/", $name, ".toml")))),*]
    };
}

const CHIP_FILES: &[(&str, &str)] = files![
    "m1", "m1-pro", "m1-max", "m1-ultra", "m2", "m2-pro", "m2-max", "m2-ultra", "m3", "m3-pro", "m3-max",
    "m3-ultra", "m4", "m4-pro", "m4-max", "m5", "m5-pro", "m5-max", "m6",
];

const FAMILY_FILES: &[(&str, &str)] =
    files!["family-h13", "family-h14", "family-h15", "family-h16", "family-h17", "family-h18"];

fn read_chip(name: &str, text: &str) -> Chip {
    let file: ChipFile = parse(name, text);
    let family = format!("family-{}", file.family);
    let (_, common) = FAMILY_FILES
        .iter()
        .find(|(name, _)| *name == family)
        .unwrap_or_else(|| panic!("data/{name}.toml: there is no data/{family}.toml"));
    let common: FamilyFile = parse(&family, common);
    Chip {
        name: name.into(),
        family: file.family,
        architecture: file.architecture,
        engines: file.engines,
        limits: common.limits,
        rates: file.rates,
        energy: file.energy,
        arithmetic: common.arithmetic,
        dialect: common.dialect,
    }
}

/// The contents of a data file. A file that does not fit is a mistake in this crate, which its tests find.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, text: &str) -> T {
    toml::from_str(text).unwrap_or_else(|e| panic!("data/{name}.toml: {e}"))
}

#[cfg(test)]
mod tests;
