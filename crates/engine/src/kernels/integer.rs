//! Ops on integers: exact, and wrapped to their type at the end. Elements are 64-bit in between, whose low bits are right after
//! any sums and products.

use arcane_mil::{Binary, Compare, Reduce, Unary};
use arcane_tensor::DType;
use half::f16;

use super::{Access, Bytes, Context, MAX_RANK, for_each_task, starts};

/// Elements of a block.
const BLOCK: usize = 512;
/// Elements that are worth a task.
const TASK: usize = 16 * 1024;
const MAX_TASKS: usize = 64;

/// What is done element by element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum IntegerStep {
    /// A copy, or a conversion between types one of which is an integer.
    Convert,
    /// One operand.
    Unary(Unary),
    /// Two operands.
    Binary(Binary),
    /// Two operands; 1 where true, else 0.
    Compare(Compare),
    /// `a ? b : c`
    Select,
    /// A number.
    Fill(i64),
}

/// One step over a domain, the shape of all operands and the result.
#[derive(Clone, Debug)]
pub(crate) struct Elementwise {
    pub step: IntegerStep,
    /// At most three, stretched to the result's shape.
    pub operands: Vec<Access>,
    pub out: Access,
}

/// A reduction of x to each element of the result.
#[derive(Clone, Debug)]
pub(crate) struct IntegerReduce {
    pub kind: Reduce,
    pub x: Access,
    /// For each axis of x whether it is reduced.
    pub reduced: Vec<bool>,
    /// Dense.
    pub out: Access,
}

/// `x · y + bias`.
#[derive(Clone, Debug)]
pub(crate) struct IntegerProduct {
    /// `[batch.., m, k]`
    pub x: Access,
    /// `[batch.., k, n]`
    pub y: Access,
    /// Stretched to the result's shape.
    pub bias: Option<Access>,
    /// `[batch.., m, n]`, dense.
    pub out: Access,
}

/// Whether the kernels here read and write a type.
pub(crate) const fn is_supported(dtype: DType) -> bool {
    !matches!(dtype, DType::I64 | DType::U64 | DType::F64 | DType::Bf16)
}

/// Reads an element: a float truncated, NaN as 0.
#[inline(always)]
unsafe fn load(dtype: DType, from: *const u8, i: usize) -> i64 {
    // SAFETY: the caller's pointer holds more than i elements of the type.
    unsafe {
        match dtype {
            DType::I8 | DType::I4 => i64::from(*from.cast::<i8>().add(i)),
            DType::U8 | DType::Bool | DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 => {
                i64::from(*from.add(i))
            }
            DType::I16 => i64::from(*from.cast::<i16>().add(i)),
            DType::U16 => i64::from(*from.cast::<u16>().add(i)),
            DType::U32 => i64::from(*from.cast::<u32>().add(i)),
            DType::F16 => (*from.cast::<f16>().add(i)).to_f32() as i64,
            DType::F32 => *from.cast::<f32>().add(i) as i64,
            DType::I32 | DType::I64 | DType::U64 | DType::F64 | DType::Bf16 => {
                i64::from(*from.cast::<i32>().add(i))
            }
        }
    }
}

/// Writes an element, wrapped; a float is rounded to nearest even, `bool` is whether it is not 0.
#[inline(always)]
unsafe fn store(dtype: DType, to: *mut u8, i: usize, value: i64) {
    // SAFETY: the caller's pointer holds more than i elements of the type.
    unsafe {
        match dtype {
            DType::Bool => *to.add(i) = u8::from(value != 0),
            DType::I8 | DType::U8 | DType::U1 | DType::U2 | DType::U3 | DType::U4 | DType::U6 | DType::I4 => {
                *to.add(i) = value as u8;
            }
            DType::I16 | DType::U16 => *to.cast::<u16>().add(i) = value as u16,
            // Integers that f32 rounds are beyond fp16's largest.
            DType::F16 => *to.cast::<f16>().add(i) = f16::from_f32(value as f32),
            DType::F32 => *to.cast::<f32>().add(i) = value as f32,
            DType::I32 | DType::U32 | DType::I64 | DType::U64 | DType::F64 | DType::Bf16 => {
                *to.cast::<u32>().add(i) = value as u32;
            }
        }
    }
}

