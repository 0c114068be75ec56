//! Conformance of any engine with the reference evaluator: every op over shapes and types.
//!
//! [`cases`] is the table; [`check`] runs one case on an engine and compares every output with
//! [`arcane_mil::evaluate`], which shares no code with any engine.

mod compressed;
mod elementwise;
mod integers;
mod movement;
mod products;
mod recurrent;
mod spatial;

use std::collections::BTreeMap;
use std::time::Duration;

use arcane_mil::{
    Binary, BuildError, Builder, Compare, Distribution, Function, Op, Opset, Program, Random, Reduce, Role,
    ScatterMode, TensorType, Unary, ValueId, evaluate,
};
use arcane_tensor::{DType, Tensor};

use crate::{Buffer, Engine, EngineError, LoadOptions};

/// One program with inputs and the error that is allowed.
#[derive(Clone, Debug)]
pub struct Case {
    /// Op, shapes and type.
    pub name: String,
    /// The program; its only function is `main`.
    pub program: Program,
    /// An input for each parameter.
    pub inputs: BTreeMap<String, Tensor>,
    /// How close an engine has to come.
    pub allowed: Allowed,
}

/// Largest error allowed: `absolute · max|want| + relative · |want|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowed {
    /// Of the largest magnitude of the output.
    pub absolute: f64,
    /// Of each value.
    pub relative: f64,
}

/// How an engine failed a case.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine refused or failed.
    #[error("{case}: {source}")]
    Engine {
        /// The case.
        case: String,
        /// Why.
        source: EngineError,
    },
    /// An output is off.
    #[error("{case}: output `{output}` element {index} is {got:e}, {want:e} was expected")]
    Value {
        /// The case.
        case: String,
        /// The output.
        output: String,
        /// The element.
        index: usize,
        /// What the engine gave.
        got: f64,
        /// What the reference gives.
        want: f64,
    },
}

/// Runs a function on an engine once.
pub fn run(
    engine: &dyn Engine,
    program: &Program,
    function: &str,
    inputs: &BTreeMap<String, Tensor>,
    options: LoadOptions,
) -> Result<BTreeMap<String, Tensor>, EngineError> {
    let loaded = engine.load(program, function, options)?;
    let mut buffers: Vec<(String, Buffer)> = Vec::new();
    for port in loaded.ports() {
        let buffer = engine.buffer(&port.ty)?;
        if let Some(tensor) = inputs.get(&port.name) {
            let host = Buffer::on_host(&port.ty)?;
            host.set(tensor)?;
            host.copy_to(&buffer)?;
        }
        buffers.push((port.name.clone(), buffer));
    }
    let named: Vec<(&str, &Buffer)> = buffers.iter().map(|(n, b)| (n.as_str(), b)).collect();
    let binding = loaded.bind(&named)?;
    let ticket = loaded.submit(&binding)?;
    loaded.wait(ticket, Duration::from_mins(10))?;
    let mut outputs = BTreeMap::new();
    for (name, buffer) in &buffers {
        if program.function(function).is_some_and(|f| f.output(name).is_some()) {
            // The rows of an accelerator may have gaps.
            let host = Buffer::on_host(buffer.ty())?;
            buffer.copy_to(&host)?;
            outputs.insert(name.clone(), host.to_tensor()?);
        }
    }
    Ok(outputs)
}

/// Runs a case on an engine and compares.
///
/// # Panics
/// If the reference evaluator refuses the case: a bug of the table.
pub fn check(engine: &dyn Engine, case: &Case, options: LoadOptions) -> Result<(), Failure> {
    let got = run(engine, &case.program, "main", &case.inputs, options)
        .map_err(|source| Failure::Engine { case: case.name.clone(), source })?;
    let want = evaluate(&case.program.functions[0], &case.inputs).expect("the reference runs every case");
    for (output, want) in &want {
        let got = &got[output];
        let largest = want.to_f64s().into_iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs()));
        for index in 0..want.len() {
            let (got, want) = (got.get(index), want.get(index));
            let bound = case.allowed.absolute * largest + case.allowed.relative * want.abs();
            let close = got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= bound;
            if !close {
                return Err(Failure::Value {
                    case: case.name.clone(),
                    output: output.clone(),
                    index,
                    got,
                    want,
                });
            }
        }
    }
    Ok(())
}

