//! The engine through a driver. The tests of feature `gnustep` want the library of `testing/stand-in`, which
//! `.ci/macos/gnustep-test.sh` builds.

#![allow(missing_docs, reason = "tests are not documented")]
#![allow(clippy::print_stdout, reason = "the report of a Mac is read by people")]

#[cfg(feature = "gnustep")]
mod conformance;
#[cfg(feature = "gnustep")]
mod exceptions;
#[cfg(feature = "gnustep")]
mod faults;
#[cfg(feature = "gnustep")]
mod programs;
#[cfg(feature = "gnustep")]
mod self_test;
#[cfg(feature = "gnustep")]
mod stand_in;

#[cfg(not(any(target_vendor = "apple", feature = "gnustep")))]
#[test]
fn elsewhere_the_engine_explains_itself() {
    let why = arcane_ane::Frameworks::open(&arcane_ane::Libraries::system()).err().unwrap();
    let text = why.to_string();
    assert!(text.contains("Macs with Apple silicon") && text.contains(std::env::consts::OS), "{text}");
}

/// On a Mac: both drivers, or why not, and the self-test.
#[cfg(target_vendor = "apple")]
#[test]
fn this_mac_passes_the_self_test() {
    use std::sync::Arc;
    use std::time::Instant;

    use arcane_ane::{AneEngine, Frameworks, Libraries, Options, self_test};

    let frameworks = Frameworks::open(&Libraries::system()).expect("the frameworks open");
    let (chip, _) = frameworks.machine().chip().expect("the chip is known");
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut usable = 0;
    for (name, driver) in frameworks.drivers() {
        let driver = match driver {
            Ok(driver) => driver,
            Err(why) => {
                println!("{name}: not available here: {why}");
                continue;
            }
        };
        let began = Instant::now();
        let clock = Arc::new(move || began.elapsed());
        let mut engine =
            AneEngine::new(driver, Options::new(chip, folder.path().into(), clock)).expect("it starts");
        let report = self_test(&mut engine, true);
        println!("{report:#?}");
        usable += usize::from(report.usable().is_ok());
    }
    assert!(usable > 0, "no driver passes the self-test");
}
