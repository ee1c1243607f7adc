"""Lobes of a nucleus: into how many parts it falls, and how much of it survives, as it is opened and eroded."""

import cv2
import numpy as np
from skimage.morphology import skeletonize

from mrcnn.morphology.shape import NUMBER, edge_distance

# Radii of an opening, relative to the radius of the disc of the nucleus' area.
OPENINGS = (0.15, 0.3, 0.45, 0.6)
_STEP = 0.04  # of erosions, on the same scale
_LEAST_RISE = 0.1  # of a lobe above the place where it parts from another, on the same scale
_LEAST_PART = 0.04  # of the area of a nucleus; what is smaller is no part
COLUMNS = {
    "nucleus_parts_sum": (
        NUMBER,
        f"parts of at least {_LEAST_PART:.0%} of the nucleus, summed over openings by "
        f"{', '.join(map(str, OPENINGS))} of its radius",
    ),
    **{
        f"nucleus_survival_{r * 100:02.0f}": (
            NUMBER,
            f"share of the nucleus that survives an opening by {r} of its radius",
        )
        for r in OPENINGS
    },
    "nucleus_lobes": (
        NUMBER,
        f"lobes: swellings wider by {_LEAST_RISE} of the radius than what joins them, on each side",
    ),
    "nucleus_second_lobe": (
        NUMBER,
        "how much wider the second lobe is than what joins it, on each side, over the radius",
    ),
    "nucleus_third_lobe": (NUMBER, "the same of the third lobe; 0 where there is none"),
    "nucleus_neck": (NUMBER, "width of what joins the second lobe, over the width of that lobe; 1 where there is none"),
    "nucleus_largest_lobe": (NUMBER, "share of the nucleus that is nearest to its largest lobe"),
    "nucleus_thickness": (NUMBER, "radius of the largest disc inside the nucleus, over its radius"),
    "nucleus_axis_length": (NUMBER, "length of the skeleton of the nucleus, over its radius"),
    "nucleus_axis_width": (NUMBER, "mean radius of the nucleus along its skeleton, over its radius"),
    "nucleus_axis_variation": (NUMBER, "standard deviation of the radius along the skeleton, over its mean"),
}


def measure_lobes(nucleus: np.ndarray) -> dict[str, float]:
    """`COLUMNS` of a nucleus, bool (height, width); an empty one has none."""
    area = np.count_nonzero(nucleus)
    if not area:
        return {}
    nucleus = np.pad(nucleus, 2)
    radius = np.sqrt(area / np.pi)
    depth = edge_distance(nucleus)
    values: dict[str, float] = {"nucleus_parts_sum": 0}
    for r in OPENINGS:
        # An opening by a disc is what lies within its radius of the nucleus eroded by it.
        eroded = depth > r * radius
        opened = edge_distance(~eroded) <= r * radius if eroded.any() else eroded
        values["nucleus_parts_sum"] += _count_parts(opened, area)
        values[f"nucleus_survival_{r * 100:02.0f}"] = min(1.0, np.count_nonzero(opened) / area)
    values |= _find_lobes(nucleus, depth / np.float32(radius))
    values["nucleus_thickness"] = depth.max() / radius
    widths = depth[skeletonize(nucleus)] / radius
    values["nucleus_axis_length"] = len(widths) / radius
    values["nucleus_axis_width"] = widths.mean()
    values["nucleus_axis_variation"] = widths.std() / widths.mean()
    return values


def _count_parts(mask: np.ndarray, area: int) -> int:
    """Parts of a mask that are not small beside an area."""
    stats = cv2.connectedComponentsWithStats(mask.view(np.uint8))[2]
    return np.count_nonzero(stats[1:, cv2.CC_STAT_AREA] >= _LEAST_PART * area)


def _find_lobes(nucleus: np.ndarray, depth: np.ndarray) -> dict[str, float]:
    """Follow the parts of the nucleus through erosions; `depth` is the distance to its edge over its radius."""
    second, third, neck = 0.0, 0.0, 1.0
    most, seeds = 0, None
    # Of depths only local maxima matter.
    tops = np.nonzero((depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8))) & nucleus)
    for level in np.arange(0.0, depth.max(), _STEP):
        number, labels = cv2.connectedComponents((depth > level).view(np.uint8))
        peaks = np.zeros(number)
        np.maximum.at(peaks, labels[tops], depth[tops])
        _, lesser, least = [*np.sort(peaks[1:] - level)[::-1], 0.0, 0.0][:3]
        second, third = max(second, lesser), max(third, least)
        if lesser >= _LEAST_RISE:
            neck = min(neck, level / (lesser + level))
        is_lobe = np.append(False, peaks[1:] - level >= _LEAST_RISE)
        if is_lobe.sum() > most:
            most, seeds = int(is_lobe.sum()), np.where(is_lobe[labels], labels, 0)
    largest = 1.0
    if most > 1:
        _, nearest = cv2.distanceTransformWithLabels((seeds == 0).view(np.uint8), cv2.DIST_L2, 5)
        sizes = np.bincount(nearest[nucleus], minlength=nearest.max() + 1)
        lobe_of = np.zeros(len(sizes), np.int64)
        lobe_of[nearest[seeds > 0]] = seeds[seeds > 0]
        largest = np.bincount(lobe_of, sizes).max() / sizes.sum()
    return {
        "nucleus_lobes": max(most, 1),
        "nucleus_second_lobe": second,
        "nucleus_third_lobe": third,
        "nucleus_neck": neck,
        "nucleus_largest_lobe": largest,
    }
