//! Texts that are read, and what comes of them.

use std::path::Path;

use arcane_mil::{
    BlobFolder, Emitted, Function, NoWeights, Op, Opset, Program, Role, TensorType, Unary, check, print, read,
};
use arcane_tensor::{DType, Tensor};

/// A folder with the weight file of a printed program.
pub(super) fn folder_of(emitted: &Emitted) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("weights")).unwrap();
    std::fs::write(folder.path().join("weights/weight.bin"), &emitted.weights).unwrap();
    folder
}

/// Reads what was printed and prints it again: the same bytes.
#[track_caller]
pub(super) fn comes_back(emitted: &Emitted) -> Program {
    let folder = folder_of(emitted);
    let program = read(&emitted.text, &BlobFolder::new(folder.path())).unwrap_or_else(|e| panic!("{e}"));
    let again = print(&program).unwrap();
    if let Some((n, (a, b))) =
        again.text.lines().zip(emitted.text.lines()).enumerate().find(|(_, (a, b))| a != b)
    {
        panic!("line {}: found\n{a}\nexpected\n{b}", n + 1);
    }
    assert_eq!(&again, emitted);
    check(&emitted.text, &NoWeights).unwrap_or_else(|e| panic!("{e}"));
    program
}

/// A function of opset ios18 with these parameters, statements and outputs.
pub(super) fn text(parameters: &str, body: &str, outputs: &str) -> String {
    format!("program(1.3)\n{{\nfunc main<ios18>({parameters}) {{\n{body}\n}} -> ({outputs});\n}}\n")
}

/// The one function of a text without weight files.
#[track_caller]
fn function(text: &str) -> Function {
    let program = read(text, &NoWeights).unwrap_or_else(|e| panic!("{e}"));
    program.functions.into_iter().next().unwrap()
}

/// The last op of a function of x: fp16 `[2, 3]`, i: int32 `[2]`.
#[track_caller]
fn last(body: &str) -> Op {
    let f = function(&text("tensor<fp16, [2, 3]> x, tensor<int32, [2]> i", body, "y"));
    f.operations().last().unwrap().op.clone()
}

fn golden(case: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(format!("{case}.mil"));
    std::fs::read_to_string(file).unwrap()
}

/// The golden texts give every op run-time operands, which only programs in memory may do with `linear`.
pub(super) fn without_open_linear(text: &str) -> String {
    text.lines()
        .filter(|l| !l.contains(" = linear(weight = a0_x") && !l.contains(" = linear(bias = a4"))
        .fold(String::new(), |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        })
}

#[test]
fn canonical_texts_come_back() {
    for case in ["every_op", "long_dialect"] {
        let text = without_open_linear(&golden(case));
        let program = read(&text, &NoWeights).unwrap_or_else(|e| panic!("{case}.mil:{e}"));
        assert_eq!(print(&program).unwrap(), Emitted { text, weights: Vec::new() }, "{case}");
    }
}

#[test]
fn both_dialects_are_read_under_both_versions() {
    let short = "program(1.0)[buildInfo=dict<string,string>({})]{func f<ios18>(fp16 x){\
        fp16 c=const()[name=tensor<string,[]>(\"c\"),val=tensor<fp16,[]>(2)];fp16 y=add(x=x,y=c);}->(y);}";
    let f = function(short);
    assert_eq!((f.name(), f.opset()), ("f", Opset::Ios18));
    let long = "program(1.3) [note = tuple<string, list<int32, ?>>((\"x\", [1, 2]))] { \
        func f < ios15 > ( tensor < fp16 , [ ] > x ) [ a = tensor<int4, [2]>([1, 2]) ] { \
        tensor < fp16 , [ ] > y = square ( x = x ) [ other = tensor<fp16, [?]>([1]) ] ; } -> ( y ) ; }";
    let f = function(long);
    assert_eq!(f.ty(f.outputs()[0].value), &TensorType::new(DType::F16, &[]));
    assert_eq!(f.value(f.outputs()[0].value).path, "y");
}