const EXACT: Allowed = Allowed { absolute: 0.0, relative: 0.0 };

/// Rounding of the type at each of a few ops, and of sums relative to their largest result.
fn rounding(dtype: DType) -> Allowed {
    match dtype {
        DType::F16 => Allowed { absolute: 1e-3, relative: 2e-3 },
        _ => Allowed { absolute: 2e-6, relative: 1e-6 },
    }
}

/// Numbers that are the same on every machine: a multiplicative congruential generator.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn tensor(&mut self, ty: &TensorType, (low, high): (f64, f64)) -> Tensor {
        let values: Vec<f64> = (0..ty.len())
            .map(|_| match ty.dtype {
                DType::Bool => f64::from(u8::from(self.next() < 0.6)),
                dtype if dtype.is_int() => (low + self.next() * (high - low)).floor(),
                _ => low + self.next() * (high - low),
            })
            .collect();
        Tensor::from_f64s(ty.dtype, &ty.shape, &values).expect("one value an element")
    }
}

type Build = Result<Vec<ValueId>, BuildError>;

/// Collects cases.
struct Table {
    cases: Vec<Case>,
    numbers: Numbers,
}

impl Table {
    /// Adds a case: parameters with the range of their values, and what to compute from them.
    fn add(
        &mut self,
        name: &str,
        allowed: Allowed,
        parameters: &[(DType, &[usize], (f64, f64))],
        build: impl FnOnce(&mut Builder, &[ValueId]) -> Build,
    ) {
        let mut f = Builder::new("main", Opset::Ios18);
        let mut inputs = BTreeMap::new();
        let mut values = Vec::new();
        let mut shapes = Vec::new();
        for (i, (dtype, shape, range)) in parameters.iter().enumerate() {
            let (port, ty) = (format!("x{i}"), TensorType::new(*dtype, shape));
            inputs.insert(port.clone(), self.numbers.tensor(&ty, *range));
            shapes.push(ty.to_string());
            values.push(f.parameter(&port, ty, Role::Batch));
        }
        let outputs = build(&mut f, &values).expect("cases are well-typed");
        for (i, &v) in outputs.iter().enumerate() {
            f.output(&format!("y{i}"), v);
        }
        let functions: Vec<Function> = vec![f.finish()];
        let name = format!("{name}({})", shapes.join(", "));
        self.cases.push(Case { name, program: Program::new(functions), inputs, allowed });
    }
}

const SPREAD: (f64, f64) = (-2.0, 2.0);
const POSITIVE: (f64, f64) = (0.1, 3.0);
const FLOATS: [DType; 2] = [DType::F32, DType::F16];

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut table = Table { cases: Vec::new(), numbers: Numbers(2026) };
    for dtype in FLOATS {
        elementwise(&mut table, dtype);
        reductions(&mut table, dtype);
        products::products(&mut table, dtype);
        products::followed(&mut table, dtype);
        attention(&mut table, dtype);
        movement(&mut table, dtype);
        indexing(&mut table, dtype);
        movement::slices(&mut table, dtype);
        movement::pads(&mut table, dtype);
        movement::rearrangements(&mut table, dtype);
        movement::dimensions(&mut table, dtype);
        movement::indices(&mut table, dtype);
        movement::samples(&mut table, dtype);
        chains(&mut table, dtype);
        spatial::convolutions(&mut table, dtype);
        spatial::transposed(&mut table, dtype);
        spatial::pools(&mut table, dtype);
        compressed::compressed(&mut table, dtype);
        compressed::quantisation(&mut table, dtype);
        recurrent::recurrences(&mut table, dtype);
    }
    compressed::states(&mut table);
    for dtype in FLOATS {
        elementwise::functions(&mut table, dtype);
        elementwise::rows(&mut table, dtype);
    }
    for (dtype, range) in
        [(DType::F32, SPREAD), (DType::F16, SPREAD), (DType::I32, (-3.0, 3.0)), (DType::I32, (-2e9, 2e9))]
    {
        elementwise::along_axis(&mut table, dtype, range);
    }
    logic(&mut table);
    integers::integers(&mut table);
    table.cases
}

