//! `_ANEClient` and `_ANEModel`.

use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::Arc;

use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Bool, Sel};
use objc2::{msg_send, sel};

use crate::faults::Planted;
use crate::foundation::{entry, fail, is_a, text};
use crate::objects::{Class, new, state};
use crate::program::{Code, DOMAIN, begin, compile, expect_options, is_compiled, proceeds, purge};
use crate::request::Request;
use crate::world::{count, violation};

type Id = *const AnyObject;
type ErrorPlace = *mut *mut AnyObject;

/// What an `_ANEModel` holds.
struct Model {
    folder: PathBuf,
    code: Code,
}

/// What an `_ANEClient` holds.
struct Client;

extern "C-unwind" fn shared(class: &AnyClass, _: Sel) -> *mut AnyObject {
    if proceeds("sharedConnection") { new(class, Client) } else { null_mut() }
}

extern "C-unwind" fn at_url(class: &AnyClass, _: Sel, url: Id, key: Id) -> *mut AnyObject {
    const SELECTOR: &str = "modelAtURL:key:";
    if !proceeds(SELECTOR) {
        return null_mut();
    }
    if !is_a(url, c"NSURL") || text(key).is_none_or(|k| k.is_empty() || k.contains("..")) {
        violation(format!("{SELECTOR}: an address and a key were expected"));
        return null_mut();
    }
    // SAFETY: addresses have this method.
    let path: Option<Retained<AnyObject>> = unsafe { msg_send![url, path] };
    let path = path.and_then(|p| text(Retained::as_ptr(&p))).unwrap_or_default();
    new(class, Model { folder: path.into(), code: Code::default() })
}

extern "C-unwind" fn attributes(model: *mut AnyObject, _: Sel) -> *mut AnyObject {
    const SELECTOR: &str = "modelAttributes";
    match state::<Model>(model, SELECTOR, "the model") {
        Some(model) if proceeds(SELECTOR) => model.code.attributes(),
        _ => null_mut(),
    }
}

/// The model of a call on the client, and whether the options say that it is MIL.
fn given(client: *mut AnyObject, model: Id, selector: &str) -> Option<Arc<Model>> {
    state::<Client>(client, selector, "the client")?;
    state(model, selector, "the model")
}

fn says_mil(options: Id) -> bool {
    entry(options, "kANEFModelType").and_then(|v| text(Retained::as_ptr(&v))).as_deref()
        == Some("kANEFModelMIL")
}

extern "C-unwind" fn compile_model(
    client: *mut AnyObject,
    _: Sel,
    model: Id,
    options: Id,
    _qos: u32,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "compileModel:options:qos:error:";
    let Some(model) = given(client, model, SELECTOR) else { return Bool::NO };
    expect_options(options, SELECTOR);
    if !says_mil(options) {
        let said = "_ANEEspressoIRTranslator : error Cannot load network 'model.espresso.net'";
        return fail(error, DOMAIN, Planted { code: 1, status: None }, said);
    }
    compile(&model.folder, SELECTOR, error)
}

extern "C-unwind" fn load_model(
    client: *mut AnyObject,
    _: Sel,
    model: Id,
    options: Id,
    _qos: u32,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "loadModel:options:qos:error:";
    let Some(model) = given(client, model, SELECTOR) else { return Bool::NO };
    expect_options(options, SELECTOR);
    model.code.load(&model.folder, SELECTOR, error)
}

extern "C-unwind" fn unload_model(
    client: *mut AnyObject,
    _: Sel,
    model: Id,
    options: Id,
    _qos: u32,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "unloadModel:options:qos:error:";
    let Some(model) = given(client, model, SELECTOR) else { return Bool::NO };
    expect_options(options, SELECTOR);
    model.code.unload(SELECTOR, error)
}

extern "C-unwind" fn exists(client: *mut AnyObject, _: Sel, model: Id) -> Bool {
    const SELECTOR: &str = "compiledModelExistsFor:";
    let model = given(client, model, SELECTOR);
    Bool::new(proceeds(SELECTOR) && model.is_some_and(|m| is_compiled(&m.folder)))
}

