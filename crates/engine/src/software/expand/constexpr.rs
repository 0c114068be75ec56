//! Compressed weights as constants, computed when a function is loaded.

use std::sync::Arc;

use arcane_mil::{Constexpr, TensorType, ValueId};
use arcane_tensor::{DType, Data, Element, Tensor};
use half::f16;

/// The results, whose types are `types`; `None` if an operand is no constant, or a mask has not a 1 for each value.
pub(super) fn constants(
    op: &Constexpr,
    types: &[TensorType],
    get: impl Fn(ValueId) -> Option<Arc<Tensor>>,
) -> Option<Vec<Tensor>> {
    let ty = &types[0];
    let optional = |v: Option<ValueId>| match v {
        None => Some(None),
        Some(v) => get(v).map(Some),
    };
    match op {
        Constexpr::AffineDequantize { data, zero_point, scale, axis } => {
            let (data, zero, scale) = (get(*data)?, get(*zero_point)?, get(*scale)?);
            let inner: usize = ty.shape[axis + 1..].iter().product();
            let pick = |t: &Tensor, i: usize| {
                if t.len() == 1 { t.get(0) } else { t.get(i / inner % ty.shape[*axis]) }
            };
            one(ty, |i| pick(&scale, i) * (data.get(i) - pick(&zero, i)))
        }
        Constexpr::Cast { source } => {
            let source = get(*source)?;
            one(ty, |i| source.get(i))
        }
        Constexpr::BlockwiseShiftScale { data, scale, offset } => {
            let (data, scale, offset) = (get(*data)?, get(*scale)?, optional(*offset)?);
            let blocks = Blocks::new(&ty.shape, scale.shape());
            one(ty, |i| shifted(data.get(i), blocks.of(i), &scale, offset.as_deref()))
        }
        Constexpr::LutToDense { indices, lut, vector_axis } => {
            let (indices, lut) = (get(*indices)?, get(*lut)?);
            let table = Table::new(indices.shape(), &lut, *vector_axis);
            one(ty, |i| {
                let (position, number) = table.place(i);
                table.entry(position, indices.get(position), number)
            })
        }
        Constexpr::PackedLutToDense { indices, lut, .. } => {
            let (indices, lut) = (get(*indices)?, get(*lut)?);
            let bits = lut.len().ilog2() as usize;
            one(ty, |i| lut.get(packed(indices.bytes(), bits, i)))
        }
        Constexpr::SparseToDense { data, mask } => {
            let (data, mask) = (get(*data)?, get(*mask)?);
            spread(ty, &data, |i| mask.bytes()[i] != 0)
        }
        Constexpr::PackedSparseToDense { data, mask, .. } => {
            let (data, mask) = (get(*data)?, get(*mask)?);
            spread(ty, &data, |i| packed(mask.bytes(), 1, i) != 0)
        }
        Constexpr::LutToSparse { mask, indices, lut, vector_axis } => {
            let (mask, indices, lut) = (get(*mask)?, get(*indices)?, get(*lut)?);
            let table = Table::new(mask.shape(), &lut, *vector_axis);
            let numbers = numbering(&mask, indices.len())?;
            let dense = TensorType::new(DType::U1, &ty.shape);
            let repeated = data(&dense, |i| f64::from(mask.bytes()[table.place(i).0]));
            let kept = (0..dense.len()).map(|i| table.place(i)).filter(|&(p, _)| mask.bytes()[p] != 0);
            let values: Vec<f64> =
                kept.map(|(p, number)| table.entry(p, indices.get(numbers[p] as usize), number)).collect();
            let values = Tensor::from_f64s(types[1].dtype, &types[1].shape, &values).ok()?;
            Some(vec![Tensor::from_data(&ty.shape, repeated).ok()?, values])
        }
        Constexpr::SparseBlockwiseShiftScale { mask, data, scale, offset } => {
            let (mask, data) = (get(*mask)?, get(*data)?);
            let (scale, offset) = (get(*scale)?, optional(*offset)?);
            numbering(&mask, data.len())?;
            let blocks = Blocks::new(mask.shape(), scale.shape());
            let places: Vec<usize> = (0..mask.len()).filter(|&p| mask.bytes()[p] != 0).collect();
            let values =
                one(&types[1], |k| shifted(data.get(k), blocks.of(places[k]), &scale, offset.as_deref()))?;
            Some(vec![Tensor::clone(&mask)].into_iter().chain(values).collect())
        }
    }
}

