//! For each constraint a program that violates it, and one just inside.

use arcane_chip::{Chip, Constraint, Violation, constraints, is_legal, legality, op_violations, violations};
use arcane_mil::{Builder, Convolution, Function, Op, Opset, PadType, Reduce, Role, TensorType, ValueId};
use arcane_tensor::{DType, Tensor};

/// The id of a constraint, a chip that has it, a program that violates it, and one that does not.
type Case = (&'static str, &'static str, Function, Function);

fn chip(name: &str) -> &'static Chip {
    Chip::named(name).unwrap()
}

/// A program that `build` writes; its result is the output `y`.
fn program(build: impl FnOnce(&mut Builder) -> ValueId) -> Function {
    let mut f = Builder::new("main", Opset::Ios17);
    let y = build(&mut f);
    f.output("y", y);
    f.finish()
}

fn input(f: &mut Builder, name: &str, dtype: DType, shape: &[usize]) -> ValueId {
    f.parameter(name, TensorType::new(dtype, shape), Role::Batch)
}

fn fp16(f: &mut Builder, shape: &[usize]) -> ValueId {
    let name = format!("a{:03}", f.function().parameters().len());
    input(f, &name, DType::F16, shape)
}

/// The square root of an input.
fn root(dtype: DType, shape: &[usize]) -> Function {
    program(|f| {
        let x = input(f, "x", dtype, shape);
        f.sqrt(x).unwrap()
    })
}

fn copy(dtype: DType, shape: &[usize]) -> Function {
    program(|f| {
        let x = input(f, "x", dtype, shape);
        f.identity(x)
    })
}

fn zeros(f: &mut Builder, shape: &[usize]) -> ValueId {
    f.constant("w", Tensor::zeros(DType::F16, shape))
}

fn linear(positions: usize, inputs: usize, outputs: usize) -> Function {
    program(|f| {
        let x = fp16(f, &[positions, inputs]);
        let w = zeros(f, &[outputs, inputs]);
        f.linear(x, w, None).unwrap()
    })
}

fn matmul(shapes: [&[usize]; 2]) -> Function {
    program(|f| {
        let [x, y] = shapes.map(|shape| fp16(f, shape));
        f.matmul(x, y, false, false).unwrap()
    })
}

fn attention(batch: usize, queries: usize, keys: usize, masked: bool) -> Function {
    program(|f| {
        let q = fp16(f, &[batch, 2, queries, 32]);
        let [k, v] = [0, 1].map(|_| fp16(f, &[batch, 2, keys, 32]));
        let mask = masked.then(|| fp16(f, &[queries, keys]));
        f.attention(q, k, v, mask).unwrap()
    })
}

fn joined(count: usize, width: usize) -> Function {
    program(|f| {
        let pieces: Vec<_> = (0..count).map(|_| fp16(f, &[2, width])).collect();
        f.concat(&pieces, 1).unwrap()
    })
}

fn chain(op: impl Fn(&mut Builder, ValueId) -> ValueId, length: usize) -> Function {
    program(|f| {
        let x = fp16(f, &[32, 32]);
        (0..length).fold(x, |x, _| op(f, x))
    })
}

/// `op` of the mean over the last axis.
fn of_mean(op: impl FnOnce(&mut Builder, ValueId) -> ValueId) -> Function {
    program(|f| {
        let x = fp16(f, &[4, 32]);
        let mean = f.reduce(Reduce::Mean, x, &[1], true).unwrap();
        op(f, mean)
    })
}

fn constant(values: &[f64]) -> Function {
    program(|f| {
        let x = fp16(f, &[values.len()]);
        let c = f.constant("c", Tensor::from_f64s(DType::F16, &[values.len()], values).unwrap());
        f.add(x, c).unwrap()
    })
}

fn weights(sizes: &[usize]) -> Function {
    program(|f| {
        for &n in sizes {
            zeros(f, &[n]);
        }
        let x = fp16(f, &[4]);
        f.abs(x).unwrap()
    })
}

fn named(inputs: [&str; 2]) -> Function {
    program(|f| {
        let [x, y] = inputs.map(|name| input(f, name, DType::F16, &[4]));
        f.add(x, y).unwrap()
    })
}

