//! Ctrl-C.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// A flag that Ctrl-C sets, with a line on stderr. The second Ctrl-C ends the program at once: files are written as a whole or
/// not at all.
pub(crate) fn on_interrupt(line: &'static str) -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = {
        let flag = flag.clone();
        move || {
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            let _ = writeln!(std::io::stderr(), "{line}; Ctrl-C again stops at once");
        }
    };
    ctrlc::set_handler(handler).map_err(|e| Failure::Failed(e.into()))?;
    Ok(flag)
}
