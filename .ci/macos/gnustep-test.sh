#!/usr/bin/env bash
# Runs the engine's code on Linux against the library that plays Apple's frameworks. Wants libgnustep-base:
#   apt-get install -y --no-install-recommends libgnustep-base1.28    (5 packages, 2.3 MB)
# Arguments go to the tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
cargo --locked build --quiet -p arcane-stand-in --features gnustep
# A message to a freed object says so instead of crashing.
export ARCANE_STAND_IN_LIBRARY=$(realpath "$target")/debug/libarcane_stand_in.so NSZombieEnabled=YES
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo --locked test -p arcane-ane --features gnustep --test suite -- "$@" 2>&1 | tee "$log"
cargo --locked test -p arcane-cli --features gnustep --test suite neural_engine 2>&1 | tee -a "$log"
# An autorelease without a pool is silent on macOS, and a leak.
if grep -E 'without pool|zombie' "$log"; then
    echo "error: an object was used after it was freed, or autoreleased without a pool" >&2
    exit 1
fi
