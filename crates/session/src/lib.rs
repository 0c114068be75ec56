//! A Plan on an engine: buffers, aliasing and prepared bindings.
