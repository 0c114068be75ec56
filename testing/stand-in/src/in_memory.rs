//! `_ANEInMemoryModelDescriptor` and `_ANEInMemoryModel`.

use std::path::PathBuf;
use std::ptr::null_mut;

use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Bool, Sel};
use objc2::sel;
use sha2::{Digest, Sha256};

use crate::faults::Planted;
use crate::foundation::{bytes, entry, fail, is_a, keys, string, text};
use crate::objects::{Class, new, state};
use crate::program::{Code, DOMAIN, begin, compile, expect_options, is_compiled, proceeds, purge};
use crate::request::Request;
use crate::world::{count, violation};

type Id = *const AnyObject;
type ErrorPlace = *mut *mut AnyObject;

// SAFETY: this is Foundation's declaration.
unsafe extern "C-unwind" {
    fn NSTemporaryDirectory() -> *mut AnyObject;
}

/// What a descriptor holds.
struct Descriptor {
    mil: Vec<u8>,
    /// The weight file; empty if there is none.
    weights: Vec<u8>,
}

/// What a model holds.
struct Model {
    /// The name of its folder.
    name: String,
    folder: PathBuf,
    weights: Vec<u8>,
    code: Code,
}

fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

extern "C-unwind" fn describe(class: &AnyClass, _: Sel, mil: Id, weights: Id, options: Id) -> *mut AnyObject {
    const SELECTOR: &str = "modelWithMILText:weights:optionsPlist:";
    if !proceeds(SELECTOR) {
        return null_mut();
    }
    let Some(mil) = bytes(mil).filter(|_| is_a(weights, c"NSDictionary") && options.is_null()) else {
        violation(format!("{SELECTOR}: data, a dictionary and nil were expected"));
        return null_mut();
    };
    let mut file = Vec::new();
    for key in keys(weights) {
        let entries = entry(weights, &key);
        let data = entries.and_then(|e| entry(Retained::as_ptr(&e), "data"));
        match data.and_then(|d| bytes(Retained::as_ptr(&d))) {
            Some(data) if key == "@model_path/weights/weight.bin" => file = data,
            _ => violation(format!("{SELECTOR}: {key} is not a weight file with data")),
        }
    }
    new(class, Descriptor { mil, weights: file })
}

extern "C-unwind" fn with_descriptor(class: &AnyClass, _: Sel, descriptor: Id) -> *mut AnyObject {
    const SELECTOR: &str = "inMemoryModelWithDescriptor:";
    if !proceeds(SELECTOR) {
        return null_mut();
    }
    let Some(descriptor) = state::<Descriptor>(descriptor, SELECTOR, "the descriptor") else {
        return null_mut();
    };
    let name = [hexadecimal(&descriptor.mil), hexadecimal(&descriptor.weights), hexadecimal(b"")].join("_");
    // SAFETY: the function takes nothing.
    let parent = text(unsafe { NSTemporaryDirectory() }).unwrap_or_default();
    let folder = PathBuf::from(parent).join(&name);
    new(class, Model { name, folder, weights: descriptor.weights.clone(), code: Code::default() })
}

extern "C-unwind" fn identifier(model: *mut AnyObject, _: Sel) -> *mut AnyObject {
    const SELECTOR: &str = "hexStringIdentifier";
    match state::<Model>(model, SELECTOR, "the model") {
        Some(model) if proceeds(SELECTOR) => Retained::autorelease_ptr(string(&model.name)),
        _ => null_mut(),
    }
}

extern "C-unwind" fn exists(model: *mut AnyObject, _: Sel) -> Bool {
    const SELECTOR: &str = "compiledModelExists";
    let model = state::<Model>(model, SELECTOR, "the model");
    Bool::new(proceeds(SELECTOR) && model.is_some_and(|m| is_compiled(&m.folder)))
}

extern "C-unwind" fn purge_model(model: *mut AnyObject, _: Sel) {
    const SELECTOR: &str = "purgeCompiledModel";
    if let Some(model) = state::<Model>(model, SELECTOR, "the model").filter(|_| proceeds(SELECTOR)) {
        purge(&model.folder);
    }
}

extern "C-unwind" fn attributes(model: *mut AnyObject, _: Sel) -> *mut AnyObject {
    const SELECTOR: &str = "modelAttributes";
    match state::<Model>(model, SELECTOR, "the model") {
        Some(model) if proceeds(SELECTOR) => model.code.attributes(),
        _ => null_mut(),
    }
}