fn elementwise(t: &mut Table, dtype: DType) {
    let unary = [
        (Unary::Abs, SPREAD),
        (Unary::Identity, SPREAD),
        (Unary::Sign, SPREAD),
        (Unary::Square, SPREAD),
        (Unary::Sqrt, POSITIVE),
        (Unary::Rsqrt { epsilon: 1e-3 }, POSITIVE),
        (Unary::Exp, (-9.0, 9.0)),
        (Unary::Log { epsilon: 0.0 }, POSITIVE),
        (Unary::Sigmoid, (-12.0, 12.0)),
        (Unary::Silu, (-12.0, 12.0)),
    ];
    let allowed = Allowed { absolute: 0.0, ..rounding(dtype) };
    for (kind, range) in unary {
        for shape in [&[][..], &[1], &[7, 33], &[3, 1, 2050]] {
            t.add(kind.name(), allowed, &[(dtype, shape, range)], |f, x| Ok(vec![f.unary(kind, x[0])?]));
        }
    }
    let binary = [Binary::Add, Binary::Sub, Binary::Mul, Binary::RealDiv, Binary::Maximum, Binary::Minimum];
    let shapes: [(&[usize], &[usize]); 8] = [
        (&[], &[]),
        (&[5, 7], &[5, 7]),
        (&[5, 7], &[7]),
        (&[4, 1, 6], &[3, 1]),
        (&[2, 3, 5, 4], &[3, 1, 4]),
        (&[1], &[2, 1100]),
        (&[3000], &[]),
        (&[2, 1, 3, 1, 5], &[1, 4, 1, 2, 1]),
    ];
    for kind in binary {
        for (x, y) in shapes {
            let range = if kind == Binary::RealDiv { POSITIVE } else { SPREAD };
            let parameters = [(dtype, x, SPREAD), (dtype, y, range)];
            t.add(kind.name(), allowed, &parameters, |f, v| Ok(vec![f.binary(kind, v[0], v[1])?]));
        }
    }
    for kind in [
        Compare::Equal,
        Compare::NotEqual,
        Compare::Less,
        Compare::LessEqual,
        Compare::Greater,
        Compare::GreaterEqual,
    ] {
        t.add(kind.name(), EXACT, &[(dtype, &[6, 9], SPREAD), (dtype, &[9], SPREAD)], |f, v| {
            let sign = f.unary(Unary::Sign, v[0])?;
            let other = f.unary(Unary::Sign, v[1])?;
            Ok(vec![f.compare(kind, sign, other)?])
        });
    }
    t.add(
        "select",
        EXACT,
        &[(DType::Bool, &[4, 1], SPREAD), (dtype, &[4, 6], SPREAD), (dtype, &[6], SPREAD)],
        |f, v| Ok(vec![f.select(v[0], v[1], v[2])?]),
    );
    for to in [DType::F16, DType::F32, DType::Bool] {
        let name = format!("cast to {to}");
        t.add(&name, EXACT, &[(dtype, &[5, 31], (-70000.0, 70000.0))], |f, v| Ok(vec![f.cast(v[0], to)]));
    }
}

fn reductions(t: &mut Table, dtype: DType) {
    let kinds = [Reduce::Sum, Reduce::Mean, Reduce::Max, Reduce::Min, Reduce::SumSquare, Reduce::LogSumExp];
    let cases: [(&[usize], &[usize]); 9] = [
        (&[6, 40], &[1]),
        (&[6, 40], &[0]),
        (&[6, 40], &[0, 1]),
        (&[3, 4, 5], &[1]),
        (&[3, 4, 5, 2], &[0, 2]),
        (&[2, 3, 300], &[2]),
        (&[70, 2, 31], &[0, 1]),
        (&[5], &[0]),
        (&[2, 1, 4], &[1]),
    ];
    for kind in kinds {
        for (shape, axes) in cases {
            for keep_dims in [false, true] {
                let name = format!("{} {axes:?} keep {keep_dims}", kind.name());
                t.add(&name, rounding(dtype), &[(dtype, shape, SPREAD)], |f, v| {
                    Ok(vec![f.reduce(kind, v[0], axes, keep_dims)?])
                });
            }
        }
    }
    for kind in [Reduce::Sum, Reduce::Mean, Reduce::Max] {
        t.add(kind.name(), rounding(dtype), &[(dtype, &[300, 500], (0.0, 0.1))], |f, v| {
            Ok(vec![f.reduce_all(kind, v[0])?])
        });
    }
    let softmax: [(&[usize], usize); 4] = [(&[5, 9], 1), (&[5, 9], 0), (&[2, 3, 1030], 2), (&[2, 17, 3], 1)];
    for (shape, axis) in softmax {
        t.add(&format!("softmax {axis}"), rounding(dtype), &[(dtype, shape, (-9.0, 9.0))], |f, v| {
            Ok(vec![f.softmax(v[0], axis)?])
        });
    }
}

