//! Aligned host memory with a borrow flag in place of a lock: a conflict is an error, never a wait.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::fmt::Debug;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Alignment of every allocation in bytes: a cache line, and the widest vector.
pub(crate) const ALIGNMENT: usize = 64;

const WRITING: i32 = -1;

/// Memory of a device that the host maps, and may touch only between a lock and its unlock.
///
/// # Safety
/// [`DeviceMemory::start`] is aligned to 64 bytes and never changes. After a [`DeviceMemory::lock`] that gave true and until the
/// matching [`DeviceMemory::unlock`] the `len` bytes from there can be read and, if `write`, written; they are initialised.
pub unsafe trait DeviceMemory: Any + Debug + Send + Sync {
    /// Where the host sees the first byte.
    fn start(&self) -> NonNull<u8>;

    /// How many bytes there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the bytes readable or writable; false if the system refuses. Several readers may hold locks at once.
    fn lock(&self, write: bool) -> bool;

    /// Ends what a lock began.
    fn unlock(&self, write: bool);
}

/// Zeroed bytes, aligned to [`ALIGNMENT`], or the memory of a device.
#[derive(Debug)]
pub(crate) struct HostMemory {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
    /// Readers, or [`WRITING`].
    borrows: AtomicI32,
}

/// Who frees the bytes.
#[derive(Debug)]
enum Owner {
    /// This one, with the layout of the allocation.
    Host(Layout),
    /// A device; the host locks them while it has a view.
    Device(Arc<dyn DeviceMemory>),
}

// SAFETY: the memory is reached only through guards, which `borrows` makes exclusive or shared, and through `start`, whose
// users hold such a guard. A device's memory is itself for all threads.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// `len` zeroed bytes; `None` where they cannot be had.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), ALIGNMENT).ok()?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, len, owner: Owner::Host(layout), borrows: AtomicI32::new(0) })
    }

    /// The memory of a device.
    pub(crate) fn of_device(device: Arc<dyn DeviceMemory>) -> Self {
        let (start, len) = (device.start(), device.len());
        Self { start, len, owner: Owner::Device(device), borrows: AtomicI32::new(0) }
    }

    /// The device's memory, if it is of one.
    pub(crate) fn device(&self) -> Option<&dyn DeviceMemory> {
        match &self.owner {
            Owner::Host(_) => None,
            Owner::Device(device) => Some(&**device),
        }
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

    /// Becomes one more reader, if nobody writes and a device's lock can be had.
    pub(crate) fn acquire_read(&self) -> bool {
        self.reserve(false) && self.lock_or_free(false)
    }

    /// Becomes the writer, if nobody reads or writes and a device's lock can be had.
    pub(crate) fn acquire_write(&self) -> bool {
        self.reserve(true) && self.lock_or_free(true)
    }

    /// Ends a reader.
    pub(crate) fn release_read(&self) {
        self.device().inspect(|d| d.unlock(false));
        self.free(false);
    }

    /// Ends the writer.
    pub(crate) fn release_write(&self) {
        self.device().inspect(|d| d.unlock(true));
        self.free(true);
    }

    /// Keeps others from writing, or from reading and writing, without access of its own: a device is going to use it.
    pub(crate) fn reserve(&self, write: bool) -> bool {
        let taken = |n| match (write, n) {
            (true, 0) => Some(WRITING),
            (true, _) | (false, WRITING) => None,
            (false, n) => Some(n + 1),
        };
        self.borrows.fetch_update(Ordering::Acquire, Ordering::Relaxed, taken).is_ok()
    }

    /// Ends a reservation.
    pub(crate) fn free(&self, write: bool) {
        if write {
            self.borrows.store(0, Ordering::Release);
        } else {
            self.borrows.fetch_sub(1, Ordering::Release);
        }
    }

    /// Locks what has been reserved.
    fn lock_or_free(&self, write: bool) -> bool {
        let locked = self.device().is_none_or(|d| d.lock(write));
        if !locked {
            self.free(write);
        }
        locked
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
        if let Owner::Host(layout) = self.owner {
            // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed once.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

/// A shared view of the bytes.
pub(crate) struct ReadView<'a>(&'a HostMemory);

impl Deref for ReadView<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes were allocated and zeroed, or are a device's and locked; the view counts as a reader, so nobody
        // writes.
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
        // SAFETY: `len` bytes were allocated and zeroed, or are a device's and locked; the view is the only borrower.
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

    #[test]
    fn what_a_device_uses_is_out_of_reach() {
        let memory = HostMemory::zeroed(64).expect("64 bytes can be had");
        assert!(memory.reserve(true) && memory.read().is_none() && !memory.reserve(false));
        memory.free(true);
        assert!(memory.reserve(false) && memory.read().is_some() && memory.write().is_none());
        memory.free(false);
        assert!(memory.write().is_some());
    }
}