/// The place of element i of an access, in elements.
fn place(shape: &[usize], strides: &[usize], i: usize) -> usize {
    let mut rest = i;
    let mut at = 0;
    for (&d, &s) in shape.iter().zip(strides).rev() {
        at += rest % d * s;
        rest /= d;
    }
    at
}

/// Calls `run(place, position, n)` for the runs of elements `start..start + n` that lie one stride apart.
#[inline(always)]
fn for_each_run(access: &Access, start: usize, n: usize, mut run: impl FnMut(usize, usize, usize)) {
    let last = access.shape.last().copied().unwrap_or(1);
    let mut done = 0;
    while done < n {
        let i = start + done;
        let count = (last - i % last).min(n - done);
        run(place(&access.shape, &access.strides, i), done, count);
        done += count;
    }
}

/// Cuts `n` elements into tasks.
fn in_tasks(n: usize, work: usize, task: &(impl Fn(usize, usize) + Sync)) {
    let tasks = work.div_ceil(TASK).clamp(1, MAX_TASKS).min(n.max(1));
    for_each_task(tasks, &|t| task(n * t / tasks, n * (t + 1) / tasks));
}

impl Elementwise {
    /// Runs it.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let operands = starts(context, &self.operands);
        let out = Bytes(context.pointer(&self.out));
        in_tasks(self.out.len(), self.out.len(), &|from, to| {
            let mut blocks = [[0i64; BLOCK]; 3];
            let mut start = from;
            while start < to {
                let n = BLOCK.min(to - start);
                for ((access, pointer), block) in self.operands.iter().zip(&operands).zip(&mut blocks) {
                    // SAFETY: the planner lays the access inside its memory.
                    unsafe { gather(access, pointer.get(), start, &mut block[..n]) };
                }
                self.apply(&mut blocks, n);
                // SAFETY: as above; tasks write disjoint elements.
                unsafe { scatter(&self.out, out.get(), start, &blocks[0][..n]) };
                start += n;
            }
        });
    }

    /// The step over n elements of the blocks, into the first.
    fn apply(&self, [a, b, c]: &mut [[i64; BLOCK]; 3], n: usize) {
        let truth = i64::from;
        match self.step {
            IntegerStep::Convert => {}
            IntegerStep::Fill(value) => a[..n].fill(value),
            IntegerStep::Unary(kind) => a[..n].iter_mut().for_each(|x| *x = unary(kind, *x)),
            IntegerStep::Select => {
                for i in 0..n {
                    a[i] = if a[i] == 0 { c[i] } else { b[i] };
                }
            }
            IntegerStep::Binary(kind) => {
                let (a, b) = (&mut a[..n], &b[..n]);
                match kind {
                    Binary::Add => zip(a, b, i64::wrapping_add),
                    Binary::Sub => zip(a, b, i64::wrapping_sub),
                    Binary::Mul => zip(a, b, i64::wrapping_mul),
                    Binary::RealDiv => zip(a, b, |x, y| x.checked_div(y).unwrap_or(0)),
                    Binary::FloorDiv => zip(a, b, floor_div),
                    Binary::Mod => zip(a, b, modulo),
                    Binary::Pow => zip(a, b, power),
                    Binary::Maximum => zip(a, b, i64::max),
                    Binary::Minimum => zip(a, b, i64::min),
                }
            }
            IntegerStep::Compare(kind) => {
                let (a, b) = (&mut a[..n], &b[..n]);
                match kind {
                    Compare::Equal => zip(a, b, |x, y| truth(x == y)),
                    Compare::NotEqual => zip(a, b, |x, y| truth(x != y)),
                    Compare::Less => zip(a, b, |x, y| truth(x < y)),
                    Compare::LessEqual => zip(a, b, |x, y| truth(x <= y)),
                    Compare::Greater => zip(a, b, |x, y| truth(x > y)),
                    Compare::GreaterEqual => zip(a, b, |x, y| truth(x >= y)),
                }
            }
        }
    }
}

