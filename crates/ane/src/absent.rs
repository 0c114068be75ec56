//! The frameworks where there are none.

use std::convert::Infallible;

use crate::driver::Way;
use crate::libraries::Libraries;
use crate::machine::Machine;
use crate::unavailable::Unavailable;

/// The frameworks, which this build cannot have.
pub struct Frameworks {
    never: Infallible,
}

impl Frameworks {
    /// Says that there are none.
    ///
    /// # Errors
    /// [`Unavailable::Platform`], always.
    pub fn open(_libraries: &Libraries) -> Result<Self, Unavailable> {
        Err(Unavailable::platform())
    }

    /// What the system says of itself.
    pub fn machine(&self) -> &Machine {
        match self.never {}
    }

    /// The ways to the engine.
    pub fn drivers(&self) -> Vec<Way> {
        match self.never {}
    }
}