#[test]
fn attributes_without_a_meaning_are_kept() {
    let short = "program(1.3)\n\
        [author = string(\"a, b\"), buildInfo = dict<string, string>({{\"coremltools-version\", \"9.0\"}})]\n\
        {\n    func main<ios18>(tensor<fp16, [2]> x) \
        [FlexibleShapeInformation = tuple<string, dict<string, tensor<int32, [?]>>>((\"RangeDims\", {{\"x\", [1, 2]}}))] {\n\
        \x20           tensor<fp16, [2]> w = const()[name = string(\"w\"), note = int32(-1), val = tensor<fp16, [2]>([0x1p+0, 0x1p+1])];\n\
        \x20           tensor<fp16, [2]> y = add(x = x, y = w)[alpha = fp16(0x1p-1), name = string(\"y\"), odd = tensor<bool, [2]>([true, false])];\n\
        \x20       } -> (y);\n}\n";
    let program = read(short, &NoWeights).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(print(&program).unwrap().text, short);
    // The same in the long dialect, and from any spelling.
    let long = print(&read(&short.replace("ios18", "ios16"), &NoWeights).unwrap()).unwrap().text;
    assert!(
        long.contains(
            "alpha = tensor<fp16, []>(0x1p-1), name = tensor<string, []>(\"y\"), odd = tensor<bool, [2]>"
        ),
        "{long}"
    );
    assert!(
        long.contains("tuple<tensor<string, []>, dict<tensor<string, []>, tensor<int32, [?]>>>"),
        "{long}"
    );
    assert_eq!(print(&read(&long, &NoWeights).unwrap()).unwrap().text, long);
    let loose = short.replace(", ", " ,\n").replace("= ", "=").replace("a ,\nb", "a, b");
    assert_eq!(print(&read(&loose, &NoWeights).unwrap()).unwrap().text, short);
    assert_eq!(print(&read(&long.replace("ios16", "ios18"), &NoWeights).unwrap()).unwrap().text, short);
}

#[test]
fn ports_keep_their_identifiers_and_values_their_names() {
    let f = function(&text(
        "tensor<fp16, [2]> x",
        "tensor<fp16, [1]> lo, tensor<fp16, [1]> hi = split(axis = int32(0), num_splits = int32(2), x = x)\
         [name = string(\"layers.0.halves\")];\
         tensor<fp16, [1]> y = add(x = lo, y = hi);",
        "y, hi",
    ));
    assert_eq!((f.parameters()[0].name.as_str(), f.parameters()[0].role), ("x", Role::Batch));
    let outputs: Vec<&str> = f.outputs().iter().map(|o| o.name.as_str()).collect();
    assert_eq!(outputs, ["y", "hi"]);
    let paths: Vec<&str> = f.values().iter().map(|v| v.path.as_str()).collect();
    assert_eq!(paths, ["x", "layers.0.halves", "hi", "y"]);
}

#[test]
fn constants_become_parameters_of_ops_unless_they_are_operands_too() {
    let consts = "int32 axis = const()[val = int32(-2)]; fp16 eps = const()[val = fp16(0.5)];\
        tensor<int32, [2]> rows = const()[val = tensor<int32, [2]>([1, 0])];\
        fp16 unused = const()[val = fp16(1)];";
    let body = "tensor<fp16, [2, 3]> s = softmax(axis = axis, x = x);\
        tensor<fp16, [2, 3]> r = rsqrt(epsilon = eps, x = s);\
        tensor<fp16, [2, 3]> e = add(x = r, y = eps);\
        tensor<fp16, [2, 3]> y = gather(axis = axis, indices = rows, x = e);";
    let f = function(&text("tensor<fp16, [2, 3]> x", &format!("{consts}{body}"), "y"));
    let names: Vec<&str> = f.operations().iter().map(|o| o.op.name()).collect();
    assert_eq!(names, ["const", "const", "const", "softmax", "rsqrt", "add", "gather"]);
    let paths: Vec<&str> = f.values().iter().map(|v| v.path.as_str()).collect();
    assert_eq!(paths, ["x", "eps", "rows", "unused", "s", "r", "e", "y"]);
    assert!(matches!(f.operations()[3].op, Op::Softmax { axis: 0, .. }));
    assert!(matches!(f.operations()[4].op, Op::Unary { kind: Unary::Rsqrt { epsilon: 0.5 }, .. }));
}

