"""Whether a PNG file holds all that it says it holds: decoders leave missing rows black and say nothing.

Reference:
    Portable Network Graphics (PNG) Specification, third edition, sections 5 (chunks, checksums), 8 (interlacing) and
    10.1 (compression).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_SIGNATURE_BYTES = 8
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# First row, first column, and the steps from there, of the seven passes of interlaced images.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_PIECE = 1 << 16


def check_png(path: str | os.PathLike) -> None:
    """Refuse a PNG file that is damaged, or of which the data is not that of an image of its size.

    Args:
        path: a file that begins as PNG files do.

    Raises:
        ValueError: if a checksum is wrong, a chunk is cut, or there are too few or too many pixels.
        OSError: if the file cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(_SIGNATURE_BYTES)
        expected, found = None, 0
        inflater = zlib.decompressobj()
        for kind, data in _pieces(file):
            if kind == b"IHDR" and expected is None:
                expected = _data_bytes(data)
            elif kind == b"IDAT" and expected is not None:
                found += _inflated_bytes(inflater, data, expected - found)
        if expected is None:
            raise ValueError("no header")
        if found != expected:
            raise ValueError(f"{found} bytes of pixels for a size that takes {expected}")


def _pieces(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk up to that of the end, long ones in pieces."""
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        if not head and kind:
            return  # cut between two chunks: what is missing shows in the pixels
        if len(head) < 8:
            raise ValueError("cut off")
        length, kind = struct.unpack(">I4s", head)
        checksum = zlib.crc32(kind)
        while length:
            data = file.read(min(length, _PIECE))
            if not data:
                raise ValueError("cut off")
            length -= len(data)
            checksum = zlib.crc32(data, checksum)
            yield kind, data
        if file.read(4) != struct.pack(">I", checksum):
            raise ValueError(f"wrong checksum of {kind.decode('ascii', 'backslashreplace')}")


def _data_bytes(header: bytes) -> int:
    """Bytes of pixels, with the one before each row, of an image with this header."""
    try:
        width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
        bits = depth * _SAMPLES[colour]
    except (struct.error, KeyError):
        raise ValueError("unknown header") from None
    passes = _PASSES if interlace else ((0, 0, 1, 1),)
    total = 0
    for top, left, down, right in passes:
        rows, columns = max(-((top - height) // down), 0), max(-((left - width) // right), 0)
        total += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return total


def _inflated_bytes(inflater, data: bytes, most: int) -> int:
    """How many bytes some compressed ones hold; one more than `most` stands for any larger number."""
    total = 0
    try:
        while data and total <= most and not inflater.eof:
            total += len(inflater.decompress(data, min(_PIECE, most + 1 - total)))
            data = inflater.unconsumed_tail
    except zlib.error as error:
        raise ValueError(f"broken data: {error}") from None
    return total
