//! The driver `client`: programs in folders, through the connection to the system's daemon.
//!
//! What it compiles the daemon keeps beyond the process, and a compilation takes no slot.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arcane_engine::{Buffer, DeviceMemory};
use objc2::rc::autoreleasepool;
use objc2::runtime::{AnyClass, Bool};
use objc2::{msg_send, sel};

use super::catch::attempt;
use super::foundation::{Owned, checked, dictionary, folder_url, made, property, string};
use super::surface::Functions;
use super::{ErrorPlace, Held, Id, QOS, Shared, class, has, new_surface, surface};
use crate::attributes::Property;
use crate::driver::{Driver, Model, Placed, Request, Source};
use crate::fault::Fault;
use crate::unavailable::Unavailable;

/// The driver's name.
pub(super) const NAME: &str = "client";
/// What says that a folder holds MIL; without it the daemon looks for another format. (maderix, Splash.)
const OPTIONS: [(&str, &str); 2] =
    [("kANEFModelType", "kANEFModelMIL"), ("kANEFNetPlistFilenameKey", "model.mil")];

struct Connection {
    shared: Shared,
    model: &'static AnyClass,
    client: Held,
    /// What compiling and loading are told, and nothing, which is not nil.
    options: Held,
    none: Held,
}

pub(super) struct Client {
    connection: Arc<Connection>,
}

impl Client {
    pub(super) fn new(functions: &Arc<Functions>) -> Result<Self, Unavailable> {
        let (client, model) = (class(c"_ANEClient")?, class(c"_ANEModel")?);
        has::<(), Id>(client.metaclass(), sel!(sharedConnection))?;
        has::<(Id, Id), Id>(model.metaclass(), sel!(modelAtURL:key:))?;
        has::<(), Id>(model, sel!(modelAttributes))?;
        has::<(Id, Id, u32, ErrorPlace), Bool>(client, sel!(compileModel:options:qos:error:))?;
        has::<(Id, Id, u32, ErrorPlace), Bool>(client, sel!(loadModel:options:qos:error:))?;
        has::<(Id, Id, u32, ErrorPlace), Bool>(client, sel!(unloadModel:options:qos:error:))?;
        has::<(Id,), Bool>(client, sel!(compiledModelExistsFor:))?;
        has::<(Id,), ()>(client, sel!(purgeCompiledModel:))?;
        has::<(Id, Id, Bool, ErrorPlace), Bool>(
            client,
            sel!(mapIOSurfacesWithModel:request:cacheInference:error:),
        )?;
        has::<(Id, Id), ()>(client, sel!(unmapIOSurfacesWithModel:request:))?;
        has::<(Id, Id, Id, u32, ErrorPlace), Bool>(
            client,
            sel!(evaluateWithModel:options:request:qos:error:),
        )?;
        let shared = Shared::new(functions)?;
        let failed = |fault: Fault| Unavailable::Framework(fault.to_string());
        let connected = || -> Result<Connection, Fault> {
            // SAFETY: the signature was compared.
            let shared_client = made("sharedConnection", || unsafe { msg_send![client, sharedConnection] })?;
            let texts = OPTIONS.iter().map(|(k, v)| Ok((string(k)?, string(v)?)));
            let options = dictionary(&texts.collect::<Result<Vec<(Owned, Owned)>, Fault>>()?)?;
            let (options, none) = (Held::new(options), Held::new(dictionary(&[])?));
            Ok(Connection { shared, model, client: Held::new(shared_client), options, none })
        };
        Ok(Self { connection: Arc::new(connected().map_err(failed)?) })
    }
}