#[test]
fn literals_stand_for_operands() {
    let f = function(&text(
        "tensor<fp16, [1]> x",
        "tensor<fp16, [3]> y = concat(axis = int32(0), values = (x, tensor<fp16, [2]>([1, 2])));",
        "y",
    ));
    let Op::Const(tensor) = &f.operations()[0].op else { panic!("{:?}", f.operations()[0]) };
    assert_eq!(**tensor, Tensor::from_f64s(DType::F16, &[2], &[1.0, 2.0]).unwrap());
    assert_eq!(f.value(f.operations()[0].results[0]).path, "y.values.1");
}

#[test]
fn bare_flags_are_bools_unless_a_value_is_called_so() {
    let kept =
        "tensor<fp16, [2, 1]> y = reduce_sum(axes = tensor<int32, [1]>([1]), keep_dims = true, x = x);";
    assert!(matches!(last(kept), Op::Reduce { keep_dims: true, .. }));
    let not = "bool true = const()[val = bool(false)];
        tensor<fp16, [2]> y = reduce_sum(axes = tensor<int32, [1]>([1]), keep_dims = true, x = x);";
    assert!(matches!(last(not), Op::Reduce { keep_dims: false, .. }));
}

#[test]
fn parameters_left_out_have_their_defaults() {
    let axes = |op: Op| match op {
        Op::Reduce { axes, keep_dims, .. } => (axes, keep_dims),
        other => panic!("{other:?}"),
    };
    assert_eq!(axes(last("fp16 y = reduce_sum(x = x);")), (vec![0, 1], false));
    let some = "fp16 y = reduce_sum(axes = tensor<int32, [2]>([-1, 0]), x = x);";
    assert_eq!(axes(last(some)), (vec![0, 1], false));
    assert!(matches!(last("tensor<fp16, [2, 3]> y = softmax(x = x);"), Op::Softmax { axis: 1, .. }));
    let product = "tensor<fp16, [2, 2]> y = matmul(transpose_y = bool(true), x = x, y = x);";
    assert!(matches!(last(product), Op::Matmul { transpose_x: false, transpose_y: true, .. }));
    let rsqrt = "tensor<fp16, [2, 3]> y = rsqrt(x = x);";
    assert!(matches!(last(rsqrt), Op::Unary { kind: Unary::Rsqrt { epsilon: 1e-12 }, .. }));
    let fill = "tensor<fp32, [4]> y = fill(shape = tensor<int32, [1]>([4]));";
    assert!(matches!(last(fill), Op::Fill { dtype: DType::F32, value: 0.0, .. }));
    assert!(matches!(
        last("tensor<fp16, [2, 3]> y = gather(indices = i, x = x);"),
        Op::Gather { axis: 0, .. }
    ));
}

#[test]
fn operands_of_another_type_are_converted_where_mil_allows_it() {
    let body = "tensor<int32, [4, 3]> w = const()[val = tensor<int32, [4, 3]>(2)];\
        tensor<fp16, [2, 4]> y = linear(bias = tensor<fp32, [4]>(0.1), weight = w, x = x);";
    let source = text("tensor<fp16, [2, 3]> x", body, "y");
    let f = function(&source);
    let names: Vec<&str> = f.operations().iter().map(|o| o.op.name()).collect();
    assert_eq!(names, ["const", "const", "const", "const", "linear"]);
    assert!(f.operations()[4].op.operands().iter().all(|&v| f.ty(v).dtype == DType::F16));
    assert!(check(&source, &NoWeights).is_ok());
    let error = read(&source.replace("ios18", "ios16"), &NoWeights).unwrap_err().to_string();
    assert!(error.contains("linear: weight is tensor<int32, [4, 3]>"), "{error}");
}

