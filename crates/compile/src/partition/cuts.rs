//! Where a stage of the engine is cut into programs.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use super::{Graph, Limits};
use arcane_mil::Op;

use crate::canonical;

/// Repetitions that are shorter than this are not a layer.
const SHORTEST_PERIOD: usize = 8;

/// The programs of a stage, and why they are these.
pub(super) struct Chunks {
    pub(super) chunks: Vec<Vec<usize>>,
    pub(super) why: String,
}

/// A result that is this much smaller than what it is made of is computed where that is made.
const REDUCTION: usize = 8;

/// Cuts a stage where its ops repeat, and programs with too many inputs and outputs once more. Repetitions with constant
/// weights are put together again.
pub(super) fn chunks(graph: &Graph<'_>, ops: &[usize], limits: Limits) -> Chunks {
    let ops = &gathered(graph, ops);
    let mut found = repetitions(graph, ops);
    let mut cut = Vec::new();
    for chunk in joined(graph, &mut found, limits) {
        let pieces = within_ports(graph, chunk, limits.max_ports);
        if pieces.len() > 1 {
            let _ = write!(found.why, ", one of them in {} for its inputs and outputs", pieces.len());
        }
        cut.extend(pieces);
    }
    Chunks { chunks: cut, ..found }
}

/// The chunks, with neighbours that cannot be shared, for their weights are constants, in one as far as the limits allow.
fn joined(graph: &Graph<'_>, found: &mut Chunks, limits: Limits) -> Vec<Vec<usize>> {
    let mut joined: Vec<(Vec<usize>, Load)> = Vec::new();
    let before = found.chunks.len();
    for chunk in std::mem::take(&mut found.chunks) {
        let load = Load::of(graph, &chunk);
        match joined.last_mut() {
            Some((last, sum)) if sum.bytes > 0 && load.bytes > 0 && sum.with(load).is_within(limits) => {
                last.extend(chunk);
                *sum = sum.with(load);
            }
            _ => joined.push((chunk, load)),
        }
    }
    if joined.len() < before {
        let _ = write!(found.why, ", in {} because their weights are constants", joined.len());
    }
    joined.into_iter().map(|(chunk, _)| chunk).collect()
}

/// What a program asks of the compiler.
#[derive(Clone, Copy)]
struct Load {
    operations: usize,
    products: usize,
    /// Of constant weights.
    bytes: usize,
}

impl Load {
    fn of(graph: &Graph<'_>, chunk: &[usize]) -> Self {
        let ops = || chunk.iter().map(|&i| &graph.function.operations()[i].op);
        let products = ops().filter(|op| matches!(op, Op::Matmul { .. } | Op::Convolution(_))).count();
        let weights = chunk.iter().filter_map(|&i| graph.constant_of(i));
        let bytes = weights.map(|v| graph.function.ty(v).bytes()).sum();
        Self { operations: chunk.len(), products, bytes }
    }

    fn with(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            products: self.products + other.products,
            bytes: self.bytes + other.bytes,
        }
    }

    fn is_within(self, limits: Limits) -> bool {
        self.operations <= limits.max_operations
            && self.products <= limits.max_products
            && self.bytes <= limits.max_weight_bytes
    }
}

/// The ops with each reduction, and what only it reads, moved up to behind the last op that it depends on: a check of every
/// gradient at a function's end is then part of the program that computes the gradient.
fn gathered(graph: &Graph<'_>, ops: &[usize]) -> Vec<usize> {
    let bytes = |op: usize, operands: bool| -> usize {
        let operation = &graph.function.operations()[op];
        let values = if operands { operation.op.operands() } else { operation.results.clone() };
        values.iter().map(|v| graph.function.ty(*v).bytes()).sum()
    };
    let mut readers: HashMap<usize, usize> = HashMap::new();
    for (op, _) in graph.running() {
        graph.reads(op).for_each(|d| *readers.entry(d).or_default() += 1);
    }
    let position: HashMap<usize, usize> = ops.iter().enumerate().map(|(p, &op)| (op, p)).collect();
    let mut place: HashMap<usize, usize> = position.clone();
    for &op in ops {
        if bytes(op, false) * REDUCTION > bytes(op, true) {
            continue;
        }
        let (mut chain, mut next) = (Vec::new(), vec![op]);
        let mut after = 0;
        while let Some(op) = next.pop() {
            chain.push(op);
            for d in graph.reads(op).filter(|d| position.contains_key(d)) {
                let only_here = readers[&d] == 1 && bytes(d, false) >= bytes(d, true);
                if only_here { next.push(d) } else { after = after.max(place[&d]) }
            }
        }
        for op in chain {
            place.insert(op, place[&op].min(after));
        }
    }
    let mut sorted = ops.to_vec();
    sorted.sort_by_key(|op| (place[op], position[op]));
    sorted
}