fn two_outputs(names: [&str; 2]) -> Function {
    let mut f = Builder::new("main", Opset::Ios17);
    let x = fp16(&mut f, &[4]);
    for name in names {
        let y = f.abs(x).unwrap();
        f.output(name, y);
    }
    f.finish()
}

fn sum_of_inputs(count: usize) -> Function {
    program(|f| {
        let inputs: Vec<_> = (0..count).map(|_| fp16(f, &[4])).collect();
        inputs[1..].iter().fold(inputs[0], |sum, &x| f.add(sum, x).unwrap())
    })
}

fn opset(opset: Opset) -> Function {
    let mut f = Builder::new("main", opset);
    let x = fp16(&mut f, &[4]);
    let y = f.abs(x).unwrap();
    f.output("y", y);
    f.finish()
}

/// A weight of a text whose file was not read.
fn unread_weight(bytes: usize) -> Function {
    program(|f| {
        let x = fp16(f, &[2, 32]);
        let ty = TensorType::new(DType::F16, &[bytes / 64, 32]);
        let w = f.parameter("w", ty, Role::Constant);
        f.linear(x, w, None).unwrap()
    })
}

fn ports() -> Vec<Case> {
    vec![
        ("D01", "m4", copy(DType::I32, &[4]), copy(DType::F16, &[4])),
        ("S14", "m1", copy(DType::F32, &[4]), copy(DType::F16, &[4])),
        ("S14", "m4", copy(DType::F32, &[4]), copy(DType::F16, &[4])),
        ("S08", "m3", copy(DType::F16, &[16_385]), copy(DType::F16, &[16_384])),
        ("S08", "m6", copy(DType::F16, &[65_537, 1, 1]), copy(DType::F16, &[65_536, 1, 1])),
        ("S01", "m4", copy(DType::F16, &[274, 2]), copy(DType::F16, &[273, 2])),
    ]
}

fn functions() -> Vec<Case> {
    let product = |f: &mut Builder, x| f.matmul(x, x, false, false).unwrap();
    let without_input = program(|f| {
        let x = f.fill(DType::F16, &[4], 1.0);
        f.sqrt(x).unwrap()
    });
    vec![
        ("T03", "m2", opset(Opset::Ios18), opset(Opset::Ios17)),
        ("T07", "m4", program(|f| zeros(f, &[4])), root(DType::F16, &[4])),
        ("T11", "m1", weights(&[10, 10]), weights(&[10, 9])),
        ("S02", "m4", named(["b", "a"]), named(["a", "b"])),
        ("S02", "m4", two_outputs(["b", "a"]), two_outputs(["a", "b"])),
        ("S13", "m4", sum_of_inputs(128), sum_of_inputs(127)),
        ("S13", "m4", without_input, sum_of_inputs(1)),
        ("P10", "m4", chain(product, 384), chain(product, 383)),
        ("P10", "m3-pro", chain(product, 257), chain(product, 256)),
        ("P10.ops", "m4", chain(Builder::identity, 3201), chain(Builder::identity, 3200)),
        ("W01", "m4", unread_weight(128_000_064), unread_weight(128_000_000)),
    ]
}

fn values() -> Vec<Case> {
    let through = |dtype| {
        program(|f| {
            let x = fp16(f, &[4]);
            let cast = f.cast(x, dtype);
            f.cast(cast, DType::F16)
        })
    };
    let wide = program(|f| {
        let x = fp16(f, &[4]);
        let x = f.cast(x, DType::F32);
        let y = f.square(x).unwrap();
        f.cast(y, DType::F16)
    });
    let fill = |value| {
        program(|f| {
            let x = fp16(f, &[4]);
            let c = f.fill(DType::F16, &[4], value);
            f.add(x, c).unwrap()
        })
    };
    let rsqrt = |epsilon| {
        program(|f| {
            let x = fp16(f, &[4]);
            f.rsqrt(x, epsilon).unwrap()
        })
    };
    vec![
        ("D01", "m1", through(DType::I32), through(DType::I8)),
        ("D02", "m4", wide, through(DType::F32)),
        ("D03", "m4", constant(&[0.0, f64::NEG_INFINITY]), constant(&[0.0, -65504.0])),
        ("D03", "m4", constant(&[f64::NAN]), constant(&[6e-8])),
        ("D03", "m4", fill(f64::INFINITY), fill(65504.0)),
        ("T17", "m4", rsqrt(1e-5), rsqrt(6.2e-5)),
        ("T17", "m4", rsqrt(1e-12), rsqrt(0.0)),
    ]
}