/// A causal mask for `n` positions.
fn causal(n: usize) -> Tensor {
    let seen = (0..n * n).map(|i| i % n <= i / n).collect();
    Tensor::new(&[n, n], seen).expect("n × n elements")
}

fn attention(t: &mut Table, dtype: DType) {
    let qkv = |b: &[usize], l: usize, s: usize, e: usize, ev: usize| {
        [[b, &[l, e]].concat(), [b, &[s, e]].concat(), [b, &[s, ev]].concat()]
    };
    let name = "scaled_dot_product_attention";
    for (batch, l, s, e, ev) in [(&[2, 3][..], 5, 7, 4, 6), (&[1], 1, 1, 2, 2), (&[9], 130, 40, 8, 8)] {
        let [q, k, v] = qkv(batch, l, s, e, ev);
        let three = [(dtype, &q[..], SPREAD), (dtype, &k[..], SPREAD), (dtype, &v[..], SPREAD)];
        t.add(name, rounding(dtype), &three, |f, x| Ok(vec![f.attention(x[0], x[1], x[2], None)?]));
        let mask = [l, s];
        let with_mask = [three[0], three[1], three[2], (dtype, &mask[..], SPREAD)];
        t.add(name, rounding(dtype), &with_mask, |f, x| {
            Ok(vec![f.attention(x[0], x[1], x[2], Some(x[3]))?])
        });
        let hidden = [s];
        let with_bool = [three[0], three[1], three[2], (DType::Bool, &hidden[..], SPREAD)];
        t.add(name, rounding(dtype), &with_bool, |f, x| {
            Ok(vec![f.attention(x[0], x[1], x[2], Some(x[3]))?])
        });
    }
    for (batch, l, e) in [(&[2, 2][..], 6, 4), (&[8], 200, 16), (&[1, 3], 70, 2)] {
        let [q, k, v] = qkv(batch, l, l, e, e);
        let three = [(dtype, &q[..], SPREAD), (dtype, &k[..], SPREAD), (dtype, &v[..], SPREAD)];
        t.add("causal attention", rounding(dtype), &three, |f, x| {
            let mask = f.constant("mask", causal(l));
            Ok(vec![f.attention(x[0], x[1], x[2], Some(mask))?])
        });
    }
    t.add("attention of transposed heads", rounding(dtype), &[(dtype, &[2, 9, 3, 4], SPREAD)], |f, x| {
        let heads = f.transpose(x[0], &[0, 2, 1, 3])?;
        let mask = f.constant("mask", causal(9));
        let out = f.attention(heads, heads, heads, Some(mask))?;
        Ok(vec![f.transpose(out, &[0, 2, 1, 3])?])
    });
}

