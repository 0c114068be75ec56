//! How a command fails.

use std::io;

use arcane_train::{RunError, SetupError};

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The input or the usage was wrong.
    Input(anyhow::Error),
    /// It ran and failed.
    Failed(anyhow::Error),
    /// Ctrl-C was pressed, and everything has been put in order.
    Interrupted,
}

impl Failure {
    /// Wrong input.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Input(anyhow::Error::msg(message.into()))
    }

    /// Whether all that went wrong is that the reader of stdout, or of another pipe for results, has gone. It has what it wanted
    /// then: `arcane generate ... | head -c 20` is no failure.
    fn is_closed_output(&self) -> bool {
        let (Self::Input(error) | Self::Failed(error)) = self else { return false };
        let io = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
        io.map(io::Error::kind).any(|kind| kind == io::ErrorKind::BrokenPipe)
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            _ if self.is_closed_output() => 0,
            Self::Failed(_) => 1,
            Self::Input(_) => 2,
            Self::Interrupted => 130,
        }
    }

    /// What is to be said, in one line.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            _ if self.is_closed_output() => None,
            Self::Input(e) | Self::Failed(e) => Some(format!("{e}").replace('\n', " ")),
            Self::Interrupted => None,
        }
    }

    /// A run that cannot start; `config` names the configuration where the error itself does not.
    pub(crate) fn setup(error: SetupError, config: &str) -> Self {
        let is_input = error.is_input();
        let about_config = error.is_about_config();
        let mut error = anyhow::Error::new(error);
        if about_config {
            error = anyhow::anyhow!("{config}: {error}");
        }
        if is_input { Self::Input(error) } else { Self::Failed(error) }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::Failed(error.into())
    }
}
