//! What an engine has been seen not to do.

use std::collections::BTreeMap;

use arcane_mil::{Emitted, Function, Op, Opset, TensorType};
use arcane_tensor::DType;

/// Something that programs need of an engine, and that a probe can find missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// Programs of opset ios18.
    ShortDialect,
    /// Ports whose rows have gaps.
    PaddedRows,
    /// More than one input or output.
    SeveralPorts,
    /// Inputs of width 1.
    NarrowPorts,
    /// Arrays behind the first one of a weight file.
    WeightFiles,
    /// Products of two run-time values.
    Matmul,
    /// Softmax as one op.
    Softmax,
    /// Surfaces that stay mapped between calls.
    Mapping,
    /// fp32 ports.
    Fp32Ports,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ShortDialect,
        Self::PaddedRows,
        Self::SeveralPorts,
        Self::NarrowPorts,
        Self::WeightFiles,
        Self::Matmul,
        Self::Softmax,
        Self::Mapping,
        Self::Fp32Ports,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShortDialect => "short_dialect",
            Self::PaddedRows => "padded_rows",
            Self::SeveralPorts => "several_ports",
            Self::NarrowPorts => "narrow_ports",
            Self::WeightFiles => "weight_files",
            Self::Matmul => "matmul",
            Self::Softmax => "softmax",
            Self::Mapping => "mapping",
            Self::Fp32Ports => "fp32_ports",
        }
    }

    /// That of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }

    /// What to do in a program that needs it, where it is missing.
    const fn remedy(self) -> &'static str {
        match self {
            Self::ShortDialect => "write the program for opset ios16",
            Self::PaddedRows => "make the last axis a multiple of 64 bytes",
            Self::SeveralPorts => "pack inputs, and outputs, into one array each",
            Self::NarrowPorts => "put another axis last",
            Self::WeightFiles => "pass weights as inputs",
            Self::Matmul => "make one operand constant",
            Self::Softmax => "write it as maximum, exponential and sum",
            Self::Mapping => "nothing: calls map their surfaces themselves",
            Self::Fp32Ports => "convert to fp16 on the host",
        }
    }

    fn is_needed(self, function: &Function, emitted: &Emitted) -> bool {
        let ports = || {
            let inputs = function.parameters().iter().map(|p| function.ty(p.value));
            inputs.chain(function.outputs().iter().map(|o| function.ty(o.value)))
        };
        let has = |is: fn(&Op) -> bool| function.operations().iter().any(|o| is(&o.op));
        let width = |ty: &TensorType| ty.shape.last().map_or(1, |&w| w);
        match self {
            Self::ShortDialect => function.opset() >= Opset::Ios18,
            Self::PaddedRows => ports().any(|ty| !(width(ty) * ty.dtype.size()).is_multiple_of(64)),
            Self::SeveralPorts => function.parameters().len() > 1 || function.outputs().len() > 1,
            Self::NarrowPorts => function.parameters().iter().any(|p| width(function.ty(p.value)) == 1),
            Self::WeightFiles => !emitted.weights.is_empty(),
            Self::Matmul => has(|op| matches!(op, Op::Matmul { .. })),
            Self::Softmax => has(|op| matches!(op, Op::Softmax { .. })),
            Self::Mapping => false,
            Self::Fp32Ports => ports().any(|ty| ty.dtype == DType::F32),
        }
    }
}

/// What an engine does not do, each with how that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    missing: BTreeMap<Capability, String>,
}

impl Capabilities {
    /// Switches one off.
    pub fn switch_off(&mut self, capability: Capability, reason: impl Into<String>) {
        self.missing.entry(capability).or_insert_with(|| reason.into());
    }

    /// What is off, and why.
    pub fn missing(&self) -> impl Iterator<Item = (Capability, &str)> {
        self.missing.iter().map(|(c, reason)| (*c, reason.as_str()))
    }

    /// Whether surfaces may stay mapped.
    pub(crate) fn maps_surfaces(&self) -> bool {
        !self.missing.contains_key(&Capability::Mapping)
    }

    /// Why the engine would not run a function, and what helps.
    pub(crate) fn refusal(&self, function: &Function, emitted: &Emitted) -> Option<(String, &'static str)> {
        let (capability, reason) = self.missing.iter().find(|(c, _)| c.is_needed(function, emitted))?;
        let cause = format!("the engine does not do {} here: {reason}", capability.name());
        Some((cause, capability.remedy()))
    }
}

#[cfg(test)]
mod tests {
    use arcane_mil::{Builder, Program, Role};

    use super::*;

    #[test]
    fn each_is_needed_by_a_program_that_has_it() {
        let build = |opset, dtype, width, ports: usize| {
            let mut f = Builder::new("main", opset);
            let ty = TensorType::new(dtype, &[width, width]);
            let inputs: Vec<_> =
                (0..ports).map(|i| f.parameter(&format!("x{i}"), ty.clone(), Role::Batch)).collect();
            let product = f.matmul(inputs[0], inputs[ports - 1], false, false).unwrap();
            let y = f.softmax(product, 1).unwrap();
            f.output("y", y);
            f.finish()
        };
        let needs = |function: Function| {
            let emitted = arcane_mil::print(&Program::new(vec![function.clone()])).unwrap();
            Capability::ALL.into_iter().filter(|c| c.is_needed(&function, &emitted)).collect::<Vec<_>>()
        };
        let both = [Capability::Matmul, Capability::Softmax];
        assert_eq!(needs(build(Opset::Ios16, DType::F16, 32, 1)), both);
        let all = needs(build(Opset::Ios18, DType::F32, 1, 2));
        let expected = Capability::ALL.into_iter();
        let expected = expected.filter(|c| !matches!(c, Capability::WeightFiles | Capability::Mapping));
        assert_eq!(all, expected.collect::<Vec<_>>());
        assert!(Capability::ALL.into_iter().all(|c| Capability::named(c.name()) == Some(c)));
    }

    #[test]
    fn a_refusal_names_reason_and_remedy() {
        let mut f = Builder::new("main", Opset::Ios18);
        let x = f.parameter("x", TensorType::new(DType::F16, &[1, 64]), Role::Batch);
        let y = f.add(x, x).unwrap();
        f.output("y", y);
        let function = f.finish();
        let emitted = arcane_mil::print(&Program::new(vec![function.clone()])).unwrap();
        let mut capabilities = Capabilities::default();
        capabilities.switch_off(Capability::Softmax, "probe P10");
        assert_eq!(capabilities.refusal(&function, &emitted), None);
        capabilities.switch_off(Capability::ShortDialect, "probe P3");
        let (cause, remedy) = capabilities.refusal(&function, &emitted).unwrap();
        assert!(cause.contains("probe P3") && remedy.contains("ios16"));
    }
}