#[inline(always)]
fn zip(a: &mut [i64], b: &[i64], f: impl Fn(i64, i64) -> i64) {
    for (x, &y) in a.iter_mut().zip(b) {
        *x = f(*x, y);
    }
}

fn unary(kind: Unary, x: i64) -> i64 {
    match kind {
        Unary::Abs => x.abs(),
        Unary::Sign => x.signum(),
        Unary::Square => x.wrapping_mul(x),
        Unary::Exp2 => power(2, x),
        Unary::Threshold { alpha } => (x as f64).max(alpha) as i64,
        _ => x,
    }
}

fn modulo(x: i64, y: i64) -> i64 {
    let rest = x.checked_rem(y).unwrap_or(0);
    if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
}

fn floor_div(x: i64, y: i64) -> i64 {
    (x - modulo(x, y)).checked_div(y).unwrap_or(0)
}

/// xʸ truncated; the low 64 bits of it.
fn power(x: i64, y: i64) -> i64 {
    match (x, y) {
        (1, _) => 1,
        (-1, _) => 1 - 2 * (y & 1),
        (_, ..0) => 0,
        _ => x.wrapping_pow(y.min(i64::from(u32::MAX)) as u32),
    }
}

/// Reads elements `start..` of an access.
unsafe fn gather(access: &Access, from: *const u8, start: usize, to: &mut [i64]) {
    let step = access.strides.last().copied().unwrap_or(0);
    for_each_run(access, start, to.len(), |at, position, n| {
        for (k, x) in to[position..position + n].iter_mut().enumerate() {
            // SAFETY: the planner lays the access inside its memory.
            *x = unsafe { load(access.dtype, from, at + k * step) };
        }
    });
}

/// Writes elements `start..` of an access.
unsafe fn scatter(access: &Access, to: *mut u8, start: usize, from: &[i64]) {
    let step = access.strides.last().copied().unwrap_or(0);
    for_each_run(access, start, from.len(), |at, position, n| {
        for (k, &x) in from[position..position + n].iter().enumerate() {
            // SAFETY: the planner lays the access inside its memory.
            unsafe { store(access.dtype, to, at + k * step, x) };
        }
    });
}

impl IntegerReduce {
    /// Runs it.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let (x, out) = (Bytes(context.pointer(&self.x)), Bytes(context.pointer(&self.out)));
        // x's dimensions, of length 1 where they are those of the other kind.
        let chosen = |reduced: bool| {
            let mut shape = [1; MAX_RANK];
            for (i, length) in shape.iter_mut().enumerate().take(self.reduced.len()) {
                if self.reduced[i] == reduced {
                    *length = self.x.shape[i];
                }
            }
            shape
        };
        let rank = self.reduced.len();
        let (kept, inner) = (chosen(false), chosen(true));
        let (kept, inner, strides) = (&kept[..rank], &inner[..rank], &self.x.strides);
        let count: usize = inner.iter().product();
        in_tasks(self.out.len(), self.x.len(), &|from, to| {
            for i in from..to {
                let first = place(kept, strides, i);
                // SAFETY: the planner lays both inside their memories; tasks write disjoint elements.
                unsafe {
                    let elements =
                        (0..count).map(|j| load(self.x.dtype, x.get(), first + place(inner, strides, j)));
                    store(self.out.dtype, out.get(), i, reduce(self.kind, elements, count));
                }
            }
        });
    }
}

