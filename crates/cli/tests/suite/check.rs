//! `arcane check`.

use crate::support::{Place, text};

const PROGRAM: &str = "program(1.3) { func main<ios18>(tensor<fp32, [2, 3]> x) {\n\
                       tensor<fp32, [2]> y = reduce_sum(x = x, axes = tensor<int32, [1]>([-1]));\n\
                       } -> (y); }\n";

#[test]
fn a_program_is_checked_and_printed_in_canonical_form() {
    let place = Place::new();
    std::fs::create_dir(place.path("kernel")).unwrap();
    place.write("kernel/model.mil", PROGRAM.as_bytes());
    for program in ["kernel", "kernel/model.mil"] {
        let output = place.arcane(&["check", program]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("1 functions, 1 ops, well-typed"), "{}", text(&output.stdout));
    }
    let printed = place.arcane(&["check", "kernel", "--print"]).stdout;
    assert!(
        text(&printed).contains("keep_dims = bool(false)") || text(&printed).contains("val = bool(false)")
    );
    place.write("canonical.mil", &printed);
    assert_eq!(text(&place.arcane(&["check", "canonical.mil", "--print"]).stdout), text(&printed));
}

#[test]
fn a_refusal_names_the_place() {
    let place = Place::new();
    place.write("wrong.mil", PROGRAM.replace("tensor<fp32, [2]> y", "tensor<fp32, [3]> y").as_bytes());
    place.write("cut.mil", &PROGRAM.as_bytes()[..100]);
    for (program, expected) in [
        ("wrong.mil", "error: wrong.mil:2:1: "),
        ("cut.mil", "error: cut.mil:"),
        ("none.mil", "error: none.mil: "),
    ] {
        let output = place.arcane(&["check", program]);
        assert_eq!(output.status.code(), Some(2));
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with(expected) && stderr.lines().count() == 1, "{stderr}");
    }
}

const KERNEL: &str = "program(1.3) { func main<ios18>(tensor<fp16, [4, 64]> x, tensor<fp16, [4, 64]> m) {\n\
                      tensor<fp16, [64, 64]> w = const()[name = string(\"w\"), val = tensor<fp16, [64, 64]>(\n\
                      BLOBFILE(path = string(\"@model_path/weights/weight.bin\"), offset = uint64(64)))];\n\
                      tensor<fp16, [4, 64]> q = linear(x = x, weight = w);\n\
                      tensor<fp16, [4, 128]> y = tile(x = q, reps = tensor<int32, [2]>([1, 2]));\n\
                      } -> (y); }\n";

#[test]
fn violations_of_a_chip_are_listed_one_a_line() {
    let place = Place::new();
    place.write("kernel.mil", KERNEL.as_bytes());
    let output = place.arcane(&["check", "kernel.mil", "--chip", "m4"]);
    assert_eq!(output.status.code(), Some(1));
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("y (tile): O05 ") && stdout.lines().count() == 1, "{stdout}");
    assert!(stdout.contains("; remedy: write concat"), "{stdout}");
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("note: main (function): S02 "), "{stderr}");
    assert!(stderr.ends_with("error: kernel.mil: 1 violations of what m4 runs\n"), "{stderr}");

    let output = place.arcane(&["check", "kernel.mil", "--chip", "m1", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<_> = found.as_array().unwrap().iter().map(|v| v["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["T03", "O05"]);
    assert_eq!(found[1]["severity"], "refused");
    assert_eq!(found[1]["actual"], "reps [1, 2]");
}

#[test]
fn a_program_that_a_chip_runs_is_accepted() {
    let place = Place::new();
    let concat = "concat(values = (q, q), axis = int32(1), interleave = bool(false))";
    let program = KERNEL.replace("tile(x = q, reps = tensor<int32, [2]>([1, 2]))", concat);
    place.write("kernel.mil", program.as_bytes());
    for arguments in
        [&["check", "kernel.mil", "--chip", "m4"] as &[_], &["check", "kernel.mil", "--chip", "m4", "--json"]]
    {
        let output = place.arcane(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(["", "[]\n"].contains(&text(&output.stdout).as_str()));
        assert!(text(&output.stderr).ends_with("kernel.mil: nothing is against running it on m4\n"));
    }
}

#[test]
fn an_unknown_chip_is_wrong_usage() {
    let place = Place::new();
    place.write("kernel.mil", KERNEL.as_bytes());
    let output = place.arcane(&["check", "kernel.mil", "--chip", "m4-ultra"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: unknown chip `m4-ultra`, one of m1, m1-pro, "), "{stderr}");
    assert!(stderr.lines().count() == 1 && output.stdout.is_empty());
}