fn shapes() -> Vec<Case> {
    let constant_right = |rows| {
        program(|f| {
            let x = fp16(f, &[rows, 64]);
            let w = zeros(f, &[64, 64]);
            f.matmul(x, w, false, false).unwrap()
        })
    };
    let constant_left = |columns| {
        program(|f| {
            let x = fp16(f, &[64, columns]);
            let w = zeros(f, &[64, 64]);
            f.matmul(w, x, false, false).unwrap()
        })
    };
    vec![
        ("S08", "m1-max", joined(2, 8193), joined(2, 8192)),
        ("S08.rank", "m4", matmul([&[1, 1, 2, 4, 32], &[32, 4]]), matmul([&[1, 2, 4, 32], &[32, 4]])),
        ("S08.inner", "m4", matmul([&[4, 32_769], &[32_769, 4]]), matmul([&[4, 32_768], &[32_768, 4]])),
        ("S11", "m1-pro", matmul([&[4, 48], &[48, 4]]), matmul([&[4, 64], &[64, 4]])),
        ("S09", "m3", linear(4, 4, 16_385), linear(4, 4, 16_384)),
        ("S09", "m4", linear(4, 4, 32_001), linear(4, 4, 32_000)),
        ("S10", "m4", linear(4, 16_385, 4), linear(4, 16_384, 4)),
        ("S07", "m4-max", linear(1, 64, 64), linear(2, 64, 64)),
        ("S07", "m4", constant_right(1), constant_right(2)),
        ("S07", "m4", constant_left(1), constant_left(2)),
    ]
}

fn ops() -> Vec<Case> {
    let runtime_weight = |of: fn(&mut Builder, ValueId, ValueId) -> ValueId| {
        program(|f| {
            let [x, w] = [0, 1].map(|_| fp16(f, &[32, 32]));
            of(f, x, w)
        })
    };
    let bias = program(|f| {
        let x = fp16(f, &[32, 32]);
        let b = fp16(f, &[32]);
        let w = zeros(f, &[32, 32]);
        f.linear(x, w, Some(b)).unwrap()
    });
    let repeated = program(|f| {
        let x = fp16(f, &[4]);
        f.tile(x, &[2]).unwrap()
    });
    let product = |a: &[usize], b: &[usize]| {
        program(|f| {
            let [x, y] = [a, b].map(|shape| fp16(f, shape));
            f.mul(x, y).unwrap()
        })
    };
    let softmax = |length| {
        program(|f| {
            let x = fp16(f, &[4, length]);
            f.softmax(x, 1).unwrap()
        })
    };
    let halves = |axis: usize| {
        program(|f| {
            let x = fp16(f, &[64, 64]);
            let parts = f.split(x, axis, &[32, 32]).unwrap();
            f.add(parts[0], parts[1]).unwrap()
        })
    };
    let rotated = program(|f| {
        let [x, cos, sin] = [[4, 64], [4, 32], [4, 32]].map(|shape| fp16(f, &shape));
        f.rope(x, cos, sin).unwrap()
    });
    let halves_stacked = program(|f| {
        let x = fp16(f, &[4, 64]);
        let parts = f.split(x, 1, &[32, 32]).unwrap();
        f.concat(&parts, 0).unwrap()
    });
    let runtime = |f: &mut Builder, x, w| f.linear(x, w, None).unwrap();
    let square_root = |width, multiplied: bool| {
        program(|f| {
            let x = fp16(f, &[4, width]);
            let square = if multiplied { f.mul(x, x) } else { f.square(x) };
            f.sqrt(square.unwrap()).unwrap()
        })
    };
    let scaled_mean = |factor| of_mean(|f, mean| f.scale(mean, factor).unwrap());
    let zero_first = of_mean(|f, mean| {
        let zero = f.scalar(DType::F16, 0.0);
        f.mul(zero, mean).unwrap()
    });
    vec![
        ("O01", "m6", attention(1, 32, 32, true), attention(1, 32, 32, false)),
        ("O20", "m4", attention(1, 512, 512, false), attention(1, 511, 2048, false)),
        ("O20", "m4", attention(1, 4, 2049, false), attention(1, 2048, 4, false)),
        ("O20", "m4", attention(2, 32, 32, false), attention(1, 32, 32, false)),
        ("O04", "m4", runtime_weight(runtime), linear(32, 32, 32)),
        ("O04", "m4", bias, runtime_weight(|f, x, w| f.matmul(x, w, false, true).unwrap())),
        ("O05", "m4", repeated, joined(2, 4)),
        ("O06", "m3-max", product(&[2, 3, 4, 8], &[3, 4, 8]), product(&[2, 3, 4, 8], &[2, 3, 1, 1])),
        ("O06", "m3-max", product(&[1, 3, 4, 8], &[2, 3, 4, 8]), product(&[2, 3, 4, 8], &[1])),
        ("O07", "m4", softmax(33), softmax(32)),
        ("O09", "m2-pro", halves(1), halves(0)),
        ("O10", "m3-ultra", rotated.clone(), joined(2, 32)),
        ("O10", "m3-ultra", rotated, halves_stacked),
        ("C01", "m4", joined(12, 4), joined(11, 4)),
        (
            "O11",
            "m1",
            of_mean(|f, mean| f.square(mean).unwrap()),
            of_mean(|f, mean| f.mul(mean, mean).unwrap()),
        ),
        ("O11", "m4", square_root(193, false), square_root(192, false)),
        ("O11", "m4", square_root(65, false), square_root(65, true)),
        ("O12", "m4", scaled_mean(0.0), scaled_mean(1.0)),
        ("O12", "m4", zero_first, scaled_mean(-1.0)),
        (
            "O13",
            "m4",
            of_mean(|f, mean| f.rsqrt(mean, 0.0).unwrap()),
            of_mean(|f, mean| {
                let sum = f.add(mean, mean).unwrap();
                f.rsqrt(sum, 0.0).unwrap()
            }),
        ),
    ]
}

