//! Normalisations and contractions, by hand.

use arcane_mil::{Builder, Einsum, Normalisation, Op, Opset, Role, TensorType, ValueId};
use arcane_tensor::DType;

use super::golden::prints;
use super::{assert_same, attempt, f32s, gives, iota, tensor};

#[test]
fn batch_norm_uses_the_numbers_of_each_channel() {
    let x = f32s(&[1, 2, 2], &[1.0, 3.0, 5.0, 9.0]);
    let (mean, variance) = (f32s(&[2], &[1.0, 5.0]), f32s(&[2], &[3.0, 15.0]));
    let (gamma, beta) = (tensor(DType::F16, &[2], &[2.0, 4.0]), f32s(&[2], &[0.5, -1.0]));
    let batch = |v: &[ValueId], scaled: bool| {
        let (gamma, beta) = (scaled.then(|| v[3]), scaled.then(|| v[4]));
        Op::Normalisation(Normalisation::Batch {
            x: v[0],
            mean: v[1],
            variance: v[2],
            gamma,
            beta,
            epsilon: 1.0,
        })
    };
    let inputs = [x, mean, variance, gamma, beta];
    gives(&inputs, |f, v| f.push_one(batch(v, false)), &f32s(&[1, 2, 2], &[0.0, 1.0, 0.0, 1.0]));
    gives(&inputs, |f, v| f.push_one(batch(v, true)), &f32s(&[1, 2, 2], &[0.5, 2.5, -1.0, 3.0]));
}

#[test]
fn instance_and_layer_norm_have_unit_variance() {
    // Mean 2, variance 1 in the first channel, mean 10, variance 4 in the second.
    let x = f32s(&[1, 2, 2], &[1.0, 3.0, 8.0, 12.0]);
    let gamma = f32s(&[2], &[1.0, 3.0]);
    let instance =
        |x, gamma| Op::Normalisation(Normalisation::Instance { x, gamma, beta: None, epsilon: 0.0 });
    gives(
        &[x.clone(), gamma.clone()],
        |f, v| f.push_one(instance(v[0], Some(v[1]))),
        &f32s(&[1, 2, 2], &[-1.0, 1.0, -3.0, 3.0]),
    );
    let layer = |x, axes: &[usize], gamma| {
        Op::Normalisation(Normalisation::Layer { x, axes: axes.to_vec(), gamma, beta: gamma, epsilon: 0.0 })
    };
    gives(
        &[x.clone(), gamma.clone()],
        |f, v| f.push_one(layer(v[0], &[2], Some(v[1]))),
        &f32s(&[1, 2, 2], &[0.0, 6.0, 0.0, 6.0]),
    );
    gives(
        &[x.clone(), gamma],
        |f, v| f.push_one(layer(v[0], &[1], Some(v[1]))),
        &f32s(&[1, 2, 2], &[0.0, 0.0, 6.0, 6.0]),
    );
    // Mean 6, variance 18.5 over all.
    let unit: Vec<f64> = [-5.0, -3.0, 2.0, 6.0].iter().map(|x| x / 18.5f64.sqrt()).collect();
    gives(&[x], |f, v| f.push_one(layer(v[0], &[0, 1, 2], None)), &f32s(&[1, 2, 2], &unit));
}

#[test]
fn l2_norm_divides_by_the_length_of_the_last_three_dimensions() {
    let x = f32s(&[2, 1, 1, 2], &[3.0, 4.0, 0.0, 0.0]);
    let l2 = |x| Op::Normalisation(Normalisation::L2 { x, epsilon: 1e-12 });
    gives(&[x], |f, v| f.push_one(l2(v[0])), &f32s(&[2, 1, 1, 2], &[0.6, 0.8, 0.0, 0.0]));
}

