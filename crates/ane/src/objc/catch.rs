//! Catching Objective-C exceptions.
//!
//! Rust cannot catch them: one that reaches a Rust frame which catches panics ends the process. `@catch` is a language
//! feature of Objective-C, whose compiler is not asked for here; but all that it emits is a call, a landing pad, and a table
//! that says where the one leads to the other. Those are few enough lines to write in assembly.
//!
//! The table is that of the Itanium C++ ABI, section 7, as LLVM writes it. On macOS the runtime's personality matches the
//! exception's class with `OBJC_EHTYPE_id`, which every object is; GCC's runtime takes an empty entry for that. The form for
//! Linux is tested; that for macOS is assembled and linked in tests but has not been run.

use std::ffi::{c_int, c_void};

use objc2::msg_send;
use objc2::rc::Retained;
use objc2::runtime::{AnyClass, AnyObject, Bool};

use super::foundation::text;
use crate::fault::Fault;

#[cfg(all(target_arch = "aarch64", target_vendor = "apple"))]
core::arch::global_asm!(
    "    .section __TEXT,__text,regular,pure_instructions",
    "    .private_extern _arcane_ane_try",
    "    .globl _arcane_ane_try",
    "    .p2align 2",
    "_arcane_ane_try:",
    "    .cfi_startproc",
    "    .cfi_personality 155, ___objc_personality_v0",
    "    .cfi_lsda 16, Larcane_ane_lsda",
    "    stp x20, x19, [sp, #-32]!",
    "    stp x29, x30, [sp, #16]",
    "    add x29, sp, #16",
    "    .cfi_def_cfa w29, 16",
    "    .cfi_offset w30, -8",
    "    .cfi_offset w29, -16",
    "    .cfi_offset w19, -24",
    "    .cfi_offset w20, -32",
    "    mov x19, x2",
    "    mov x8, x0",
    "    mov x0, x1",
    "Larcane_ane_call:",
    "    blr x8",
    "Larcane_ane_called:",
    "    mov w0, #0",
    "Larcane_ane_return:",
    "    ldp x29, x30, [sp, #16]",
    "    ldp x20, x19, [sp], #32",
    "    ret",
    "Larcane_ane_landing:",
    "    bl _objc_begin_catch",
    "    bl _objc_retain",
    "    str x0, [x19]",
    "    bl _objc_end_catch",
    "    mov w0, #1",
    "    b Larcane_ane_return",
    "Larcane_ane_end:",
    "    .cfi_endproc",
    "    .section __TEXT,__gcc_except_tab",
    "    .p2align 2",
    "Larcane_ane_lsda:",
    "    .byte 255",
    "    .byte 155",
    "    .uleb128 Larcane_ane_types-Larcane_ane_types_from",
    "Larcane_ane_types_from:",
    "    .byte 1",
    "    .uleb128 Larcane_ane_sites_end-Larcane_ane_sites",
    "Larcane_ane_sites:",
    "    .uleb128 Larcane_ane_call-_arcane_ane_try",
    "    .uleb128 Larcane_ane_called-Larcane_ane_call",
    "    .uleb128 Larcane_ane_landing-_arcane_ane_try",
    "    .byte 1",
    "    .uleb128 Larcane_ane_called-_arcane_ane_try",
    "    .uleb128 Larcane_ane_end-Larcane_ane_called",
    "    .byte 0",
    "    .byte 0",
    "Larcane_ane_sites_end:",
    "    .byte 1",
    "    .byte 0",
    "    .p2align 2",
    "Larcane_ane_type:",
    "    .long _OBJC_EHTYPE_id@GOT-Larcane_ane_type",
    "Larcane_ane_types:",
    "    .section __TEXT,__text,regular,pure_instructions",
);

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
core::arch::global_asm!(
    "    .text",
    "    .globl arcane_ane_try",
    "    .hidden arcane_ane_try",
    "    .type arcane_ane_try, @function",
    "arcane_ane_try:",
    "    .cfi_startproc",
    "    .cfi_personality 0x9b, DW.ref.__gnu_objc_personality_v0",
    "    .cfi_lsda 0x1b, .Larcane_ane_lsda",
    "    pushq %rbx",
    "    .cfi_def_cfa_offset 16",
    "    .cfi_offset %rbx, -16",
    "    movq %rdx, %rbx",
    "    movq %rdi, %rax",
    "    movq %rsi, %rdi",
    ".Larcane_ane_call:",
    "    callq *%rax",
    ".Larcane_ane_called:",
    "    xorl %eax, %eax",
    ".Larcane_ane_return:",
    "    popq %rbx",
    "    .cfi_remember_state",
    "    .cfi_def_cfa_offset 8",
    "    retq",
    "    .cfi_restore_state",
    ".Larcane_ane_landing:",
    "    movq %rax, %rdi",
    "    callq objc_retain",
    "    movq %rax, (%rbx)",
    "    movl $1, %eax",
    "    jmp .Larcane_ane_return",
    ".Larcane_ane_end:",
    "    .cfi_endproc",
    "    .size arcane_ane_try, .-arcane_ane_try",
    "    .section .gcc_except_table, \"a\", @progbits",
    "    .p2align 2",
    ".Larcane_ane_lsda:",
    "    .byte 255",
    "    .byte 0x9b",
    "    .uleb128 .Larcane_ane_types-.Larcane_ane_types_from",
    ".Larcane_ane_types_from:",
    "    .byte 1",
    "    .uleb128 .Larcane_ane_sites_end-.Larcane_ane_sites",
    ".Larcane_ane_sites:",
    "    .uleb128 .Larcane_ane_call-arcane_ane_try",
    "    .uleb128 .Larcane_ane_called-.Larcane_ane_call",
    "    .uleb128 .Larcane_ane_landing-arcane_ane_try",
    "    .byte 1",
    "    .uleb128 .Larcane_ane_called-arcane_ane_try",
    "    .uleb128 .Larcane_ane_end-.Larcane_ane_called",
    "    .byte 0",
    "    .byte 0",
    ".Larcane_ane_sites_end:",
    "    .byte 1",
    "    .byte 0",
    "    .p2align 2",
    "    .long 0",
    ".Larcane_ane_types:",
    "    .section .data.rel.local.DW.ref.__gnu_objc_personality_v0, \"awG\", @progbits, DW.ref.__gnu_objc_personality_v0, comdat",
    "    .hidden DW.ref.__gnu_objc_personality_v0",
    "    .weak DW.ref.__gnu_objc_personality_v0",
    "    .p2align 3",
    "    .type DW.ref.__gnu_objc_personality_v0, @object",
    "    .size DW.ref.__gnu_objc_personality_v0, 8",
    "DW.ref.__gnu_objc_personality_v0:",
    "    .quad __gnu_objc_personality_v0",
    "    .text",
    options(att_syntax),
);

