//! Training: data, optimiser, schedules, loss scale, metrics, checkpoints.
