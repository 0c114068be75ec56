"""signed.py PROGRAM: says what a Mach-O program is for, and fails if that is not arm64 or it has no signature."""

import struct
import sys

MAGIC, ARM64, CODE_SIGNATURE = 0xFEEDFACF, 0x0100000C, 0x1D

path = sys.argv[1]
with open(path, "rb") as file:
    header = file.read(32)
    magic, processor, _, _, commands, size, _, _ = struct.unpack("<8I", header)
    if (magic, processor) != (MAGIC, ARM64):
        sys.exit(f"{path}: a program for arm64 macOS was expected, the header is {magic:#x} {processor:#x}")
    table = file.read(size)
at, kinds = 0, []
for _ in range(commands):
    kind, length = struct.unpack_from("<2I", table, at)
    kinds.append(kind)
    at += length
if CODE_SIGNATURE not in kinds:
    sys.exit(f"{path}: it has no signature")
print(f"{path}: arm64, signed")
