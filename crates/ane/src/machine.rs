//! What the system says of itself, and the chip that this makes it.

use arcane_chip::Chip;

use crate::unavailable::Unavailable;

/// The oldest system that any project drives the engine on. (ane-bridge-rs.)
const OLDEST_MAJOR: u32 = 14;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The processor: `Apple M4 Pro`.
    pub processor: String,
    /// The system's version: `26.1`.
    pub version: String,
    /// The system's build: `25B78`.
    pub build: String,
    /// Whether this process is translated from another instruction set.
    pub translated: bool,
    /// Whether the system runs in a virtual machine.
    pub virtual_machine: bool,
    /// Whether the framework sees an engine; `None` if it does not say.
    pub has_engine: Option<bool>,
    /// How many engines the framework sees.
    pub engines: u32,
    /// How many cores they have together.
    pub cores: u32,
    /// The name of the engine for its compiler: `h16g`; empty if the framework does not say.
    pub architecture: String,
}

impl Machine {
    /// Whether the engine can be there at all.
    ///
    /// # Errors
    /// [`Unavailable::Machine`] with the reason.
    pub fn check(&self) -> Result<(), Unavailable> {
        let no = |why: String| Err(Unavailable::Machine(why));
        if self.translated {
            return no(
                "this program is translated from another processor's, the arm64 one was expected".into()
            );
        }
        if self.virtual_machine {
            return no("this is a virtual machine, which has no Neural Engine".into());
        }
        let major = self.version.split('.').next().and_then(|v| v.parse::<u32>().ok());
        if major.is_some_and(|major| major < OLDEST_MAJOR) {
            return no(format!("this is macOS {}, {OLDEST_MAJOR} or newer was expected", self.version));
        }
        if self.has_engine == Some(false) {
            return no("the framework sees no Neural Engine".into());
        }
        Ok(())
    }

    /// The chip, and whether its name is known: else it is the newest one that is not newer than the engine's architecture.
    pub fn chip(&self) -> Option<(&'static Chip, bool)> {
        let name = self.processor.strip_prefix("Apple ").unwrap_or_default();
        let name = name.trim().to_lowercase().replace(' ', "-");
        if let Ok(chip) = Chip::named(&name) {
            return Some((chip, true));
        }
        let number = |name: &str| -> Option<u32> {
            let digits: String = name.strip_prefix('h')?.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        let own = number(&self.architecture)?;
        // The first of a generation is its smallest.
        let known = Chip::all().iter().filter(|c| number(c.family.name()).is_some_and(|n| n <= own));
        known.max_by_key(|c| (number(c.family.name()), std::cmp::Reverse(place(c)))).map(|c| (c, false))
    }
}

/// The number of a chip in the list of all.
fn place(chip: &Chip) -> usize {
    Chip::all().iter().position(|c| c.name == chip.name).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(processor: &str, architecture: &str) -> Machine {
        Machine { processor: processor.into(), architecture: architecture.into(), ..Machine::default() }
    }

    #[test]
    fn chips_are_known_by_name_and_else_by_generation() {
        let chip = |processor, architecture| {
            machine(processor, architecture).chip().map(|(chip, exact)| (chip.name.as_str(), exact))
        };
        assert_eq!(chip("Apple M4 Pro", "h16s"), Some(("m4-pro", true)));
        assert_eq!(chip("Apple M3", ""), Some(("m3", true)));
        assert_eq!(chip("Apple M9 Max", "h15g"), Some(("m3", false)));
        assert_eq!(chip("Apple M9", "h99"), Some(("m6", false)));
        assert_eq!(chip("Intel", ""), None);
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let usual = Machine { version: "15.1".into(), has_engine: Some(true), ..Machine::default() };
        assert_eq!(usual.check(), Ok(()));
        for (machine, word) in [
            (Machine { translated: true, ..usual.clone() }, "translated"),
            (Machine { virtual_machine: true, ..usual.clone() }, "virtual"),
            (Machine { version: "13.6".into(), ..usual.clone() }, "13.6"),
            (Machine { has_engine: Some(false), ..usual }, "no Neural Engine"),
        ] {
            let error = machine.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
