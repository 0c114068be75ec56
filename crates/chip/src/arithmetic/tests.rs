use arcane_mil::Binary;

use super::{
    Accumulator, Activation, Overflow, Rules, Tables, activation, binary, decoded, int8_product, mean,
    rounded, sum, value,
};
use crate::Chip;

/// The fp16 bits of a number that is one.
#[track_caller]
fn bits(x: f64) -> u16 {
    let bits = rounded(x);
    assert_eq!(value(bits), x, "{x} is no fp16 number");
    bits
}

fn product(terms: &[(f64, f64)], bias: f64) -> f64 {
    let mut sum = Accumulator::new(bits(bias));
    for &(x, w) in terms {
        sum.add(bits(x), bits(w));
    }
    value(sum.result())
}

const UNIT: f64 = 1.0 / 65536.0;

/// All finite numbers.
fn finite() -> impl Iterator<Item = u16> {
    (0..=u16::MAX).filter(|b| b & 0x7c00 != 0x7c00)
}

#[test]
fn every_number_is_its_own_nearest() {
    for b in finite() {
        assert_eq!(rounded(decoded(b)), b);
    }
    assert_eq!([0x7c00, 0xfc00, 0x7e00, 0x7fff].map(decoded), [65536.0, -65536.0, 98304.0, 131_008.0]);
    assert_eq!([0x7c00, 0xfc00, 0x7e00, 0xffff].map(value), [1.0, -1.0, 1.0, 1.0].map(|x| x * f64::INFINITY));
}

#[test]
fn ties_go_away_from_zero_between_any_two_neighbours() {
    for b in (0..0x7bff).chain(0x8000..0xfbff) {
        let (here, next) = (decoded(b), decoded(b + 1));
        let middle = f64::midpoint(here, next);
        let nudge = (next - here) / 1024.0;
        assert_eq!(rounded(middle), b + 1);
        assert_eq!(rounded(middle - nudge), b);
    }
    assert_eq!((rounded(65519.99), rounded(65520.0), rounded(-1e9)), (0x7bff, 0x7c00, 0xfc00));
}

#[test]
fn products_are_rounded_to_the_unit_of_the_accumulator_one_by_one() {
    assert_eq!(product(&[(0.0005, 1.0)].map(|(x, w): (f64, f64)| (value(rounded(x)), w)), 0.0), 33.0 * UNIT);
    assert_eq!(product(&[(1.5 * UNIT, 1.0)], 0.0), 2.0 * UNIT, "half a unit goes up");
    assert_eq!(product(&[(-1.5 * UNIT, 1.0)], 0.0), -2.0 * UNIT, "and down");
    assert_eq!(product(&[(0.25 * UNIT, 1.0); 64], 0.0), 0.0, "each is less than half a unit");
    assert_eq!(product(&[(1024.0, 1.0), (UNIT * 4.0, 1.0), (-1024.0, 1.0)], 0.0), UNIT * 4.0);
}

#[test]
fn small_exponents_drop_a_product_however_large_it_is() {
    let nearly_two = 2.0 - 2f64.powi(-10);
    let exponents = |a: i32, b: i32| product(&[(nearly_two * 2f64.powi(a), nearly_two * 2f64.powi(b))], 0.0);
    assert_eq!(exponents(-9, -8), 0.0, "nearly two units");
    assert_eq!(exponents(-8, -8), 4.0 * UNIT);
    // A subnormal number counts as one of exponent -14, so 2^-15 · 2^-2 is judged by -16.
    assert_eq!(product(&[(2f64.powi(-15), 0.5)], 0.0), UNIT);
    assert_eq!(product(&[(2f64.powi(-15), 0.125)], 0.0), 0.0);
}

#[test]
fn an_overflow_stays() {
    let (half, infinity) = (16384.0, f64::INFINITY);
    assert_eq!(product(&[(half, 1.0), (half, 1.0), (-half, 1.0)], 0.0), infinity);
    assert_eq!(product(&[(-half, 1.0), (-half, 1.0), (half, 1.0), (half, 3.0)], 0.0), -infinity);
    assert_eq!(product(&[(half, 1.0), (half - 8.0, 1.0)], 0.0), 32768.0, "rounded after the sum, not in it");
    assert_eq!(product(&[(32736.0, 1.0)], 32.0), infinity);
    assert_eq!(product(&[(half, 1.0), (half, 1.0)], -half), half, "the bias is there first");
    let mut sum = Accumulator::default();
    sum.add(0xfc00, bits(1.0));
    assert_eq!(sum.overflow(), Some(Overflow::Below));
}