/// A tensor of a type, element by element, each rounded once.
fn one(ty: &TensorType, element: impl Fn(usize) -> f64) -> Option<Vec<Tensor>> {
    Tensor::from_data(&ty.shape, data(ty, element)).ok().map(|t| vec![t])
}

fn data(ty: &TensorType, element: impl Fn(usize) -> f64) -> Data {
    let n = 0..ty.len();
    match ty.dtype {
        DType::F16 => Data::F16(n.map(|i| <f16 as Element>::from_f64(element(i))).collect()),
        DType::F32 => Data::F32(n.map(|i| element(i) as f32).collect()),
        DType::I8 => Data::I8(n.map(|i| element(i) as i8).collect()),
        DType::U8 => Data::U8(n.map(|i| element(i) as u8).collect()),
        // Integers of less than a byte come from elements of their own type.
        other => Data::SubByte(other, n.map(|i| element(i) as i8).collect()),
    }
}

fn shifted(x: f64, block: usize, scale: &Tensor, offset: Option<&Tensor>) -> f64 {
    scale.get(block) * (x - offset.map_or(0.0, |o| o.get(block)))
}

/// Which block of a smaller shape each element of a shape belongs to.
struct Blocks {
    /// For each dimension its stride, its block, and the stride of the smaller shape.
    dimensions: Vec<[usize; 3]>,
}

impl Blocks {
    fn new(shape: &[usize], small: &[usize]) -> Self {
        let (mut stride, mut small_stride) = (1, 1);
        let mut dimensions = Vec::new();
        for (&d, &s) in shape.iter().zip(small).rev() {
            dimensions.push([stride.max(1), (d / s.max(1)).max(1), small_stride]);
            stride *= d;
            small_stride *= s;
        }
        dimensions.reverse();
        Self { dimensions }
    }

    fn of(&self, mut i: usize) -> usize {
        let mut block = 0;
        for &[stride, length, small] in &self.dimensions {
            block += i / stride / length * small;
            i %= stride;
        }
        block
    }
}

/// A table and where its entries go.
struct Table<'a> {
    lut: &'a Tensor,
    blocks: Blocks,
    entries: usize,
    /// Numbers of an entry, and the elements behind the axis that they lie along.
    length: usize,
    inner: usize,
}

impl<'a> Table<'a> {
    fn new(shape: &[usize], lut: &'a Tensor, axis: Option<usize>) -> Self {
        let rank = shape.len();
        Self {
            lut,
            blocks: Blocks::new(shape, &lut.shape()[..rank]),
            entries: lut.shape()[rank],
            length: lut.shape()[rank + 1],
            inner: axis.map_or(1, |a| shape[a + 1..].iter().product::<usize>().max(1)),
        }
    }

    /// The position of the index that gives element i, and the number of its entry.
    fn place(&self, i: usize) -> (usize, usize) {
        let (outer, inner) = (i / self.inner, i % self.inner);
        (outer / self.length * self.inner + inner, outer % self.length)
    }

    fn entry(&self, position: usize, index: f64, number: usize) -> f64 {
        let entry = self.blocks.of(position) * self.entries + index as usize;
        self.lut.get(entry * self.length + number)
    }
}

/// The element of `bits` bits at i of packed bytes.
fn packed(bytes: &[u8], bits: usize, i: usize) -> usize {
    let (byte, shift) = (i * bits / 8, i * bits % 8);
    let both = u16::from_le_bytes([bytes[byte], bytes.get(byte + 1).copied().unwrap_or(0)]);
    usize::from(both >> shift) & ((1 << bits) - 1)
}

/// For each element of a mask how many ones stand before it; `None` if there are not `count` of them.
fn numbering(mask: &Tensor, count: usize) -> Option<Vec<u32>> {
    let mut ones = 0u32;
    let mut number = |&bit: &u8| {
        let before = ones;
        ones += u32::from(bit);
        before
    };
    let numbers: Vec<u32> = mask.bytes().iter().map(&mut number).collect();
    (ones as usize == count).then_some(numbers)
}

/// Values where the mask is 1, zeros elsewhere.
fn spread(ty: &TensorType, values: &Tensor, mask: impl Fn(usize) -> bool) -> Option<Vec<Tensor>> {
    let ones = (0..ty.len()).filter(|&i| mask(i)).count();
    if ones != values.len() {
        return None;
    }
    let next = std::cell::Cell::new(0);
    one(ty, |i| if mask(i) { values.get(next.replace(next.get() + 1)) } else { 0.0 })
}
