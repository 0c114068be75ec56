//! `arcane run`.

use std::fmt::Write;

use arcane_tensor::{DType, Tensor, read_npz, write_npz};

use crate::support::{Place, text};

const PROGRAM: &str = "program(1.0)\n{ func double<ios15>(tensor<fp32, [2, 3]> x) {\n\
    tensor<fp32, [2, 3]> y = add(x = x, y = x); tensor<fp32, [2]> s = reduce_sum(x = y, axes = tensor<int32, [1]>([-1])); } -> (y, s);\n\
    func main<ios15>(tensor<fp16, [2]> a, tensor<bool, [2]> keep) {\n\
    tensor<fp16, [2]> z = real_div(x = a, y = tensor<fp16, []>(0.0));\n\
    tensor<fp16, [2]> w = select(cond = keep, a = a, b = z); } -> (w); }\n";

pub(crate) fn place() -> Place {
    let place = Place::new();
    place.write("two.mil", PROGRAM.as_bytes());
    let x = Tensor::new(&[2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.5]).unwrap();
    write_npz(&place.path("x.npz"), &[("x".into(), &x)]).unwrap();
    place
}

#[test]
fn a_function_is_run_by_name_on_arrays_by_name() {
    let place = place();
    place.succeed(&["run", "two.mil", "--inputs", "x.npz", "--outputs", "y.npz", "--function", "double"]);
    let outputs = read_npz(&place.path("y.npz")).unwrap();
    let [(y, doubled), (s, sums)] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((y.as_str(), s.as_str()), ("y", "s"));
    assert_eq!(doubled, &Tensor::new(&[2, 3], vec![2.0f32, 4.0, 6.0, 8.0, 10.0, 13.0]).unwrap());
    assert_eq!(sums, &Tensor::new(&[2], vec![12.0f32, 31.0]).unwrap());
}

#[test]
fn arrays_are_of_any_type_and_rank() {
    let place = place();
    let types = [DType::F16, DType::F32, DType::I32, DType::Bool];
    let (mut parameters, mut body, mut outputs, mut arrays) = (vec![], String::new(), vec![], vec![]);
    for dtype in types {
        for (rank, shape) in [&[][..], &[1], &[2, 0, 3], &[1, 2, 1, 2, 1]].into_iter().enumerate() {
            let (x, y) = (format!("{dtype}_{rank}"), format!("{dtype}_{rank}_out"));
            parameters.push(format!("tensor<{dtype}, {shape:?}> {x}"));
            writeln!(body, "tensor<{dtype}, {shape:?}> {y} = identity(x = {x});").unwrap();
            outputs.push(y);
            let values: Vec<f64> = (0..shape.iter().product()).map(|i| (i % 2) as f64).collect();
            arrays.push((x, Tensor::from_f64s(dtype, shape, &values).unwrap()));
        }
    }
    let (parameters, names) = (parameters.join(", "), outputs.join(", "));
    let program = format!("program(1.0) {{ func main<ios17>({parameters}) {{ {body} }} -> ({names}); }}");
    place.write("types.mil", program.as_bytes());
    let named: Vec<(String, &Tensor)> = arrays.iter().map(|(n, t)| (n.clone(), t)).collect();
    write_npz(&place.path("types.npz"), &named).unwrap();
    place.succeed(&["run", "types.mil", "--inputs", "types.npz", "--outputs", "back.npz"]);
    let back = read_npz(&place.path("back.npz")).unwrap();
    assert_eq!(back.len(), arrays.len());
    for (name, array) in &arrays {
        let (_, same) = back.iter().find(|(n, _)| *n == format!("{name}_out")).unwrap();
        assert_eq!(same, array, "{name}");
    }
}

#[test]
fn values_that_are_not_finite_are_written_and_reported() {
    let place = place();
    let a = Tensor::from_f64s(arcane_tensor::DType::F16, &[2], &[1.5, 0.0]).unwrap();
    let keep = Tensor::new(&[2], vec![true, false]).unwrap();
    write_npz(&place.path("a.npz"), &[("a".into(), &a), ("keep".into(), &keep)]).unwrap();
    let output = place.arcane(&["run", "two.mil", "--inputs", "a.npz", "--outputs", "w.npz"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "output `w`: 1 of 2 values are not finite\n");
    let w = &read_npz(&place.path("w.npz")).unwrap()[0].1;
    assert!(w.get(0) == 1.5 && w.get(1).is_nan());
}

#[test]
fn inputs_that_do_not_fit_are_refused_and_nothing_is_written() {
    let place = place();
    let half = Tensor::from_f64s(arcane_tensor::DType::F16, &[2, 3], &[0.0; 6]).unwrap();
    let x = Tensor::new(&[2, 3], vec![0.0f32; 6]).unwrap();
    write_npz(&place.path("half.npz"), &[("x".into(), &half)]).unwrap();
    write_npz(&place.path("more.npz"), &[("x".into(), &x), ("z".into(), &x)]).unwrap();
    write_npz(&place.path("none.npz"), &[]).unwrap();
    place.write("junk.npz", b"PK junk");
    for (inputs, expected) in [
        ("half.npz", "half.npz: array `x` is tensor<fp16, [2, 3]>, tensor<fp32, [2, 3]> was expected"),
        ("more.npz", "more.npz: array `z` belongs to no parameter, expected only x"),
        ("none.npz", "none.npz: no array `x`, tensor<fp32, [2, 3]> was expected"),
        ("junk.npz", "junk.npz: "),
        ("missing.npz", "missing.npz: "),
    ] {
        let arguments = ["run", "two.mil", "--inputs", inputs, "--outputs", "y.npz", "--function", "double"];
        let output = place.arcane(&arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
    }
    let arguments = ["run", "two.mil", "--inputs", "x.npz", "--outputs", "y.npz", "--function", "other"];
    let stderr = text(&place.arcane(&arguments).stderr);
    assert!(stderr.contains("no function `other`, expected one of double, main"), "{stderr}");
    assert!(!place.path("y.npz").exists());
}

#[test]
fn an_index_out_of_range_is_a_failure_of_the_run() {
    let place = place();
    place.write(
        "pick.mil",
        b"program(1.3) { func main<ios18>(tensor<fp32, [2, 3]> x, tensor<int32, [1]> i) {\n\
          tensor<fp32, [1, 3]> y = gather(x = x, indices = i, axis = int32(0), batch_dims = int32(0), validate_indices = bool(false));\n\
          } -> (y); }",
    );
    let x = Tensor::new(&[2, 3], vec![0.0f32; 6]).unwrap();
    let i = Tensor::new(&[1], vec![5i32]).unwrap();
    write_npz(&place.path("i.npz"), &[("x".into(), &x), ("i".into(), &i)]).unwrap();
    let output = place.arcane(&["run", "pick.mil", "--inputs", "i.npz", "--outputs", "y.npz"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("index 5 is outside an axis of 2"), "{stderr}");
    assert!(!place.path("y.npz").exists());
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let place = place();
    let reps = "reps = tensor<int32, [2]>([100000, 1000000])";
    let ty = "tensor<fp32, [200000, 3000000]>";
    place.write(
        "huge.mil",
        format!("program(1.3) {{ func main<ios18>(tensor<fp32, [2, 3]> x) {{ {ty} y = tile(x = x, {reps}); }} -> (y); }}")
            .as_bytes(),
    );
    let output = place.arcane(&["run", "huge.mil", "--inputs", "x.npz", "--outputs", "y.npz"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("bytes of memory"), "{stderr}");
}
