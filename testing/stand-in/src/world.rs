//! The state behind all classes: the chip, planted faults, counters, what callers did wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use arcane_chip::Chip;

use crate::faults::Faults;
use crate::foundation::has_pool;

/// What the library knows.
pub(crate) struct World {
    pub(crate) chip: &'static Chip,
    pub(crate) faults: Faults,
    /// Calls by selector, and things that are alive by kind.
    pub(crate) counts: BTreeMap<String, u64>,
    /// What callers did wrong.
    pub(crate) violations: Vec<String>,
    /// Programs that the daemon has compiled, by what they consist of.
    pub(crate) compiled: BTreeSet<String>,
}

static WORLD: OnceLock<Mutex<World>> = OnceLock::new();

/// The state, locked.
pub(crate) fn world() -> MutexGuard<'static, World> {
    let make = || {
        let faults = Faults::parse(&std::env::var("ARCANE_STAND_IN").unwrap_or_default());
        let chip = Chip::named(faults.value("chip").unwrap_or("m4")).expect("a rule's chip");
        let (counts, violations, compiled) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        Mutex::new(World { chip, faults, counts, violations, compiled })
    };
    WORLD.get_or_init(make).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that a caller did something wrong.
pub(crate) fn violation(what: impl Into<String>) {
    world().violations.push(what.into());
}

/// One more, or one fewer, of a kind.
pub(crate) fn count(kind: &str, change: i64) {
    let mut world = world();
    let n = world.counts.entry(kind.into()).or_default();
    *n = n.saturating_add_signed(change);
}

/// What happens to a call before it does anything.
pub(crate) enum Fate {
    Proceeds,
    /// It gives nil, or no without an error.
    Nothing,
    Fails(crate::faults::Planted),
    Raises,
    Hangs,
}

/// Counts a call, looks for a pool, and says what becomes of it.
pub(crate) fn called(selector: &str) -> Fate {
    let pool = has_pool();
    let mut world = world();
    *world.counts.entry(selector.into()).or_default() += 1;
    if !pool {
        world.violations.push(format!("{selector}: no autorelease pool"));
    }
    let faults = &mut world.faults;
    if let Some(planted) = faults.error(selector) {
        return Fate::Fails(planted);
    }
    let fates =
        [("nil", Fate::Nothing), ("silent", Fate::Nothing), ("raise", Fate::Raises), ("hang", Fate::Hangs)];
    let found = fates.into_iter().find(|(word, _)| faults.strikes(word, selector));
    found.map_or(Fate::Proceeds, |(_, fate)| fate)
}
