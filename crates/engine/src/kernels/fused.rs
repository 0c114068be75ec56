//! Element-wise chains, row reductions and outer reductions over one domain, block by block in cache.
//!
//! The domain is `rows × cols`. A block is a few rows, or a piece of one row; each op of the chain runs over the whole
//! block before the next. Registers hold fp32 values that are already rounded to the declared type of the value they
//! stand for, so a chain has the bits of its ops run one by one.

use std::ops::Range;

use arcane_mil::{Binary, Compare, Logical, Reduce, Unary};
use arcane_tensor::DType;

use super::apply::{Rounding, Source, apply, at_row, look_up, reduce_row, reduce_row_away};
use super::math::{maximum, minimum, round_f16_away, round_f16_away_wide};
use super::{Access, Context, for_each_task, narrow, widen};

/// Elements of a block, where rows are shorter.
pub(crate) const BLOCK: usize = 1024;
/// Elements that are worth a task.
const TASK: usize = 16 * 1024;
/// Most tasks of an instruction.
const MAX_TASKS: usize = 64;

/// Where an op finds an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register: one value an element.
    Register(usize),
    /// A row register: one value a row.
    Row(usize),
    /// An input.
    Load(usize),
    /// The product that the chain follows.
    Tile,
    /// A number.
    Constant(f32),
}

/// Where an op puts its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A register.
    Register(usize),
    /// A row register.
    Row(usize),
}

/// One step of a chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Element-wise, one operand.
    Unary(Unary),
    /// Element-wise, two operands.
    Binary(Binary),
    /// 1 where true, else 0.
    Compare(Compare),
    /// On 0 and 1.
    Logical(Logical),
    /// `a != 0 ? b : c`
    Select,
    /// Conversion to `bool`: 1 where a ≠ 0.
    Truth,
    /// A row's reduction to a row register. `Mean` divides by the row's length; `LogSumExp` is not used.
    Reduce(Reduce),
    /// An entry of a table of the context, by the operand's fp16 bits.
    Lookup(usize),
    /// The first operand times such an entry of the second.
    Quotient(usize),
    /// The value, or 0 where it is infinite: keeps −∞ − (−∞) out of log-sum-exp.
    FiniteOrZero,
}

/// A step with its operands.
#[derive(Clone, Debug)]
pub(crate) struct Micro {
    /// What.
    pub step: Step,
    /// From where; unused operands are `Constant(0)`.
    pub operands: [Operand; 3],
    /// Where to.
    pub target: Target,
    /// Whether the result is rounded to fp16.
    pub round: bool,
}

/// An input or output of the chain: the domain's strides in some memory.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// The memory, first element and dtype; its shape and strides are those of the domain's outer dimensions.
    pub access: Access,
    /// Offset of each segment of a row, in elements.
    pub segments: Vec<usize>,
    /// Distance between neighbours in a segment, in elements.
    pub step: usize,
}

/// What becomes of a value that the chain computes.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The value.
    pub source: Operand,
    /// Where it goes.
    pub port: Port,
}

/// A reduction over rows (and over columns, if `all`).
#[derive(Clone, Debug)]
pub(crate) struct Outer {
    /// Which: `Sum`, `Mean`, `SumSquare`, `Max` or `Min`.
    pub kind: Reduce,
    /// The value.
    pub source: Operand,
    /// Whether columns are reduced, too.
    pub all: bool,
    /// Where the result goes, dense.
    pub to: Access,
    /// Partial results of the tasks: `tasks × (all ? 1 : cols)` f64 values.
    pub partials: Access,
}

/// A chain over a domain.
#[derive(Clone, Debug)]
pub(crate) struct Fused {
    /// Dimensions whose product is the number of rows.
    pub outer: Vec<usize>,
    /// Elements of a row.
    pub cols: usize,
    /// Inputs.
    pub loads: Vec<Port>,
    /// The chain.
    pub micros: Vec<Micro>,
    /// Outputs.
    pub stores: Vec<Store>,
    /// Reductions over rows.
    pub reductions: Vec<Outer>,
    /// Registers used.
    pub registers: usize,
    /// Row registers used.
    pub row_registers: usize,
    /// Whether rows must stay whole.
    pub whole_rows: bool,
}

