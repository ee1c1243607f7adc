"""PNG files of every kind are whole, and what is missing or changed in them is found."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mrcnn.data.png_files import check_png

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, num_bytes, interlace=0):
    """A file with so many bytes of zeros for pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(num_bytes))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def row_bytes(width, height, depth, colour, interlace):
    """Bytes by the rules of the specification, counted pixel by pixel (its section 8.2 for interlacing)."""
    bits = depth * SAMPLES[colour]
    if not interlace:
        return height * (1 + -(-width * bits // 8))
    pattern = [
        "16462646", "77777777", "56565656", "77777777", "36463646", "77777777", "56565656", "77777777",
    ]  # fmt: skip
    passes = np.array([[int(pattern[y % 8][x % 8]) for x in range(width)] for y in range(height)])
    counts = [(passes[y] == number).sum() for number in range(1, 8) for y in range(height)]
    return sum(1 + -(-int(count) * bits // 8) for count in counts if count)


def write(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    return tmp_path / "a.png"


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("depth", "colour"), [(1, 0), (2, 3), (4, 0), (8, 2), (8, 4), (8, 6), (16, 0), (16, 6)])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8), (33, 10), (3, 17)])
def test_the_data_must_be_that_of_the_size(tmp_path, size, depth, colour, interlace):
    num_bytes = row_bytes(*size, depth, colour, interlace)
    check_png(write(tmp_path, png(*size, depth, colour, num_bytes, interlace)))
    for other in (0, num_bytes - 1, num_bytes + 1, num_bytes * 1000):
        with pytest.raises(ValueError, match="bytes of pixels"):
            check_png(write(tmp_path, png(*size, depth, colour, other, interlace)))


def real_png():
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG", dpi=(300, 300))
    return stream.getvalue()


def test_any_changed_byte_is_found(tmp_path):
    content = real_png()
    check_png(write(tmp_path, content))
    for position in [*range(8, 80), *range(80, len(content), 97), len(content) - 1]:
        changed = bytearray(content)
        changed[position] ^= 4
        with pytest.raises(ValueError):
            check_png(write(tmp_path, bytes(changed)))


def test_a_cut_is_found_unless_only_the_mark_of_the_end_is_gone(tmp_path):
    content = real_png()
    for length in (8, 12, 20, 33, 60, len(content) // 2, len(content) - 13, len(content) - 1):
        with pytest.raises(ValueError):
            check_png(write(tmp_path, content[:length]))
    check_png(write(tmp_path, content[:-12]))


def test_what_stands_behind_the_end_does_not_count(tmp_path):
    check_png(write(tmp_path, real_png() + b"\0more"))


def test_much_data_in_a_few_bytes_is_not_unpacked(tmp_path):
    path = write(tmp_path, png(5, 5, 8, 0, 300_000_000))
    with pytest.raises(ValueError, match="31 bytes of pixels for a size that takes 30"):
        check_png(path)
