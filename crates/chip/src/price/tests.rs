use arcane_mil::{Builder, Function, Opset, Role, TensorType, ValueId};
use arcane_tensor::{DType, Tensor};

use super::rows::rows;
use super::{Coefficients, energy_mj, host_ns, host_op_ns, op_ns, program_ns};
use crate::Chip;

fn chip(name: &str) -> &'static Chip {
    Chip::named(name).unwrap()
}

fn input(f: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    f.parameter(name, TensorType::new(DType::F16, shape), Role::Batch)
}

fn weight(f: &mut Builder, outputs: usize, inputs: usize) -> ValueId {
    f.constant("w", Tensor::zeros(DType::F16, &[outputs, inputs]))
}

/// `depth` products of `positions` rows with one square weight.
fn chain(channels: usize, positions: usize, depth: usize) -> Function {
    let mut f = Builder::new("main", Opset::Ios17);
    let mut x = input(&mut f, "x", &[positions, channels]);
    let w = weight(&mut f, channels, channels);
    for _ in 0..depth {
        x = f.linear(x, w, None).unwrap();
    }
    f.output("y", x);
    f.finish()
}

fn single(inputs: usize, outputs: usize, positions: usize) -> Function {
    let mut f = Builder::new("main", Opset::Ios17);
    let x = input(&mut f, "x", &[positions, inputs]);
    let w = weight(&mut f, outputs, inputs);
    let y = f.linear(x, w, None).unwrap();
    f.output("y", y);
    f.finish()
}

/// The fit meets the rows that it is a fit to.
#[test]
fn published_latencies_are_priced_within_a_tenth_at_the_median() {
    let rows = rows();
    let median = |of_chip: &dyn Fn(&str) -> bool| {
        let chosen = rows.iter().filter(|row| of_chip(&row.chip.name) && !row.kind.starts_with("compare"));
        let mut errors: Vec<f64> =
            chosen.map(|row| (row.predicted_ms(&Coefficients::of(row.chip)) / row.ms).ln().abs()).collect();
        errors.sort_by(f64::total_cmp);
        errors[errors.len() / 2]
    };
    assert!(median(&|_| true) < 0.1);
    for name in ["m1", "m1-max", "m2-pro", "m3-pro", "m4"] {
        assert!(median(&|chip| chip == name) < 0.2, "{name}: {}", median(&|chip| chip == name));
    }
}

#[test]
fn more_work_never_costs_less() {
    for chip in Chip::all() {
        let price = |i, o, p| program_ns(chip, &single(i, o, p)).total_ns;
        for n in [1, 7, 64, 500, 4096] {
            assert!(price(n, 256, 64) <= price(n + 1, 256, 64), "{}: inputs {n}", chip.name);
            assert!(price(256, n, 64) <= price(256, n + 1, 64), "{}: outputs {n}", chip.name);
            assert!(price(256, 256, n) <= price(256, 256, n + 1), "{}: positions {n}", chip.name);
        }
        let chains = [1, 2, 8].map(|depth| program_ns(chip, &chain(64, 64, depth)).total_ns);
        assert!(chains.is_sorted() && chains[0] > *chip.rates.floor_us * 1e3);
    }
}

#[test]
fn a_product_of_two_run_time_values_takes_longer() {
    let m4 = chip("m4");
    let mut f = Builder::new("main", Opset::Ios17);
    let x = input(&mut f, "x", &[2048, 256]);
    let x = f.square(x).unwrap();
    let w = weight(&mut f, 256, 256);
    let constant = f.matmul(x, w, false, true).unwrap();
    let y = f.matmul(x, constant, true, false).unwrap();
    f.output("y", y);
    let f = f.finish();
    let price = program_ns(m4, &f);
    assert_eq!(price.flops, 2.0 * 2.0 * 2048.0 * 256.0 * 256.0);
    assert_eq!((price.bytes_in, price.bytes_out), (2048.0 * 512.0, 256.0 * 512.0));
    assert_eq!(price.weight_bytes, 256.0 * 512.0);
    assert!(op_ns(m4, &f, 3) > 2.0 * op_ns(m4, &f, 2));
}

/// An array that does not stay on the engine is read and written at the speed of memory, beside the product.
#[test]
fn large_activations_are_moved_through_memory() {
    let m4 = chip("m4");
    let moved = |rows: usize| {
        let mut f = Builder::new("main", Opset::Ios17);
        let x = input(&mut f, "x", &[rows, 64]);
        let w = weight(&mut f, 64, 64);
        let hidden = f.linear(x, w, None).unwrap();
        let y = f.linear(hidden, w, None).unwrap();
        f.output("y", y);
        program_ns(m4, &f.finish()).activation_bytes
    };
    assert_eq!(moved(1 << 14), 2.0 * 128.0 * 16384.0, "2 MiB stay: the input and the output are moved");
    assert_eq!(moved((1 << 14) + 1), 4.0 * 128.0 * 16385.0, "written and read between them");
}

#[test]
fn the_parts_of_a_host_time_are_its_ops() {
    let f = chain(256, 64, 3);
    for chip in Chip::all() {
        let ops: f64 = (0..f.operations().len()).map(|i| host_op_ns(chip, &f, i)).sum();
        assert_eq!(host_ns(chip, &f), ops);
        let slowest = 2.0 * 64.0 * 256.0 * 256.0 * 3.0 / *chip.rates.host_gflops;
        assert!(ops > slowest * 0.999_999 && ops.is_finite());
    }
}

/// A chain of element-wise ops reads what it is made of once and writes its result once.
#[test]
fn a_host_fuses_elementwise_ops() {
    let m4 = chip("m4");
    let ns = |length: usize| {
        let mut f = Builder::new("main", Opset::Ios17);
        let (x, y) = (input(&mut f, "x", &[length, 64]), input(&mut f, "y", &[length, 64]));
        let sum = f.add(x, y).unwrap();
        let square = f.square(sum).unwrap();
        let out = f.mul(square, x).unwrap();
        f.output("out", out);
        host_ns(m4, &f.finish())
    };
    let arrays = 3.0 * 2.0 * 64.0;
    assert!((ns(1000) * *m4.rates.host_gb_s / (1000.0 * arrays) - 1.0).abs() < 1e-9);
}

/// The 3x3 stack of 256 channels on M4 drew 5.85 W in all for 1.14 ms, which is the peak nearly.
#[test]
fn energy_grows_with_time_and_use() {
    let m4 = chip("m4");
    assert_eq!(energy_mj(m4, 0.0, 1.0, 0.0), 0.0);
    let measured = 5.85 * 1.14;
    let stack = energy_mj(m4, 1.14e6, 0.89, 0.0);
    assert!((stack / measured - 1.0).abs() < 0.1, "{stack} mJ, measured {measured} mJ");
    for chip in Chip::all() {
        let base = energy_mj(chip, 1e6, 0.5, 1e6);
        assert!(base > 0.0 && base < energy_mj(chip, 1e6, 0.6, 1e6));
        assert!(base < energy_mj(chip, 2e6, 0.5, 1e6) && base < energy_mj(chip, 1e6, 0.5, 2e6));
        assert_eq!(energy_mj(chip, 1e6, 7.0, 0.0), energy_mj(chip, 1e6, 1.0, 0.0));
    }
}