#[test]
fn infinities_and_nan_are_numbers_to_a_product() {
    let of = |x: u16, w: f64| {
        let mut sum = Accumulator::default();
        sum.add(x, bits(w));
        value(sum.result())
    };
    assert_eq!([of(0x7c00, 0.0625), of(0x7fff, 0.0625), of(0xfe00, 0.0625)], [4096.0, 8188.0, -6144.0]);
    assert_eq!(of(0x8000, 1.0), 0.0);
}

#[test]
fn int8_products_are_exact_up_to_int32() {
    let of = |n: usize, scale| value(int8_product(std::iter::repeat_n((127, 127), n), scale));
    assert_eq!(of(4096, 2f64.powi(-12)), 16128.0);
    assert_eq!(of(4096, 1.0), f64::INFINITY, "beyond fp16");
    assert_eq!(of(1 << 17, 2f64.powi(-16)), value(rounded(16129.0 * 2.0)), "beyond the fp16 accumulator");
    assert_eq!(of(1 << 18, 1e-9), f64::INFINITY, "beyond int32");
    let below = std::iter::repeat_n((-128, 127), 1 << 18);
    assert_eq!(value(int8_product(below, 1e-9)), f64::NEG_INFINITY);
}

#[test]
fn elementwise_ops_use_the_whole_range_and_round_once() {
    let of = |kind, a: f64, b: f64| value(binary(Tables::H16, kind, bits(a), bits(b)).unwrap());
    assert_eq!(of(Binary::Add, 2048.0, 1.0), 2050.0);
    assert_eq!(of(Binary::Sub, -2048.0, 1.0), -2050.0);
    assert_eq!(of(Binary::Mul, 32752.0, 16.0), f64::INFINITY);
    assert_eq!(of(Binary::Mul, 2f64.powi(-24), 1.0), 2f64.powi(-24));
    assert_eq!(of(Binary::Maximum, 65504.0, -1.0), 65504.0);
    let raw = |kind, a, b| value(binary(Tables::H16, kind, a, b).unwrap());
    assert_eq!(raw(Binary::Add, 0x7e00, bits(1.0)), f64::INFINITY, "NaN + 1");
    assert_eq!(raw(Binary::Sub, 0x7c00, 0x7c00), 0.0);
    assert_eq!(raw(Binary::Mul, 0x7c00, 0), 0.0);
    assert_eq!(binary(Tables::Unknown, Binary::RealDiv, 0, 0), None);
}

#[test]
fn sums_are_exact_and_rounded_once() {
    let ones = |n| std::iter::repeat_n(bits(1.0), n);
    assert_eq!((value(sum(ones(2048))), value(sum(ones(2049)))), (2048.0, 2050.0));
    let cancelled = [65504.0, 65504.0, 2f64.powi(-24), -65504.0, -65504.0].map(bits);
    assert_eq!(value(sum(cancelled)), 2f64.powi(-24));
    assert_eq!(value(mean([1.0, 2.0, 4.0].map(bits))), value(rounded(7.0 / 3.0)));
    assert_eq!(value(mean(std::iter::repeat_n(bits(65504.0), 1000))), 65504.0);
    assert_eq!(value(sum([0x7c00, bits(-1.0)])), f64::INFINITY);
}

