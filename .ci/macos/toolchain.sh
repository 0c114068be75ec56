#!/usr/bin/env bash
# toolchain.sh DIR: makes a Rust toolchain in DIR that compiles for aarch64-apple-darwin on Debian 12, of Debian's packages alone,
# whose standard library is built from its source. Nothing is installed into the system. About 150 MB to fetch, 0.7 GB on disk.
# DIR/env is to be sourced. Does nothing where DIR is complete.
set -euo pipefail
dir=$1
target=aarch64-apple-darwin
[[ -e $dir/done ]] && exit 0
rm -rf "$dir" && mkdir -p "$dir/debs/partial" "$dir/root" "$dir/std/src"
apt-get update -qq
apt-get install -qq -y --no-install-recommends --download-only \
    -o Dir::Cache::archives="$dir/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
    rustc-web cargo-web rust-web-src rust-web-clippy >/dev/null
for deb in "$dir"/debs/*.deb; do
    # Of the sources (340 MB) the standard library's alone.
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$dir/root" --anchored --no-wildcards-match-slash \
        --exclude='./usr/src/rustc-*/src' --exclude='./usr/src/rustc-*/compiler' --exclude='./usr/share/doc'
done
rm -rf "$dir/debs"

cat > "$dir/env" <<END
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu PATH=$dir/root/usr/bin:\$PATH
export RUSTC=$dir/root/usr/bin/rustc CARGO=$dir/root/usr/bin/cargo
END
# shellcheck disable=SC1091
. "$dir/env"

# The standard library is built once and put where rustc looks for that of a target, so that the project itself needs no flag.
cat > "$dir/std/Cargo.toml" <<'END'
[package]
name = "library"
version = "0.0.0"
edition = "2021"
[workspace]
END
: > "$dir/std/src/lib.rs"
(cd "$dir/std" && env -u RUSTFLAGS -u CARGO_TARGET_DIR RUSTC_BOOTSTRAP=1 "$CARGO" build -q --release \
    -Z build-std=std,panic_abort,test --target $target)
lib=$dir/root/usr/lib/rustlib/$target/lib
mkdir -p "$lib" && mv "$dir/std/target/$target/release/deps"/lib*.r{lib,meta} "$lib" && rm -rf "$lib"/libs-* "$dir/std"
touch "$dir/done"