#[test]
fn local_response_norm_looks_at_channels_around_each() {
    let x = f32s(&[1, 4, 1], &[1.0, 2.0, 3.0, 4.0]);
    let norm = |x, size| {
        Op::Normalisation(Normalisation::LocalResponse { x, size, alpha: size as f64, beta: 1.0, k: 1.0 })
    };
    // An even window has one channel more before than after.
    gives(
        std::slice::from_ref(&x),
        |f, v| f.push_one(norm(v[0], 2)),
        &f32s(&[1, 4, 1], &[1.0 / 2.0, 2.0 / 6.0, 3.0 / 14.0, 4.0 / 26.0]),
    );
    gives(
        std::slice::from_ref(&x),
        |f, v| f.push_one(norm(v[0], 3)),
        &f32s(&[1, 4, 1], &[1.0 / 6.0, 2.0 / 15.0, 3.0 / 30.0, 4.0 / 26.0]),
    );
    gives(
        &[x],
        |f, v| f.push_one(norm(v[0], 99)),
        &f32s(&[1, 4, 1], &[1.0 / 31.0, 2.0 / 31.0, 3.0 / 31.0, 4.0 / 31.0]),
    );
}

#[test]
fn einsum_is_a_product_for_each_n_and_h() {
    let (x, y) = (iota(&[2, 3, 4, 5]), iota(&[2, 5, 4, 6]));
    let wanted = attempt(&[x.clone(), y.clone()], |f, v| {
        let left = f.transpose(v[0], &[0, 2, 1, 3])?;
        let right = f.transpose(v[1], &[0, 2, 1, 3])?;
        let product = f.matmul(left, right, false, false)?;
        f.transpose(product, &[0, 2, 1, 3])
    });
    let found = attempt(&[x, y], |f, v| {
        f.push_one(Op::Einsum(Einsum { values: [v[0], v[1]], equation: "nchw,nwhu->nchu".into() }))
    });
    assert_same(&found.unwrap(), &wanted.unwrap());
    // One h of the one with two of the other.
    let (x, y) = (f32s(&[1, 1, 2], &[1.0, 2.0]), f32s(&[2, 2, 1], &[1.0, 10.0, 100.0, 1000.0]));
    gives(
        &[x, y],
        |f, v| f.push_one(Op::Einsum(Einsum { values: [v[0], v[1]], equation: "chw,whr->chr".into() })),
        &f32s(&[1, 2, 1], &[201.0, 2010.0]),
    );
}

#[test]
fn normalisations_as_text() {
    let mut f = Builder::new("main", Opset::Ios18);
    let x = f.parameter("a0_x", TensorType::new(DType::F16, &[1, 2, 3, 4]), Role::Batch);
    let constant = |f: &mut Builder, name: &str, dtype| f.constant(name, tensor(dtype, &[2], &[0.5, 2.0]));
    let mean = constant(&mut f, "mean", DType::F16);
    let variance = constant(&mut f, "variance", DType::F32);
    let (gamma, beta) = (Some(mean), Some(variance));
    for n in [
        Normalisation::Batch { x, mean, variance, gamma: None, beta: None, epsilon: 0.5 },
        Normalisation::Batch { x, mean, variance, gamma, beta, epsilon: 1e-12 },
        Normalisation::Instance { x, gamma, beta, epsilon: 0.5 },
        Normalisation::Layer { x, axes: vec![1], gamma, beta, epsilon: 0.5 },
        Normalisation::Layer { x, axes: vec![2, 3], gamma: None, beta: None, epsilon: 0.5 },
        Normalisation::L2 { x, epsilon: 0.5 },
        Normalisation::LocalResponse { x, size: 3, alpha: 0.5, beta: 0.75, k: 1.0 },
    ] {
        f.push(Op::Normalisation(n)).unwrap();
    }
    let equation = "nchw,nwhu->nchu".to_string();
    let square = f.reshape(x, &[1, 2, 3, 4]).unwrap();
    let other = f.reshape(x, &[1, 4, 3, 2]).unwrap();
    let y = f.push_one(Op::Einsum(Einsum { values: [square, other], equation })).unwrap();
    f.output("y", y);
    prints("normalisation", vec![f.finish()]);
}
