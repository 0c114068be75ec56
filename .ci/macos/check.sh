#!/usr/bin/env bash
# check.sh ARTIFACTS: lints `arcane-ane` and the program `arcane` for aarch64-apple-darwin, links the program and the crate's tests,
# and puts both into the folder ARTIFACTS, signed ad hoc by the linker. They can only run on a Mac: see docs/mac.md.
#
# The toolchain is kept in ARCANE_MACOS_TOOLCHAIN, by default ~/.cache/arcane-macos. When a link reports undefined symbols, stubs.py
# adds them to the stubs in sdk/.
set -euo pipefail
artifacts=$(realpath -m "$1")
here=$(realpath "$(dirname "$0")")
cd "$here/../.."
target=aarch64-apple-darwin
dir=${ARCANE_MACOS_TOOLCHAIN:-${XDG_CACHE_HOME:-$HOME/.cache}/arcane-macos}
# The linker comes with rustup's toolchain; the path of programs is another one below.
lld=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
"$here/toolchain.sh" "$dir"
# shellcheck disable=SC1091
. "$dir/env"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/macos SDKROOT=$here/sdk
export CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER=$lld
export CARGO_TARGET_AARCH64_APPLE_DARWIN_RUSTFLAGS='-Clinker-flavor=ld64.lld -Clink-arg=--error-limit=0'

arguments=(--locked --quiet --profile macos --target $target)
cargo clippy "${arguments[@]}" -p arcane-ane -p arcane-cli --lib --bins --tests -- -D warnings
cargo build "${arguments[@]}" -p arcane-cli --bin arcane
tests=$(cargo test "${arguments[@]}" -p arcane-ane --test suite --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')

mkdir -p "$artifacts"
cp "$CARGO_TARGET_DIR/$target/macos/arcane" "$artifacts/arcane"
cp "$tests" "$artifacts/arcane-ane-tests"
cp docs/mac.md "$artifacts/mac.md"
# Both are for arm64 (the processor is the second number of the header), and have a signature (load command 0x1d).
for program in arcane arcane-ane-tests; do
    python3 "$here/signed.py" "$artifacts/$program"
done
