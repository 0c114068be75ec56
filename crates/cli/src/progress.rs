//! What is said on stderr while a run goes on.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use arcane_train::metrics::Metrics;
use arcane_train::run::Event;

/// How often the line of a terminal is written anew.
const TERMINAL_EVERY: Duration = Duration::from_millis(100);
/// How often there is a line where stderr is a file or a pipe.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Goes to the start of a terminal's line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// One line that stays up to date on a terminal, else a line every few seconds.
pub(crate) struct Progress {
    steps: u64,
    first: u64,
    is_terminal: bool,
    started: Instant,
    /// When there was a line last, and the tokens of the run when this program started.
    last_line: Option<Instant>,
    tokens_before: u64,
    valid: Option<String>,
}

impl Progress {
    /// Of a run of `steps` updates in all that has done `done` of them, with `tokens` tokens.
    pub(crate) fn new(steps: u64, done: u64, tokens: u64) -> Self {
        Self {
            steps,
            first: done + 1,
            is_terminal: std::io::stderr().is_terminal(),
            started: Instant::now(),
            last_line: None,
            tokens_before: tokens,
            valid: None,
        }
    }

    /// Says what happened, if it is worth a line.
    pub(crate) fn show(&mut self, event: Event<'_>) {
        let mut stderr = std::io::stderr();
        // A message that cannot be written is no reason to stop training.
        let _ = match event {
            Event::Update(metrics) => {
                self.note_validation(metrics);
                let every = if self.is_terminal { TERMINAL_EVERY } else { LINE_EVERY };
                let is_due = self.last_line.is_none_or(|at| at.elapsed() >= every);
                let is_last = metrics.step == self.steps;
                if !(is_due || is_last || metrics.skipped) {
                    return;
                }
                self.last_line = Some(Instant::now());
                let line = self.line(metrics, self.started.elapsed());
                match (self.is_terminal, is_last || metrics.skipped) {
                    (true, false) => write!(stderr, "{CLEAR}{line}").and_then(|()| stderr.flush()),
                    (true, true) => writeln!(stderr, "{CLEAR}{line}"),
                    (false, _) => writeln!(stderr, "{line}"),
                }
            }
            Event::Checkpoint(path) => {
                let clear = if self.is_terminal { CLEAR } else { "" };
                writeln!(stderr, "{clear}checkpoint {}", path.display())
            }
        };
    }

    fn note_validation(&mut self, metrics: &Metrics) {
        let text = match (metrics.valid_bits_per_byte, metrics.valid_loss) {
            (Some(bits), _) => Some(format!("  valid {bits:.3} bits/byte")),
            (None, Some(loss)) => Some(format!("  valid loss {loss:.4}")),
            (None, None) => None,
        };
        self.valid = text.or(self.valid.take());
    }

    /// `elapsed` is the time that this program has trained.
    fn line(&self, metrics: &Metrics, elapsed: Duration) -> String {
        let Metrics { step, loss, loss_scale, .. } = metrics;
        let skipped = if metrics.skipped {
            format!("  skipped: overflow at loss scale {loss_scale}")
        } else {
            String::new()
        };
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let rate = (metrics.tokens - self.tokens_before) as f64 / seconds;
        let done = (step + 1).saturating_sub(self.first).max(1);
        let left = seconds / done as f64 * self.steps.saturating_sub(*step) as f64;
        let valid = self.valid.as_deref().unwrap_or_default();
        let left = duration(Duration::from_secs_f64(left.min(1e9)));
        format!("step {step}/{}  loss {loss:.4}{valid}{skipped}  {rate:.0} tokens/s  {left} left", self.steps)
    }
}

/// `1:02:03`, or `2:03` below an hour.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_the_run_is_and_how_long_it_takes() {
        let mut progress = Progress { is_terminal: false, ..Progress::new(30, 10, 1000) };
        let mut metrics = Metrics { step: 15, loss: 2.5, tokens: 2000, ..Metrics::default() };
        let line = progress.line(&metrics, Duration::from_secs(20));
        assert_eq!(line, "step 15/30  loss 2.5000  50 tokens/s  1:00 left");
        metrics.valid_loss = Some(2.0);
        progress.note_validation(&metrics);
        metrics.valid_loss = None;
        progress.note_validation(&metrics);
        let line = progress.line(&metrics, Duration::from_secs(5000));
        assert_eq!(line, "step 15/30  loss 2.5000  valid loss 2.0000  0 tokens/s  4:10:00 left");
        metrics.valid_bits_per_byte = Some(1.25);
        metrics.skipped = true;
        metrics.loss_scale = 512.0;
        progress.note_validation(&metrics);
        let line = progress.line(&metrics, Duration::from_secs(1));
        assert_eq!(
            line,
            "step 15/30  loss 2.5000  valid 1.250 bits/byte  skipped: overflow at loss scale 512  1000 tokens/s  0:03 left"
        );
    }
}
