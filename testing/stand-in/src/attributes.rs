//! What a loaded program says of its ports.

use arcane_chip::surface::SurfaceLayout;
use arcane_engine::{Direction, Port};
use arcane_mil::TensorType;

use crate::foundation::{Owned, array, dictionary, number, string};
use crate::world::world;

fn numbers(count: usize) -> Owned {
    array(&(0..count as i64).map(number).collect::<Vec<_>>())
}

/// The dictionary: for each port its name, type, sizes and strides; `symbols` are the ports of inputs and of outputs in the
/// order of their numbers.
pub(crate) fn of(ports: &[(&Port, usize)], symbols: &[Vec<usize>; 2]) -> Owned {
    let [inputs, outputs] = symbols;
    let names = |side: &[usize], suffix: &str| {
        array(&side.iter().map(|&p| string(&format!("{}{suffix}", ports[p].0.name))).collect::<Vec<_>>())
    };
    let procedure = dictionary(&[
        ("ANEFModelProcedureID", number(0)),
        ("ANEFModelInputSymbolIndexArray", numbers(inputs.len())),
        ("ANEFModelOutputSymbolIndexArray", numbers(outputs.len())),
    ]);
    let description = dictionary(&[
        ("ANEFModelProcedures", array(&[procedure])),
        ("kANEFModelInputSymbolsArrayKey", names(inputs, "")),
        ("kANEFModelOutputSymbolsArrayKey", names(outputs, "@output")),
    ]);
    let live =
        |side: &[usize]| array(&side.iter().map(|&p| port(ports[p].0, ports[p].1)).collect::<Vec<_>>());
    let status = dictionary(&[
        ("Name", string("main")),
        ("LiveInputList", live(inputs)),
        ("LiveOutputList", live(outputs)),
    ]);
    dictionary(&[("ANEFModelDescription", description), ("NetworkStatusList", array(&[status]))])
}

fn port(port: &Port, stride: usize) -> Owned {
    let layout = SurfaceLayout::of(&port.ty).expect("the engine has taken the port");
    let [batches, channels, height, width] = layout.shape.map(|n| number(n as i64));
    let bytes = |n: usize| number(n as i64);
    let plane = layout.shape[2] * stride;
    let suffix = if port.direction == Direction::Output { "@output" } else { "" };
    dictionary(&[
        ("Name", string(&format!("{}{suffix}", port.name))),
        ("Type", string(type_name(&port.ty))),
        ("Batches", batches),
        ("Channels", channels),
        ("Depth", number(1)),
        ("Height", height),
        ("Width", width),
        ("Interleave", number(1)),
        ("RowStride", bytes(stride)),
        ("PlaneStride", bytes(plane)),
        ("DepthStride", bytes(layout.shape[1] * plane)),
        ("BatchStride", bytes(layout.shape[1] * plane)),
    ])
}

fn type_name(ty: &TensorType) -> &'static str {
    if world().faults.has("wrong_type") {
        return "UInt8";
    }
    match ty.dtype.name() {
        "fp16" => "Float16",
        "fp32" => "Float32",
        "int8" => "Int8",
        "uint8" => "UInt8",
        "int32" => "Int32",
        _ => "Other",
    }
}