/// A chunk in as many equal parts as it takes for none to have too many ports.
fn within_ports(graph: &Graph<'_>, chunk: Vec<usize>, max_ports: usize) -> Vec<Vec<usize>> {
    if chunk.len() < 2 || ports(graph, &chunk) <= max_ports {
        return vec![chunk];
    }
    let (left, right) = chunk.split_at(chunk.len() / 2);
    [left, right].into_iter().flat_map(|part| within_ports(graph, part.to_vec(), max_ports)).collect()
}

/// How many values cross the bounds of a chunk.
fn ports(graph: &Graph<'_>, chunk: &[usize]) -> usize {
    let inside: BTreeSet<usize> = chunk.iter().copied().collect();
    let mut crossing: BTreeSet<arcane_mil::ValueId> = BTreeSet::new();
    for &op in chunk {
        let operation = &graph.function.operations()[op];
        let outside = |v: &arcane_mil::ValueId| {
            let source = graph.source(*v);
            source.is_none_or(|d| graph.parts[d] != super::Part::Constant && !inside.contains(&d))
        };
        let constant = graph.constant_of(op);
        let operands = operation.op.operands().into_iter().filter(|v| Some(*v) != constant);
        crossing.extend(operands.filter(outside));
        crossing.extend(operation.results.iter().filter(|r| graph.is_output[r.index()]));
    }
    for (op, _) in graph.running().filter(|(op, _)| !inside.contains(op)) {
        for v in graph.function.operations()[op].op.operands() {
            let base = graph.base(v);
            if graph.definitions[base.index()].is_some_and(|d| inside.contains(&d)) {
                crossing.insert(base);
            }
        }
    }
    crossing.len()
}

fn repetitions(graph: &Graph<'_>, ops: &[usize]) -> Chunks {
    let signatures: Vec<u64> = ops.iter().map(|&i| signature(graph, i)).collect();
    let Some(repeat) = repetition(&signatures) else {
        let why = format!("{} ops without a repetition: one program", ops.len());
        return Chunks { chunks: vec![ops.to_vec()], why };
    };
    let crossing = crossing_bytes(graph, ops);
    let (first, bytes) = boundary(&repeat, &crossing);
    let mut bounds: Vec<usize> = (first..=repeat.end()).step_by(repeat.period).collect();
    bounds.insert(0, 0);
    bounds.push(ops.len());
    bounds.dedup();
    let chunks: Vec<Vec<usize>> = bounds.windows(2).map(|b| ops[b[0]..b[1]].to_vec()).collect();
    let why = format!(
        "{} ops in {} programs: {} ops repeat, cut where {bytes} bytes cross",
        ops.len(),
        chunks.len(),
        repeat.period,
    );
    Chunks { chunks, why }
}

/// Ops `start..start + period + matches` where each equals the one `period` later.
struct Repetition {
    start: usize,
    period: usize,
    matches: usize,
}

impl Repetition {
    fn end(&self) -> usize {
        self.start + self.matches + self.period
    }
}

/// What an op is, without which values it reads.
fn signature(graph: &Graph<'_>, index: usize) -> u64 {
    let operation = &graph.function.operations()[index];
    let mut sink = canonical::Fnv::new();
    let mut types = |v: &arcane_mil::ValueId| canonical::ty(&mut sink, graph.function.ty(*v));
    operation.op.operands().iter().chain(&operation.results).for_each(&mut types);
    canonical::text(&mut sink, operation.op.name());
    canonical::parameters(&mut sink, &operation.op);
    sink.value()
}

