//! What is said on stderr while a run goes on.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use arcane_train::alarm::Alarm;
use arcane_train::metrics::Metrics;
use arcane_train::run::Event;

/// How often the line of a terminal is written anew.
const TERMINAL_EVERY: Duration = Duration::from_millis(100);
/// How often there is a line where stderr is a file or a pipe.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// After a warning as many updates pass before there is another of its kind: a run that is out of control is known to be.
const QUIET_UPDATES: u64 = 100;
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
    warnings: Vec<Warned>,
}

/// The last warning of a kind.
struct Warned {
    /// An alarm of this kind.
    alarm: Alarm,
    step: u64,
    /// Alarms since then.
    unsaid: u64,
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
            warnings: Vec::new(),
        }
    }

    /// Says what happened, if it is worth a line.
    pub(crate) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Update(metrics) => {
                self.note_validation(metrics);
                for warning in self.warnings(metrics) {
                    self.say(&warning);
                }
                let every = if self.is_terminal { TERMINAL_EVERY } else { LINE_EVERY };
                let is_due = self.last_line.is_none_or(|at| at.elapsed() >= every);
                let is_last = metrics.step == self.steps;
                if !(is_due || is_last) {
                    return;
                }
                self.last_line = Some(Instant::now());
                let line = self.line(metrics, self.started.elapsed());
                if self.is_terminal && !is_last {
                    let mut stderr = std::io::stderr();
                    let _ = write!(stderr, "{CLEAR}{line}").and_then(|()| stderr.flush());
                } else {
                    self.say(&line);
                }
            }
            Event::Checkpoint(path) => self.say(&format!("checkpoint {}", path.display())),
        }
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        let clear = if self.is_terminal { CLEAR } else { "" };
        // A message that cannot be written is no reason to stop training.
        let _ = writeln!(std::io::stderr(), "{clear}{line}");
    }

    /// What is to be said of the alarms of an update.
    fn warnings(&mut self, metrics: &Metrics) -> Vec<String> {
        let step = metrics.step;
        let mut lines = Vec::new();
        for alarm in metrics.alarms() {
            let is_of_kind = |warned: &Warned| {
                let kinds = [&warned.alarm, &alarm].map(std::mem::discriminant);
                kinds[0] == kinds[1] && warned.alarm.of() == alarm.of()
            };
            let before = self.warnings.iter().position(is_of_kind).map(|i| self.warnings.swap_remove(i));
            match before {
                Some(warned) if step < warned.step + QUIET_UPDATES => {
                    self.warnings.push(Warned { unsaid: warned.unsaid + 1, ..warned });
                }
                before => {
                    let unsaid = before.filter(|warned| warned.unsaid > 0);
                    let more = unsaid.map_or(String::new(), |Warned { step, unsaid, .. }| {
                        format!(" ({unsaid} more such alarms since step {step})")
                    });
                    lines.push(format!("warning: step {step}: {alarm}{more}"));
                    self.warnings.push(Warned { alarm, step, unsaid: 0 });
                }
            }
        }
        lines
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
        let Metrics { step, loss, .. } = metrics;
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let rate = (metrics.tokens - self.tokens_before) as f64 / seconds;
        let done = (step + 1).saturating_sub(self.first).max(1);
        let left = seconds / done as f64 * self.steps.saturating_sub(*step) as f64;
        let valid = self.valid.as_deref().unwrap_or_default();
        let left = duration(Duration::from_secs_f64(left.min(1e9)));
        format!("step {step}/{}  loss {loss:.4}{valid}  {rate:.0} tokens/s  {left} left", self.steps)
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
        progress.note_validation(&metrics);
        let line = progress.line(&metrics, Duration::from_secs(1));
        assert_eq!(line, "step 15/30  loss 2.5000  valid 1.250 bits/byte  1000 tokens/s  0:03 left");
    }

    #[test]
    fn warnings_of_a_kind_keep_their_distance() {
        let mut progress = Progress::new(1000, 0, 0);
        let skipped = |step| Metrics { step, skipped: true, loss_scale: 512.0, ..Metrics::default() };
        let text = "a gradient is not finite at loss scale 512, the update is skipped";
        assert_eq!(progress.warnings(&Metrics { step: 1, ..Metrics::default() }), [""; 0]);
        assert_eq!(progress.warnings(&skipped(2)), [format!("warning: step 2: {text}")]);
        assert_eq!(progress.warnings(&skipped(3)), [""; 0]);
        // Another kind is not held back.
        let both = Metrics { loss: f64::NAN, ..skipped(4) };
        assert_eq!(progress.warnings(&both), ["warning: step 4: the loss is NaN"]);
        assert_eq!(progress.warnings(&skipped(101)), [""; 0]);
        let after = progress.warnings(&skipped(102));
        assert_eq!(after, [format!("warning: step 102: {text} (3 more such alarms since step 2)")]);
        assert_eq!(progress.warnings(&skipped(400)), [format!("warning: step 400: {text}")]);
    }
}
