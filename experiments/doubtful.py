"""Which detections a person should look at first: those least like the others of their centre."""

import numpy as np

from mrcnn.store_reader import StoreReader

# Darkest part of a crop and its paler part, as percentiles of the green channel, in which nuclei are darkest.
DARK, PALE = 10, 75
BLOCK = 512


def doubts(store: StoreReader) -> np.ndarray:
    """How unlike the other cells of its centre each cell of a store is.

    Args:
        store: features of one centre, at least one cell.

    Returns:
        float64 array of shape (num_cells,): the largest of the four `deviations`, on the side that is suspicious; above
        3 is unusual.
    """
    found = deviations(store)
    return np.max([found["score"], np.abs(found["size"]), found["place"], found["contrast"]], axis=0)


def deviations(store: StoreReader) -> dict[str, np.ndarray]:
    """How far each cell of a store is from the usual cell of its centre.

    Four things are compared, each in units of its spread (median absolute deviation) over the centre: a low score, a
    box much smaller or larger than usual, a box far from the image's centre, and a crop with little contrast, as a red
    cell or a platelet without a dark nucleus has.

    Args:
        store: features of one centre, at least one cell.

    Returns:
        float64 arrays of shape (num_cells,): "score", "place" and "contrast", where positive values are suspicious,
        and "size", where negative values are small boxes and positive ones large boxes.
    """
    boxes, scores = store.read("box", 0, len(store)), store.read("score", 0, len(store))
    shapes = store.read("image_shape", 0, len(store)).astype(np.float64)
    sizes = (boxes[:, 2:] - boxes[:, :2]) / shapes
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2 / shapes
    area = np.log(np.maximum(sizes.prod(axis=1), 1e-9))
    distance = np.linalg.norm(centres - 0.5, axis=1)
    return {
        "score": spreads(-scores.astype(np.float64)),
        "size": spreads(area),
        "place": spreads(distance),
        "contrast": spreads(-_contrasts(store)),
    }


def doubtful_rows(store: StoreReader, number: int) -> np.ndarray:
    """Rows of the `number` most doubtful cells, the worst first."""
    return np.argsort(-doubts(store), kind="stable")[:number] if len(store) else np.zeros(0, np.int64)


def _contrasts(store: StoreReader) -> np.ndarray:
    """Difference of pale and dark in the green channel of each crop, 0 to 255."""
    values = []
    for start in range(0, len(store), BLOCK):
        green = store.read("crop", start, min(start + BLOCK, len(store)))[..., 1].reshape(-1, 128 * 128)
        dark, pale = np.percentile(green, [DARK, PALE], axis=1)
        values.append(pale - dark)
    return np.concatenate(values)


def spreads(values: np.ndarray) -> np.ndarray:
    """Distance from the median in units of 1.48 median absolute deviations, a normal distribution's sigma."""
    centred = values - np.median(values)
    # A spread of nothing would make the smallest difference infinite.
    spread = max(1.4826 * float(np.median(np.abs(centred))), 1e-3 * max(float(np.abs(values).max()), 1e-9))
    return centred / spread
