//! Where the system's libraries are.

use std::path::{Path, PathBuf};

/// The libraries that are opened at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libraries {
    /// `AppleNeuralEngine`, a private framework.
    pub engine: PathBuf,
    /// `IOSurface`.
    pub surfaces: PathBuf,
    /// `CoreFoundation`.
    pub core_foundation: PathBuf,
    /// `Foundation`.
    pub foundation: PathBuf,
    /// `libSystem`, for what the system says of itself.
    pub system: PathBuf,
}

impl Libraries {
    /// Those of macOS. They are in the system's shared cache: the paths open although no file is there.
    pub fn system() -> Self {
        let framework = |folder: &str, name: &str| -> PathBuf {
            ["/System/Library", folder, &format!("{name}.framework"), name].iter().collect()
        };
        Self {
            engine: framework("PrivateFrameworks", "AppleNeuralEngine"),
            surfaces: framework("Frameworks", "IOSurface"),
            core_foundation: framework("Frameworks", "CoreFoundation"),
            foundation: framework("Frameworks", "Foundation"),
            system: "/usr/lib/libSystem.B.dylib".into(),
        }
    }

    /// One library that plays all parts.
    pub fn stand_in(path: &Path) -> Self {
        Self {
            engine: path.into(),
            surfaces: path.into(),
            core_foundation: path.into(),
            foundation: path.into(),
            system: path.into(),
        }
    }
}
