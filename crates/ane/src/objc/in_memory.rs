//! The driver `in_memory`: programs as text and data.
//!
//! Each compilation takes a slot until the process ends, so it is the second choice. The framework writes the program to a
//! folder of its own naming, but not all of it: text and weights have to be there before it compiles.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arcane_engine::{Buffer, DeviceMemory};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::{AnyClass, Bool};
use objc2::{msg_send, sel};

use super::catch::attempt;
use super::foundation::{Owned, checked, data, dictionary, made, number, property, string, text};
use super::surface::Functions;
use super::{ErrorPlace, Held, Id, QOS, Shared, class, has, new_surface, surface};
use crate::attributes::Property;
use crate::driver::{Driver, Model, Placed, Request, Source};
use crate::fault::Fault;
use crate::unavailable::Unavailable;

/// The function that gives the folder.
const TEMPORARY_FOLDER: &str = "NSTemporaryDirectory";

/// The driver's name.
pub(super) const NAME: &str = "in_memory";
/// What a text calls its weight file.
const WEIGHTS: &str = "@model_path/weights/weight.bin";

struct Classes {
    shared: Shared,
    descriptor: &'static AnyClass,
    model: &'static AnyClass,
    /// No options, which is not nil.
    none: Held,
    /// Where the framework makes its folders.
    parent: PathBuf,
}

pub(super) struct InMemory {
    classes: Arc<Classes>,
}

impl InMemory {
    pub(super) fn new(functions: &Arc<Functions>) -> Result<Self, Unavailable> {
        let (descriptor, model) = (class(c"_ANEInMemoryModelDescriptor")?, class(c"_ANEInMemoryModel")?);
        has::<(Id, Id, Id), Id>(descriptor.metaclass(), sel!(modelWithMILText:weights:optionsPlist:))?;
        has::<(Id,), Id>(model.metaclass(), sel!(inMemoryModelWithDescriptor:))?;
        has::<(), Id>(model, sel!(hexStringIdentifier))?;
        has::<(), Bool>(model, sel!(compiledModelExists))?;
        has::<(), ()>(model, sel!(purgeCompiledModel))?;
        has::<(), Id>(model, sel!(modelAttributes))?;
        has::<(u32, Id, ErrorPlace), Bool>(model, sel!(compileWithQoS:options:error:))?;
        has::<(u32, Id, ErrorPlace), Bool>(model, sel!(loadWithQoS:options:error:))?;
        has::<(u32, ErrorPlace), Bool>(model, sel!(unloadWithQoS:error:))?;
        has::<(Id, Bool, ErrorPlace), Bool>(model, sel!(mapIOSurfacesWithRequest:cacheInference:error:))?;
        has::<(Id,), ()>(model, sel!(unmapIOSurfacesWithRequest:))?;
        has::<(u32, Id, Id, ErrorPlace), Bool>(model, sel!(evaluateWithQoS:options:request:error:))?;
        let shared = Shared::new(functions)?;
        let failed = |fault: Fault| Unavailable::Framework(fault.to_string());
        let none = Held::new(dictionary(&[]).map_err(failed)?);
        let folder = functions.temporary_folder;
        // SAFETY: the function takes nothing and gives a string, which is not the caller's.
        let parent = made(TEMPORARY_FOLDER, || unsafe { Retained::retain(folder()) }).map_err(failed)?;
        let parent = text(&parent).ok_or_else(|| failed(Fault::Nil { call: TEMPORARY_FOLDER }))?.into();
        Ok(Self { classes: Arc::new(Classes { shared, descriptor, model, none, parent }) })
    }
}

/// The dictionary of weight files: a file's path as the text has it, and where its data begins.
fn weights(bytes: &[u8]) -> Result<Owned, Fault> {
    if bytes.is_empty() {
        return dictionary(&[]);
    }
    let file = dictionary(&[(string("offset")?, number(0)?), (string("data")?, data(bytes)?)])?;
    dictionary(&[(string(WEIGHTS)?, file)])
}

