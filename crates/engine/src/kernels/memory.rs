//! Aligned host memory with a borrow flag in place of a lock: a conflict is an error, never a wait.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

/// Alignment of every allocation in bytes: a cache line, and the widest vector.
pub(crate) const ALIGNMENT: usize = 64;

const WRITING: i32 = -1;

/// Zeroed bytes, aligned to [`ALIGNMENT`].
#[derive(Debug)]
pub(crate) struct HostMemory {
    start: NonNull<u8>,
    len: usize,
    layout: Layout,
    /// Readers, or [`WRITING`].
    borrows: AtomicI32,
}

// SAFETY: the memory is reached only through guards, which `borrows` makes exclusive or shared, and through `start`, whose
// users hold such a guard.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// `len` zeroed bytes; `None` where they cannot be had.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, len, layout, borrows: AtomicI32::new(0) })
    }

    /// The first byte. Reading and writing through it is up to who holds [`HostMemory::acquire_read`] or
    /// [`HostMemory::acquire_write`].
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Becomes one more reader, if nobody writes.
    pub(crate) fn acquire_read(&self) -> bool {
        let more = |n| (n != WRITING).then_some(n + 1);
        self.borrows.fetch_update(Ordering::Acquire, Ordering::Relaxed, more).is_ok()
    }

    /// Becomes the writer, if nobody reads or writes.
    pub(crate) fn acquire_write(&self) -> bool {
        self.borrows.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Ends a reader.
    pub(crate) fn release_read(&self) {
        self.borrows.fetch_sub(1, Ordering::Release);
    }

    /// Ends the writer.
    pub(crate) fn release_write(&self) {
        self.borrows.store(0, Ordering::Release);
    }

    /// A shared view, if nobody writes.
    pub(crate) fn read(&self) -> Option<ReadView<'_>> {
        self.acquire_read().then(|| ReadView(self))
    }

    /// The exclusive view, if nobody reads or writes.
    pub(crate) fn write(&self) -> Option<WriteView<'_>> {
        self.acquire_write().then(|| WriteView(self))
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A shared view of the bytes.
pub(crate) struct ReadView<'a>(&'a HostMemory);

impl Deref for ReadView<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes were allocated and zeroed; the view counts as a reader, so nobody writes.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }
}

impl Drop for ReadView<'_> {
    fn drop(&mut self) {
        self.0.release_read();
    }
}

/// The exclusive view of the bytes.
pub(crate) struct WriteView<'a>(&'a HostMemory);

impl Deref for WriteView<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as for `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.len) }
    }
}

impl DerefMut for WriteView<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes were allocated and zeroed; the view is the only borrower.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) }
    }
}

impl Drop for WriteView<'_> {
    fn drop(&mut self) {
        self.0.release_write();
    }
}

#[cfg(test)]
mod tests {
    use super::HostMemory;

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let memory = HostMemory::zeroed(100).expect("100 bytes can be had");
        assert_eq!(memory.start() as usize % super::ALIGNMENT, 0);
        let a = memory.read().expect("nobody writes");
        let b = memory.read().expect("nobody writes");
        assert!(a.iter().all(|&byte| byte == 0) && b.len() == 100);
        assert!(memory.write().is_none());
        drop((a, b));
        memory.write().expect("nobody reads")[99] = 7;
        assert_eq!(memory.read().expect("nobody writes")[99], 7);
    }
}
