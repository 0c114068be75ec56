//! Texts that are refused, where and why; and texts that nobody would write.

use arcane_mil::{NoWeights, check, read};
use proptest::prelude::*;

use super::reading::text;

/// The statement stands on line 4 of a function of x: fp16 `[2, 3]`, i: int32 `[2]`, c: the constant 1.
#[track_caller]
fn refuses(statement: &str, message: &str) {
    let constant = "fp16 c = const()[name = string(\"c\"), val = fp16(1)];\n";
    let parameters = "tensor<fp16, [2, 3]> x, tensor<int32, [2]> i";
    let text = text(parameters, &format!("{constant}{statement}"), "y");
    let error = read(&text, &NoWeights).expect_err(statement);
    assert_eq!(error.to_string(), message, "{statement}");
    assert_eq!(check(&text, &NoWeights).unwrap_err(), error);
}

#[track_caller]
pub(super) fn refuses_text(text: &str, message: &str) {
    assert_eq!(read(text, &NoWeights).expect_err(text).to_string(), message, "{text}");
}

#[test]
fn names_are_defined_once_and_before_their_use() {
    let y = "tensor<fp16, [2, 3]> y";
    refuses(
        &format!("{y} = abs(x = nope);"),
        "5:34: `nope` is not defined, expected a parameter, or the result of an op before this one",
    );
    refuses(
        &format!("{y} = abs(x = y);"),
        "5:34: `y` is not defined, expected a parameter, or the result of an op before this one",
    );
    refuses("tensor<fp16, [2, 3]> x = abs(x = x);", "5:22: `x` is defined twice, expected another name");
    refuses("fp16 c = const()[val = fp16(2)];", "5:6: `c` is defined twice, expected another name");
    refuses("", "6:7: `y` is not defined, expected a parameter, or the result of an op before this one");
    refuses(
        "string s = const()[val = string(\"a\")]; fp16 y = abs(x = s);",
        "5:57: `s` is a string, expected a tensor or a number",
    );
}

#[test]
fn declared_types_are_what_the_ops_give() {
    refuses(
        "tensor<fp16, [2, 4]> y = abs(x = x);",
        "5:1: `y` is declared as tensor<fp16, [2, 4]>, expected tensor<fp16, [2, 3]>, which abs gives",
    );
    refuses(
        "tensor<fp32, [2, 3]> y = abs(x = x);",
        "5:1: `y` is declared as tensor<fp32, [2, 3]>, expected tensor<fp16, [2, 3]>, which abs gives",
    );
    refuses("abs(x = x);", "5:1: abs is given 0 results, expected 1");
    refuses(
        "tensor<fp16, [?, 4]> y = abs(x = x);",
        "5:1: `y` is declared as tensor<fp16, [?, 4]>, expected tensor<fp16, [2, 3]>, which abs gives",
    );
    refuses(
        "fp16 y = const()[val = fp32(1)];",
        "5:1: `y` is declared as fp16, expected fp32, the type of its value",
    );
    refuses(
        "fp16 y = const()[name = string(\"y\")];",
        "5:10: const has no attribute `val`, expected `val` with the value",
    );
}

#[test]
fn operands_have_the_types_of_the_definitions() {
    let y = "tensor<fp16, [2, 3]> y";
    refuses("tensor<int32, [2]> y = exp(x = i);", "5:32: x is int32, expected fp16 or fp32");
    refuses(&format!("{y} = add(x = x, y = int8(1));"), "5:41: y is int8, expected fp16, fp32 or int32");
    refuses(
        &format!("{y} = add(x = x, y = i);"),
        "5:26: add: the operands are tensor<fp16, [2, 3]> and tensor<int32, [2]>, one dtype was expected",
    );
    refuses(
        &format!("{y} = gather(x = x, indices = x);"),
        "5:50: indices is fp16, expected int32, uint16, int16, int8 or uint8",
    );
    refuses(
        &format!("{y} = linear(x = x, weight = x);"),
        "5:49: weight is a run-time value, expected a constant",
    );
    refuses(
        &format!("{y} = cast(dtype = string(\"int4\"), x = x);"),
        "5:39: dtype is `int4`, expected a type such as fp16, int32 or bool",
    );
}

