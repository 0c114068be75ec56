//! What the system says of itself.
#![expect(unreachable_pub, reason = "other programs find this function by name")]

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::world::world;

/// The value of a name.
///
/// # Safety
/// `name` ends with a zero; there are `*length` bytes at `old`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sysctlbyname(
    name: *const c_char,
    old: *mut c_void,
    length: *mut usize,
    _new: *mut c_void,
    _new_length: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let world = world();
    let flag = |word| i32::from(world.faults.has(word)).to_ne_bytes().to_vec();
    let zero_ended = |text: String| [text.as_bytes(), &[0]].concat();
    let value = match &*name {
        "machdep.cpu.brand_string" => {
            let chip = world.chip.name.replace('-', " ");
            // Names are `Apple M4 Pro`; case is left to the reader.
            zero_ended(format!("Apple {}", chip.to_uppercase()))
        }
        "kern.osproductversion" => zero_ended(world.faults.value("version").unwrap_or("26.1").into()),
        "kern.osversion" => zero_ended("25B78".into()),
        "sysctl.proc_translated" => flag("translated"),
        "kern.hv_vmm_present" => flag("virtual_machine"),
        _ => return -1,
    };
    // SAFETY: the caller's promise.
    unsafe {
        if *length < value.len() {
            return -1;
        }
        old.cast::<u8>().copy_from_nonoverlapping(value.as_ptr(), value.len());
        *length = value.len();
    }
    0
}