extern "C-unwind" fn purge_model(client: *mut AnyObject, _: Sel, model: Id) {
    const SELECTOR: &str = "purgeCompiledModel:";
    if let Some(model) = given(client, model, SELECTOR).filter(|_| proceeds(SELECTOR)) {
        purge(&model.folder);
    }
}

extern "C-unwind" fn map(
    client: *mut AnyObject,
    _: Sel,
    model: Id,
    request: Id,
    _cache: Bool,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "mapIOSurfacesWithModel:request:cacheInference:error:";
    let Some(model) = given(client, model, SELECTOR) else { return Bool::NO };
    if let Err(answer) = begin(SELECTOR, DOMAIN, error) {
        return answer;
    }
    if state::<Request>(request, SELECTOR, "the request").is_none() || !model.code.is_loaded() {
        violation(format!("{SELECTOR}: a request of a loaded program was expected"));
        return fail(
            error,
            DOMAIN,
            Planted { code: 13, status: Some(0x12) },
            "IOSurfaces map failure (0x12)",
        );
    }
    count("mapped", 1);
    Bool::YES
}

extern "C-unwind" fn unmap(client: *mut AnyObject, _: Sel, model: Id, request: Id) {
    const SELECTOR: &str = "unmapIOSurfacesWithModel:request:";
    let model = given(client, model, SELECTOR);
    let request = state::<Request>(request, SELECTOR, "the request");
    if proceeds(SELECTOR) && model.is_some_and(|m| m.code.is_loaded()) && request.is_some() {
        count("mapped", -1);
    } else {
        violation(format!("{SELECTOR}: a request of a loaded program was expected"));
    }
}

extern "C-unwind" fn evaluate(
    client: *mut AnyObject,
    _: Sel,
    model: Id,
    options: Id,
    request: Id,
    _qos: u32,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "evaluateWithModel:options:request:qos:error:";
    let Some(model) = given(client, model, SELECTOR) else { return Bool::NO };
    expect_options(options, SELECTOR);
    let Some(request) = state::<Request>(request, SELECTOR, "the request") else { return Bool::NO };
    model.code.evaluate(&request, SELECTOR, error)
}

pub(crate) fn register() {
    if let Some(class) = Class::new(c"_ANEModel") {
        // SAFETY: the functions have the framework's signatures.
        let class = unsafe {
            class
                .class_method(sel!(modelAtURL:key:), at_url as extern "C-unwind" fn(_, _, _, _) -> _)
                .method(sel!(modelAttributes), attributes as extern "C-unwind" fn(_, _) -> _)
        };
        class.register();
    }
    let Some(class) = Class::new(c"_ANEClient") else { return };
    type Model = extern "C-unwind" fn(*mut AnyObject, Sel, Id, Id, u32, ErrorPlace) -> Bool;
    // SAFETY: the functions have the framework's signatures.
    let class = unsafe {
        class
            .class_method(sel!(sharedConnection), shared as extern "C-unwind" fn(_, _) -> _)
            .method(sel!(compileModel:options:qos:error:), compile_model as Model)
            .method(sel!(loadModel:options:qos:error:), load_model as Model)
            .method(sel!(unloadModel:options:qos:error:), unload_model as Model)
            .method(sel!(compiledModelExistsFor:), exists as extern "C-unwind" fn(_, _, _) -> _)
            .method(sel!(purgeCompiledModel:), purge_model as extern "C-unwind" fn(_, _, _))
            .method(
                sel!(mapIOSurfacesWithModel:request:cacheInference:error:),
                map as extern "C-unwind" fn(_, _, _, _, _, _) -> _,
            )
            .method(sel!(unmapIOSurfacesWithModel:request:), unmap as extern "C-unwind" fn(_, _, _, _))
            .method(
                sel!(evaluateWithModel:options:request:qos:error:),
                evaluate as extern "C-unwind" fn(_, _, _, _, _, _, _) -> _,
            )
    };
    class.register();
}