fn movement(t: &mut Table, dtype: DType) {
    t.add("reshape", EXACT, &[(dtype, &[4, 6], SPREAD)], |f, v| Ok(vec![f.reshape(v[0], &[2, 3, 4])?]));
    for perm in [[0, 1, 2, 3], [3, 1, 0, 2], [0, 2, 1, 3], [3, 2, 1, 0]] {
        t.add(&format!("transpose {perm:?}"), EXACT, &[(dtype, &[2, 3, 4, 5], SPREAD)], |f, v| {
            let moved = f.transpose(v[0], &perm)?;
            let flat = f.reshape(moved, &[120])?;
            Ok(vec![moved, flat])
        });
    }
    t.add("split and concat", EXACT, &[(dtype, &[3, 10, 2], SPREAD)], |f, v| {
        let pieces = f.split(v[0], 1, &[2, 5, 3])?;
        let swapped = f.concat(&[pieces[2], pieces[0], pieces[1]], 1)?;
        let doubled = f.concat(&[v[0], v[0]], 2)?;
        let computed = f.abs(pieces[1])?;
        let placed = f.concat(&[computed, pieces[0]], 1)?;
        Ok(vec![swapped, doubled, placed, pieces[1]])
    });
    for reps in [[2, 1, 3], [1, 4, 1], [3, 2, 2]] {
        t.add(&format!("tile {reps:?}"), EXACT, &[(dtype, &[2, 3, 1], SPREAD)], |f, v| {
            let tiled = f.tile(v[0], &reps)?;
            let shape = [f.shape(tiled).iter().product()];
            let flat = f.reshape(tiled, &shape)?;
            Ok(vec![tiled, flat])
        });
    }
    t.add("fill", EXACT, &[(dtype, &[3], SPREAD)], |f, v| {
        let filled = f.fill(dtype, &[2, 3], 0.3);
        Ok(vec![f.mul(filled, v[0])?, filled])
    });
    t.add("a parameter and a value returned twice", EXACT, &[(dtype, &[3, 2], SPREAD)], |f, v| {
        let negative = f.neg(v[0])?;
        Ok(vec![v[0], negative, negative])
    });
}

fn indexing(t: &mut Table, dtype: DType) {
    let allowed = rounding(dtype);
    let int = DType::I32;
    t.add("gather", EXACT, &[(dtype, &[7, 5], SPREAD), (int, &[2, 3], (0.0, 7.0))], |f, v| {
        Ok(vec![f.gather(v[0], v[1], 0)?])
    });
    t.add("gather", EXACT, &[(dtype, &[3, 6, 2], SPREAD), (int, &[4], (0.0, 6.0))], |f, v| {
        Ok(vec![f.gather(v[0], v[1], 1)?])
    });
    t.add("gather", EXACT, &[(dtype, &[3, 6], SPREAD), (int, &[], (0.0, 6.0))], |f, v| {
        Ok(vec![f.gather(v[0], v[1], 1)?])
    });
    t.add("gather_along_axis", EXACT, &[(dtype, &[4, 9], SPREAD), (int, &[4, 2], (0.0, 9.0))], |f, v| {
        Ok(vec![f.gather_along_axis(v[0], v[1], 1)?])
    });
    t.add(
        "gather_along_axis",
        EXACT,
        &[(dtype, &[5, 2, 3], SPREAD), (int, &[7, 2, 3], (0.0, 5.0))],
        |f, v| Ok(vec![f.gather_along_axis(v[0], v[1], 0)?]),
    );
    let slices: [(&[usize], usize, usize); 3] = [(&[6, 40], 0, 9), (&[2, 5, 3], 1, 4), (&[2, 7], 1, 3)];
    for (shape, axis, n) in slices {
        let mut updates = shape.to_vec();
        updates[axis] = n;
        let range = (0.0, shape[axis] as f64);
        let picks = [n];
        let parameters = [(dtype, shape, SPREAD), (int, &picks[..], range), (dtype, &updates[..], SPREAD)];
        t.add("scatter add", allowed, &parameters, |f, v| {
            let zeros = f.fill(dtype, shape, 0.0);
            Ok(vec![f.scatter_add(v[0], v[1], v[2], axis)?, f.scatter_add(zeros, v[1], v[2], axis)?])
        });
        t.add("scatter update", EXACT, &parameters, |f, v| {
            let [data, indices, updates] = [v[0], v[1], v[2]];
            Ok(vec![f.push_one(Op::Scatter { data, indices, updates, axis, mode: ScatterMode::Update })?])
        });
    }
    for (shape, axis) in [([5, 8], 1), ([6, 3], 0)] {
        let range = (0.0, shape[axis] as f64);
        let parameters = [(dtype, &shape[..], SPREAD), (int, &shape[..], range), (dtype, &shape[..], SPREAD)];
        t.add("scatter_along_axis add", allowed, &parameters, |f, v| {
            Ok(vec![f.scatter_along_axis_add(v[0], v[1], v[2], axis)?])
        });
    }
}