#[test]
fn vectors_are_matrices_of_one_row_or_column() {
    let shapes = |body: &str| {
        let f =
            function(&text("tensor<fp32, [2, 3]> a, tensor<fp32, [3]> b, tensor<fp32, [2]> c", body, "y"));
        let operands = f.operations().iter().find(|o| o.op.name() == "matmul").unwrap().op.operands();
        [&f.ty(operands[0]).shape, &f.ty(operands[1]).shape, &f.ty(f.outputs()[0].value).shape]
            .map(Vec::clone)
    };
    let vector = |x: &str, y: &str, n: usize| {
        format!("tensor<fp32, [{n}]> y = matmul(transpose_x = bool(true), x = {x}, y = {y});")
    };
    assert_eq!(shapes(&vector("c", "a", 3)), [vec![1, 2], vec![2, 3], vec![3]]);
    assert_eq!(shapes(&vector("a", "c", 3)), [vec![2, 3], vec![2, 1], vec![3]]);
    assert_eq!(
        shapes("fp32 y = matmul(transpose_y = bool(true), x = b, y = b);"),
        [vec![1, 3], vec![3, 1], vec![]]
    );
}

#[test]
fn shapes_are_worked_out() {
    let shape = |opset: &str, x: &str, wanted: &str, y: &str| {
        let n = wanted.split(',').count();
        let body =
            format!("tensor<fp16, [{y}]> y = reshape(shape = tensor<int32, [{n}]>([{wanted}]), x = x);");
        let f = text(&format!("tensor<fp16, [{x}]> x"), &body, "y").replace("ios18", opset);
        read(&f, &NoWeights).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(shape("ios18", "2, 50", "1, 0, -1, 0", "1, 1, 2, 50"), Ok(()));
    assert_eq!(shape("ios15", "2, 6", "0, -1", "2, 6"), Ok(()));
    assert_eq!(shape("ios15", "2, 6", "-1", "12"), Ok(()));
    assert_eq!(shape("ios18", "2, 0", "0, 3", "0, 3"), Ok(()));
    let error = shape("ios16", "2, 6", "0, 2, 3", "2, 2, 3").unwrap_err();
    assert!(
        error.ends_with("shape has a 0 and another rank than x, expected ios17 or a dimension"),
        "{error}"
    );
    let error = shape("ios18", "2, 6", "5, -1", "5, 2").unwrap_err();
    assert!(error.contains("shape [5, -1] does not divide the 12 elements of x"), "{error}");
}

#[test]
fn checking_needs_no_weight_files() {
    let blob = |offset| format!("BLOBFILE(offset=uint64({offset}),path=string(\"@model_path/w.bin\"))");
    let body = format!(
        "tensor<fp16, [8, 3]> w = const()[name = string(\"layer.weight\"), val = tensor<fp16, [8, 3]>({})];\
         tensor<fp16, [2, 8]> y = linear(bias = tensor<fp16, [8]>({}), weight = w, x = x);",
        blob(64),
        blob(192)
    );
    let text = text("tensor<fp16, [2, 3]> x", &body, "y, w");
    let error = read(&text, &NoWeights).unwrap_err().to_string();
    assert!(error.starts_with("4:71: the array at offset 64 of `@model_path/w.bin` is needed"), "{error}");
    let program = check(&text, &NoWeights).unwrap();
    let f = &program.functions[0];
    let ports: Vec<_> = f.parameters().iter().map(|p| (p.name.as_str(), p.role)).collect();
    assert_eq!(ports, [("x", Role::Batch), ("w.blob", Role::Constant), ("y.bias.blob", Role::Constant)]);
    assert_eq!(f.value(f.parameters()[1].value).path, "layer.weight");
    assert_eq!(f.outputs()[1].name, "w");
    let ill_typed = text.replace("[2, 8]", "[2, 9]");
    let error = check(&ill_typed, &NoWeights).unwrap_err().to_string();
    assert!(
        error.contains("`y` is declared as tensor<fp16, [2, 9]>, expected tensor<fp16, [2, 8]>"),
        "{error}"
    );
}
