//! Layouts of random functions, and of heads.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arcane_mil::{Builder, Function, Op, Opset, Role, TensorType, remove_dead_code};
use arcane_tensor::{DType, difference};

use super::{Placed, lay_out, places};
use crate::golden;
use crate::plan::Place;
use crate::random::{Random, inputs, outputs, shaped_program};

/// The function with as many ops on the engine as have a form there.
fn placed(f: &Function) -> Placed {
    let mut refused: HashMap<usize, String> = HashMap::new();
    loop {
        match lay_out(f, &places(f, |op| refused.contains_key(&op)), &BTreeSet::new()) {
            Ok(placed) => return placed,
            Err(e) => assert!(refused.insert(e.op, e.why).is_none(), "an op is refused once"),
        }
    }
}

fn listing(placed: &Placed) -> String {
    golden::listing(&placed.function, |i| format!("{:6} ", placed.places[i].name()))
}

#[test]
fn a_layout_moves_elements_and_changes_none() {
    let mut on_engine: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..300 {
        let f = shaped_program(&mut Random::new(seed), 10 + seed as usize % 30, DType::F16);
        let placed = placed(&f);
        let given = inputs(&f, &mut Random::new(seed));
        let (expected, found) = (outputs(&f, &given), outputs(&placed.function, &given));
        for (name, value) in &expected {
            let d = difference(&found[name], value).unwrap();
            assert!(d.max_abs == 0.0, "seed {seed}: {name}: {d:?}\n{}", listing(&placed));
        }
        assert_eq!(placed.places.len(), placed.function.operations().len());
        let ops = placed.function.operations().iter().zip(&placed.places);
        for (operation, _) in ops.filter(|(_, place)| **place == Place::Engine) {
            *on_engine.entry(operation.op.name()).or_default() += 1;
            let ty = placed.function.ty(operation.results[0]);
            assert_eq!(ty.dtype, DType::F16, "seed {seed}");
            // What computes has the engine's four dimensions, or is a single number.
            let moves = matches!(operation.op, Op::Reshape { .. });
            assert!(moves || ty.shape.len() == 4 || ty.len() == 1, "seed {seed}: {ty}\n{}", listing(&placed));
        }
    }
    for op in ["matmul", "softmax", "concat", "split", "reduce_mean", "transpose", "add", "silu"] {
        assert!(on_engine.get(op).copied() > Some(20), "{op} is hardly tested: {on_engine:?}");
    }
}

/// A projection to heads, scores, weighted sums, and a projection back.
fn heads([batch, length, heads, width]: [usize; 4]) -> Function {
    let mut f = Builder::new("heads", Opset::Ios18);
    let dim = heads * width;
    let half = |shape: &[usize]| TensorType::new(DType::F16, shape);
    let x = f.parameter("x", half(&[batch, length, dim]), Role::Batch);
    let [q, k, v] = ["q", "k", "v"].map(|name| {
        let w = f.parameter(&format!("w{name}"), half(&[dim, dim]), Role::Param);
        let y = f.linear(x, w, None).unwrap();
        let split = f.reshape(y, &[batch, length, heads, width]).unwrap();
        f.transpose(split, &[0, 2, 1, 3]).unwrap()
    });
    let scores = f.matmul(q, k, false, true).unwrap();
    let p = f.softmax(scores, 3).unwrap();
    let mixed = f.matmul(p, v, false, false).unwrap();
    let back = f.transpose(mixed, &[0, 2, 1, 3]).unwrap();
    let joined = f.reshape(back, &[batch, length, dim]).unwrap();
    let wo = f.parameter("wo", half(&[dim, dim]), Role::Param);
    let y = f.linear(joined, wo, None).unwrap();
    f.output("y", y);
    remove_dead_code(&f.finish())
}

#[test]
fn heads_move_no_elements_on_the_engine() {
    let f = heads([1, 5, 2, 4]);
    let one = placed(&f);
    golden::check(
        "lay_out",
        &format!("before\n{}after\n{}", golden::listing(&f, |_| String::new()), listing(&one)),
    );
    let moves = |placed: &Placed| {
        let ops = placed.function.operations().iter().zip(&placed.places);
        ops.filter(|(o, p)| **p == Place::Engine && matches!(o.op, Op::Transpose { .. })).count()
    };
    assert_eq!(moves(&one), 0);
    // Of several sequences, positions of all lie side by side: the scores of one are cut out of them.
    let two = placed(&heads([2, 8, 2, 4]));
    assert!(moves(&two) <= 4, "{}", listing(&two));
}

#[test]
fn what_has_no_form_on_the_engine_is_named() {
    let mut f = Builder::new("f", Opset::Ios18);
    let x = f.parameter("x", TensorType::new(DType::F16, &[2, 3]), Role::Batch);
    let y = f.abs(x).unwrap();
    let z = f.tile(y, &[2, 2]).unwrap();
    f.output("z", z);
    let f = f.finish();
    let error = lay_out(&f, &places(&f, |_| false), &BTreeSet::new()).unwrap_err();
    assert_eq!((error.op, error.why.as_str()), (1, "it repeats 2 axes, an engine has a form for one"));
}

/// Products with frozen weights, in the form of `linear` and of `matmul`, of rows and of a matrix.
#[test]
fn products_with_frozen_weights_are_convolutions() {
    for shape in [&[5, 8][..], &[2, 3, 8], &[1, 2, 3, 8]] {
        let mut f = Builder::new("f", Opset::Ios18);
        let half = |shape: &[usize]| TensorType::new(DType::F16, shape);
        let x = f.parameter("x", half(shape), Role::Batch);
        let up = f.parameter("up", half(&[6, 8]), Role::Constant);
        let down = f.parameter("down", half(&[6, 4]), Role::Constant);
        let inner = f.linear(x, up, None).unwrap();
        let y = f.matmul(inner, down, false, false).unwrap();
        f.output("y", y);
        let f = f.finish();
        let places = places(&f, |_| false);
        let given = inputs(&f, &mut Random::new(1));
        let expected = outputs(&f, &given);
        for products in [BTreeSet::new(), BTreeSet::from([1])] {
            let placed = lay_out(&f, &places, &products).unwrap();
            let ops: Vec<&str> = placed
                .function
                .operations()
                .iter()
                .zip(&placed.places)
                .filter(|(o, place)| **place == Place::Engine && !matches!(o.op, Op::Reshape { .. }))
                .map(|(o, _)| o.op.name())
                .collect();
            let second = if products.is_empty() { "conv" } else { "matmul" };
            assert_eq!(ops, ["conv", second], "{}", listing(&placed));
            let found = outputs(&placed.function, &given);
            let d = difference(&found["y"], &expected["y"]).unwrap();
            assert!(d.max_abs == 0.0, "{shape:?}: {d:?}");
        }
    }
}
