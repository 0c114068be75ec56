//! Reading a header whose every length is checked against what is left of the file.

/// What is wrong, before the path is known.
pub(super) enum Fault {
    /// The contents break the format.
    Format(String),
    /// A tensor has an element type that is not read.
    Dtype { name: String, dtype: String },
}

/// A place in the bytes of a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The next `n` bytes; `what` is what they belong to.
    pub(super) fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], Fault> {
        let end = self.position.checked_add(n).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else {
            let left = self.bytes.len() - self.position;
            let what = format!("byte {}: {what} takes {n} more bytes, the file has {left}", self.position);
            return Err(Fault::Format(what));
        };
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let bytes = self.take(N, what)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String, Fault> {
        let at = self.position;
        let len = self.u64(what)?;
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX), what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(Fault::Format(format!("byte {at}: {what} is not UTF-8"))),
        }
    }

    /// `len` elements of `size` bytes each.
    pub(super) fn elements(
        &mut self,
        len: u64,
        size: usize,
        what: &str,
    ) -> Result<std::slice::ChunksExact<'a, u8>, Fault> {
        let bytes = usize::try_from(len).ok().and_then(|n| n.checked_mul(size)).unwrap_or(usize::MAX);
        Ok(self.take(bytes, what)?.chunks_exact(size))
    }

    /// Whether so many things of at least so many bytes each can follow.
    pub(super) fn room(&self, count: u64, least: u64, why: &'static str) -> Result<(), Fault> {
        let needed = count.saturating_mul(least);
        if needed > (self.bytes.len() - self.position) as u64 {
            let what = format!(
                "byte {}: {count} {why} take at least {needed} bytes, the file has {} more",
                self.position,
                self.bytes.len() - self.position
            );
            return Err(Fault::Format(what));
        }
        Ok(())
    }
}
