//! Random cases.

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use arcane_mil::{
    Binary, Builder, Function, NoWeights, Opset, Program, Role, TensorType, ValueId, broadcast, evaluate,
    identifiers, print, print_package, read, remove_dead_code,
};
use arcane_tensor::{DType, Tensor};
use proptest::prelude::*;

use super::reading::comes_back;
use super::{bound, function, iota};

fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop::sample::select(vec![0usize, 1, 1, 2, 3]), 0..5)
}

/// Every coordinate of a shape, in row-major order.
fn coordinates(shape: &[usize]) -> Vec<Vec<usize>> {
    let Some((&first, rest)) = shape.split_first() else { return vec![vec![]] };
    let rest = coordinates(rest);
    (0..first).flat_map(|i| rest.iter().map(move |r| [vec![i], r.clone()].concat())).collect()
}

/// The element of `t` that stands at a coordinate of a shape that `t` broadcasts to.
fn at(t: &Tensor, coordinate: &[usize]) -> f64 {
    let own = &coordinate[coordinate.len() - t.shape().len()..];
    let clamped: Vec<usize> = own.iter().zip(t.shape()).map(|(&c, &d)| if d == 1 { 0 } else { c }).collect();
    t.get(coordinates(t.shape()).iter().position(|c| *c == clamped).expect("the coordinate is inside"))
}

proptest! {
    #[test]
    fn broadcasting_agrees_with_its_definition(a in shape(), b in shape()) {
        let rank = a.len().max(b.len());
        let padded = |s: &[usize]| [vec![1; rank - s.len()], s.to_vec()].concat();
        let (wide_a, wide_b) = (padded(&a), padded(&b));
        let compatible = wide_a.iter().zip(&wide_b).all(|(x, y)| x == y || *x == 1 || *y == 1);
        let Some(found) = broadcast(&a, &b) else {
            prop_assert!(!compatible);
            return Ok(());
        };
        prop_assert!(compatible);
        for i in 0..rank {
            let stretched = if wide_a[i] == 1 { wide_b[i] } else { wide_a[i] };
            prop_assert_eq!(found[i], stretched);
        }
        let inputs = [iota(&a), iota(&b)];
        let f = function(&inputs, |f, x| Ok(vec![f.sub(x[0], x[1])?]));
        let result = &evaluate(&f, &bound(&inputs)).unwrap()["y0"];
        let naive: Vec<f64> =
            coordinates(&found).iter().map(|c| at(&inputs[0], c) - at(&inputs[1], c)).collect();
        prop_assert_eq!(result.shape(), &found[..]);
        prop_assert_eq!(result.to_f64s(), naive);
    }

    #[test]
    fn removing_dead_code_keeps_every_output(steps in steps(), outputs in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        let f = chain(&steps, &outputs);
        let lean = remove_dead_code(&f);
        let inputs = BTreeMap::from([("x".to_string(), iota(&[2, 2]))]);
        prop_assert_eq!(evaluate(&lean, &inputs).unwrap(), evaluate(&f, &inputs).unwrap());
        let used: HashSet<_> = lean.operations().iter().flat_map(|o| o.op.operands())
            .chain(lean.outputs().iter().map(|o| o.value)).collect();
        let all_used = lean.operations().iter().all(|o| o.results.iter().any(|r| used.contains(r)));
        prop_assert!(all_used, "a result that nothing uses is left");
        prop_assert_eq!(&remove_dead_code(&lean), &lean);
        let kept: Vec<&str> = lean.outputs().iter().map(|o| o.name.as_str()).collect();
        let declared: Vec<&str> = f.outputs().iter().map(|o| o.name.as_str()).collect();
        prop_assert_eq!(kept, declared);
    }

    #[test]
    fn printed_programs_are_read_as_they_were(
        steps in steps(),
        outputs in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        paths in prop::collection::vec("[ab_.2é@\"\\\\\n]{0,3}", 1..60),
    ) {
        let mut f = Builder::extend(&chain(&steps, &[]));
        let values: Vec<ValueId> = f.function().operations().iter().flat_map(|o| o.results.clone()).collect();
        for (&v, path) in values.iter().zip(&paths) {
            f.set_path(v, path.clone());
        }
        for (i, o) in outputs.iter().enumerate() {
            let v = *o.get(&values);
            f.output(&format!("y{i}"), v);
        }
        let f = f.finish();
        let inputs = BTreeMap::from([("x".to_string(), iota(&[2, 2]))]);
        let values = evaluate(&f, &inputs).unwrap();
        let emitted = print(&Program::new(vec![f])).unwrap();
        let program = comes_back(&emitted);
        prop_assert_eq!(evaluate(&program.functions[0], &inputs).unwrap(), values);
    }

    #[test]
    fn identifiers_are_legal_and_unique(paths in prop::collection::vec("[a-c0-9_.é@]{0,4}", 1..20)) {
        let mut f = Builder::new("main", Opset::Ios18);
        let mut last = f.parameter("a.b", TensorType::new(DType::F16, &[]), Role::Batch);
        for path in &paths {
            last = f.square(last).unwrap();
            f.set_path(last, path.clone());
        }
        f.output("a_b", last);
        let f = f.finish();
        let names = identifiers(&f);
        prop_assert_eq!((&*names[0], &*names[names.len() - 1]), ("a_b", "a_b_2"));
        prop_assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for name in &names {
            let mut chars = name.chars();
            let first = chars.next().unwrap();
            prop_assert!(first.is_ascii_alphabetic() || first == '_', "{}", name);
            prop_assert!(chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@'), "{}", name);
        }
        let printed = print(&Program::new(vec![f]));
        prop_assert!(printed.is_ok());
    }
}

proptest! {
    // A golden program is long.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn parts_of_the_golden_programs_are_read_as_they_were(
        which in any::<prop::sample::Index>(),
        outputs in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        paths in prop::collection::vec("[ab_.2é@\"\\\\\n]{0,3}", 1..60),
    ) {
        let functions = golden_functions();
        let mut f = Builder::extend(which.get(functions));
        let values: Vec<ValueId> = f.function().operations().iter().flat_map(|o| o.results.clone()).collect();
        for (&v, path) in values.iter().zip(&paths) {
            f.set_path(v, path.clone());
        }
        for (i, o) in outputs.iter().enumerate() {
            let v = *o.get(&values);
            f.output(&format!("out{i}"), v);
        }
        let program = Program::new(vec![remove_dead_code(&f.finish())]);
        comes_back(&print(&program).unwrap());
        if print_package(&program).is_ok() {
            super::packages::comes_back(&program);
        }
    }
}

