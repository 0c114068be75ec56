//! Each planted fault, and how it is reported.

use std::process::Command;
use std::time::{Duration, Instant};

use arcane_ane::{AneEngine, Options};
use arcane_engine::{DeviceError, EngineError, Recovery};

use crate::stand_in::{Adding, DRIVERS, StandIn, open};

fn evaluate(driver: &str) -> &'static str {
    match driver {
        "client" => "evaluateWithModel:options:request:qos:error:",
        _ => "evaluateWithQoS:options:request:error:",
    }
}

fn device(error: EngineError) -> DeviceError {
    match error {
        EngineError::Device(e) => *e,
        other => panic!("{other} is no error of a device"),
    }
}

/// Prints what drivers there are, for [`drivers_with`].
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn prints_drivers() {
    match open() {
        Ok(frameworks) => {
            for (name, driver) in frameworks.drivers() {
                println!("driver {name}: {}", driver.err().map_or("works".into(), |e| e.to_string()));
            }
        }
        Err(why) => println!("frameworks: {why}"),
    }
}

/// What drivers there are in a process whose stand-in has rules from the start.
fn drivers_with(rules: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["faults::prints_drivers", "--exact", "--ignored", "--nocapture"]);
    let output = command.env("ARCANE_STAND_IN", rules).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{rules}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_missing_class_makes_its_driver_unavailable() {
    let text = drivers_with("missing_class=_ANEClient");
    assert!(text.contains("driver client: the framework has no class `_ANEClient`"), "{text}");
    assert!(text.contains("driver in_memory: works"), "{text}");
    let text = drivers_with("missing_class=_ANERequest");
    for driver in DRIVERS {
        assert!(
            text.contains(&format!("driver {driver}: the framework has no class `_ANERequest`")),
            "{text}"
        );
    }
    let text = drivers_with("missing_class=_ANEDeviceInfo");
    assert!(text.contains("driver client: works") && text.contains("driver in_memory: works"), "{text}");
}

#[test]
fn a_missing_method_makes_its_driver_unavailable() {
    let text = drivers_with("missing_method=compileWithQoS:options:error:");
    assert!(text.contains("driver in_memory: `_ANEInMemoryModel compileWithQoS:options:error:`: "), "{text}");
    assert!(text.contains("driver client: works"), "{text}");
}

#[test]
fn a_changed_signature_makes_its_driver_unavailable() {
    for (driver, class, selector) in [
        ("client", "_ANEClient", "evaluateWithModel:options:request:qos:error:"),
        ("client", "_ANEClient", "sharedConnection"),
        ("in_memory", "_ANEInMemoryModel", "loadWithQoS:options:error:"),
    ] {
        let text = drivers_with(&format!("changed_method={selector}"));
        assert!(text.contains(&format!("driver {driver}: `{class} {selector}`: expected")), "{text}");
        let other = if driver == "client" { "in_memory" } else { "client" };
        assert!(text.contains(&format!("driver {other}: works")), "{text}");
    }
}

#[test]
fn what_the_machine_lacks_is_named() {
    for (rules, reason) in [
        ("virtual_machine", "this is a virtual machine"),
        ("translated", "translated from another processor's"),
        ("version=13.6", "this is macOS 13.6, 14 or newer"),
        ("no_engine", "the framework sees no Neural Engine"),
        ("raise=hasANE", "`hasANE` raised StandInException: planted"),
    ] {
        let text = drivers_with(rules);
        assert!(text.contains("frameworks: ") && text.contains(reason), "{rules}: {text}");
    }
}

#[test]
fn a_factory_that_gives_nil_is_named() {
    for (driver, selector) in [
        ("client", "modelAtURL:key:"),
        ("client", "objectWithIOSurface:"),
        ("in_memory", "modelWithMILText:weights:optionsPlist:"),
        ("in_memory", "inMemoryModelWithDescriptor:"),
        (
            "in_memory",
            "requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:procedureIndex:",
        ),
    ] {
        let stand_in = StandIn::new(&format!("nil={selector}"));
        let engine = stand_in.engine(driver);
        let error = device(Adding::new(&engine, 11.0).err().unwrap());
        assert!(error.cause.contains(&format!("`{selector}` gave nil")), "{error}");
        assert!(error.remedy.contains("arcane doctor"), "{error}");
        stand_in.plant("");
    }
}

#[test]
fn an_error_at_the_nth_call_is_that_calls_alone() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let engine = stand_in.engine(driver);
        let program = Adding::new(&engine, 12.0).unwrap();
        stand_in.plant(&format!("fail={}:8:1d@3", evaluate(driver)));
        assert_eq!((program.call(1.0).unwrap(), program.call(2.0).unwrap()), (13.0, 14.0));
        let error = device(program.call(3.0).unwrap_err());
        assert_eq!((error.code, error.status, error.recovery), (8, Some(0x1d), Recovery::None));
        assert!(error.cause.contains("missing, too small or another's"), "{error}");
        assert_eq!(program.call(4.0).unwrap(), 16.0);
    }
}