type Call = unsafe extern "C-unwind" fn(*mut c_void);

// SAFETY: the assembly above has this signature: it calls `call(context)` and gives 0, or, if that raises an object, puts it
// into `exception`, retained, and gives 1.
unsafe extern "C-unwind" {
    fn arcane_ane_try(call: Call, context: *mut c_void, exception: *mut *mut AnyObject) -> c_int;
}

/// Sends messages; an exception becomes an error that names `call`.
///
/// Nothing between the message and this function may catch panics or need to be dropped in order to be sound: an exception
/// unwinds it.
pub(super) fn attempt<R>(call: &'static str, send: impl FnOnce() -> R) -> Result<R, Fault> {
    struct Context<F, R> {
        send: Option<F>,
        result: Option<R>,
    }
    unsafe extern "C-unwind" fn run<F: FnOnce() -> R, R>(context: *mut c_void) {
        // SAFETY: `attempt` passes its context of these types, which nothing else refers to during the call.
        let context = unsafe { &mut *context.cast::<Context<F, R>>() };
        context.result = context.send.take().map(|send| send());
    }
    /// The function of a closure whose type has no name.
    fn function<F: FnOnce() -> R, R>(_: &Context<F, R>) -> Call {
        run::<F, R>
    }
    let mut context = Context { send: Some(send), result: None };
    let mut exception = std::ptr::null_mut();
    let call_context = function(&context);
    // SAFETY: both pointers are good for the call, and `run` takes a context of these types.
    let raised = unsafe { arcane_ane_try(call_context, (&raw mut context).cast(), &raw mut exception) };
    if raised == 0 {
        return context.result.ok_or(Fault::Silent { call });
    }
    // SAFETY: the object was retained for us, or is null.
    let exception = unsafe { Retained::from_raw(exception) };
    let (name, reason) = exception.map_or_else(Default::default, |e| describe(&e));
    Err(Fault::Exception { call, name, reason })
}

/// Name and reason of an exception; of an object that is none, its class.
fn describe(exception: &AnyObject) -> (String, String) {
    let is_exception = AnyClass::get(c"NSException").is_some_and(|class| {
        // SAFETY: every object has this method.
        let is: Bool = unsafe { msg_send![exception, isKindOfClass: class] };
        is.as_bool()
    });
    if !is_exception {
        return (exception.class().name().to_string_lossy().into_owned(), "an object was thrown".into());
    }
    // SAFETY: exceptions have these methods, which give strings or nil.
    let (name, reason): (Option<Retained<AnyObject>>, Option<Retained<AnyObject>>) =
        unsafe { (msg_send![exception, name], msg_send![exception, reason]) };
    let read = |s: Option<Retained<AnyObject>>| s.and_then(|s| text(&s)).unwrap_or_else(|| "nothing".into());
    (read(name), read(reason))
}