/// A convolution of 64 channels of 64x64 with a kernel of a size.
fn conv(kernel: [usize; 2], change: impl FnOnce(&mut Convolution)) -> Function {
    program(|f| {
        let x = fp16(f, &[1, 64, 64, 64]);
        let weight = zeros(f, &[32, 64, kernel[0], kernel[1]]);
        let mut c = Convolution { pad_type: PadType::Custom, ..Convolution::pointwise(x, weight, None, 4) };
        change(&mut c);
        f.push_one(Op::Convolution(c)).unwrap()
    })
}

fn convolutions() -> Vec<Case> {
    let biased = program(|f| {
        let x = fp16(f, &[1, 64, 1, 64]);
        let (weight, bias) = (zeros(f, &[32, 64, 1, 1]), zeros(f, &[32]));
        f.push_one(Op::Convolution(Convolution::pointwise(x, weight, Some(bias), 4))).unwrap()
    });
    let runtime = program(|f| {
        let [x, weight] = [[1, 64, 1, 64], [32, 64, 1, 1]].map(|shape| fp16(f, &shape));
        f.push_one(Op::Convolution(Convolution::pointwise(x, weight, None, 4))).unwrap()
    });
    let dilated = |d| conv([3, 3], |c| c.dilations = vec![d; 2]);
    let padded = |p| conv([3, 3], |c| c.pad = vec![p; 4]);
    vec![
        ("O03", "m4", biased, conv([1, 1], |_| {})),
        ("O04", "m4", runtime, conv([1, 1], |_| {})),
        ("O18", "m1", conv([1, 14], |_| {}), conv([1, 13], |_| {})),
        ("O18", "m4", conv([1, 16], |_| {}), conv([1, 15], |_| {})),
        ("O18", "m4", conv([32, 1], |_| {}), conv([31, 1], |_| {})),
        ("O18", "m4", dilated(9), dilated(8)),
        ("O18", "m4", padded(17), padded(16)),
    ]
}

fn cases() -> Vec<Case> {
    [ports(), functions(), values(), shapes(), ops(), convolutions()].concat()
}

/// Whether a violation is one of a row.
fn is_of(violation: &Violation, row: &Constraint) -> bool {
    (violation.id, violation.severity, violation.message) == (row.id, row.severity, row.message)
}