#[test]
fn what_may_pass_and_what_is_lost_are_told_apart() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let engine = stand_in.engine(driver);
        let program = Adding::new(&engine, 13.0).unwrap();
        stand_in.plant(&format!("fail={}:8:12@1", evaluate(driver)));
        assert_eq!(device(program.call(1.0).unwrap_err()).recovery, Recovery::Retry);
        for lost in ["8:e", "23", "8:1"] {
            stand_in.plant(&format!("fail={}:{lost}@1", evaluate(driver)));
            assert_eq!(program.call(1.0).unwrap(), 14.0, "it is loaded again by itself");
        }
        assert_eq!(engine.counters().reloads, 3);
    }
}

#[test]
fn no_output_of_an_earlier_call_is_let_out() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("");
        let engine = stand_in.engine(driver);
        let program = Adding::new(&engine, 14.0).unwrap();
        assert_eq!(program.call(1.0).unwrap(), 15.0);
        for rule in ["fail=EVALUATE:8:16@1", "silent=EVALUATE@1", "raise=EVALUATE@1", "unwritten=EVALUATE@1"]
        {
            stand_in.plant(&rule.replace("EVALUATE", evaluate(driver)));
            let error = program.submit_and_wait(Duration::from_secs(30)).unwrap_err();
            let cause = match rule {
                r if r.starts_with("unwritten") => "output `y` was not written",
                r if r.starts_with("silent") => "failed without an error",
                r if r.starts_with("raise") => "raised StandInException",
                _ => "inference failed",
            };
            assert!(error.to_string().contains(cause), "{rule}: {error}");
            let left = program.output.to_tensor().unwrap().to_f64s();
            assert!(left.iter().all(|v| v.is_nan()), "{rule}: something was left");
            assert_eq!(program.call(1.0).unwrap(), 15.0);
        }
    }
}

#[test]
fn symbols_and_strides_are_taken_from_the_attributes() {
    for driver in DRIVERS {
        for rules in ["reversed_symbols", "row_bytes=128", "row_bytes=256;reversed_symbols"] {
            let stand_in = StandIn::new(rules);
            let engine = stand_in.engine(driver);
            crate::self_test::checks_out(engine, rules);
            stand_in.plant("");
        }
    }
}

#[test]
fn attributes_that_contradict_the_program_name_the_key() {
    for driver in DRIVERS {
        let stand_in = StandIn::new("wrong_type");
        let engine = stand_in.engine(driver);
        let error = device(Adding::new(&engine, 15.0).err().unwrap());
        assert!(error.cause.contains("Type of `x` is UInt8, Float16 was expected"), "{error}");
        assert_eq!(engine.counters().loaded, 0, "it is not kept loaded");
        stand_in.plant("");
    }
}

#[test]
fn a_surface_that_cannot_be_locked_is_an_error() {
    let stand_in = StandIn::new("");
    let engine = stand_in.engine("client");
    let program = Adding::new(&engine, 16.0).unwrap();
    stand_in.plant("unlockable=IOSurfaceLock@1");
    let error = program.call(1.0).unwrap_err();
    assert!(matches!(error, EngineError::Locked(_)), "{error}");
    stand_in.plant("nil=IOSurfaceCreate@1");
    assert!(Adding::new(&engine, 16.0).is_err());
    assert_eq!(program.call(1.0).unwrap(), 17.0);
}

/// Runs in a process of its own: what hangs is never given back.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn hangs() {
    let stand_in = StandIn::new("");
    let options = Options { deadline: Duration::from_millis(500), ..stand_in.options() };
    let engine = AneEngine::new(stand_in.driver("client"), options).unwrap();
    let program = Adding::new(&engine, 17.0).unwrap();
    assert_eq!(program.call(1.0).unwrap(), 18.0);
    stand_in.plant("hang=evaluateWithModel:options:request:qos:error:@1");
    let began = Instant::now();
    let error = device(program.submit_and_wait(Duration::from_millis(200)).unwrap_err());
    assert!(began.elapsed() < Duration::from_secs(10), "the deadline counts");
    assert_eq!((error.code, error.status, error.recovery), (3, Some(0xf), Recovery::None));
    assert!(error.cause.contains("did not end before its deadline"), "{error}");
    // The engine may still write: nobody gets the surfaces, and nothing else is asked.
    assert!(matches!(program.output.to_tensor(), Err(EngineError::Locked(_))));
    let error = device(Adding::new(&engine, 18.0).err().unwrap());
    assert!(error.cause.contains("an earlier call"), "{error}");
    println!("as expected");
    // What hangs holds everything; the process ends with it.
    std::process::exit(0);
}

#[test]
fn a_call_that_does_not_come_back_is_given_up() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["faults::hangs", "--exact", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("as expected"), "{text}");
}
