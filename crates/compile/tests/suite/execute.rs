//! Plans run by the reference evaluator: buffers are tensors, and steps run in any order that the plan allows.

use std::collections::BTreeMap;

use arcane_compile::{Call, PREPARE, Place, Plan, Work};
use arcane_mil::{Function, evaluate};
use arcane_tensor::{DType, Tensor};

/// In which order steps of different places run, where the plan leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they are listed.
    Listed,
    /// The host's as early as they can.
    HostFirst,
    /// The engine's as early as they can.
    EngineFirst,
    /// One of each in turn.
    Alternating,
}

pub(crate) const ORDERS: [Order; 4] =
    [Order::Listed, Order::HostFirst, Order::EngineFirst, Order::Alternating];

/// The memory of a plan.
pub(crate) struct Memory<'a> {
    plan: &'a Plan,
    buffers: Vec<Tensor>,
}

impl<'a> Memory<'a> {
    /// Buffers full of NaN (of −1 where they hold integers).
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let poison = |b: &arcane_compile::PlanBuffer| {
            let value = if b.ty.dtype.is_float() { f64::NAN } else { -1.0 };
            let value = if b.ty.dtype == DType::Bool { 0.0 } else { value };
            Tensor::from_f64s(b.ty.dtype, &b.ty.shape, &vec![value; b.ty.len()]).unwrap()
        };
        Self { plan, buffers: plan.buffers.iter().map(poison).collect() }
    }

    /// Sets the buffers of a function's parameters, each rounded to the buffer's type.
    pub(crate) fn set(&mut self, inputs: &BTreeMap<String, Tensor>) {
        for (name, value) in inputs {
            // A parameter that nothing needs has a buffer all the same.
            let index = self.plan.buffer(name).unwrap();
            self.buffers[index] = value.cast(self.plan.buffers[index].ty.dtype);
        }
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        &self.buffers[self.plan.buffer(name).unwrap()]
    }

    /// Prepares what is made of weights, then runs a call.
    pub(crate) fn run(&mut self, call: &str, order: Order) {
        for name in [PREPARE, call] {
            if let Some(call) = self.plan.call(name) {
                for step in sequence(call, order) {
                    self.step(call, step);
                }
            }
        }
    }

    fn step(&mut self, call: &Call, index: usize) {
        match &call.steps[index].work {
            Work::Copy { from, to } => self.write(*to, &self.buffers[*from].clone()),
            Work::Run { function, ports, .. } => {
                let function = self.plan.program.function(function).unwrap();
                let (ins, outs) = ports.split_at(function.parameters().len());
                let inputs = ins.iter().zip(function.parameters()).map(|(binding, p)| {
                    assert_eq!(binding.port, p.name);
                    (p.name.clone(), reshaped(&self.buffers[binding.buffer], &function.ty(p.value).shape))
                });
                let results = evaluate(function, &inputs.collect()).unwrap();
                for (binding, o) in outs.iter().zip(function.outputs()) {
                    assert_eq!(binding.port, o.name);
                    self.write(binding.buffer, &results[&o.name]);
                }
            }
        }
    }

    fn write(&mut self, buffer: usize, value: &Tensor) {
        let ty = &self.plan.buffers[buffer].ty;
        assert_eq!(value.dtype(), ty.dtype, "{}", self.plan.buffers[buffer].name);
        self.buffers[buffer] = reshaped(value, &ty.shape);
    }
}

fn reshaped(t: &Tensor, shape: &[usize]) -> Tensor {
    t.clone().reshape(shape).expect("views have as many elements")
}

/// All steps of a call, each after those of its place that are listed before it and after what it waits for.
fn sequence(call: &Call, order: Order) -> Vec<usize> {
    if order == Order::Listed {
        return (0..call.steps.len()).collect();
    }
    let queue = |place: Place| (0..call.steps.len()).filter(move |&s| call.steps[s].place() == place);
    let mut queues = [queue(Place::Host).peekable(), queue(Place::Engine).peekable()];
    let mut done = vec![false; call.steps.len()];
    let mut sequence = Vec::new();
    let mut turn = usize::from(order == Order::EngineFirst);
    while sequence.len() < call.steps.len() {
        let ready = |queue: usize, queues: &mut [_; 2]| -> Option<usize> {
            let queues: &mut [std::iter::Peekable<_>; 2] = queues;
            queues[queue].next_if(|&s: &usize| call.steps[s].after.iter().all(|&a| done[a]))
        };
        let step = ready(turn, &mut queues).or_else(|| ready(1 - turn, &mut queues));
        let step = step.expect("a step of one of the places can run");
        done[step] = true;
        sequence.push(step);
        if order == Order::Alternating {
            turn = 1 - turn;
        }
    }
    sequence
}

/// Checks that two steps of which one writes what the other reads or writes never run at once.
pub(crate) fn check_conflicts(call: &Call, plan: &Plan) {
    let mut before: Vec<Vec<bool>> = Vec::new();
    for (i, step) in call.steps.iter().enumerate() {
        let mut all = vec![false; call.steps.len()];
        let previous = (0..i).rev().find(|&s| call.steps[s].place() == step.place());
        for s in step.after.iter().copied().chain(previous) {
            assert!(s < i, "{}: step {i} waits for a later one", call.name);
            all[s] = true;
            all.iter_mut().zip(&before[s]).for_each(|(mine, its)| *mine |= its);
        }
        before.push(all);
    }
    let touched: Vec<[Vec<usize>; 2]> = call.steps.iter().map(|s| touched(&s.work, plan)).collect();
    for (later, [reads, writes]) in touched.iter().enumerate() {
        for (earlier, [earlier_reads, earlier_writes]) in touched[..later].iter().enumerate() {
            let conflict = writes.iter().any(|b| earlier_reads.contains(b) || earlier_writes.contains(b))
                || reads.iter().any(|b| earlier_writes.contains(b));
            assert!(!conflict || before[later][earlier], "{}: steps {earlier} and {later}", call.name);
        }
    }
}

/// The buffers that some work reads and writes.
fn touched(work: &Work, plan: &Plan) -> [Vec<usize>; 2] {
    match work {
        Work::Copy { from, to } => [vec![*from], vec![*to]],
        Work::Run { function, ports, .. } => {
            let inputs = plan.program.function(function).unwrap().parameters().len();
            let (ins, outs) = ports.split_at(inputs);
            [ins, outs].map(|ports| ports.iter().map(|p| p.buffer).collect())
        }
    }
}

/// The outputs of a planned function, on the buffers where they end up, in one order of steps.
pub(crate) fn results(
    plan: &Plan,
    function: &Function,
    inputs: &BTreeMap<String, Tensor>,
    order: Order,
) -> BTreeMap<String, Tensor> {
    let mut memory = Memory::new(plan);
    memory.set(inputs);
    memory.run(function.name(), order);
    let outputs = function.outputs().iter().enumerate().map(|(i, o)| {
        let alias = function.aliases().iter().find(|a| a.output == i);
        let buffer = alias.map_or(&o.name, |a| &function.parameters()[a.parameter].name);
        (o.name.clone(), memory.get(buffer).clone())
    });
    outputs.collect()
}