extern "C-unwind" fn compile_model(
    model: *mut AnyObject,
    _: Sel,
    _qos: u32,
    options: Id,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "compileWithQoS:options:error:";
    let Some(model) = state::<Model>(model, SELECTOR, "the model") else { return Bool::NO };
    expect_options(options, SELECTOR);
    let file = std::fs::read(model.folder.join("weights/weight.bin")).unwrap_or_default();
    if file != model.weights {
        violation(format!("{SELECTOR}: the weight file in the folder is not that of the descriptor"));
    }
    compile(&model.folder, SELECTOR, error)
}

extern "C-unwind" fn load_model(
    model: *mut AnyObject,
    _: Sel,
    _qos: u32,
    options: Id,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "loadWithQoS:options:error:";
    let Some(model) = state::<Model>(model, SELECTOR, "the model") else { return Bool::NO };
    expect_options(options, SELECTOR);
    model.code.load(&model.folder, SELECTOR, error)
}

extern "C-unwind" fn unload_model(model: *mut AnyObject, _: Sel, _qos: u32, error: ErrorPlace) -> Bool {
    const SELECTOR: &str = "unloadWithQoS:error:";
    let Some(model) = state::<Model>(model, SELECTOR, "the model") else { return Bool::NO };
    // As the real one does, whoever else may use the folder.
    let _ = std::fs::remove_dir_all(&model.folder);
    model.code.unload(SELECTOR, error)
}

extern "C-unwind" fn map(
    model: *mut AnyObject,
    _: Sel,
    request: Id,
    _cache: Bool,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "mapIOSurfacesWithRequest:cacheInference:error:";
    let Some(model) = state::<Model>(model, SELECTOR, "the model") else { return Bool::NO };
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

extern "C-unwind" fn unmap(model: *mut AnyObject, _: Sel, request: Id) {
    const SELECTOR: &str = "unmapIOSurfacesWithRequest:";
    let model = state::<Model>(model, SELECTOR, "the model");
    let request = state::<Request>(request, SELECTOR, "the request");
    if proceeds(SELECTOR) && model.is_some_and(|m| m.code.is_loaded()) && request.is_some() {
        count("mapped", -1);
    } else {
        violation(format!("{SELECTOR}: a request of a loaded program was expected"));
    }
}

extern "C-unwind" fn evaluate(
    model: *mut AnyObject,
    _: Sel,
    _qos: u32,
    options: Id,
    request: Id,
    error: ErrorPlace,
) -> Bool {
    const SELECTOR: &str = "evaluateWithQoS:options:request:error:";
    let Some(model) = state::<Model>(model, SELECTOR, "the model") else { return Bool::NO };
    expect_options(options, SELECTOR);
    let Some(request) = state::<Request>(request, SELECTOR, "the request") else { return Bool::NO };
    model.code.evaluate(&request, SELECTOR, error)
}

pub(crate) fn register() {
    if let Some(class) = Class::new(c"_ANEInMemoryModelDescriptor") {
        let selector = sel!(modelWithMILText:weights:optionsPlist:);
        // SAFETY: the function has the framework's signature.
        unsafe { class.class_method(selector, describe as extern "C-unwind" fn(_, _, _, _, _) -> _) }
            .register();
    }
    let Some(class) = Class::new(c"_ANEInMemoryModel") else { return };
    type Options = extern "C-unwind" fn(*mut AnyObject, Sel, u32, Id, ErrorPlace) -> Bool;
    // SAFETY: the functions have the framework's signatures.
    let class = unsafe {
        class
            .class_method(
                sel!(inMemoryModelWithDescriptor:),
                with_descriptor as extern "C-unwind" fn(_, _, _) -> _,
            )
            .method(sel!(hexStringIdentifier), identifier as extern "C-unwind" fn(_, _) -> _)
            .method(sel!(compiledModelExists), exists as extern "C-unwind" fn(_, _) -> _)
            .method(sel!(purgeCompiledModel), purge_model as extern "C-unwind" fn(_, _))
            .method(sel!(modelAttributes), attributes as extern "C-unwind" fn(_, _) -> _)
            .method(sel!(compileWithQoS:options:error:), compile_model as Options)
            .method(sel!(loadWithQoS:options:error:), load_model as Options)
            .method(sel!(unloadWithQoS:error:), unload_model as extern "C-unwind" fn(_, _, _, _) -> _)
            .method(
                sel!(mapIOSurfacesWithRequest:cacheInference:error:),
                map as extern "C-unwind" fn(_, _, _, _, _) -> _,
            )
            .method(sel!(unmapIOSurfacesWithRequest:), unmap as extern "C-unwind" fn(_, _, _))
            .method(
                sel!(evaluateWithQoS:options:request:error:),
                evaluate as extern "C-unwind" fn(_, _, _, _, _, _) -> _,
            )
    };
    class.register();
}
