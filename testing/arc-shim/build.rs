//! Finds libobjc and gnustep-base, whose packages for programs have no link of the name that a linker wants.

use std::env;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_GNUSTEP").is_none() {
        return;
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let listed =
        Command::new("ldconfig").arg("-p").output().expect("ldconfig lists the libraries of the system");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in ["libobjc.so", "libgnustep-base.so"] {
        let prefix = format!("{library}.");
        let line = listed.lines().map(str::trim_start).find(|line| line.starts_with(&prefix));
        let path = line.and_then(|line| line.rsplit(' ').next());
        let path =
            path.unwrap_or_else(|| panic!("no {library}: apt-get install libgnustep-base1.28 was expected"));
        let link = folder.join(library);
        // From an earlier run, perhaps to another version.
        let _ = std::fs::remove_file(&link);
        symlink(Path::new(path), &link).expect("the build's own folder can be written");
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
}