#[test]
fn parameters_are_known_present_constant_and_in_range() {
    let y = "tensor<fp16, [2, 3]> y";
    let softmax = |axis: &str| format!("{y} = softmax(axis = {axis}, x = x);");
    refuses(
        &format!("{y} = abs(x = x, bogus = x);"),
        "5:37: abs has no parameter `bogus`, expected one of x",
    );
    refuses(
        &format!("{y} = mul(y = x);"),
        "5:26: mul: the parameter `x` is missing, expected a value for it",
    );
    refuses(&format!("{y} = abs(x = x, x = x);"), "5:37: the parameter `x` is given twice, expected it once");
    refuses(&softmax("int32(2)"), "5:41: axis has 2, expected an axis of tensor<fp16, [2, 3]>, -2 to 1");
    refuses(&softmax("i"), "5:41: axis is a run-time value, expected a constant");
    refuses(&softmax("c"), "5:41: axis is fp16, expected an integer");
    refuses(&softmax("2"), "5:41: found `2`, expected a name or a typed value");
    refuses(
        "fp16 y = reduce_sum(axes = tensor<int32, [2]>([0, -2]), x = x);",
        "5:28: axes has axis 0 twice, expected each once",
    );
    refuses(
        &format!("{y} = transpose(perm = tensor<int32, [2]>([0, 0]), x = x);"),
        "5:26: transpose: perm [0, 0] is no permutation of the 2 dimensions of tensor<fp16, [2, 3]>",
    );
    refuses(
        &format!("{y} = gather(batch_dims = int32(1), indices = i, x = x);"),
        "5:26: gather: axis 0 is one of the 1 batch dimensions",
    );
    refuses(
        "tensor<fp16, [2, 1]> y = split(axis = int32(1), num_splits = int32(3), x = x);",
        "5:62: num_splits is 3, expected 1, the number of results",
    );
    refuses(
        &format!("{y} = rsqrt(epsilon = fp16(inf), x = x);"),
        "5:42: epsilon is inf, expected a finite number",
    );
}

#[test]
fn ops_are_known() {
    refuses(
        "fp16 y = classify(x = x);",
        "5:10: op `classify` is not supported yet, expected one that this version has",
    );
    refuses("fp16 y = convolve(x = x);", "5:10: unknown op `convolve`, expected an op of MIL");
    let attention = text(
        "tensor<fp16, [1, 2, 4]> q",
        "tensor<fp16, [1, 2, 4]> y = scaled_dot_product_attention(key = q, query = q, value = q);",
        "y",
    );
    refuses_text(
        &attention.replace("ios18", "ios17"),
        "4:29: scaled_dot_product_attention: the function is ios17, expected ios18 or later",
    );
}

