//! The kernels: everything that touches memory through raw pointers.
//!
//! An [`Instruction`] says what to compute on which [`Access`]es; a [`Context`] says where those are in memory and holds the
//! threads' scratch. Work is cut into tasks by shape alone and every task writes memory of its own, so results do not
//! depend on the number of threads.
#![expect(unsafe_code, reason = "kernels work on memory that the planner has laid out")]
#![expect(clippy::cast_ptr_alignment, reason = "the planner aligns every element to its type")]

mod apply;
pub(crate) mod attention;
mod convert;
pub(crate) mod cross_entropy;
pub(crate) mod fused;
pub(crate) mod gemm;
pub(crate) mod index;
pub(crate) mod integer;
pub(crate) mod lines;
pub(crate) mod math;
pub(crate) mod memory;
mod microkernel;
pub(crate) mod moves;
pub(crate) mod nd;
mod pack;
pub(crate) mod product;
pub(crate) mod quantize;
pub(crate) mod random;
pub(crate) mod recurrent;
pub(crate) mod region;
pub(crate) mod routine;
pub(crate) mod sample;
pub(crate) mod silicon;
mod skinny;
pub(crate) mod spatial;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use arcane_tensor::DType;

use self::convert::{narrow, widen};
use self::memory::HostMemory;

/// Which memory an access is in: an index into [`Context::bases`].
pub(crate) type Base = usize;

/// The base of intermediate values.
pub(crate) const ARENA: Base = 0;
/// The base of constants.
pub(crate) const CONSTANTS: Base = 1;
/// The base of the first port.
pub(crate) const PORTS: Base = 2;

/// A strided view of elements in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Which memory.
    pub base: Base,
    /// Where in it, in bytes.
    pub offset: usize,
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Distance between neighbours along each dimension, in elements.
    pub strides: Vec<usize>,
}

impl Access {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The strides of a dense row-major array.
pub(crate) fn dense_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// What an instruction computes.
#[derive(Clone, Debug)]
pub(crate) enum Instruction {
    /// Element-wise chains and reductions.
    Fused(fused::Fused),
    /// A matrix product.
    Gemm(gemm::Gemm),
    /// A matrix product in the Neural Engine's arithmetic.
    Silicon(silicon::Silicon),
    /// Scaled dot-product attention.
    Attention(attention::Attention),
    /// Gradients of scaled dot-product attention.
    AttentionGradient(Box<attention::AttentionGradient>),
    /// Cross entropy over a linear head, with gradients or without.
    CrossEntropy(Box<cross_entropy::CrossEntropy>),
    /// Slices or elements by index.
    Gather(index::Gather),
    /// Slices or elements added or put at indices.
    Scatter(index::Scatter),
    /// A kernel on a list of operands.
    Routine {
        /// Which.
        routine: routine::Routine,
        /// Its operands.
        operands: Vec<Access>,
    },
    /// A copy in another order.
    Move(moves::Move),
    /// Slices at coordinates.
    GatherNd(nd::GatherNd),
    /// Slices combined in at coordinates.
    ScatterNd(nd::ScatterNd),
    /// Sequences in reverse order.
    ReverseSequence(nd::ReverseSequence),
    /// Images at run-time points.
    Sampling(sample::Sampling),
    /// A window at a run-time position.
    Region(region::Region),
    /// Element-wise on integers.
    Elementwise(integer::Elementwise),
    /// A reduction of integers.
    IntegerReduce(integer::IntegerReduce),
    /// A matrix product of integers.
    IntegerProduct(integer::IntegerProduct),
    /// Lines along an axis.
    Lines(lines::Lines),
    /// Random numbers.
    Random(random::Numbers),
    /// A plain copy of dense bytes.
    Copy {
        /// From.
        from: Access,
        /// To.
        to: Access,
    },
}

/// A run-time index that was out of range: which instruction, and the index.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    /// The instruction's number plus one; 0 where nothing went wrong.
    instruction: AtomicUsize,
    index: AtomicI64,
}

impl Fault {
    /// Reports a bad index.
    pub(crate) fn report(&self, instruction: usize, index: i64) {
        if self.instruction.compare_exchange(0, instruction + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.index.store(index, Ordering::Relaxed);
        }
    }

    /// Takes the report, if there is one.
    pub(crate) fn take(&self) -> Option<(usize, i64)> {
        let instruction = self.instruction.swap(0, Ordering::Relaxed);
        (instruction > 0).then(|| (instruction - 1, self.index.load(Ordering::Relaxed)))
    }
}

/// A function of fp16 numbers, by their bits.
pub(crate) type Lookup = Box<[f32]>;

/// Knows where the memory of each base begins.
pub(crate) trait Locate: Sync {
    /// The first byte.
    fn start(&self, base: Base) -> *mut u8;
}

/// Where things are in memory while a program runs.
pub(crate) struct Context<'a> {
    /// The first byte of each memory.
    pub bases: &'a dyn Locate,
    /// Scratch of each thread of the pool, big enough for every instruction.
    pub scratch: &'a [HostMemory],
    /// Where bad indices are reported.
    pub fault: &'a Fault,
    /// The instruction that runs.
    pub instruction: usize,
    /// The tables of [`fused::Step::Lookup`], where the program runs in the Neural Engine's arithmetic: rounding is then half
    /// away from zero.
    pub lookups: Option<&'a [Lookup]>,
}

