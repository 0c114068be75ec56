//! Which ops can run without a change of place between them.

use std::collections::BTreeMap;

use super::Graph;
use crate::plan::Place;

/// The stage of each op: even ones are the host's, odd ones the engine's, each needs nothing of later ones.
pub(super) struct Stages {
    stages: BTreeMap<usize, usize>,
}

/// Ops of the host that run together.
pub(super) struct Group {
    /// One more than the index of the last program of the engine that they wait for; 0: none.
    pub(super) key: usize,
    /// The ops, ascending.
    pub(super) ops: Vec<usize>,
}

/// The first stage at or after `stage` that is a place's.
fn aligned(stage: usize, place: Place) -> usize {
    let odd = usize::from(place == Place::Engine);
    if stage % 2 == odd { stage } else { stage + 1 }
}

/// Puts each op where the op before it of the same place stands, or as close to that as what it reads and what reads it
/// allow. So what is computed again for the backward pass is not computed in the forward pass, and the other way round.
pub(super) fn stages(graph: &Graph<'_>) -> Stages {
    let mut earliest: BTreeMap<usize, usize> = BTreeMap::new();
    for (i, place) in graph.running() {
        let after = graph.waits_for(i).map(|d| earliest[&d]).max().unwrap_or(0);
        earliest.insert(i, aligned(after, place));
    }
    let end = earliest.values().copied().max().unwrap_or(0);
    let mut latest: BTreeMap<usize, usize> = BTreeMap::new();
    let places: BTreeMap<usize, Place> = graph.running().collect();
    for (&i, &place) in places.iter().rev() {
        let last = if aligned(end, place) == end { end } else { end.saturating_sub(1) };
        let mine = latest.get(&i).copied().unwrap_or(last).min(last);
        let mine = if aligned(mine, place) == mine { mine } else { mine - 1 };
        latest.insert(i, mine);
        for d in graph.waits_for(i) {
            let bound = latest.entry(d).or_insert(mine);
            *bound = mine.min(*bound);
        }
    }
    let mut current = [0, 1];
    let mut stages = BTreeMap::new();
    for (&i, &place) in &places {
        let current = &mut current[usize::from(place == Place::Engine)];
        // What it reads may have been put later than it could have been.
        let after = graph.waits_for(i).map(|d| stages[&d]).max().unwrap_or(0);
        *current = (*current).clamp(aligned(after, place), latest[&i].max(aligned(after, place)));
        stages.insert(i, *current);
    }
    Stages { stages }
}

impl Stages {
    /// The ops of each stage of the engine.
    pub(super) fn engine(&self) -> Vec<Vec<usize>> {
        let mut found: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (&op, &stage) in self.stages.iter().filter(|(_, stage)| *stage % 2 == 1) {
            found.entry(stage).or_default().push(op);
        }
        found.into_values().collect()
    }

    /// The host's ops, by stage and by the last of the engine's `chunks` that they wait for.
    pub(super) fn host_groups(&self, graph: &Graph<'_>, chunks: &[Vec<usize>]) -> Vec<Group> {
        let mut keys: BTreeMap<usize, usize> = BTreeMap::new();
        for (c, ops) in chunks.iter().enumerate() {
            keys.extend(ops.iter().map(|&op| (op, c + 1)));
        }
        let mut groups: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (&op, &stage) in &self.stages {
            if stage % 2 == 1 {
                continue;
            }
            let key = graph.waits_for(op).map(|d| keys[&d]).max().unwrap_or(0);
            keys.insert(op, key);
            groups.entry((key, stage)).or_default().push(op);
        }
        groups.into_iter().map(|((key, _), ops)| Group { key, ops }).collect()
    }
}