/// Programs that engines fuse.
fn chains(t: &mut Table, dtype: DType) {
    let allowed = rounding(dtype);
    t.add("rms_norm", allowed, &[(dtype, &[3, 5, 48], SPREAD), (dtype, &[48], SPREAD)], |f, v| {
        let normed = f.rms_norm(v[0], v[1], 1e-5)?;
        Ok(vec![f.add(normed, v[0])?])
    });
    t.add(
        "rope",
        allowed,
        &[(dtype, &[2, 6, 3, 8], SPREAD), (dtype, &[6, 1, 4], SPREAD), (dtype, &[6, 1, 4], SPREAD)],
        |f, v| {
            let turned = f.rope(v[0], v[1], v[2])?;
            Ok(vec![f.transpose(turned, &[0, 2, 1, 3])?])
        },
    );
    t.add(
        "a gain's gradient",
        allowed,
        &[(dtype, &[4, 9, 30], SPREAD), (dtype, &[4, 9, 30], SPREAD)],
        |f, v| {
            let square = f.square(v[0])?;
            let mean = f.reduce(Reduce::Mean, square, &[2], true)?;
            let r = f.rsqrt(mean, 1e-5)?;
            let normed = f.mul(v[0], r)?;
            let weighted = f.mul(normed, v[1])?;
            let columns = f.reduce(Reduce::Sum, weighted, &[0, 1], false)?;
            let all = f.reduce_all(Reduce::SumSquare, weighted)?;
            Ok(vec![columns, all, normed])
        },
    );
    t.add("rows of rows", allowed, &[(dtype, &[6, 20], SPREAD), (dtype, &[6, 1], POSITIVE)], |f, v| {
        let total = f.reduce(Reduce::Sum, v[0], &[1], true)?;
        let scaled = f.mul(total, v[1])?;
        let sum = f.reduce_all(Reduce::Sum, scaled)?;
        let shifted = f.sub(v[0], scaled)?;
        let biggest = f.reduce(Reduce::Max, shifted, &[1], true)?;
        Ok(vec![sum, biggest, shifted])
    });
    t.add("a value needed before and after a product", allowed, &[(dtype, &[8, 8], SPREAD)], |f, v| {
        let a = f.abs(v[0])?;
        let product = f.matmul(a, v[0], false, false)?;
        let sum = f.add(a, product)?;
        Ok(vec![f.mul(sum, a)?])
    });
}

fn logic(t: &mut Table) {
    let two = [(DType::Bool, &[5, 4][..], SPREAD), (DType::Bool, &[4][..], SPREAD)];
    t.add("logical_and", EXACT, &two, |f, v| Ok(vec![f.logical_and(v[0], v[1])?]));
    t.add("logical_or", EXACT, &two, |f, v| {
        let op = Op::Logical { kind: arcane_mil::Logical::Or, x: v[0], y: v[1] };
        Ok(vec![f.push_one(op)?])
    });
    t.add("logical_xor and logical_not", EXACT, &two, |f, v| {
        let op = Op::Logical { kind: arcane_mil::Logical::Xor, x: v[0], y: v[1] };
        Ok(vec![f.push_one(op)?, f.unary(Unary::Not, v[0])?])
    });
    for dtype in FLOATS {
        let distributions = [
            Distribution::Uniform { low: -1.0, high: 3.0 },
            Distribution::Normal { mean: 0.5, deviation: 2.0 },
            Distribution::Bernoulli { probability: 0.3 },
        ];
        for distribution in distributions {
            t.add("random numbers", EXACT, &[], |f, _| {
                let random = Random { distribution, seed: 11, shape: vec![3, 5000], dtype };
                Ok(vec![f.push_one(Op::Random(random))?])
            });
        }
    }
    t.add("bool to float", EXACT, &two[..1], |f, v| {
        Ok(vec![f.cast(v[0], DType::F32), f.cast(v[0], DType::F16)])
    });
}