#[test]
fn the_frame_is_whole() {
    let good = text("tensor<fp16, [2]> x", "tensor<fp16, [2]> y = abs(x = x);", "y");
    assert!(read(&good, &NoWeights).is_ok());
    let cases = [
        ("program(1.3)", "program()", "1:9: found `)`, expected a version such as 1.3"),
        ("program(1.3)", "program(1.5)", "1:9: the version is `1.5`, expected 1.0 or 1.3"),
        ("main<ios18>", "main", "3:10: found `(`, expected `<`"),
        ("ios18", "ios19", "3:11: the opset is `ios19`, expected ios15, ios16, ios17 or ios18"),
        ("x);\n}", "x)\n}", "4:33: found `}`, expected `;`"),
        (" = abs", " $ abs", "4:21: found the character '$', expected MIL text"),
        ("fp16", "fp17", "3:25: unknown type `fp17`, expected a type such as fp16 or tensor<fp16, [2]>"),
        (" -> (y)", "", "5:2: found `;`, expected `->` and the outputs"),
        ("-> (y)", "-> (y, y)", "5:10: the output `y` is given twice, expected it once"),
        (
            "-> (y)",
            "-> (x)",
            "5:7: the output `x` is a parameter, expected the result of an op (insert an identity)",
        ),
        (";\n}\n", ";\n", "6:1: the text ends here, expected `func` or `}`"),
        (";\n}\n", ";\n} }", "6:3: found `}`, expected nothing after the program"),
        ("{\nfunc", "{}\nfunc", "2:2: found `}`, expected `func`"),
        ("[2]> x", "[2, 1, 1, 1, 1, 1]> x", "3:18: the type has rank 6, expected rank 5 or less"),
        (
            "[2]> x",
            "[99999999999, 99999999999]> x",
            "3:18: tensor<fp16, [99999999999, 99999999999]> is larger than memory can be, expected smaller dimensions",
        ),
        ("[2]> x", "[-2]> x", "3:32: found `-2`, expected a dimension: a whole number from 0, or `?`"),
        (
            "tensor<fp16, [2]> x",
            "list<tensor<fp16, [2]>, 3> x",
            "3:18: values of type list<tensor<fp16, [2]>, 3> are not supported yet, expected a tensor or a number",
        ),
        (
            "x = x)",
            "x = x) { }",
            "4:34: found `{`, expected `;`: blocks have no known text, they are read from packages",
        ),
    ];
    for (from, to, message) in cases {
        assert!(good.contains(from), "{from}");
        refuses_text(&good.replacen(from, to, 1), message);
    }
    let twice = good.replace("}\n", "}").replacen("-> (y);", "-> (y); func main<ios18>() { } -> ();", 1);
    let error = read(&twice, &NoWeights).unwrap_err();
    assert_eq!((error.what.as_str(), error.expected.as_str()), ("a second function `main`", "another name"));
}

#[test]
fn columns_count_characters() {
    refuses_text(
        &text("fp16 x", "fp16 y = abs(x = x)[note = string(\"größe\")]", "y").replace("\")]", "\")] §"),
        "4:45: found the character '§', expected MIL text",
    );
}

/// A text with most of the grammar.
fn sample() -> String {
    text(
        "tensor<fp16, [2, 3]> x, fp32 s",
        "int32 a = const()[name = string(\"a\\\"b\"), val = int32(-1)];\n\
         tensor<fp16, [2, 3]> w = const()[val = tensor<fp16, [2, 3]>([[0x1p-1, -1.5e-3, 1], [2, 3, inf]])];\n\
         tensor<fp16, [2, 3]> h = softmax(axis = a, x = x);\n\
         tensor<fp16, [2, 6]> k = concat(axis = a, values = (h, w));\n\
         tensor<fp16, [2, 3]> p, tensor<fp16, [2, 3]> q = split(axis = a, num_splits = int32(2), x = k);\n\
         tensor<fp16, [3, 2]> r = reshape(shape = tensor<int32, [2]>([-1, 2]), x = p);",
        "q, r",
    )
}

#[test]
fn a_text_cut_anywhere_is_refused() {
    let text = sample();
    read(&text, &NoWeights).unwrap();
    let end = text.trim_end().len();
    for n in 0..end {
        assert!(read(&text[..n], &NoWeights).is_err(), "{n} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_texts_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4)
    ) {
        let characters: Vec<char> = "()[]{}<>,;=?.-+\"\\0123456789aexpx_@ \n\u{e9}\u{0}".chars().collect();
        let mut text: Vec<char> = sample().chars().collect();
        for (at, with) in &changes {
            let at = at.index(text.len());
            match with.index(characters.len() + 2) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, text[at]),
                c => text[at] = characters[c - 2],
            }
        }
        let text: String = text.into_iter().collect();
        let whole = read(&text, &NoWeights);
        let checked = check(&text, &NoWeights);
        prop_assert_eq!(whole.is_ok(), checked.is_ok());
    }

    #[test]
    fn shuffled_tokens_are_read_or_refused(
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..60)
    ) {
        let sample = sample();
        let tokens: Vec<&str> = sample.split_inclusive([' ', '(', ')', '[', ']', '<', '>', ',', ';', '=']).collect();
        let body: String = picks.iter().map(|p| *p.get(&tokens)).collect();
        let _ = read(&text("tensor<fp16, [2, 3]> x", &body, "x"), &NoWeights);
    }
}
