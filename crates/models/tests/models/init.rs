use arcane_models::{Init, initialize, initialize_parameter, parameters, preset};
use arcane_tensor::{DType, Tensor};

use crate::tiny;

#[test]
fn the_seed_and_the_name_decide_the_bytes() {
    let config = tiny(true);
    assert_eq!(initialize(&config, 7), initialize(&config, 7));
    let specs = parameters(&config);
    let query = specs.iter().find(|s| s.name.ends_with("0.self_attn.q_proj.weight")).unwrap();
    let mut renamed = query.clone();
    renamed.name = query.name.replace("layers.0", "layers.1");
    let drawn = initialize_parameter(query, 7);
    assert_ne!(drawn, initialize_parameter(query, 8));
    assert_ne!(drawn, initialize_parameter(&renamed, 7));
}

#[test]
fn a_tensor_depends_on_no_other() {
    let all = initialize(&tiny(true), 3);
    for (spec, (name, tensor)) in parameters(&tiny(true)).iter().zip(&all) {
        assert_eq!((&spec.name, spec.shape.as_slice()), (name, tensor.shape()));
        assert_eq!(&initialize_parameter(spec, 3), tensor);
        assert_eq!(tensor.dtype(), DType::F32);
    }
}

/// Mean, standard deviation and kurtosis.
fn moments(tensor: &Tensor) -> [f64; 3] {
    let values = tensor.to_f64s();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let central = |power| values.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
    [mean, central(2).sqrt(), central(4) / central(2).powi(2)]
}

#[test]
fn matrices_are_normal_and_gains_one() {
    let config = preset("stories260k").unwrap();
    for spec in parameters(&config) {
        let tensor = initialize_parameter(&spec, 1);
        let Init::Normal { std } = spec.init else {
            assert!(tensor.as_slice::<f32>().unwrap().iter().all(|&x| x == 1.0));
            assert!(!spec.decay && spec.shape.len() == 1);
            continue;
        };
        let residual = spec.name.contains("o_proj") || spec.name.contains("down_proj");
        let expected = if residual { 0.02 / 10f64.sqrt() } else { 0.02 };
        assert!((std / expected - 1.0).abs() < 1e-12, "{}", spec.name);
        let [mean, deviation, kurtosis] = moments(&tensor);
        let error = std / (tensor.len() as f64).sqrt();
        assert!(mean.abs() < 5.0 * error, "{}: mean {mean}", spec.name);
        assert!((deviation - std).abs() < 5.0 * error, "{}: deviation {deviation}", spec.name);
        assert!((kurtosis - 3.0).abs() < 0.6, "{}: kurtosis {kurtosis}", spec.name);
        assert!(spec.decay && spec.shape.len() == 2);
    }
}
