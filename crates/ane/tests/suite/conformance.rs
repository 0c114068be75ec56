//! Every case of the suite, bit for bit as on the simulated engine.

use arcane_chip::Chip;
use arcane_engine::{Engine, EngineError, LoadOptions, SimulatedEngine, conformance};

use crate::stand_in::{DRIVERS, StandIn};

#[test]
fn every_case_gives_the_simulated_engines_bits_or_its_refusal() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let engine = stand_in.engine(driver);
        let mut ran = 0;
        for case in conformance::cases() {
            // A process may compile a limited number of programs, and this one counts them.
            let simulated = SimulatedEngine::new(Chip::named("m4").unwrap(), 1).unwrap();
            let run = |engine: &dyn Engine| {
                conformance::run(engine, &case.program, "main", &case.inputs, LoadOptions::default())
            };
            match (run(&simulated), run(&engine)) {
                (Ok(expected), Ok(found)) => {
                    for (name, tensor) in &expected {
                        assert_eq!(found[name].bytes(), tensor.bytes(), "{driver}: {} `{name}`", case.name);
                    }
                    ran += 1;
                }
                (Err(EngineError::Device(expected)), Err(EngineError::Device(found))) => {
                    assert_eq!(
                        (expected.stage, expected.code),
                        (found.stage, found.code),
                        "{driver}: {}",
                        case.name
                    );
                }
                (Err(expected), Err(found)) => {
                    assert_eq!(expected.to_string(), found.to_string(), "{driver}: {}", case.name);
                }
                (expected, found) => {
                    panic!("{driver}: {}: {:?}, {:?}", case.name, expected.err(), found.err())
                }
            }
        }
        assert!(ran > 50, "{driver}: only {ran} cases ran");
    }
}
