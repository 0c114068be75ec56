//! Programs as a scarce resource, and what is left of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use arcane_ane::{AneEngine, Options};
use arcane_engine::{Buffer, Engine, EngineError, LoadOptions};
use arcane_mil::TensorType;
use arcane_tensor::{DType, Tensor};

use crate::stand_in::{Adding, DRIVERS, StandIn, adding};

#[test]
fn a_program_is_compiled_and_loaded_once() {
    // Numbers of their own: the system keeps what either driver has compiled.
    for (driver, c) in DRIVERS.into_iter().zip([200.0, 210.0]) {
        let stand_in = StandIn::new("");
        let engine = stand_in.engine(driver);
        let (first, second) = (Adding::new(&engine, c).unwrap(), Adding::new(&engine, c).unwrap());
        assert_eq!((first.call(1.0).unwrap(), second.call(2.0).unwrap()), (c + 1.0, c + 2.0));
        let counters = engine.counters();
        assert_eq!((counters.compiles, counters.loads, counters.loaded), (1, 1, 1));
        drop((first, second));
        // The system keeps the compiled form, whichever engine asks.
        let other = stand_in.engine(driver);
        assert_eq!(Adding::new(&other, c).unwrap().call(1.0).unwrap(), c + 1.0);
        assert_eq!(other.counters().compiles, 0);
    }
}

#[test]
fn the_program_used_least_recently_makes_room() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let options = Options { programs: 2, ..stand_in.options() };
        let engine = AneEngine::new(stand_in.driver(driver), options).unwrap();
        let programs: Vec<Adding> = (1..=4).map(|c| Adding::new(&engine, f64::from(c)).unwrap()).collect();
        for round in 0..3 {
            for (i, program) in programs.iter().enumerate() {
                assert_eq!(program.call(f64::from(round)).unwrap(), f64::from(round) + i as f64 + 1.0);
            }
        }
        let counters = engine.counters();
        assert_eq!((counters.most_loaded, counters.loaded), (2, 2));
        assert_eq!(counters.evictions, counters.loads - 2);
        let loads = counters.loads;
        assert_eq!(programs[3].call(0.0).unwrap(), 4.0);
        assert_eq!(engine.counters().loads, loads, "the last one is still there");
    }
}

#[test]
fn slots_that_others_take_are_made_by_letting_go() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("slots=2");
        let engine = stand_in.engine(driver);
        let programs: Vec<Adding> = (1..=3).map(|c| Adding::new(&engine, f64::from(c)).unwrap()).collect();
        assert!(engine.counters().evictions > 0);
        assert_eq!(programs[0].call(1.0).unwrap(), 2.0);
        stand_in.plant("slots=0");
        let text = programs[1].call(1.0).unwrap_err().to_string();
        assert!(text.contains("no slot is free") && text.contains("end other processes"), "{text}");
        stand_in.plant("");
    }
}

#[test]
fn after_a_failed_compilation_the_next_one_waits() {
    let stand_in = StandIn::new("");
    let pause = Duration::from_millis(300);
    let engine = AneEngine::new(stand_in.driver("client"), Options { pause, ..stand_in.options() }).unwrap();
    let began = std::time::Instant::now();
    stand_in.plant("fail=compileModel:options:qos:error::1@1");
    let text = Adding::new(&engine, 301.0).err().unwrap().to_string();
    assert!(
        text.contains("compiling `add`") && text.contains("com.apple.appleneuralengine.compiler 1"),
        "{text}"
    );
    assert!(began.elapsed() < pause, "the failure itself comes at once");
    assert_eq!(Adding::new(&engine, 302.0).unwrap().call(1.0).unwrap(), 303.0);
    assert!(began.elapsed() >= pause);
}

#[test]
fn what_the_system_kept_and_cannot_load_is_compiled_again() {
    for (driver, load) in
        [("client", "loadModel:options:qos:error:"), ("in_memory", "loadWithQoS:options:error:")]
    {
        let stand_in = StandIn::new("");
        drop(Adding::new(&stand_in.engine(driver), 400.0).unwrap());
        stand_in.plant(&format!("fail={load}:10@1"));
        let engine = stand_in.engine(driver);
        assert_eq!(Adding::new(&engine, 400.0).unwrap().call(1.0).unwrap(), 401.0);
        assert_eq!(engine.counters().compiles, 1);
    }
}

#[test]
fn folders_are_private_and_go_with_their_programs() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let engine = stand_in.engine(driver);
        let program = Adding::new(&engine, 500.0).unwrap();
        let folders = |path: &std::path::Path| -> Vec<std::path::PathBuf> {
            let entries = fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
            entries.filter(|p| p.is_dir()).collect()
        };
        let workspaces = folders(stand_in.folder());
        let programs = folders(&workspaces[0]);
        assert_eq!((workspaces.len(), programs.len()), (1, 1));
        for path in workspaces.iter().chain(&programs) {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        drop(program);
        // Letting go happens on the engine's thread, before what is asked next.
        drop(Adding::new(&engine, 501.0).unwrap());
        drop(engine);
        assert_eq!(folders(stand_in.folder()), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn buffers_of_the_host_are_copied() {
    let stand_in = StandIn::new("");
    let engine = stand_in.engine("client");
    let loaded = engine.load(&adding(3.0), "add", LoadOptions::default()).unwrap();
    let ty = TensorType::new(DType::F16, &[1, 64, 1, 64]);
    let (x, y) = (Buffer::on_host(&ty).unwrap(), Buffer::on_host(&ty).unwrap());
    let binding = loaded.bind(&[("x", &x), ("y", &y)]).unwrap();
    x.set(&Tensor::from_f64s(DType::F16, &ty.shape, &vec![2.0; ty.len()]).unwrap()).unwrap();
    loaded.wait(loaded.submit(&binding).unwrap(), Duration::from_secs(30)).unwrap();
    assert_eq!(y.to_tensor().unwrap().get(4095), 5.0);
    let shared = loaded.bind(&[("x", &x), ("y", &x)]).err().unwrap();
    assert!(matches!(shared, EngineError::Port { .. }), "{shared}");
}

/// Resident memory of this process, in kB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn ten_thousand_evaluations_leave_nothing() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let engine = stand_in.engine(driver);
        let program = Adding::new(&engine, 600.0).unwrap();
        let alive = || {
            let kinds = ["surfaces", "_ANERequest", "_ANEIOSurfaceObject", "mapped", "loaded"];
            let folders = fs::read_dir(stand_in.folder()).unwrap().count() as u64;
            (kinds.map(|k| stand_in.count(k)), folders)
        };
        (0..1000).for_each(|_| program.submit_and_wait(Duration::from_secs(30)).unwrap());
        let (before, memory) = (alive(), resident());
        (0..10_000).for_each(|_| program.submit_and_wait(Duration::from_secs(30)).unwrap());
        assert_eq!(alive(), before, "{driver}");
        assert!(resident() < memory + 1024, "{driver}: {memory} kB before, {} after", resident());
        assert_eq!(program.call(1.0).unwrap(), 601.0);
    }
}
