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
