"""Binary masks as polygons that follow the edges of pixels.

Convention: the pixel in row r and column c is the square of x from c to c + 1 and y from r to r + 1, so (0, 0) is the
upper left corner of the image. A polygon's area is then the number of its pixels, without a tolerance, and filling it
gives the mask back. Outlines through pixel centres, as `cv2.findContours` draws them, lose half a pixel all round.
"""

from collections.abc import Iterator

import cv2
import numpy as np

Ring = list[tuple[int, int]]
Polygon = list[Ring]


def mask_polygons(mask: np.ndarray) -> list[Polygon]:
    """Outline a mask, one polygon for each part of it.

    Pixels that share an edge belong to one part; those that only touch at a corner do not. That keeps every ring free
    of self-contact, as the GeoJSON and OGC rules for polygons ask.

    Args:
        mask: array of shape (height, width), non-zero inside.

    Returns:
        Polygons, the largest part first; none for an empty mask. A polygon is a list of rings, the outer one first,
        then those of its holes. A ring is a list of integer corners (x, y), the first repeated at the end, with no
        corner on a straight line. Outer rings have a positive area by the shoelace formula, holes a negative one.

    Raises:
        ValueError: if the mask is not two-dimensional.

    Reference:
        RFC 7946, section 3.1.6 (order of the rings and their direction).
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"mask must have 2 dimensions, got shape {mask.shape}")
    inside = np.ascontiguousarray(mask != 0).view(np.uint8)
    left, top, width, height = cv2.boundingRect(inside)
    if not width:
        return []
    inside = inside[top : top + height, left : left + width]
    num_labels, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4, ltype=cv2.CV_32S)
    # Label 0 is the background. A stable sort keeps parts of one size in reading order.
    by_size = 1 + np.argsort(-stats[1:num_labels, cv2.CC_STAT_AREA], kind="stable")
    return [_part_polygon(labels == label, left, top) for label in by_size]


def _part_polygon(part: np.ndarray, left: int, top: int) -> Polygon:
    """Rings of one part, moved by (left, top); the outer one first."""
    rings = sorted(_trace_rings(part), key=_ring_area, reverse=True)
    return [[(x + left, y + top) for x, y in ring] for ring in rings]


def _trace_rings(part: np.ndarray) -> Iterator[Ring]:
    """Follow the edges between a part and what is around it, with the part always on the right hand.

    Where two pixels of the part meet at a corner, the trace turns left, around the pixel that is not in the part: so
    the hole behind that corner gets a ring of its own, and no ring passes a corner twice.

    Args:
        part: bool array of shape (height, width), connected by edges.

    Yields:
        Closed rings.
    """
    padded = np.pad(part, 1).astype(np.int8)
    # Between rows y - 1 and y: +1 where the part lies below, which is on the right of somebody who goes in +x.
    across = padded[1:, 1:-1] - padded[:-1, 1:-1]
    # Between columns x - 1 and x, turned so that its lines are columns: +1 where the part lies to the left.
    down = (padded[1:-1, :-1] - padded[1:-1, 1:]).T
    to_x = {(start, y, sign): end for y, start, end, sign in _runs(across)}
    to_y = {(x, start, sign): end for x, start, end, sign in _runs(down)}
    while to_x:
        x, y, sign = start = next(iter(to_x))
        ring = [(x, y)]
        while True:
            x = to_x.pop((x, y, sign))
            ring.append((x, y))
            # On a y axis that points down, left of +x is -y, and left of +y is +x.
            sign = -sign if (x, y, -sign) in to_y else sign
            y = to_y.pop((x, y, sign))
            ring.append((x, y))
            turns_left = (x, y, sign) in to_x or (x, y, sign) == start
            sign = sign if turns_left else -sign
            if (x, y, sign) == start:
                break
        yield ring


def _runs(edges: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Join neighbouring edges of one direction.

    Args:
        edges: int8 array of shape (num_lines, num_positions): 1, -1, or 0 where there is no edge.

    Yields:
        (line, start, end, sign): a straight piece from `start` to `end`, walked in the direction of its sign.
    """
    padded = np.pad(edges, ((0, 0), (1, 1)))
    changes = padded[:, 1:] != padded[:, :-1]
    # In reading order the starts and the ends of the runs of a line pair up.
    starts = np.argwhere(changes & (padded[:, 1:] != 0))
    ends = np.argwhere(changes & (padded[:, :-1] != 0))
    for (line, first), (_, last) in zip(starts.tolist(), ends.tolist(), strict=True):
        sign = int(edges[line, first])
        yield (line, first, last, sign) if sign > 0 else (line, last, first, sign)


def _ring_area(ring: Ring) -> float:
    """Area by the shoelace formula, positive for an outer ring."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:], strict=False)) / 2