/// How a domain is cut: by its shape alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    rows: usize,
    block_rows: usize,
    block_cols: usize,
    col_blocks: usize,
    blocks: usize,
    blocks_per_task: usize,
    /// Number of tasks.
    pub tasks: usize,
}

impl Cut {
    /// Elements of a register.
    fn block_len(&self) -> usize {
        (self.block_rows * self.block_cols).next_multiple_of(16)
    }
}

impl Port {
    fn is_scalar(&self) -> bool {
        self.is_row() && self.access.strides.iter().zip(&self.access.shape).all(|(&s, &d)| s == 0 || d == 1)
    }

    /// Whether it has one value a row.
    fn is_row(&self) -> bool {
        self.step == 0 && self.segments.iter().all(|&s| s == 0)
    }

    /// Whether a block's elements lie as floats one after another.
    fn is_direct(&self, cols: usize, block_rows: usize) -> bool {
        let one_row = self.segments.len() == 1 && self.step == 1;
        let dense = || {
            let mut wanted = cols;
            let pairs = self.access.shape.iter().zip(&self.access.strides).rev();
            pairs.fold(true, |ok, (&d, &s)| {
                let fits = s == wanted || d == 1;
                wanted *= d;
                ok && fits
            })
        };
        self.access.dtype == DType::F32 && one_row && (block_rows == 1 || dense())
    }

    fn row_offset(&self, row: usize) -> usize {
        let mut rest = row;
        let mut offset = 0;
        for (&d, &s) in self.access.shape.iter().zip(&self.access.strides).rev() {
            offset += rest % d * s;
            rest /= d;
        }
        offset
    }
}

impl Fused {
    /// How the domain is cut into blocks and tasks.
    pub(crate) fn cut(&self) -> Cut {
        let rows: usize = self.outer.iter().product();
        let whole = self.whole_rows || self.reductions.iter().any(|r| !r.all);
        let block_cols = if whole || self.cols <= BLOCK { self.cols.max(1) } else { BLOCK };
        let block_rows =
            if self.cols >= BLOCK / 4 { 1 } else { (BLOCK / self.cols.max(1)).clamp(1, rows.max(1)) };
        let col_blocks = self.cols.max(1).div_ceil(block_cols);
        let blocks = rows.div_ceil(block_rows) * col_blocks;
        let wanted = (rows * self.cols).div_ceil(TASK).clamp(1, MAX_TASKS);
        let blocks_per_task = blocks.div_ceil(wanted).max(1);
        let tasks = blocks.div_ceil(blocks_per_task);
        Cut { rows, block_rows, block_cols, col_blocks, blocks, blocks_per_task, tasks }
    }

    /// f64 values of partial results that outer reduction `i` needs.
    pub(crate) fn partial_len(&self, i: usize) -> usize {
        self.cut().tasks * if self.reductions[i].all { 1 } else { self.cols }
    }

    /// Bytes of scratch that a thread needs: registers, staged inputs, row registers, staged rows.
    pub(crate) fn scratch_bytes(&self) -> usize {
        let cut = self.cut();
        let wide = (self.registers + self.loads.len() + 1) * cut.block_len();
        let narrow = (self.row_registers + self.loads.len()) * cut.block_rows.next_multiple_of(16);
        4 * (wide + narrow)
    }