fn erf(x: f64) -> f64 {
    // The Maclaurin series, which converges well on the table's range.
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The largest |f(x) - exact(x)| over the fp16 numbers of a range; with `ulps` in distances of fp16 at the exact value.
fn worst(f: Activation, exact: impl Fn(f64) -> f64, range: std::ops::Range<f64>, ulps: bool) -> f64 {
    finite()
        .map(|b| (value(activation(f, b)), value(b)))
        .filter(|(_, x)| range.contains(x))
        .map(|(y, x)| {
            let y0 = exact(x);
            let ulp = 2f64.powi(super::half::exponent_of(y0.abs().max(2f64.powi(-14))) - 10);
            (y - y0).abs() / if ulps { ulp } else { 1.0 }
        })
        .fold(0.0, f64::max)
}

/// Largest errors that were measured on an M6 over all fp16 numbers in range.
#[test]
fn activations_err_as_much_as_was_measured() {
    let near = |found: f64, published: f64, digits: f64| {
        assert!((found / published - 1.0).abs() < digits, "{found}, published {published}");
    };
    near(worst(Activation::Sigmoid, logistic, -30.0..30.0, false), 3.355e-3, 2e-4);
    near(worst(Activation::Silu, |x| x * logistic(x), -30.0..30.0, false), 1.491e-2, 4e-4);
    let gelu = |x: f64| x * 0.5 * (1.0 + erf((x / std::f64::consts::SQRT_2).clamp(-3.9, 3.9)));
    near(worst(Activation::Gelu, gelu, -4.0..4.0, false), 6.159e-3, 2e-4);
    near(worst(Activation::Erf, erf, -1.9995..2.0, false), 8.64e-4, 1e-3);
    near(worst(Activation::Tanh, f64::tanh, -10.0..10.0, false), 1.61e-3, 0.02);
    near(worst(Activation::Log { epsilon: 0.0 }, f64::ln, 1e-9..7e4, true), 91.0, 1e-3);
    near(worst(Activation::Sqrt, f64::sqrt, 1e-9..7e4, true), 1.2, 0.04);
    near(worst(Activation::Rsqrt { epsilon: 0.0 }, |x| x.powf(-0.5), 1e-9..7e4, true), 2.0, 0.05);
    // Published: 9. The exponent's rounding alone may cost 5.5 and the rounded log2(e) 4.6 at x = 10.4.
    let exp = worst(Activation::Exp, f64::exp, -9.7..11.09, true);
    assert!((9.0..10.1).contains(&exp), "{exp}");
    let inverse = Activation::Inverse { epsilon: 1e-4 };
    // The reference is 1/x, so that most of it is epsilon.
    near(worst(inverse, |x| 1.0 / x, 0.0156..7e4, true), 13.5, 0.08);
    near(worst(inverse, |x| 1.0 / x, 0.0156..7e4, false), 0.4375, 0.01);
}

#[test]
fn activations_have_the_values_that_were_read() {
    let at = |f, x: f64| value(activation(f, rounded(x)));
    assert_eq!(at(Activation::Silu, 0.0), -0.001_704_216_003_417_968_8);
    assert_eq!(at(Activation::Gelu, 0.0), -0.000_753_879_547_119_140_6);
    assert_eq!((at(Activation::Sigmoid, -9.945), at(Activation::Sigmoid, 8.33)), (0.0, 1.0));
    assert_eq!((at(Activation::Tanh, 4.0), at(Activation::Tanh, -9.0)), (1.0, -1.0));
    assert_eq!((at(Activation::Gelu, -4.5), at(Activation::Gelu, 100.0)), (0.0, 100.0));
    let zero_log = at(Activation::Log { epsilon: 0.0 }, 0.0);
    assert_eq!((zero_log, at(Activation::Log { epsilon: 0.0 }, -1.0)), (-45440.0, 0.0));
    assert_eq!((at(Activation::Exp, -17.4), at(Activation::Exp, 11.1)), (0.0, f64::INFINITY));
    assert_eq!((at(Activation::Exp2, 3.0), at(Activation::Exp2, -24.0)), (8.0, 2f64.powi(-24)));
    let (inverse, rsqrt) = (Activation::Inverse { epsilon: 0.0 }, Activation::Rsqrt { epsilon: 0.0 });
    assert_eq!((at(inverse, 0.0), at(inverse, -0.0)), (f64::INFINITY, f64::INFINITY));
    assert_eq!((at(inverse, -4.0), at(inverse, f64::INFINITY)), (-0.25, 0.0));
    assert_eq!((at(rsqrt, 0.0), at(rsqrt, -1.0), at(rsqrt, 16.0)), (f64::INFINITY, 0.0, 0.25));
    assert_eq!((at(Activation::Sqrt, 0.0), at(Activation::Sqrt, -1.0)), (0.0, 0.0));
    assert_eq!(at(Activation::Silu, f64::INFINITY), f64::INFINITY);
}

/// Points that no program was read for are the samples that their entry names.
#[test]
fn sampled_tables_hold_their_samples() {
    let tables = super::table::h16();
    let sample = |table: &super::table::Table, f: &dyn Fn(f64) -> f64| {
        for (k, &y) in table.points.iter().enumerate() {
            let exact = f(k as f64);
            assert!((y - exact).abs() <= exact.abs() * 2f64.powi(-11), "{k}: {y}, sample {exact}");
        }
    };
    sample(&tables.log2, &|k| (0.5 + k / 64.0).log2());
    sample(&tables.sqrt, &|k| (k / 16.0).sqrt());
    sample(&tables.erf, &|k| erf(k / 16.0));
}

#[test]
fn a_chip_whose_rules_contradict_each_other_has_no_arithmetic() {
    for chip in Chip::all() {
        let known = *chip.arithmetic.rules == Rules::Known;
        assert_eq!(chip.known_tables().is_ok(), known, "{}", chip.name);
    }
    let error = Chip::named("m1").unwrap().known_tables().unwrap_err().to_string();
    assert!(error.contains("m1") && error.contains("groups of four") && error.contains("m4"), "{error}");
    assert_eq!(Chip::named("m4").unwrap().known_tables(), Ok(Tables::H16));
}
