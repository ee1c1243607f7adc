"""COCO's run-length encoding (RLE) of masks, uncompressed and compressed, in NumPy.

A mask is read column after column, from the top of the left one. `counts` are the lengths of its runs, the first of
zeros, then of ones, and so on by turns. The compressed form writes each count, from the fourth on less the count two
before it, as signed digits of 5 bits, the lowest first, each as the character 48 + digit, plus 32 if more follow.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mrcnn.data.shapes import ShapeFault, as_list, shorten

# Far beyond any smear, and small enough that 64 bits hold every sum.
MAX_PIXELS = 2**31
# 7 digits of 5 bits hold any count up to it; a longer number is damage.
_MAX_DIGITS = 7


@dataclass(frozen=True, eq=False)
class RunLengths:
    """A mask as run lengths, a shape like those of `mrcnn.data.shapes`.

    Attributes:
        height: of the mask.
        width: of the mask.
        counts: int64 array, lengths of the runs of zeros and ones by turns; they add up to height * width.
    """

    height: int
    width: int
    counts: np.ndarray

    def check(self, height: int, width: int) -> None:
        """Raise `ShapeFault` if the mask has another size than the image."""
        if (self.height, self.width) != (height, width):
            raise ShapeFault(f"RLE is {self.width}x{self.height} px, image is {width}x{height} px")

    def draw(self, height: int, width: int) -> np.ndarray:
        """Return the mask, bool of shape (height, width)."""
        self.check(height, width)
        values = np.arange(len(self.counts)) % 2 == 1
        return np.ascontiguousarray(np.repeat(values, self.counts).reshape(width, height).T)


def make_run_lengths(size: Any, counts: Any) -> RunLengths:
    """Read an RLE as JSON holds it.

    Args:
        size: list of height and width.
        counts: list of whole numbers, or text in COCO's compressed form.

    Raises:
        ShapeFault: if it is malformed or the counts do not add up to height * width.
    """
    if not (isinstance(size, list) and len(size) == 2 and all(_is_whole(v) and v > 0 for v in size)):
        raise ShapeFault(f"RLE size is {size if size and len(str(size)) < 40 else shorten(size)}, not [height, width]")
    height, width = size
    num_pixels = height * width
    if num_pixels > MAX_PIXELS:
        raise ShapeFault(f"RLE size {size} is beyond any image")
    if isinstance(counts, str):
        values = decode_counts(counts)
    else:
        wrong = [v for v in as_list(counts, "RLE counts") if not _is_whole(v)]
        if wrong:
            raise ShapeFault(f"RLE counts hold {shorten(wrong[0])}, not a whole number")
        # Longer runs than the image has pixels are refused below; cut here, so that 64 bits hold them all.
        values = np.array([min(max(v, -1), num_pixels + 1) for v in counts], np.int64)
    if (values < 0).any():
        raise ShapeFault("RLE counts hold a negative number")
    total = int(values.sum()) if values.max(initial=0) <= num_pixels else f"more than {num_pixels}"
    if total != num_pixels:
        raise ShapeFault(f"RLE counts add up to {total}, not to {height} * {width} = {num_pixels}")
    return RunLengths(height, width, values)


def decode_counts(text: str) -> np.ndarray:
    """Decode COCO's compressed counts.

    Args:
        text: characters "0" to "o".

    Returns:
        int64 array of counts; not checked for their sign or sum.

    Raises:
        ShapeFault: if the text is empty, cut off, or has other characters.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    if not codes.size:
        raise ShapeFault("RLE counts are empty")
    if codes.min() < 0 or codes.max() > 63:
        raise ShapeFault("RLE counts hold characters that are not of COCO's compressed form")
    is_last = codes < 32
    ends = np.flatnonzero(is_last)
    if not is_last[-1]:
        raise ShapeFault("RLE counts are cut off")
    starts = np.concatenate(([0], ends[:-1] + 1))
    num_digits = ends - starts + 1
    if num_digits.max() > _MAX_DIGITS:
        raise ShapeFault("RLE counts hold a number beyond any image")
    place = np.arange(codes.size) - np.repeat(starts, num_digits)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    # Bit 16 of the highest digit is the sign (two's complement over as many bits as were written).
    values -= ((codes[ends] & 16) > 0) * (np.int64(1) << (5 * num_digits))
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