    /// Runs the chain over the domain.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let cut = self.cut();
        let arch = pulp::Arch::new();
        let task = |t: usize| {
            let blocks = t * cut.blocks_per_task..((t + 1) * cut.blocks_per_task).min(cut.blocks);
            arch.dispatch(|| {
                self.start_partials(context, t);
                let frame = Frame::new(self, context, cut.block_rows, cut.block_len(), context.scratch());
                for block in blocks.clone() {
                    let row = block / cut.col_blocks * cut.block_rows;
                    let col = block % cut.col_blocks * cut.block_cols;
                    let rows = cut.block_rows.min(cut.rows - row);
                    let cols = cut.block_cols.min(self.cols - col);
                    frame.block(row, rows, col, cols);
                    for reduction in &self.reductions {
                        frame.accumulate(reduction, t, row, rows, col, cols);
                    }
                }
            });
        };
        for_each_task(cut.tasks, &task);
        for reduction in &self.reductions {
            self.finish(context, &cut, reduction);
        }
    }

    /// Floats of scratch for [`Fused::run_tile`].
    pub(crate) fn tile_scratch_len(&self) -> usize {
        let row_stride = BLOCK.next_multiple_of(16);
        (self.registers + self.loads.len() + 1) * BLOCK + (self.row_registers + self.loads.len()) * row_stride
    }

    /// Runs the chain over some rows and columns of the domain, where the product that it follows is `tile`, dense. At most
    /// [`BLOCK`] columns.
    pub(crate) fn run_tile(
        &self,
        context: &Context<'_>,
        tile: &[f32],
        rows: Range<usize>,
        cols: Range<usize>,
        scratch: &mut [f32],
    ) {
        let (row, rows, col, cols) = (rows.start, rows.len(), cols.start, cols.len());
        debug_assert!(self.reductions.is_empty() && cols <= BLOCK && tile.len() >= rows * cols);
        // Rows of a piece of the columns do not follow one another in the operands.
        let block_rows = if cols == self.cols { (BLOCK / cols.max(1)).clamp(1, rows.max(1)) } else { 1 };
        let block_len = (block_rows * cols).next_multiple_of(16);
        pulp::Arch::new().dispatch(|| {
            let mut frame = Frame::new(self, context, block_rows, block_len, scratch);
            for done in (0..rows).step_by(block_rows) {
                frame.tile = tile[done * cols..].as_ptr();
                frame.block(row + done, block_rows.min(rows - done), col, cols);
            }
        });
    }

    #[inline(always)]
    fn start_partials(&self, context: &Context<'_>, task: usize) {
        for reduction in &self.reductions {
            let n = if reduction.all { 1 } else { self.cols };
            let start = start_of(reduction.kind);
            // SAFETY: the partials hold n values for each task.
            unsafe {
                let mine = context.pointer(&reduction.partials).cast::<f64>().add(task * n);
                std::slice::from_raw_parts_mut(mine, n).fill(start);
            }
        }
    }

    /// Combines the tasks' partial results in order.
    fn finish(&self, context: &Context<'_>, cut: &Cut, reduction: &Outer) {
        let n = if reduction.all { 1 } else { self.cols };
        let count = if reduction.all { cut.rows * self.cols } else { cut.rows };
        // SAFETY: the partials hold n values for each task, and the result n elements.
        let partials = unsafe {
            std::slice::from_raw_parts(context.pointer(&reduction.partials).cast::<f64>(), n * cut.tasks)
        };
        for col in 0..n {
            let column = partials.iter().skip(col).step_by(n).copied();
            let value = match reduction.kind {
                Reduce::Max => f64::from(column.fold(f32::NEG_INFINITY, |a, b| maximum(a, b as f32))),
                Reduce::Min => f64::from(column.fold(f32::INFINITY, |a, b| minimum(a, b as f32))),
                Reduce::Mean => column.sum::<f64>() / count as f64,
                Reduce::Sum | Reduce::SumSquare => column.sum::<f64>(),
                row => unreachable!("{} is a reduction of rows", row.name()),
            };
            let away = context.lookups.is_some() && reduction.to.dtype == DType::F16;
            let value = if away { round_f16_away_wide(value) } else { value as f32 };
            // SAFETY: the result is dense and has n elements.
            unsafe {
                let to = context.pointer(&reduction.to).add(col * reduction.to.dtype.size());
                narrow(reduction.to.dtype, &raw const value, to, 1);
            }
        }
    }
}

