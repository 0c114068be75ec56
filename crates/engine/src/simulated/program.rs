//! A loaded program: ports by symbol, surfaces, executions.

use std::sync::Arc;
use std::time::Duration;

use arcane_chip::price::{Price, energy_mj, program_ns};
use arcane_chip::surface::{SurfaceLayout, symbol_order};
use arcane_mil::Function;

use super::{Device, faults, surface};
use crate::api::{Binding, Buffer, Direction, EngineError, Loaded, Port, Report, Ticket};

/// The name by which an error calls what belongs together.
const BINDING: &str = "the binding";

pub(super) struct SimulatedProgram {
    device: Arc<Device>,
    name: String,
    inner: Arc<dyn Loaded>,
    layouts: Vec<SurfaceLayout>,
    /// The ports of the symbols: inputs, then outputs, each sorted by name.
    symbols: Vec<usize>,
    price: Price,
    utilisation: f64,
    bytes: (u64, u64),
}

/// A prepared request.
struct Request {
    /// The program that it belongs to.
    device: Arc<Device>,
    name: String,
    inner: Binding,
    /// Surfaces with gaps and the arrays without them that the program computes on: before an execution, and after it.
    before: Vec<(Buffer, Buffer)>,
    after: Vec<(Buffer, Buffer)>,
}

impl SimulatedProgram {
    pub(super) fn load(
        device: &Arc<Device>,
        function: &Function,
        inner: Arc<dyn Loaded>,
    ) -> Result<Self, EngineError> {
        let limit = *device.chip.limits.loaded_programs as u64;
        device.with(|s| {
            s.counters.loads += 1;
            let (loads, loaded) = (s.counters.loads, s.counters.loaded);
            s.faults.load(loads, loaded, limit, function.name()).map_or(Ok(()), Err)
        })?;
        let layouts: Vec<SurfaceLayout> =
            inner.ports().iter().map(|p| surface(&p.ty)).collect::<Result<_, _>>()?;
        let of = |direction| -> Vec<usize> {
            (0..inner.ports().len()).filter(|&p| inner.ports()[p].direction == direction).collect()
        };
        let sorted = |ports: Vec<usize>| -> Vec<usize> {
            let names: Vec<&str> = ports.iter().map(|&p| inner.ports()[p].name.as_str()).collect();
            symbol_order(&names).into_iter().map(|i| ports[i]).collect()
        };
        let (inputs, outputs) = (sorted(of(Direction::Input)), sorted(of(Direction::Output)));
        let bytes = |ports: &[usize]| ports.iter().map(|&p| layouts[p].bytes as u64).sum();
        let bytes = (bytes(&inputs), bytes(&outputs));
        let price = program_ns(device.chip, function);
        let peak = *device.chip.rates.peak_tflops * 1e3;
        let utilisation = price.flops / (price.total_ns * peak).max(1.0);
        // From here on it takes a slot, which dropping it gives back.
        device.with(|s| {
            s.counters.loaded += 1;
            s.counters.most_loaded = s.counters.most_loaded.max(s.counters.loaded);
        });
        let symbols = [inputs, outputs].concat();
        let (device, name) = (device.clone(), function.name().into());
        Ok(Self { device, name, inner, layouts, symbols, price, utilisation, bytes })
    }

    /// The surface of each port, from the list of symbols that the driver makes from names.
    fn by_symbol<'b>(&self, buffers: &[(&str, &'b Buffer)]) -> Result<Vec<&'b Buffer>, EngineError> {
        let error = |port: &str, why: &str| EngineError::Port { port: port.into(), why: why.into() };
        let ports = self.inner.ports();
        let mut surfaces: Vec<Option<&Buffer>> = vec![None; ports.len()];
        for (name, buffer) in buffers {
            let symbol = self.symbols.iter().position(|&p| ports[p].name == *name);
            let symbol = symbol.ok_or_else(|| error(name, "the function has no such port"))?;
            if surfaces[self.symbols[symbol]].replace(buffer).is_some() {
                return Err(error(name, "bound twice"));
            }
        }
        ports.iter().zip(surfaces).map(|(p, s)| s.ok_or_else(|| error(&p.name, "not bound"))).collect()
    }
}

impl Drop for SimulatedProgram {
    fn drop(&mut self) {
        self.device.with(|s| s.counters.loaded -= 1);
    }
}

impl Loaded for SimulatedProgram {
    fn ports(&self) -> &[Port] {
        self.inner.ports()
    }

    fn kernels(&self) -> Vec<&'static str> {
        self.inner.kernels()
    }

    fn scratch_bytes(&self) -> usize {
        self.inner.scratch_bytes()
    }

    fn bind(&self, buffers: &[(&str, &Buffer)]) -> Result<Binding, EngineError> {
        let surfaces = self.by_symbol(buffers)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut dense = Vec::with_capacity(surfaces.len());
        for ((port, layout), surface) in self.inner.ports().iter().zip(&self.layouts).zip(surfaces) {
            if surface.ty() != &port.ty {
                let why = format!("the surface is {}, {} was expected", surface.ty(), port.ty);
                return Err(EngineError::Port { port: port.name.clone(), why });
            }
            // The last row need not be padded: memory of the host is as long as its elements.
            let needed = layout.strided_bytes() - (layout.row_stride - surface.rows().length);
            if surface.rows().stride != layout.row_stride && surface.rows().length != layout.row_stride
                || surface.memory().len() < needed
            {
                return Err(faults::evaluation(&self.name, 0x1d));
            }
            if surface.is_dense() {
                dense.push(surface.clone());
                continue;
            }
            let inner = Buffer::new(&port.ty)?;
            let pairs = if port.direction == Direction::Input { &mut before } else { &mut after };
            pairs.push((surface.clone(), inner.clone()));
            dense.push(inner);
        }
        let names = self.inner.ports().iter().map(|p| p.name.as_str());
        let bound: Vec<(&str, &Buffer)> = names.zip(&dense).collect();
        let inner = self.inner.bind(&bound)?;
        let request = Request { device: self.device.clone(), name: self.name.clone(), inner, before, after };
        Ok(Binding { inner: Box::new(request) })
    }

    fn submit(&self, binding: &Binding) -> Result<Ticket, EngineError> {
        let request = binding.inner.downcast_ref::<Request>();
        let request = request.filter(|r| Arc::ptr_eq(&r.device, &self.device) && r.name == self.name);
        let request = request.ok_or(EngineError::Foreign(BINDING))?;
        let hangs = self.device.with(|s| {
            s.counters.dispatches += 1;
            s.counters.bytes_read += self.bytes.0;
            s.counters.bytes_written += self.bytes.1;
            s.counters.busy_ns += self.price.total_ns;
            s.counters.energy_mj += energy_mj(self.device.chip, self.price.total_ns, self.utilisation, 0.0);
            let count = s.counters.dispatches;
            s.faults.evaluate(count, &self.name).map_or(Ok(s.faults.hang == Some(count)), Err)
        })?;
        if hangs {
            return Ok(Ticket::done(Err(faults::timeout(&self.name))));
        }
        for (surface, inner) in &request.before {
            surface.copy_to(inner)?;
        }
        let ticket = self.inner.submit(&request.inner)?;
        let outcome = self.inner.wait(ticket, Duration::MAX);
        if outcome.is_ok() {
            for (surface, inner) in &request.after {
                inner.copy_to(surface)?;
            }
        }
        Ok(Ticket::done(outcome))
    }

    fn wait(&self, ticket: Ticket, _deadline: Duration) -> Result<Report, EngineError> {
        ticket.outcome()
    }
}