/// The functions of the golden texts that need no weight files: every op is in one of them.
fn golden_functions() -> &'static [Function] {
    static ALL: OnceLock<Vec<Function>> = OnceLock::new();
    ALL.get_or_init(|| {
        let texts = super::mutations::texts().into_iter();
        texts.filter_map(|(_, text)| read(&text, &NoWeights).ok()).flat_map(|p| p.functions).collect()
    })
}

/// Which op, and which of the earlier values it takes.
type Step = (u8, prop::sample::Index, prop::sample::Index);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0u8..5, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..30)
}

/// Ops on fp16 `[2, 2]` values, some of two results.
fn chain(steps: &[Step], outputs: &[prop::sample::Index]) -> Function {
    let mut f = Builder::new("main", Opset::Ios18);
    let mut values = vec![f.parameter("x", TensorType::new(DType::F32, &[2, 2]), Role::Batch)];
    for &(op, a, b) in steps {
        let (a, b) = (*a.get(&values), *b.get(&values));
        let made = match op {
            0 => f.binary(Binary::Sub, a, b).unwrap(),
            1 => f.matmul(a, b, false, true).unwrap(),
            2 => f.sigmoid(a).unwrap(),
            3 => f.scale(a, 0.5).unwrap(),
            _ => {
                let rows = f.split(a, 0, &[1, 1]).unwrap();
                f.add(rows[1], b).unwrap()
            }
        };
        values.push(made);
    }
    for (i, o) in outputs.iter().enumerate() {
        f.output(&format!("y{i}"), *o.get(&values));
    }
    f.finish()
}
