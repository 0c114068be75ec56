//! Where the arrays of weight files come from.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arcane_tensor::Tensor;

use super::syntax::Blob;
use super::{Blobs, Fault};
use crate::{BlobError, BlobFile, TensorType};

/// What weight paths start with: the folder of the program.
const MODEL_PATH: &str = "@model_path/";

/// Gives the arrays that a text refers to.
pub trait WeightSource {
    /// The array of type `ty` whose record is at `offset` of the file `path`, spelled as in the text
    /// (`@model_path/weights/weight.bin`).
    ///
    /// # Errors
    /// [`BlobError`] if there is no such array.
    fn tensor(&self, path: &str, offset: u64, ty: &TensorType) -> Result<Tensor, BlobError>;

    /// Checks that [`WeightSource::tensor`] would find the array, without reading it. Files that are not there are no fault: a text
    /// can be checked without them.
    ///
    /// # Errors
    /// As those of [`WeightSource::tensor`].
    fn verify(&self, _path: &str, _offset: u64, _ty: &TensorType) -> Result<(), BlobError> {
        Ok(())
    }
}

/// No weight files at all: for texts without any, and for [`crate::check()`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWeights;

impl WeightSource for NoWeights {
    fn tensor(&self, path: &str, offset: u64, _: &TensorType) -> Result<Tensor, BlobError> {
        Err(BlobError::Unavailable { path: path.into(), offset })
    }
}

/// One weight file, whatever path a text gives it.
impl WeightSource for BlobFile {
    fn tensor(&self, _: &str, offset: u64, ty: &TensorType) -> Result<Tensor, BlobError> {
        Self::tensor(self, offset, ty)
    }

    fn verify(&self, _: &str, offset: u64, ty: &TensorType) -> Result<(), BlobError> {
        Self::verify(self, offset, ty)
    }
}

/// The weight files below a folder. A file is opened when an array of it is asked for and stays open; an array is read when
/// it is asked for.
#[derive(Debug)]
pub struct BlobFolder {
    folder: PathBuf,
    open: Mutex<BTreeMap<PathBuf, Arc<BlobFile>>>,
}

impl BlobFolder {
    /// The files below `folder`, which `@model_path` stands for.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.into(), open: Mutex::default() }
    }

    fn file(&self, path: PathBuf) -> Result<Arc<BlobFile>, BlobError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&path) {
            return Ok(file.clone());
        }
        let file = Arc::new(BlobFile::open(&path)?);
        open.insert(path, file.clone());
        Ok(file)
    }
}

impl BlobFolder {
    /// The file that a text means by `path`.
    fn place(&self, path: &str) -> Result<PathBuf, BlobError> {
        let outside = || BlobError::Outside { path: path.into() };
        let below = Path::new(path.strip_prefix(MODEL_PATH).ok_or_else(outside)?);
        let plain = below.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if plain && !below.as_os_str().is_empty() { Ok(self.folder.join(below)) } else { Err(outside()) }
    }
}

impl WeightSource for BlobFolder {
    fn tensor(&self, path: &str, offset: u64, ty: &TensorType) -> Result<Tensor, BlobError> {
        self.file(self.place(path)?)?.tensor(offset, ty)
    }

    fn verify(&self, path: &str, offset: u64, ty: &TensorType) -> Result<(), BlobError> {
        let place = self.place(path)?;
        if place.exists() { self.file(place)?.verify(offset, ty) } else { Ok(()) }
    }
}

/// The arrays of a text, each read once.
pub(super) struct Arrays<'w> {
    source: &'w dyn WeightSource,
    pub(super) blobs: Blobs,
    read: RefCell<HashMap<(Blob, TensorType), Arc<Tensor>>>,
}

impl<'w> Arrays<'w> {
    pub(super) fn new(source: &'w dyn WeightSource, blobs: Blobs) -> Self {
        Self { source, blobs, read: RefCell::default() }
    }

    /// Refuses an array that is not in its file, if the file is there.
    pub(super) fn verify(&self, blob: &Blob, ty: &TensorType, at: usize) -> Result<(), Fault> {
        self.source.verify(&blob.path, blob.offset, ty).map_err(|e| Fault::new(at, e.to_string(), ""))
    }

    pub(super) fn get(&self, blob: &Blob, ty: &TensorType, at: usize) -> Result<Arc<Tensor>, Fault> {
        let key = (blob.clone(), ty.clone());
        if let Some(tensor) = self.read.borrow().get(&key) {
            return Ok(tensor.clone());
        }
        let tensor =
            self.source.tensor(&blob.path, blob.offset, ty).map_err(|e| Fault::new(at, e.to_string(), ""))?;
        if TensorType::new(tensor.dtype(), tensor.shape()) != *ty {
            let what = format!("the array at {} of {} has another type", blob.offset, blob.path);
            return Err(Fault::new(at, what, ty.to_string()));
        }
        let tensor = Arc::new(tensor);
        self.read.borrow_mut().insert(key, tensor.clone());
        Ok(tensor)
    }
}
