//! Errors that are made on purpose.
//!
//! A list of rules separated by `;`, from the variable `ARCANE_STAND_IN` when the library is loaded and from
//! `stand_in_plant` later. A rule is a word, or `word=value`, or `word=value@n` for the n-th call alone, `@n+` for it and all
//! that follow. Calls count from 1, from when the rules were planted.
//!
//! | rule | what happens |
//! |---|---|
//! | `missing_class=NAME`, `missing_method=SELECTOR`, `changed_method=SELECTOR` | it is not there, or has another signature; only when the library is loaded |
//! | `fail=SELECTOR:CODE`, `fail=SELECTOR:CODE:STATUS` (`@n`) | the call says no, with an error of code and status (hexadecimal) |
//! | `silent=SELECTOR` (`@n`) | it says no without an error |
//! | `nil=SELECTOR` (`@n`) | it gives nil |
//! | `raise=SELECTOR` (`@n`) | it raises an exception |
//! | `hang=SELECTOR` (`@n`) | it does not come back for a minute |
//! | `unwritten=SELECTOR` (`@n`) | it says yes, and has not written an output |
//! | `slots=N` | no more than N programs can be loaded |
//! | `reversed_symbols` | symbols are numbered the other way round, and the attributes say so |
//! | `row_bytes=N` | rows start at multiples of N bytes, and the attributes say so |
//! | `no_attributes` | there are none, so that they say nothing of these |
//! | `wrong_type` | the attributes give every port another type |
//! | `unlockable=IOSurfaceLock` (`@n`) | the lock fails |
//! | `virtual_machine`, `translated`, `no_engine`, `version=X`, `chip=NAME` | what the system says of itself |

/// One rule.
#[derive(Clone, Debug)]
struct Rule {
    word: String,
    value: String,
    /// The first call, and whether later ones count, too; none: every call.
    at: Option<(u64, bool)>,
    calls: u64,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
}

/// An error that was planted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planted {
    pub(crate) code: i64,
    pub(crate) status: Option<u32>,
}

impl Faults {
    /// Reads rules. What cannot be read panics: it is a mistake of the test.
    pub(crate) fn parse(text: &str) -> Self {
        let rules = text.split(';').map(str::trim).filter(|rule| !rule.is_empty()).map(|rule| {
            let (rule, at) = match rule.rsplit_once('@') {
                None => (rule, None),
                Some((rule, n)) => {
                    let later = n.ends_with('+');
                    let first = n.trim_end_matches('+').parse().expect("a rule's number");
                    (rule, Some((first, later)))
                }
            };
            let (word, value) = rule.split_once('=').unwrap_or((rule, ""));
            Rule { word: word.into(), value: value.into(), at, calls: 0 }
        });
        Self { rules: rules.collect() }
    }

    /// Whether there is such a rule.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.rules.iter().any(|r| r.word == word)
    }

    /// Whether there is such a rule for a name.
    pub(crate) fn names(&self, word: &str, name: &str) -> bool {
        self.rules.iter().any(|r| r.word == word && r.value == name)
    }

    /// The value of a rule.
    pub(crate) fn value(&self, word: &str) -> Option<&str> {
        self.rules.iter().find(|r| r.word == word).map(|r| r.value.as_str())
    }

    /// Counts a call, and says whether a rule is for it.
    pub(crate) fn strikes(&mut self, word: &str, selector: &str) -> bool {
        self.call(word, |value| value == selector).is_some()
    }

    /// Counts a call, and gives the error that it has to make.
    pub(crate) fn error(&mut self, selector: &str) -> Option<Planted> {
        let value = self.call("fail", |value| {
            value
                .strip_prefix(selector)
                .is_some_and(|rest| rest.starts_with(|c: char| c == ':') && is_numbers(rest))
        })?;
        let mut numbers = value[selector.len() + 1..].split(':');
        let code = numbers.next().and_then(|n| n.parse().ok()).expect("a rule's code");
        let status = numbers.next().map(|n| u32::from_str_radix(n, 16).expect("a rule's status"));
        Some(Planted { code, status })
    }

    /// Counts a call for all rules of a word and a value, and gives the value of the first that is for it.
    fn call(&mut self, word: &str, is: impl Fn(&str) -> bool) -> Option<String> {
        let mut found = None;
        for rule in self.rules.iter_mut().filter(|r| r.word == word && is(&r.value)) {
            rule.calls += 1;
            let strikes = rule.at.is_none_or(|(n, later)| rule.calls == n || later && rule.calls > n);
            if strikes && found.is_none() {
                found = Some(rule.value.clone());
            }
        }
        found
    }
}

/// `:6`, `:8:1d`: a code and a status, after a selector that may end with a colon itself.
fn is_numbers(rest: &str) -> bool {
    let parts: Vec<&str> = rest[1..].split(':').collect();
    (1..=2).contains(&parts.len())
        && parts.iter().all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_hexdigit()))
}