#[test]
fn every_constraint_is_violated_by_a_program_and_not_by_one_inside_its_limit() {
    let cases = cases();
    let mut used = vec![false; cases.len()];
    for row in constraints() {
        let mut seen = false;
        for (i, (id, name, outside, inside)) in cases.iter().enumerate() {
            let chip = chip(name);
            if *id != row.id || !row.applies_to(chip) {
                continue;
            }
            if violations(chip, outside).iter().any(|v| is_of(v, row)) {
                seen = true;
                used[i] = true;
                let inside = violations(chip, inside);
                assert!(!inside.iter().any(|v| is_of(v, row)), "{id} case {i}: {inside:#?}");
            }
        }
        assert!(seen, "no program violates {} ({})", row.id, row.message);
    }
    for (case, used) in cases.iter().zip(used) {
        assert!(used, "a case of {} violates no row of that name: {:#?}", case.0, case.2.outputs());
    }
}

#[test]
fn a_constraint_is_one_of_its_families_and_chips_only() {
    let rotated = &cases().into_iter().find(|c| c.0 == "O10").unwrap().2;
    let has = |name: &str| violations(chip(name), rotated).iter().any(|v| v.id == "O10");
    assert!(has("m3-ultra") && !has("m3-max") && !has("m2-ultra"));
    let ids = |name: &str| -> Vec<&str> {
        violations(chip(name), &copy(DType::F32, &[20_000])).iter().map(|v| v.id).collect()
    };
    assert_eq!(ids("m1"), ["S14", "S08", "S14", "S08", "D02", "S08"]);
    assert_eq!(ids("m4"), ["S14", "S14", "D02"]);
}

#[test]
fn ops_that_the_engine_has_not_are_refused_with_their_own_remedy() {
    let mut f = Builder::new("main", Opset::Ios17);
    let x = fp16(&mut f, &[8, 32]);
    let i = input(&mut f, "i", DType::I32, &[2]);
    let rows = f.gather(x, i, 0).unwrap();
    let sum = f.scatter_add(x, i, rows, 0).unwrap();
    let large = f.compare(arcane_mil::Compare::Greater, sum, x).unwrap();
    let both = f.logical_and(large, large).unwrap();
    let y = f.select(both, sum, x).unwrap();
    f.output("y", y);
    let f = f.finish();
    for chip in Chip::all() {
        let found: Vec<_> = (0..f.operations().len()).map(|i| op_violations(chip, &f, i)).collect();
        let counts: Vec<_> = found.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 1, 0, 1, 0], "{}: {found:#?}", chip.name);
        assert!(found.iter().flatten().all(|v| v.id == "O17" && v.is_fatal()));
        assert!(found[1][0].remedy.contains("one-hot"));
        assert_eq!([0, 2].map(|i| is_legal(chip, &f, i)), [false, true]);
    }
}

/// One op without its ports and neighbours.
#[test]
fn a_single_op_is_judged_by_its_own_operands() {
    let f = copy(DType::I32, &[4]);
    assert!(!is_legal(chip("m4"), &f, 0), "an int32 copy is no op of the engine");
    let noted = of_mean(|f, mean| f.rsqrt(mean, 1e-5).unwrap());
    assert_eq!(op_violations(chip("m4"), &noted, 1).len(), 2);
    assert!(is_legal(chip("m4"), &noted, 1), "notes are no reason to refuse");
}

#[test]
fn a_violation_reads_as_one_line() {
    let mut f = Builder::new("main", Opset::Ios17);
    let x = fp16(&mut f, &[32, 32]);
    let w = fp16(&mut f, &[32, 32]);
    let q = f.scope("layers.0", |f| {
        let q = f.linear(x, w, None).unwrap();
        f.named(q, "q")
    });
    f.output("y", q);
    let found = violations(chip("m4"), &f.finish());
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["layers.0.q (linear): O04 a weight that is no constant is refused, or ignored: limit constants, \
          found a run-time weight; remedy: write matmul with transpose_y"]
    );
}

/// The table of ops knows every op that MIL has here: the golden file of the printer writes each of them.
#[test]
fn every_op_has_a_row() {
    let text = include_str!("../../../mil/tests/cases/every_op.mil");
    let names =
        text.lines().filter_map(|line| line.split_once(" = ")?.1.split_once('(').map(|(name, _)| name));
    let mut known = 0;
    for name in names.filter(|name| !["const", "dict<string, string>"].contains(name)) {
        assert!(legality(name).is_some(), "{name} has no row in ops.toml");
        known += 1;
    }
    assert!(known > 40, "{known} ops in the file");
}
