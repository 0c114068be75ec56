//! Requests: surfaces at symbols, as both drivers evaluate them.

use arcane_engine::Buffer;
use objc2::runtime::AnyClass;
use objc2::{msg_send, sel};

use super::foundation::{Owned, array, made, number};
use super::surface::IoSurfaceRef;
use super::{Held, Id, class, has, surface};
use crate::driver::Placed;
use crate::fault::Fault;
use crate::unavailable::Unavailable;

/// The classes of requests.
pub(super) struct Requests {
    request: &'static AnyClass,
    surface: &'static AnyClass,
}

impl Requests {
    pub(super) fn new() -> Result<Self, Unavailable> {
        let (request, surface) = (class(c"_ANERequest")?, class(c"_ANEIOSurfaceObject")?);
        has::<(*mut IoSurfaceRef,), Id>(surface.metaclass(), sel!(objectWithIOSurface:))?;
        has::<(Id, Id, Id, Id, Id, Id, Id), Id>(
            request.metaclass(),
            sel!(requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:procedureIndex:),
        )?;
        Ok(Self { request, surface })
    }

    /// A request.
    pub(super) fn make(&self, inputs: &[Placed<'_>], outputs: &[Placed<'_>]) -> Result<Held, Fault> {
        const CALL: &str =
            "requestWithInputs:inputIndices:outputs:outputIndices:weightsBuffer:perfStats:procedureIndex:";
        let (input_surfaces, input_symbols) = self.side(inputs)?;
        let (output_surfaces, output_symbols) = self.side(outputs)?;
        let (class, first) = (self.request, number(0)?);
        let nothing: Id = std::ptr::null();
        // SAFETY: the signature was compared; weights and statistics may be nil.
        let request = made(CALL, || unsafe {
            msg_send![class, requestWithInputs: &*input_surfaces, inputIndices: &*input_symbols,
                outputs: &*output_surfaces, outputIndices: &*output_symbols, weightsBuffer: nothing,
                perfStats: nothing, procedureIndex: &*first]
        })?;
        Ok(Held::new(request))
    }

    /// The surfaces of one side, and their symbols.
    fn side(&self, placed: &[Placed<'_>]) -> Result<(Owned, Owned), Fault> {
        let surfaces: Vec<Owned> = placed.iter().map(|p| self.wrap(p.surface)).collect::<Result<_, _>>()?;
        let symbols: Vec<Owned> = placed.iter().map(|p| number(p.symbol)).collect::<Result<_, _>>()?;
        Ok((array(&surfaces)?, array(&symbols)?))
    }

    fn wrap(&self, buffer: &Buffer) -> Result<Owned, Fault> {
        const CALL: &str = "objectWithIOSurface:";
        let class = self.surface;
        let surface = surface(buffer).ok_or(Fault::Nil { call: CALL })?.reference();
        // SAFETY: the signature was compared, and the object retains the surface.
        made(CALL, || unsafe { msg_send![class, objectWithIOSurface: surface] })
    }
}