impl Driver for InMemory {
    fn name(&self) -> &'static str {
        NAME
    }

    fn surface(&self, bytes: usize) -> Result<Arc<dyn DeviceMemory>, Fault> {
        new_surface(&self.classes.shared.functions, bytes)
    }

    fn owns(&self, buffer: &Buffer) -> bool {
        surface(buffer).is_some()
    }

    fn model(&self, source: &Source<'_>) -> Result<Box<dyn Model>, Fault> {
        let classes = Arc::clone(&self.classes);
        let (descriptor, model) = (classes.descriptor, classes.model);
        let (model, name) = autoreleasepool(|_| {
            let (mil, weights) = (data(source.text.as_bytes())?, weights(source.weights)?);
            let nothing: Id = std::ptr::null();
            // SAFETY: the signature was compared; so it was for all messages below.
            let described = made("modelWithMILText:weights:optionsPlist:", || unsafe {
                msg_send![descriptor, modelWithMILText: &*mil, weights: &*weights, optionsPlist: nothing]
            })?;
            // SAFETY: see above.
            let model = made("inMemoryModelWithDescriptor:", || unsafe {
                msg_send![model, inMemoryModelWithDescriptor: &*described]
            })?;
            // SAFETY: see above.
            let name = made("hexStringIdentifier", || unsafe { msg_send![&*model, hexStringIdentifier] })?;
            Ok::<_, Fault>((model, text(&name).unwrap_or_default()))
        })?;
        // It becomes a folder's name.
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            return Err(Fault::Nil { call: "hexStringIdentifier" });
        }
        let folder = classes.parent.join(name);
        Ok(Box::new(InMemoryModel { model: Arc::new(Held::new(model)), classes, folder }))
    }
}

struct InMemoryModel {
    classes: Arc<Classes>,
    model: Arc<Held>,
    folder: PathBuf,
}

impl Model for InMemoryModel {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn is_compiled(&self) -> Result<bool, Fault> {
        let model = self.model.object();
        // SAFETY: see above.
        let send = || unsafe { msg_send![model, compiledModelExists] };
        autoreleasepool(|_| attempt("compiledModelExists", send)).map(Bool::as_bool)
    }

    fn compile(&self) -> Result<(), Fault> {
        let (model, none) = (self.model.object(), self.classes.none.object());
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("compileWithQoS:options:error:", |error| unsafe {
                msg_send![model, compileWithQoS: QOS, options: none, error: error]
            })
        })
    }

    fn purge(&self) -> Result<(), Fault> {
        let model = self.model.object();
        // SAFETY: see above.
        let send = || unsafe { msg_send![model, purgeCompiledModel] };
        autoreleasepool(|_| attempt("purgeCompiledModel", send))
    }

    fn load(&self) -> Result<(), Fault> {
        let (model, none) = (self.model.object(), self.classes.none.object());
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("loadWithQoS:options:error:", |error| unsafe {
                msg_send![model, loadWithQoS: QOS, options: none, error: error]
            })
        })
    }

    fn attributes(&self) -> Result<Option<Property>, Fault> {
        let model = self.model.object();
        autoreleasepool(|_| {
            // SAFETY: see above.
            let found: Option<Owned> =
                attempt("modelAttributes", || unsafe { msg_send![model, modelAttributes] })?;
            found.map(|found| attempt("modelAttributes", || property(&found))).transpose()
        })
    }

    fn unload(&self) -> Result<(), Fault> {
        let model = self.model.object();
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("unloadWithQoS:error:", |error| unsafe {
                msg_send![model, unloadWithQoS: QOS, error: error]
            })
        })
    }

    fn request(&self, inputs: &[Placed<'_>], outputs: &[Placed<'_>]) -> Result<Box<dyn Request>, Fault> {
        let request = autoreleasepool(|_| self.classes.shared.requests.make(inputs, outputs))?;
        let (classes, model) = (Arc::clone(&self.classes), Arc::clone(&self.model));
        Ok(Box::new(InMemoryRequest { classes, model, request }))
    }
}

struct InMemoryRequest {
    classes: Arc<Classes>,
    model: Arc<Held>,
    request: Held,
}

impl Request for InMemoryRequest {
    fn map(&self) -> Result<(), Fault> {
        let (model, request) = (self.model.object(), self.request.object());
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("mapIOSurfacesWithRequest:cacheInference:error:", |error| unsafe {
                msg_send![model, mapIOSurfacesWithRequest: request, cacheInference: Bool::YES, error: error]
            })
        })
    }

    fn unmap(&self) -> Result<(), Fault> {
        let (model, request) = (self.model.object(), self.request.object());
        // SAFETY: see above.
        let send = || unsafe { msg_send![model, unmapIOSurfacesWithRequest: request] };
        autoreleasepool(|_| attempt("unmapIOSurfacesWithRequest:", send))
    }

    fn evaluate(&self) -> Result<(), Fault> {
        let (model, request) = (self.model.object(), self.request.object());
        let none = self.classes.none.object();
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("evaluateWithQoS:options:request:error:", |error| unsafe {
                msg_send![model, evaluateWithQoS: QOS, options: none, request: request, error: error]
            })
        })
    }
}