impl Driver for Client {
    fn name(&self) -> &'static str {
        NAME
    }

    fn surface(&self, bytes: usize) -> Result<Arc<dyn DeviceMemory>, Fault> {
        new_surface(&self.connection.shared.functions, bytes)
    }

    fn owns(&self, buffer: &Buffer) -> bool {
        surface(buffer).is_some()
    }

    fn model(&self, source: &Source<'_>) -> Result<Box<dyn Model>, Fault> {
        let connection = Arc::clone(&self.connection);
        let class = connection.model;
        let model = autoreleasepool(|_| {
            let (url, key) = (folder_url(source.folder)?, string(source.key)?);
            // SAFETY: the signature was compared.
            made("modelAtURL:key:", || unsafe { msg_send![class, modelAtURL: &*url, key: &*key] })
        })?;
        let model = Arc::new(Held::new(model));
        Ok(Box::new(ClientModel { connection, model, folder: source.folder.into() }))
    }
}

struct ClientModel {
    connection: Arc<Connection>,
    model: Arc<Held>,
    folder: PathBuf,
}

impl Model for ClientModel {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn is_compiled(&self) -> Result<bool, Fault> {
        let (client, model) = (self.connection.client.object(), self.model.object());
        // SAFETY: the signature was compared; so it was for all messages below.
        let send = || unsafe { msg_send![client, compiledModelExistsFor: model] };
        autoreleasepool(|_| attempt("compiledModelExistsFor:", send)).map(Bool::as_bool)
    }

    fn compile(&self) -> Result<(), Fault> {
        let (client, model) = (self.connection.client.object(), self.model.object());
        let options = self.connection.options.object();
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("compileModel:options:qos:error:", |error| unsafe {
                msg_send![client, compileModel: model, options: options, qos: QOS, error: error]
            })
        })
    }

    fn purge(&self) -> Result<(), Fault> {
        let (client, model) = (self.connection.client.object(), self.model.object());
        // SAFETY: see above.
        let send = || unsafe { msg_send![client, purgeCompiledModel: model] };
        autoreleasepool(|_| attempt("purgeCompiledModel:", send))
    }

    fn load(&self) -> Result<(), Fault> {
        let (client, model) = (self.connection.client.object(), self.model.object());
        let options = self.connection.options.object();
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("loadModel:options:qos:error:", |error| unsafe {
                msg_send![client, loadModel: model, options: options, qos: QOS, error: error]
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
        let (client, model) = (self.connection.client.object(), self.model.object());
        let none = self.connection.none.object();
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("unloadModel:options:qos:error:", |error| unsafe {
                msg_send![client, unloadModel: model, options: none, qos: QOS, error: error]
            })
        })
    }

    fn request(&self, inputs: &[Placed<'_>], outputs: &[Placed<'_>]) -> Result<Box<dyn Request>, Fault> {
        let request = autoreleasepool(|_| self.connection.shared.requests.make(inputs, outputs))?;
        let (connection, model) = (Arc::clone(&self.connection), Arc::clone(&self.model));
        Ok(Box::new(ClientRequest { connection, model, request }))
    }
}

struct ClientRequest {
    connection: Arc<Connection>,
    model: Arc<Held>,
    request: Held,
}

impl Request for ClientRequest {
    fn map(&self) -> Result<(), Fault> {
        let (client, model) = (self.connection.client.object(), self.model.object());
        let request = self.request.object();
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("mapIOSurfacesWithModel:request:cacheInference:error:", |error| unsafe {
                msg_send![client, mapIOSurfacesWithModel: model, request: request,
                    cacheInference: Bool::YES, error: error]
            })
        })
    }

    fn unmap(&self) -> Result<(), Fault> {
        let (client, model) = (self.connection.client.object(), self.model.object());
        let request = self.request.object();
        // SAFETY: see above.
        let send = || unsafe { msg_send![client, unmapIOSurfacesWithModel: model, request: request] };
        autoreleasepool(|_| attempt("unmapIOSurfacesWithModel:request:", send))
    }

    fn evaluate(&self) -> Result<(), Fault> {
        let (client, model) = (self.connection.client.object(), self.model.object());
        let (none, request) = (self.connection.none.object(), self.request.object());
        autoreleasepool(|_| {
            // SAFETY: see above.
            checked("evaluateWithModel:options:request:qos:error:", |error| unsafe {
                msg_send![client, evaluateWithModel: model, options: none, request: request, qos: QOS,
                    error: error]
            })
        })
    }
}
