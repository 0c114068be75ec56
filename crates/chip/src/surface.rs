//! How arrays lie in the engine's memory.
//!
//! The engine takes every array as batches of channels of planes of rows. Each row starts at a multiple of 64 bytes, so an
//! array whose rows are no multiple of that has gaps. (Measured on M1, M2 and M3: the model attributes that ironmill prints,
//! libane, and eiln's images.)

use arcane_mil::TensorType;

/// Rows start at multiples of this. (The same sources.)
const ROW_BYTES: usize = 64;

/// Allocations are whole pages of this size. (Pages of Apple silicon; also satisfies every smaller minimum that projects
/// report.)
pub const PAGE_BYTES: usize = 16_384;

/// The place of each element of an array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SurfaceLayout {
    /// Batches, channels, height and width. An array of lower rank has ones in front; of one of rank 5 the two axes in front
    /// are the batches.
    pub shape: [usize; 4],
    /// Bytes of an element.
    pub element: usize,
    /// Bytes from a row to the next.
    pub row_stride: usize,
    /// Bytes from a channel to the next.
    pub plane_stride: usize,
    /// Bytes from a batch to the next.
    pub batch_stride: usize,
    /// Bytes to be allocated.
    pub bytes: usize,
}

/// Why an array cannot be a surface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SurfaceError {
    /// Its rank is too high.
    #[error("{ty} has {} dimensions, at most 5 were expected", ty.shape.len())]
    Rank {
        /// The type.
        ty: TensorType,
    },
    /// It has no elements.
    #[error("{ty} has no elements, one or more were expected")]
    Empty {
        /// The type.
        ty: TensorType,
    },
    /// Its size cannot be addressed.
    #[error("{ty} takes more bytes in rows of 64 than memory can have")]
    Size {
        /// The type.
        ty: TensorType,
    },
}

impl SurfaceLayout {
    /// The layout of arrays of a type.
    ///
    /// # Errors
    /// [`SurfaceError`] if the rank is above 5, there are no elements, or the size overflows.
    pub fn of(ty: &TensorType) -> Result<Self, SurfaceError> {
        if ty.shape.len() > 5 {
            return Err(SurfaceError::Rank { ty: ty.clone() });
        }
        if ty.shape.contains(&0) {
            return Err(SurfaceError::Empty { ty: ty.clone() });
        }
        Self::strided(ty).ok_or_else(|| SurfaceError::Size { ty: ty.clone() })
    }

    /// As `of`, `None` if a product overflows.
    fn strided(ty: &TensorType) -> Option<Self> {
        let [width, height, channels, batches] = folded(&ty.shape)?;
        let element = ty.dtype.size();
        let row_stride = width.checked_mul(element)?.checked_next_multiple_of(ROW_BYTES)?;
        let plane_stride = height.checked_mul(row_stride)?;
        let batch_stride = channels.checked_mul(plane_stride)?;
        let bytes = batches.checked_mul(batch_stride)?.checked_next_multiple_of(PAGE_BYTES)?;
        isize::try_from(bytes).ok()?;
        let shape = [batches, channels, height, width];
        Some(Self { shape, element, row_stride, plane_stride, batch_stride, bytes })
    }

    /// Bytes from the first element to the end of the last row.
    pub fn strided_bytes(&self) -> usize {
        self.shape[0] * self.batch_stride
    }

    /// Bytes of the elements alone.
    pub fn dense_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element
    }

    /// Whether the elements follow one another without gaps, as in a dense row-major array.
    pub fn is_dense(&self) -> bool {
        self.strided_bytes() == self.dense_bytes()
    }

    /// The byte at which an element starts.
    pub fn offset(&self, batch: usize, channel: usize, row: usize, column: usize) -> usize {
        batch * self.batch_stride
            + channel * self.plane_stride
            + row * self.row_stride
            + column * self.element
    }
}

/// Width, height, channels and batches of a shape: its axes from the back, all that are left as batches. `None` if their
/// product overflows.
pub(crate) fn folded(shape: &[usize]) -> Option<[usize; 4]> {
    let mut axes = shape.iter().rev().copied();
    let mut next = || axes.next().unwrap_or(1);
    let (width, height, channels) = (next(), next(), next());
    let batches = axes.try_fold(1usize, usize::checked_mul)?;
    Some([width, height, channels, batches])
}

/// The order in which the engine's compiler numbers inputs, or outputs: position in the result is the symbol's number, the
/// value there the index in `names`. It sorts them by name, byte by byte, whatever the order of declaration. (Measured by the
/// M3 Ultra study, Orion and Espresso.)
pub fn symbol_order(names: &[&str]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&i| names[i].as_bytes());
    order
}

#[cfg(test)]
mod tests;
