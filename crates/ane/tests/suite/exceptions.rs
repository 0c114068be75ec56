//! Exceptions of the framework at every kind of call.

use arcane_engine::EngineError;

use crate::stand_in::{Adding, StandIn};

fn message(error: EngineError) -> String {
    error.to_string()
}

#[test]
fn an_exception_at_any_call_is_an_error_that_names_it() {
    for (driver, selector) in [
        ("client", "modelAtURL:key:"),
        ("client", "compiledModelExistsFor:"),
        ("client", "compileModel:options:qos:error:"),
        ("client", "loadModel:options:qos:error:"),
        ("client", "modelAttributes"),
        ("client", "objectWithIOSurface:"),
        (
            "client",
            "requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:procedureIndex:",
        ),
        ("client", "evaluateWithModel:options:request:qos:error:"),
        ("in_memory", "modelWithMILText:weights:optionsPlist:"),
        ("in_memory", "inMemoryModelWithDescriptor:"),
        ("in_memory", "hexStringIdentifier"),
        ("in_memory", "compileWithQoS:options:error:"),
        ("in_memory", "evaluateWithQoS:options:request:error:"),
    ] {
        let stand_in = StandIn::new(&format!("raise={selector}@1"));
        let engine = stand_in.engine(driver);
        // A program of its own for each, that no cache knows.
        let number = selector.len() as f64 + f64::from(u8::from(driver == "client")) * 100.0;
        let failed = Adding::new(&engine, number).and_then(|a| a.call(1.0)).unwrap_err();
        let text = message(failed);
        let expected = format!("`{selector}` raised StandInException: planted");
        assert!(text.contains(&expected), "{text}");
        // The rule was for the first call: the engine still works.
        assert_eq!(Adding::new(&engine, number).unwrap().call(1.0).unwrap(), number + 1.0);
    }
}

#[test]
fn an_exception_while_letting_go_leaves_the_process_alone() {
    let stand_in = StandIn::new("");
    for (driver, selector) in
        [("client", "unloadModel:options:qos:error:"), ("in_memory", "unloadWithQoS:error:")]
    {
        let engine = stand_in.engine(driver);
        assert_eq!(Adding::new(&engine, 7.0).unwrap().call(1.0).unwrap(), 8.0);
        drop(engine);
        stand_in.plant(&format!("raise={selector}@1"));
        let engine = stand_in.engine(driver);
        let adding = Adding::new(&engine, 7.0).unwrap();
        drop((adding, engine));
        assert_eq!(stand_in.violations(), "a program was freed while it was loaded");
    }
}
