//! Stages and pieces of small functions.

use std::fmt::Write;

use arcane_mil::{Builder, Function, Opset, Role, TensorType, Unary, ValueId};
use arcane_tensor::DType;

use super::stages::stages;
use super::{Graph, Limits, partition};
use crate::golden;
use crate::layout::Placed;
use crate::plan::Place;

const LIMITS: Limits = Limits {
    opset: Opset::Ios18,
    max_ports: 128,
    max_operations: 1000,
    max_products: 100,
    max_weight_bytes: 1_000_000,
};

/// A function of unary ops on `x`; each op is `(place, operand)`, where operand 0 is `x` and n the result of op n − 1.
/// What nothing reads is an output.
fn chain(ops: &[(Place, usize)]) -> Placed {
    let mut f = Builder::new("f", Opset::Ios18);
    let mut values = vec![f.parameter("x", TensorType::new(DType::F16, &[1, 32, 1, 32]), Role::Batch)];
    for (place, operand) in ops {
        let kind = if *place == Place::Engine { Unary::Silu } else { Unary::Sign };
        values.push(f.unary(kind, values[*operand]).unwrap());
    }
    let is_read = |v: &ValueId| f.function().operations().iter().any(|o| o.op.operands().contains(v));
    let outputs: Vec<ValueId> = values[1..].iter().filter(|v| !is_read(v)).copied().collect();
    for (i, v) in outputs.into_iter().enumerate() {
        f.output(&format!("out{i}"), v);
    }
    let function: Function = f.finish();
    Placed {
        function,
        places: ops.iter().map(|(place, _)| *place).collect(),
        origins: (0..ops.len()).collect(),
    }
}

const HOST: Place = Place::Host;
const ENGINE: Place = Place::Engine;

fn engine_stages(placed: &Placed) -> Vec<Vec<usize>> {
    stages(&Graph::new(placed)).engine()
}

#[test]
fn what_is_computed_again_stays_where_it_is_read() {
    // Op 3 could run at once, like op 0, but it stands behind the host's op and is read there.
    let again = chain(&[(ENGINE, 0), (HOST, 1), (ENGINE, 2), (ENGINE, 0), (ENGINE, 4)]);
    assert_eq!(engine_stages(&again), [vec![0], vec![2, 3, 4]]);
    // What the host needs cannot wait.
    let needed = chain(&[(ENGINE, 0), (HOST, 1), (ENGINE, 2), (ENGINE, 0), (HOST, 4), (ENGINE, 5)]);
    assert_eq!(engine_stages(&needed), [vec![0, 3], vec![2, 5]]);
    let independent = chain(&[(ENGINE, 0), (HOST, 0), (ENGINE, 0), (HOST, 0)]);
    assert_eq!(engine_stages(&independent), [vec![0, 2]]);
}

#[test]
fn the_hosts_ops_run_beside_the_engines() {
    // Op 1 waits for the first program of the engine, op 3 for none.
    let placed = chain(&[(ENGINE, 0), (HOST, 1), (ENGINE, 2), (HOST, 0), (ENGINE, 3)]);
    let parts = partition(&placed, LIMITS);
    let shape: Vec<(Place, usize)> =
        parts.pieces.iter().map(|p| (p.place, p.function.operations().len())).collect();
    assert_eq!(shape, [(HOST, 1), (ENGINE, 1), (HOST, 1), (ENGINE, 2)]);
}

#[test]
fn ports_of_pieces() {
    let mut f = Builder::new("f", Opset::Ios18);
    let half = |shape: &[usize]| TensorType::new(DType::F16, shape);
    let x = f.parameter("x", half(&[1, 32, 1, 32]), Role::Batch);
    let w = f.parameter("w", half(&[32, 32]), Role::Param);
    let state = f.parameter("state", half(&[1024]), Role::State);
    let half_of_w = f.scale(w, 0.5).unwrap();
    let view = f.reshape(half_of_w, &[1, 32, 1, 32]).unwrap();
    let y = f.mul(x, view).unwrap();
    let wide = f.cast(y, DType::F32);
    let flat = f.reshape(wide, &[1024]).unwrap();
    let sum = f.cast(flat, DType::F16);
    let new = f.add(state, sum).unwrap();
    let z = f.silu(y).unwrap();
    f.output("new", new);
    f.output("z", z);
    f.alias("new", "state");
    let function = f.finish();
    let place = |o: &arcane_mil::Operation| {
        let engine = ["mul", "silu"].contains(&o.op.name()) && function.ty(o.results[0]).shape.len() == 4;
        if engine { ENGINE } else { HOST }
    };
    let places: Vec<Place> = function.operations().iter().map(place).collect();
    let before = golden::listing(&function, |i| format!("{:6} ", places[i].name()));
    let origins = (0..places.len()).collect();
    let placed = Placed { function, places, origins };
    let parts = partition(&placed, LIMITS);
    let mut text = format!("before\n{before}");
    for piece in &parts.pieces {
        let listing = golden::listing(&piece.function, |_| String::new());
        writeln!(text, "{}\n{}", piece.place.name(), listing.trim_end()).unwrap();
    }
    writeln!(text, "prepared: {} value", parts.prepared.len()).unwrap();
    for line in parts.cuts.iter().chain(&parts.hosted) {
        writeln!(text, "{line}").unwrap();
    }
    golden::check("partition", &text);
}

#[test]
fn what_overwrites_a_parameter_waits_for_its_readers() {
    let mut f = Builder::new("f", Opset::Ios18);
    let ty = TensorType::new(DType::F16, &[1, 32, 1, 32]);
    let x = f.parameter("x", ty.clone(), Role::Batch);
    let state = f.parameter("state", ty, Role::State);
    let first = f.silu(x).unwrap();
    let host = f.unary(Unary::Sign, first).unwrap();
    let read = f.mul(host, state).unwrap();
    let new = f.unary(Unary::Sign, x).unwrap();
    f.output("read", read);
    f.output("new", new);
    f.alias("new", "state");
    let places = vec![ENGINE, HOST, ENGINE, HOST];
    let placed = Placed { function: f.finish(), places, origins: (0..4).collect() };
    let parts = partition(&placed, LIMITS);
    let places: Vec<Place> = parts.pieces.iter().map(|p| p.place).collect();
    assert_eq!(places, [ENGINE, HOST, ENGINE, HOST]);
    assert_eq!(parts.pieces[3].outputs.len(), 1);
}