impl Context<'_> {
    /// The first element of an access.
    pub(crate) fn pointer(&self, access: &Access) -> *mut u8 {
        self.at(access.base, access.offset)
    }

    /// A byte of a memory.
    pub(crate) fn at(&self, base: Base, offset: usize) -> *mut u8 {
        // SAFETY: the planner lays every access inside its memory.
        unsafe { self.bases.start(base).add(offset) }
    }

    /// This thread's scratch as floats.
    #[expect(clippy::mut_from_ref, reason = "each thread has its own scratch and takes it once a task")]
    pub(crate) fn scratch(&self) -> &mut [f32] {
        let memory = &self.scratch[rayon::current_thread_index().unwrap_or(0)];
        // SAFETY: only this thread uses this memory while its task runs, and tasks do not nest; the alignment is 64 bytes
        // and any bits are floats.
        unsafe { std::slice::from_raw_parts_mut(memory.start().cast::<f32>(), memory.len() / 4) }
    }
}

impl Instruction {
    /// Bytes of scratch that a thread needs.
    pub(crate) fn scratch_bytes(&self) -> usize {
        match self {
            Self::Fused(i) => i.scratch_bytes(),
            Self::Attention(i) => i.scratch_bytes(),
            Self::AttentionGradient(i) => i.scratch_bytes(),
            Self::Gemm(i) => i.scratch_bytes(),
            Self::Silicon(i) => i.scratch_bytes(),
            Self::CrossEntropy(_) => cross_entropy::CrossEntropy::scratch_bytes(),
            Self::Lines(i) => i.scratch_bytes(),
            Self::Routine { routine, .. } => routine.scratch_bytes(),
            Self::Gather(_)
            | Self::Scatter(_)
            | Self::Move(_)
            | Self::Region(_)
            | Self::GatherNd(_)
            | Self::ScatterNd(_)
            | Self::ReverseSequence(_)
            | Self::Sampling(_)
            | Self::Elementwise(_)
            | Self::IntegerReduce(_)
            | Self::IntegerProduct(_)
            | Self::Random(_)
            | Self::Copy { .. } => 0,
        }
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Fused(_) => "chain",
            Self::Gemm(_) => "gemm",
            Self::Silicon(_) => "silicon",
            Self::Attention(_) => "attention",
            Self::AttentionGradient(_) => "attention_gradient",
            Self::CrossEntropy(_) => "cross_entropy",
            Self::Gather(_) => "gather",
            Self::Scatter(_) => "scatter",
            Self::Routine { routine, .. } => routine.name(),
            Self::Move(_) => "move",
            Self::Region(_) => "region",
            Self::GatherNd(_) => "gather_nd",
            Self::ScatterNd(_) => "scatter_nd",
            Self::ReverseSequence(_) => "reverse_sequence",
            Self::Sampling(_) => "sampling",
            Self::Elementwise(_) => "integer_elementwise",
            Self::IntegerReduce(_) => "integer_reduce",
            Self::IntegerProduct(_) => "integer_product",
            Self::Lines(_) => "lines",
            Self::Random(_) => "random",
            Self::Copy { .. } => "copy",
        }
    }

    /// Runs it, inside the pool.
    pub(crate) fn run(&self, context: &Context<'_>) {
        match self {
            Self::Fused(i) => i.run(context),
            Self::Gemm(i) => i.run(context),
            Self::Silicon(i) => i.run(context),
            Self::Attention(i) => i.run(context),
            Self::AttentionGradient(i) => i.run(context),
            Self::CrossEntropy(i) => i.run(context),
            Self::Gather(i) => i.run(context),
            Self::Scatter(i) => i.run(context),
            Self::Routine { routine, operands } => routine.run(context, operands),
            Self::Move(i) => i.run(context),
            Self::Region(i) => i.run(context),
            Self::GatherNd(i) => i.run(context),
            Self::ScatterNd(i) => i.run(context),
            Self::ReverseSequence(i) => i.run(context),
            Self::Sampling(i) => i.run(context),
            Self::Elementwise(i) => i.run(context),
            Self::IntegerReduce(i) => i.run(context),
            Self::IntegerProduct(i) => i.run(context),
            Self::Lines(i) => i.run(context),
            Self::Random(i) => i.run(context),
            Self::Copy { from, to } => {
                let bytes = from.len() * from.dtype.size();
                // SAFETY: both are dense, of one type and length, and the planner keeps them apart.
                unsafe { std::ptr::copy_nonoverlapping(context.pointer(from), context.pointer(to), bytes) }
            }
        }
    }
}

/// A pointer that tasks share; each uses its own part.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(pub *mut u8);

// SAFETY: tasks use disjoint parts.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// The pointer.
    pub(crate) fn get(self) -> *mut u8 {
        self.0
    }
}

/// The most dimensions of a value.
pub(crate) const MAX_RANK: usize = 5;

/// The most operands and results of a kernel on a list of them: a recurrence of two directions has 16.
const MOST_OPERANDS: usize = 24;

/// The starts of some accesses, without allocating; the rest of the list is null.
pub(crate) fn starts(context: &Context<'_>, accesses: &[Access]) -> [Bytes; MOST_OPERANDS] {
    let mut found = [Bytes(std::ptr::null_mut()); MOST_OPERANDS];
    assert!(accesses.len() <= MOST_OPERANDS, "{} operands", accesses.len());
    for (start, access) in found.iter_mut().zip(accesses) {
        *start = Bytes(context.pointer(access));
    }
    found
}

/// Calls `task` for 0..n, in parallel by halving.
pub(crate) fn for_each_task(n: usize, task: &(impl Fn(usize) + Sync)) {
    fn halve(from: usize, to: usize, task: &(impl Fn(usize) + Sync)) {
        if to - from <= 1 {
            if from < to {
                task(from);
            }
            return;
        }
        let middle = from + (to - from) / 2;
        rayon::join(|| halve(from, middle, task), || halve(middle, to, task));
    }
    halve(0, n, task);
}
