//! Where a stage of the engine is cut into programs.

use std::collections::{BTreeSet, HashMap};

use super::Graph;
use crate::canonical;

/// Repetitions that are shorter than this are not a layer.
const SHORTEST_PERIOD: usize = 8;

/// The programs of a stage, and why they are these.
pub(super) struct Chunks {
    pub(super) chunks: Vec<Vec<usize>>,
    pub(super) why: String,
}

/// Cuts a stage where its ops repeat.
pub(super) fn chunks(graph: &Graph<'_>, ops: &[usize]) -> Chunks {
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
