"""Size and shape of a cell and of its nucleus, and where the nucleus lies."""

import cv2
import numpy as np
from skimage.measure import regionprops_table

LENGTH, AREA, NUMBER = "px", "px²", ""
_OF_REGION = {
    "perimeter": (LENGTH, "perimeter of the {0}, by Crofton's formula"),
    "diameter": (LENGTH, "diameter of the disc of the same area as the {0}"),
    "major_axis": (LENGTH, "long axis of the ellipse of the same second moments as the {0}"),
    "minor_axis": (LENGTH, "short axis of that ellipse"),
    "eccentricity": (NUMBER, "eccentricity of that ellipse; 0 for a disc"),
    "solidity": (NUMBER, "area of the {0} over that of its convex hull"),
    "extent": (NUMBER, "area of the {0} over that of its upright bounding box"),
    "circularity": (NUMBER, "4π area / perimeter² of the {0} (form factor); 1 for a disc, at most 1"),
    "spread": (NUMBER, "mean squared distance of the {0} from its centre, over that of the disc of its area"),
}
COLUMNS = {
    "cell_area": (AREA, "pixels of the cell"),
    "nucleus_area": (AREA, "pixels of the nucleus"),
    "cytoplasm_area": (AREA, "pixels of the cell outside its nucleus"),
    "nc_ratio": (NUMBER, "area of the nucleus over that of the cytoplasm, taken as a twentieth of the cell at least"),
    "nucleus_share": (NUMBER, "area of the nucleus over that of the cell"),
    **{
        f"{part}_{name}": (unit, text.format(part))
        for part in ("cell", "nucleus")
        for name, (unit, text) in _OF_REGION.items()
    },
    "cell_dent": (NUMBER, "depth of the deepest dent of the cell in its convex hull, over its radius"),
    "cell_reach": (NUMBER, "greatest distance of the cell from its centre, over its radius"),
    "nucleus_offset": (NUMBER, "distance between the centres of nucleus and cell, over the radius of the cell"),
    "nucleus_convexity_deficiency": (NUMBER, "area of the convex hull outside the nucleus, over that of the nucleus"),
    "nucleus_dent": (NUMBER, "depth of the deepest dent of the nucleus in its convex hull, over its radius"),
    "nucleus_second_dent": (NUMBER, "depth of the second deepest dent, over its radius"),
}
_LEAST_CYTOPLASM = 0.05
_NAMES = {
    "perimeter_crofton": "perimeter",
    "equivalent_diameter_area": "diameter",
    "axis_major_length": "major_axis",
    "axis_minor_length": "minor_axis",
    "eccentricity": "eccentricity",
    "extent": "extent",
}


def measure_shape(cell: np.ndarray, nucleus: np.ndarray) -> dict[str, float]:
    """`COLUMNS` of one cell, in pixels; masks bool (height, width), the nucleus inside the cell and perhaps empty."""
    cell_area, nucleus_area = np.count_nonzero(cell), np.count_nonzero(nucleus)
    cytoplasm_area = cell_area - nucleus_area
    values: dict[str, float] = {"cell_area": cell_area, "nucleus_area": nucleus_area, "cytoplasm_area": cytoplasm_area}
    if not cell_area:
        return values
    values["nc_ratio"] = nucleus_area / max(cytoplasm_area, _LEAST_CYTOPLASM * cell_area)
    values["nucleus_share"] = nucleus_area / cell_area
    of_cell, cell_centre = _region(cell)
    values |= {f"cell_{name}": value for name, value in of_cell.items()}
    radius = of_cell["diameter"] / 2
    values["cell_dent"] = _dents(cell)[0] / radius
    values["cell_reach"] = np.sqrt(np.max(np.sum((_edge_points(cell) - cell_centre) ** 2, axis=1))) / radius
    if not nucleus_area:
        return values
    of_nucleus, centre = _region(nucleus)
    values |= {f"nucleus_{name}": value for name, value in of_nucleus.items()}
    values["nucleus_offset"] = np.hypot(*(centre - cell_centre)) / radius
    radius = of_nucleus["diameter"] / 2
    values["nucleus_convexity_deficiency"] = 1 / of_nucleus["solidity"] - 1
    values["nucleus_dent"], values["nucleus_second_dent"] = _dents(nucleus) / radius
    return values


def _region(mask: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Shape of a mask that is not empty, and its centre (y, x)."""
    found = regionprops_table(mask.view(np.uint8), properties=(*_NAMES, "centroid"))
    values = {name: float(found[theirs][0]) for theirs, name in _NAMES.items()}
    area, perimeter = np.count_nonzero(mask), values["perimeter"]
    values["solidity"] = area / np.count_nonzero(_hull(mask))
    values["circularity"] = min(1.0, 4 * np.pi * area / perimeter**2) if perimeter else 1.0
    centre = np.array([found["centroid-0"][0], found["centroid-1"][0]])
    values["spread"] = np.pi * (values["major_axis"] ** 2 + values["minor_axis"] ** 2) / (8 * area)
    return values, centre


def _dents(mask: np.ndarray) -> np.ndarray:
    """Depths in pixels of the two deepest dents of a mask in its convex hull, 0 where there are none."""
    # How far each pixel of the hull outside the mask is from the outside of the hull.
    depth = edge_distance(np.pad(_hull(mask), 1))[1:-1, 1:-1] * ~mask
    number, labels = cv2.connectedComponents((depth > 0).view(np.uint8), connectivity=4)
    return np.sort(np.append(part_maxima(depth, labels, number)[1:], [0, 0]))[:-3:-1]


def _hull(mask: np.ndarray) -> np.ndarray:
    """The pixels of the convex hull of those of a mask, bool (height, width)."""
    hull = np.zeros(mask.shape, np.uint8)
    return cv2.fillConvexPoly(hull, cv2.convexHull(_edge_points(mask)[:, ::-1].astype(np.int32)), 1) != 0


def _edge_points(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask, (y, x), that touch the outside or the frame."""
    return np.argwhere(mask & (cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) == 0))


def edge_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of each pixel inside a mask, bool (height, width), from the nearest one outside: float32, 0 outside."""
    return cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def part_maxima(values: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Greatest of the values (height, width), at least 0, in each of a number of parts, float (number,)."""
    # Local maxima alone: `maximum.at` is slow.
    is_peak = values >= cv2.dilate(values, np.ones((3, 3), np.uint8))
    maxima = np.zeros(number)
    np.maximum.at(maxima, labels[is_peak & (labels > 0)], values[is_peak & (labels > 0)])
    return maxima
