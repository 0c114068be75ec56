#!/usr/bin/env python3
"""Writes austen.txt: novels by Jane Austen, from the Debian package r-cran-janeaustenr.

    apt-get download r-cran-janeaustenr
    dpkg -x r-cran-janeaustenr_*.deb package
    python3 make.py package austen.txt

The package holds each novel as an R character vector with a line of the printed book in each element, in a lazy-load
database: Rdata.rdx lists offset and length of each object in Rdata.rdb. Objects are R's serialisation (XDR), packed as R
packs them: a big-endian length, a letter for the kind of compression if it is not zlib, the data.

A chapter is a document: paragraphs of one line each with an empty line between, documents separated by a line
<|endoftext|>. Title pages, headings and the closing line are left out.
"""

import lzma
import re
import struct
import sys
import zlib
from pathlib import Path

NOVELS = ["prideprejudice", "emma"]
HEADING = re.compile(r"^(CHAPTER|Chapter|VOLUME) +[IVXLC0-9]+\.?$")
CLOSING = re.compile(r"^(FINIS|THE END|End of .*|Transcriber's [Nn]ote.*)\.?$")

# Kinds of objects in R's serialisation.
SYMBOL, PAIRLIST, CHARACTER, LOGICAL, INTEGER, STRINGS, LIST = 1, 2, 9, 10, 13, 16, 19
NULL, REFERENCE = 254, 255


class Reader:
    """R's serialisation, of what these files hold: strings, numbers and lists."""

    def __init__(self, data):
        self.data, self.at, self.references = data, 0, []
        assert self.take(2) == b"X\n", "the XDR form of R's serialisation was expected"
        version, _, _ = self.int(), self.int(), self.int()
        if version == 3:
            self.take(self.int())

    def take(self, n):
        part = self.data[self.at : self.at + n]
        assert len(part) == n, "the data end early"
        self.at += n
        return part

    def int(self):
        return struct.unpack(">i", self.take(4))[0]

    def object(self):
        flags = self.int()
        kind, has_attributes, has_tag = flags & 255, flags & 0x200, flags & 0x400
        if kind == NULL:
            return None
        if kind == REFERENCE:
            return self.references[(flags >> 8) - 1]
        if kind == SYMBOL:
            self.references.append(self.object())
            return self.references[-1]
        if kind == CHARACTER:
            length = self.int()
            return None if length < 0 else self.take(length)
        if kind == PAIRLIST:
            attributes = self.object() if has_attributes else None
            tag = self.object() if has_tag else None
            pairs = {tag: self.object()}
            pairs.update(self.object() or {})
            return pairs
        length = self.int()
        if kind in (LOGICAL, INTEGER):
            value = list(struct.unpack(f">{length}i", self.take(4 * length)))
        elif kind in (STRINGS, LIST):
            value = [self.object() for _ in range(length)]
        else:
            raise ValueError(f"an object of kind {kind}")
        if has_attributes:
            names = (self.object() or {}).get(b"names")
            if names:
                value = dict(zip(names, value))
        return value


def unpack(data):
    if data[4:5] == b"Z":
        # R leaves out what every one of its streams has alike.
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
        return lzma.decompress(data[5:], format=lzma.FORMAT_RAW, filters=filters)
    return zlib.decompress(data[4:])


def lines(folder, novel):
    index = Reader(zlib.decompress((folder / "Rdata.rdx").read_bytes(), wbits=31)).object()
    offset, length = index[b"variables"][novel.encode()]
    with open(folder / "Rdata.rdb", "rb") as file:
        file.seek(offset)
        return [line.decode("utf-8") for line in Reader(unpack(file.read(length))).object()]


def chapters(all_lines):
    """The text between headings, as paragraphs."""
    chapter, paragraph, found = None, [], []
    for line in [*all_lines, "", "VOLUME I"]:
        line = line.strip()
        if HEADING.match(line):
            if chapter:
                found.append(chapter)
            chapter = []
        elif chapter is None or CLOSING.match(line):
            continue
        elif line:
            paragraph.append(line)
        elif paragraph:
            chapter.append(" ".join(paragraph))
            paragraph = []
    return found


def main():
    package, target = map(Path, sys.argv[1:])
    folder = package / "usr/lib/R/site-library/janeaustenr/data"
    found = [chapter for novel in NOVELS for chapter in chapters(lines(folder, novel))]
    text = "\n<|endoftext|>\n".join("\n\n".join(chapter) for chapter in found) + "\n"
    target.write_text(text, encoding="utf-8", newline="\n")
    print(f"{len(found)} chapters, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