fn start_of(kind: Reduce) -> f64 {
    match kind {
        Reduce::Max => f64::NEG_INFINITY,
        Reduce::Min => f64::INFINITY,
        _ => 0.0,
    }
}

/// The scratch of one task, laid out.
struct Frame<'a> {
    chain: &'a Fused,
    context: &'a Context<'a>,
    block_rows: usize,
    /// The block's part of the product that the chain follows.
    tile: *const f32,
    registers: *mut f32,
    staged: *mut f32,
    row_registers: *mut f32,
    staged_rows: *mut f32,
    stride: usize,
    row_stride: usize,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    fn new(
        chain: &'a Fused,
        context: &'a Context<'a>,
        block_rows: usize,
        stride: usize,
        scratch: &mut [f32],
    ) -> Self {
        let row_stride = block_rows.next_multiple_of(16);
        let registers = scratch.as_mut_ptr();
        // SAFETY: `scratch_bytes` and `tile_scratch_len` count all four parts.
        unsafe {
            let staged = registers.add(chain.registers * stride);
            let row_registers = staged.add((chain.loads.len() + 1) * stride);
            let staged_rows = row_registers.add(chain.row_registers * row_stride);
            let tile = std::ptr::null();
            Self {
                chain,
                context,
                block_rows,
                tile,
                registers,
                staged,
                row_registers,
                staged_rows,
                stride,
                row_stride,
            }
        }
    }

    /// Inputs, steps and outputs of one block.
    #[inline(always)]
    fn block(&self, row: usize, rows: usize, col: usize, cols: usize) {
        for (i, port) in self.chain.loads.iter().enumerate() {
            self.load(port, i, row, rows, col, cols);
            if self.context.lookups.is_some()
                && port.access.dtype == DType::F16
                && !self.chain.micros.is_empty()
            {
                self.decode(port, i, rows, cols);
            }
        }
        for micro in &self.chain.micros {
            self.step(micro, rows, cols, row, col);
        }
        for store in &self.chain.stores {
            self.store(store, row, rows, col, cols);
        }
    }

    /// Copies an input of the block to scratch, unless it can be read where it is.
    #[inline(always)]
    fn load(&self, port: &Port, i: usize, row: usize, rows: usize, col: usize, cols: usize) {
        if port.is_direct(self.chain.cols, self.block_rows) {
            return;
        }
        let size = port.access.dtype.size();
        let base = self.context.pointer(&port.access);
        // SAFETY: the planner lays the port's elements inside its memory; the staging area holds a block.
        unsafe {
            if port.is_row() {
                for r in 0..rows {
                    let from = base.add(port.row_offset(row + r) * size);
                    widen(port.access.dtype, from, self.staged_rows.add(i * self.row_stride + r), 1);
                }
                return;
            }
            let to = self.staged.add(i * self.stride);
            for r in 0..rows {
                let from = base.add(port.row_offset(row + r) * size);
                self.copy_row(port, from, to.add(r * cols), col, cols);
            }
        }
    }

    /// Makes the NaN of a staged input what the Neural Engine takes them for.
    fn decode(&self, port: &Port, i: usize, rows: usize, cols: usize) {
        // SAFETY: `load` has filled as many elements.
        let staged = unsafe {
            if port.is_row() {
                std::slice::from_raw_parts_mut(self.staged_rows.add(i * self.row_stride), rows)
            } else {
                std::slice::from_raw_parts_mut(self.staged.add(i * self.stride), rows * cols)
            }
        };
        for x in staged {
            *x = if x.is_nan() { f32::INFINITY } else { *x };
        }
    }

    #[inline(always)]
    unsafe fn copy_row(&self, port: &Port, from: *const u8, to: *mut f32, col: usize, cols: usize) {
        let size = port.access.dtype.size();
        let segment = self.chain.cols / port.segments.len();
        let mut done = 0;
        while done < cols {
            let (s, within) = ((col + done) / segment, (col + done) % segment);
            let n = (segment - within).min(cols - done);
            // SAFETY: as for `load`.
            unsafe {
                let from = from.add((port.segments[s] + within * port.step) * size);
                let to = to.add(done);
                match port.step {
                    1 => widen(port.access.dtype, from, to, n),
                    step => {
                        for k in 0..n {
                            widen(port.access.dtype, from.add(k * step * size), to.add(k), 1);
                        }
                    }
                }
            }
            done += n;
        }
    }

    #[inline(always)]
    fn source(&self, operand: Operand, row: usize, col: usize) -> Source {
        // SAFETY: registers are inside the scratch; direct ports are read where they are.
        unsafe {
            match operand {
                Operand::Constant(c) => Source::Value(c),
                Operand::Tile => Source::Slice(self.tile),
                Operand::Register(i) => Source::Slice(self.registers.add(i * self.stride)),
                Operand::Row(i) => Source::Rows(self.row_registers.add(i * self.row_stride)),
                Operand::Load(i) => {
                    let port = &self.chain.loads[i];
                    if port.is_direct(self.chain.cols, self.block_rows) {
                        let first = self.context.pointer(&port.access).cast::<f32>();
                        Source::Slice(first.add(port.row_offset(row) + port.segments[0] + col))
                    } else if port.is_scalar() {
                        Source::Value(*self.staged_rows.add(i * self.row_stride))
                    } else if port.is_row() {
                        Source::Rows(self.staged_rows.add(i * self.row_stride))
                    } else {
                        Source::Slice(self.staged.add(i * self.stride))
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn step(&self, micro: &Micro, rows: usize, cols: usize, row: usize, col: usize) {
        let sources = micro.operands.map(|o| self.source(o, row, col));
        let away = self.context.lookups.is_some();
        let rounding = match (micro.round, away) {
            (false, _) => Rounding::None,
            (true, false) => Rounding::Even,
            (true, true) => Rounding::Away,
        };
        // SAFETY: the targets are inside the scratch, and a step's operands are not its target's register, or element for
        // element the same.
        unsafe {
            match (micro.target, micro.step) {
                (Target::Row(i), Step::Reduce(kind)) => {
                    let to = self.row_registers.add(i * self.row_stride);
                    for r in 0..rows {
                        let source = at_row(sources[0], r, cols);
                        *to.add(r) = match rounding {
                            Rounding::Away => reduce_row_away(kind, source, cols),
                            other => other.of(reduce_row(kind, source, cols)),
                        };
                    }
                }
                (Target::Row(i), step) => {
                    let to = self.row_registers.add(i * self.row_stride);
                    let flat = sources.map(|s| if let Source::Rows(p) = s { Source::Slice(p) } else { s });
                    self.elements(step, flat, to, rows, rounding);
                }
                (Target::Register(i), step) => {
                    let to = self.registers.add(i * self.stride);
                    if sources.iter().any(|s| matches!(s, Source::Rows(_))) {
                        for r in 0..rows {
                            let of_row = sources.map(|s| at_row(s, r, cols));
                            self.elements(step, of_row, to.add(r * cols), cols, rounding);
                        }
                    } else {
                        self.elements(step, sources, to, rows * cols, rounding);
                    }
                }
            }
        }
    }

    /// One step over n elements.
    #[inline(always)]
    unsafe fn elements(&self, step: Step, sources: [Source; 3], to: *mut f32, n: usize, rounding: Rounding) {
        let table = |i: usize| &self.context.lookups.expect("steps that look up have tables")[i];
        // SAFETY: as for `apply`; what is looked up is fp16.
        unsafe {
            match step {
                Step::Lookup(i) => look_up(table(i), None, sources[0], to, n),
                Step::Quotient(i) => look_up(table(i), Some(sources[0]), sources[1], to, n),
                _ => apply(step, sources, to, n, rounding),
            }
        }
    }

    #[inline(always)]
    fn store(&self, store: &Store, row: usize, rows: usize, col: usize, cols: usize) {
        let port = &store.port;
        let size = port.access.dtype.size();
        let base = self.context.pointer(&port.access);
        let segment = self.chain.cols / port.segments.len();
        let source = self.source(store.source, row, col);
        let spare = self.chain.loads.len();
        // SAFETY: the planner lays the output's elements inside its memory; each block writes its own.
        unsafe {
            for r in 0..rows {
                let to = base.add(port.row_offset(row + r) * size);
                let from = match at_row(source, r, cols) {
                    Source::Slice(p) | Source::Rows(p) => p,
                    Source::Value(v) => {
                        let filled = self.staged.add(spare * self.stride);
                        std::slice::from_raw_parts_mut(filled, cols).fill(v);
                        filled.cast_const()
                    }
                };
                if port.is_row() && self.chain.cols > 1 {
                    narrow(port.access.dtype, from, to, 1);
                    continue;
                }
                let mut done = 0;
                while done < cols {
                    let (s, within) = ((col + done) / segment, (col + done) % segment);
                    let n = (segment - within).min(cols - done);
                    let to = to.add((port.segments[s] + within * port.step) * size);
                    if port.step == 1 {
                        narrow(port.access.dtype, from.add(done), to, n);
                    } else {
                        for k in 0..n {
                            narrow(port.access.dtype, from.add(done + k), to.add(k * port.step * size), 1);
                        }
                    }
                    done += n;
                }
            }
        }
    }

    #[inline(always)]
    fn accumulate(&self, reduction: &Outer, task: usize, row: usize, rows: usize, col: usize, cols: usize) {
        let n = if reduction.all { 1 } else { self.chain.cols };
        let source = self.source(reduction.source, row, col);
        let square = reduction.kind == Reduce::SumSquare;
        // The Neural Engine rounds squares, and adds up wide.
        let away = self.context.lookups.is_some() && reduction.to.dtype == DType::F16;
        let one = |x: f32| match (square, away) {
            (false, _) => f64::from(x),
            (true, false) => f64::from(x) * f64::from(x),
            (true, true) => f64::from(round_f16_away(x * x)),
        };
        // SAFETY: the partials hold n values for each task.
        unsafe {
            let mine = self.context.pointer(&reduction.partials).cast::<f64>().add(task * n);
            for r in 0..rows {
                match (at_row(source, r, cols), reduction.all) {
                    (Source::Slice(p) | Source::Rows(p), true) => {
                        if away {
                            for c in 0..cols {
                                combine(reduction.kind, mine, one(*p.add(c)), 1);
                            }
                            continue;
                        }
                        let value = reduce_row(reduction.kind, Source::Slice(p), cols);
                        combine(reduction.kind, mine, f64::from(value), cols);
                    }
                    (Source::Value(v), true) if away => {
                        for _ in 0..cols {
                            combine(reduction.kind, mine, one(v), 1);
                        }
                    }
                    (Source::Value(v), true) => {
                        combine(
                            reduction.kind,
                            mine,
                            f64::from(reduce_row(reduction.kind, Source::Value(v), cols)),
                            cols,
                        );
                    }
                    (Source::Slice(p) | Source::Rows(p), false) => {
                        for c in 0..cols {
                            combine(reduction.kind, mine.add(col + c), one(*p.add(c)), 1);
                        }
                    }
                    (Source::Value(v), false) => {
                        for c in 0..cols {
                            combine(reduction.kind, mine.add(col + c), one(v), 1);
                        }
                    }
                }
            }
        }
    }
}

/// Adds to a partial result; a mean's piece of `n` values counts n times.
#[inline(always)]
unsafe fn combine(kind: Reduce, partial: *mut f64, value: f64, n: usize) {
    // SAFETY: the caller owns the partial result.
    unsafe {
        *partial = match kind {
            Reduce::Max => f64::from(maximum(*partial as f32, value as f32)),
            Reduce::Min => f64::from(minimum(*partial as f32, value as f32)),
            Reduce::Mean => *partial + value * n as f64,
            _ => *partial + value,
        };
    }
}
