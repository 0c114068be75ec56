//! What the operating system tells: time, memory, processors.

use std::time::{Duration, Instant};

use arcane_train::clock::Clock;

/// The time since it was made.
pub(crate) struct SystemClock(Instant);

impl SystemClock {
    /// Starts at zero.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// How many threads there are for computing.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes of memory that can be had without swapping; Linux alone says.
pub(crate) fn available_bytes() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

/// The largest number of bytes that this process has had in memory; Linux alone says.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// The number of a line `key  1234 kB`, in bytes.
fn kilobytes(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