/// The shortest period that repeats nearly as much as any.
fn repetition(signatures: &[u64]) -> Option<Repetition> {
    let longest_run = |period: usize| -> (usize, usize) {
        let (mut best, mut run) = ((0, 0), 0);
        for i in 0..signatures.len() - period {
            run = if signatures[i] == signatures[i + period] { run + 1 } else { 0 };
            if run > best.0 {
                best = (run, i + 1 - run);
            }
        }
        best
    };
    let periods = SHORTEST_PERIOD..=signatures.len() / 2;
    let found: Vec<Repetition> = periods
        .filter_map(|period| {
            let (matches, start) = longest_run(period);
            // Once around at least.
            (matches >= period.saturating_sub(2)).then_some(Repetition { start, period, matches })
        })
        .collect();
    let most = found.iter().map(|r| r.matches + r.period).max()?;
    found.into_iter().find(|r| 10 * (r.matches + r.period) >= 9 * most)
}

/// Bytes of the values that are computed before each position of `ops` and read at or after it.
fn crossing_bytes(graph: &Graph<'_>, ops: &[usize]) -> Vec<usize> {
    let position: HashMap<usize, usize> = ops.iter().enumerate().map(|(p, &op)| (op, p)).collect();
    let mut last_read: HashMap<usize, usize> = HashMap::new();
    for (p, &op) in ops.iter().enumerate() {
        for d in graph.reads(op) {
            if position.contains_key(&d) {
                last_read.insert(d, p);
            }
        }
    }
    let mut change = vec![0isize; ops.len() + 2];
    for (p, &op) in ops.iter().enumerate() {
        let Some(&last) = last_read.get(&op) else { continue };
        let results = &graph.function.operations()[op].results;
        let bytes: usize = results.iter().map(|r| graph.function.ty(*r).bytes()).sum();
        change[p + 1] += bytes as isize;
        change[last + 1] -= bytes as isize;
    }
    let mut bytes = 0;
    change
        .iter()
        .map(|c| {
            bytes += c;
            bytes as usize
        })
        .collect()
}

/// The first cut within the first period such that no cut a period apart is crossed by many bytes, and by how many.
fn boundary(repeat: &Repetition, crossing: &[usize]) -> (usize, usize) {
    let cost = |first: usize| -> usize {
        let cuts: BTreeSet<usize> = (first..=repeat.end()).step_by(repeat.period).collect();
        cuts.into_iter().map(|c| crossing[c]).max().unwrap_or(0)
    };
    // Among equals the one that leaves the smallest rest before the first repetition.
    let candidates = repeat.start..repeat.start + repeat.period;
    let first = candidates.min_by_key(|&f| (cost(f), f % repeat.period)).unwrap_or(repeat.start);
    (first, cost(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some ops, a layer of `period` ops `times` times, some other ops.
    fn layers(before: usize, period: usize, times: usize, after: usize) -> Vec<u64> {
        let others = |from: u64, n: usize| from..from + n as u64;
        let layers = (0..period * times).map(|i| (i % period) as u64);
        others(1000, before).chain(layers).chain(others(2000, after)).collect()
    }

    #[test]
    fn layers_are_found_with_what_surrounds_them() {
        let found = repetition(&layers(5, 20, 4, 7)).unwrap();
        assert_eq!((found.start, found.period, found.end()), (5, 20, 85));
        // Twice is a repetition, a part of a second time is not, and neither is what is short.
        assert_eq!(repetition(&layers(0, 20, 2, 0)).unwrap().period, 20);
        assert!(repetition(&layers(0, 20, 1, 12)).is_none());
        assert!(repetition(&layers(3, SHORTEST_PERIOD - 1, 2, 3)).is_none());
        assert!(repetition(&[]).is_none() && repetition(&[1; 7]).is_none());
    }

    #[test]
    fn the_shortest_of_periods_that_cover_as_much_is_taken() {
        assert_eq!(repetition(&layers(0, 12, 8, 0)).unwrap().period, 12, "not 24 or 48");
        assert_eq!(repetition(&[1; 64]).unwrap().period, SHORTEST_PERIOD);
    }

    #[test]
    fn the_cut_is_where_the_least_crosses_in_all_repetitions() {
        let repeat = Repetition { start: 2, period: 8, matches: 16 };
        let mut crossing = vec![100; 40];
        for at in [5, 13, 21] {
            crossing[at] = 8;
        }
        // Cheap once, dear elsewhere.
        crossing[7] = 1;
        assert_eq!(boundary(&repeat, &crossing), (5, 8));
        // All alike: the cut that leaves nothing over before the first repetition.
        assert_eq!(boundary(&repeat, &[100; 40]), (8, 100));
    }
}
