//! Packages on the command line, and programs of models.

use std::fs;

use arcane_tensor::{DType, Tensor, read_npz, write_npz};

use crate::support::{Place, text};

const PROGRAM: &str = "program(1.3) { func main<ios18>(tensor<fp32, [2, 3]> x) {\n\
    tensor<fp32, [4, 3]> w = const()[name = string(\"w\"), val = tensor<fp32, [4, 3]>([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])];\n\
    tensor<fp32, [2, 4]> y = linear(x = x, weight = w);\n\
    tensor<fp32, [2, 4]> z = softmax(x = y);\n} -> (z); }\n";

fn place() -> Place {
    let place = Place::new();
    place.write("p.mil", PROGRAM.as_bytes());
    let x = Tensor::new(&[2, 3], vec![0.5f32, -1.0, 0.25, 0.0, 0.125, -0.5]).unwrap();
    write_npz(&place.path("x.npz"), &[("x".into(), &x)]).unwrap();
    place
}

#[track_caller]
fn run(place: &Place, program: &str, inputs: &str) -> Vec<(String, Tensor)> {
    place.succeed(&["run", program, "--inputs", inputs, "--outputs", "out.npz"]);
    read_npz(&place.path("out.npz")).unwrap()
}

#[test]
fn a_program_goes_into_a_package_and_comes_back() {
    let place = place();
    let canonical = place.succeed(&["check", "p.mil", "--print"]);
    assert_eq!(place.succeed(&["convert", "p.mil", "p.mlpackage", "--to", "mlpackage"]), "p.mlpackage\n");
    assert_eq!(place.succeed(&["check", "p.mlpackage", "--print"]), canonical);
    assert!(place.succeed(&["check", "p.mlpackage"]).contains("1 functions, 2 ops, well-typed"));
    place.succeed(&["convert", "p.mlpackage", "back", "--to", "mil"]);
    assert_eq!(fs::read_to_string(place.path("back/model.mil")).unwrap(), canonical);
    let weights = |folder: &str| fs::read(place.path(folder).join("weights/weight.bin")).unwrap();
    assert_eq!(weights("back"), weights("p.mlpackage/Data/com.apple.CoreML"));
    let expected = run(&place, "p.mil", "x.npz");
    assert_eq!(expected.len(), 1);
    for program in ["p.mlpackage", "back", "back/model.mil"] {
        assert_eq!(run(&place, program, "x.npz"), expected, "{program}");
    }
}

#[test]
fn a_model_becomes_a_program() {
    let place = place();
    let tokens = Tensor::new(&[1, 6], vec![1i32, 7, 3, 60, 2, 9]).unwrap();
    write_npz(&place.path("t.npz"), &[("tokens".into(), &tokens)]).unwrap();
    place.succeed(&["convert", "model", "m.mlpackage", "--to", "mlpackage", "--seq", "6", "--dtype", "fp32"]);
    place.succeed(&["convert", "model", "m", "--to", "mil", "--seq", "6", "--dtype", "fp32"]);
    place.succeed(&["convert", "model", "h.mlpackage", "--to", "mlpackage", "--seq", "6"]);
    let whole = run(&place, "m.mlpackage", "t.npz");
    let [(name, logits)] = whole.as_slice() else { panic!("{whole:?}") };
    assert_eq!((name.as_str(), logits.shape(), logits.dtype()), ("logits", &[1, 6, 64][..], DType::F32));
    assert_eq!(run(&place, "m", "t.npz"), whole);
    let half = &run(&place, "h.mlpackage", "t.npz")[0].1;
    assert!((0..half.len()).all(|i| (half.get(i) - logits.get(i)).abs() < 1e-2));
    assert!((0..half.len()).any(|i| half.get(i) != logits.get(i)));
    // The loss of the same tokens, from the logits.
    let loss: f64 = (0..5)
        .map(|p| {
            let row: Vec<f64> = (0..64).map(|v| logits.get(p * 64 + v)).collect();
            row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[tokens.get(p + 1) as usize]
        })
        .sum();
    place.write("t.bin", &[1, 0, 7, 0, 3, 0, 60, 0, 2, 0, 9, 0]);
    let report = place.succeed(&["eval", "model", "--data", "t.bin", "--device", "cpu", "--dtype", "fp32"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!((report["loss"].as_f64().unwrap() - loss / 5.0).abs() < 1e-5, "{report} {loss}");
}

#[test]
fn what_is_wrong_with_a_package_is_said_in_one_line() {
    let place = place();
    place.succeed(&["convert", "p.mil", "p.mlpackage", "--to", "mlpackage"]);
    let model = "p.mlpackage/Data/com.apple.CoreML/model.mlmodel";
    let whole = fs::read(place.path(model)).unwrap();
    let at = whole.windows(7).rposition(|w| w == b"softmax").unwrap();
    let renamed = [&whole[..at], b"softmix", &whole[at + 7..]].concat();
    for (bytes, expected) in [
        (&whole[..whole.len() / 2], "not an ML Program: "),
        (b"", "not an ML Program: it is a model of an unknown kind"),
        (&renamed, "main: operation 4, `softmix` `z`: unknown op `softmix`, expected an op of MIL"),
    ] {
        place.write(model, bytes);
        for arguments in [
            &["check", "p.mlpackage"][..],
            &["run", "p.mlpackage", "--inputs", "x.npz", "--outputs", "y.npz"],
            &["convert", "p.mlpackage", "new", "--to", "mil"],
        ] {
            let output = place.arcane(arguments);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.starts_with(&format!("error: {model}: {expected}")), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
    }
    // Weights that are there are looked into.
    place.write(model, &whole);
    let weights = place.path("p.mlpackage/Data/com.apple.CoreML/weights/weight.bin");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let output = place.arcane(&["check", "p.mlpackage"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("main: operation 1, `const` `w`: "), "{}", text(&output.stderr));
    fs::remove_file(&weights).unwrap();
    place.succeed(&["check", "p.mlpackage"]);
    for file in ["p.mlpackage/Manifest.json", model] {
        fs::remove_file(place.path(file)).unwrap();
        assert_eq!(place.arcane(&["check", "p.mlpackage"]).status.code(), Some(2), "{file}");
    }
}
