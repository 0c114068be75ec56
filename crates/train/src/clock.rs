//! Time, which the caller tells.

use std::time::Duration;

/// Tells the time since some moment that stays the same.
pub trait Clock: Send + Sync {
    /// The time.
    fn now(&self) -> Duration;
}