fn reduce(kind: Reduce, elements: impl Iterator<Item = i64>, count: usize) -> i64 {
    let sum = |elements: &mut dyn Iterator<Item = i64>| elements.fold(0i64, i64::wrapping_add);
    let mut elements = elements;
    match kind {
        Reduce::Sum => sum(&mut elements),
        Reduce::Mean => sum(&mut elements).checked_div(count as i64).unwrap_or(0),
        Reduce::Max => elements.max().unwrap_or(0),
        Reduce::Min => elements.min().unwrap_or(0),
        Reduce::Prod => elements.fold(1, i64::wrapping_mul),
        Reduce::SumSquare => sum(&mut elements.map(|x| x.wrapping_mul(x))),
        Reduce::L1Norm => sum(&mut elements.map(i64::abs)),
        Reduce::L2Norm => {
            (elements.map(|x| i128::from(x) * i128::from(x)).sum::<i128>() as f64).sqrt() as i64
        }
        Reduce::LogSum => (sum(&mut elements) as f64).ln() as i64,
        Reduce::LogSumExp => {
            // One pass: what has been summed is scaled down where a larger element comes.
            let (top, total) = elements.fold((f64::NEG_INFINITY, 0f64), |(top, total), x| {
                let x = x as f64;
                if x > top { (x, total * (top - x).exp() + 1.0) } else { (top, total + (x - top).exp()) }
            });
            (top + total.ln()) as i64
        }
    }
}

impl IntegerProduct {
    /// Runs it.
    pub(crate) fn run(&self, context: &Context<'_>) {
        let (x, y) = (Bytes(context.pointer(&self.x)), Bytes(context.pointer(&self.y)));
        let out = Bytes(context.pointer(&self.out));
        let bias = self.bias.as_ref().map(|bias| (bias, Bytes(context.pointer(bias))));
        let rank = self.out.shape.len();
        let batch = &self.out.shape[..rank - 2];
        let (rows, cols, inner) =
            (self.out.shape[rank - 2], self.out.shape[rank - 1], self.x.shape[rank - 1]);
        in_tasks(self.out.len(), self.out.len() * inner.max(1), &|from, to| {
            for i in from..to {
                let (row, col, b) = (i / cols % rows, i % cols, i / cols / rows);
                let left = place(batch, &self.x.strides[..rank - 2], b) + row * self.x.strides[rank - 2];
                let right = place(batch, &self.y.strides[..rank - 2], b) + col * self.y.strides[rank - 1];
                // SAFETY: the planner lays all inside their memories; tasks write disjoint elements.
                unsafe {
                    let mut sum = bias.map_or(0, |(access, pointer)| {
                        load(access.dtype, pointer.get(), place(&access.shape, &access.strides, i))
                    });
                    for k in 0..inner {
                        let a = load(self.x.dtype, x.get(), left + k * self.x.strides[rank - 1]);
                        let b = load(self.y.dtype, y.get(), right + k * self.y.strides[rank - 2]);
                        sum = sum.wrapping_add(a.wrapping_mul(b));
                    }
                    store(self.out.dtype, out.get(), i, sum);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{floor_div, modulo, power};

    #[test]
    fn division_follows_the_sign_of_the_divisor() {
        let signs = [(7, 2), (-7, 2), (7, -2), (-7, -2)];
        assert_eq!(signs.map(|(x, y)| floor_div(x, y)), [3, -4, -4, 3]);
        assert_eq!([(7, 3), (-7, 3), (7, -3), (-7, -3)].map(|(x, y)| modulo(x, y)), [1, 2, -2, -1]);
        assert_eq!((floor_div(5, 0), modulo(5, 0)), (0, 0));
    }

    #[test]
    fn powers_wrap_and_negative_ones_truncate() {
        assert_eq!([power(3, 4), power(-2, 3), power(0, 0), power(7, -1), power(0, -1)], [81, -8, 1, 0, 0]);
        assert_eq!(
            [power(-1, -3), power(-1, i64::from(i32::MAX)), power(1, -9), power(2, 40) as i32 as i64],
            [-1, -1, 1, 0]
        );
    }
}
