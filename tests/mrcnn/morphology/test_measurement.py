"""Morphometry of drawn cells, whose measurements are known."""

import cv2
import numpy as np
import pytest

from mrcnn.morphology import COLUMNS, describe_surroundings, lobes, measure, measure_detections, shape

SIDE = 160
PLASMA, RED, CYTOPLASM, NUCLEUS = (250, 230, 205), (205, 150, 145), (185, 170, 215), (95, 50, 140)


def discs(*places):
    """Mask of discs, each (y, x, radius)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.any([(y - v) ** 2 + (x - u) ** 2 <= r * r for v, u, r in places], axis=0)


CELL = discs((80, 80, 48))
ROUND = discs((80, 80, 24))
THREAD = discs((80, 62, 14), (80, 98, 14))
THREAD[78:82, 62:98] = True
NUCLEI = {"round": ROUND, "two lobes": THREAD, "three parts": discs((66, 62, 12), (66, 98, 12), (100, 80, 12))}


def draw(nucleus, cell=CELL, shift=0.0):
    """A cell beside a red cell, with a little noise; the same for all."""
    image = np.full((SIDE, SIDE, 3), PLASMA, np.float64)
    for mask, colour in ((discs((14, 14, 20)), RED), (cell, CYTOPLASM), (nucleus & cell, NUCLEUS)):
        image[mask] = colour
    return np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape) + shift, 0, 255).astype(np.uint8)


def test_disc_in_a_disc_has_known_areas_and_ratios():
    found = measure(draw(ROUND), CELL, ROUND)
    assert found["cell_area"] == CELL.sum() and found["nucleus_area"] == ROUND.sum()
    assert found["nc_ratio"] == pytest.approx(1 / 3, abs=0.01) and found["nucleus_share"] == pytest.approx(
        0.25, abs=0.01
    )
    assert found["cell_diameter"] == pytest.approx(96, abs=1) and found["cell_perimeter"] == pytest.approx(
        301.6, rel=0.02
    )
    for name in ("cell_solidity", "cell_circularity", "nucleus_spread", "nucleus_thickness"):
        assert found[name] == pytest.approx(1, abs=0.05), name
    assert found["nucleus_lobes"] == 1 and found["nucleus_offset"] < 0.02 and found["cell_eccentricity"] < 0.1


@pytest.mark.parametrize(("name", "lobes"), [("round", 1), ("two lobes", 2), ("three parts", 3)])
def test_lobes_are_counted_whether_or_not_a_thread_joins_them(name, lobes):
    found = measure(draw(NUCLEI[name]), CELL, NUCLEI[name])
    assert found["nucleus_lobes"] == lobes and found["nucleus_largest_lobe"] == pytest.approx(1 / lobes, abs=0.04)
    assert (found["nucleus_second_lobe"] > 0.3) == (lobes > 1) and (found["nucleus_neck"] < 0.3) == (lobes > 1)
    assert (found["nucleus_third_lobe"] > 0.3) == (lobes > 2)


def test_cleft_that_the_mask_covers_parts_two_lobes():
    mask = discs((80, 80, 26))
    nucleus = mask.copy()
    nucleus[:, 77:84] = False
    assert measure(draw(nucleus), CELL, mask)["nucleus_lobes"] == 2
    assert measure(draw(mask), CELL, mask)["nucleus_lobes"] == 1
    assert measure(draw(mask & False), CELL, mask)["nucleus_lobes"] == 1  # of the colour of cytoplasm throughout


def test_turned_mirrored_and_enlarged_cells_measure_alike():
    nucleus = NUCLEI["two lobes"]
    image, whole = draw(nucleus), measure(draw(nucleus), CELL, nucleus)
    for change in (lambda array: np.rot90(array), lambda array: array[:, ::-1]):
        found = measure(*(np.ascontiguousarray(change(array)) for array in (image, CELL, nucleus)))
        assert found == pytest.approx(whole, rel=0.02, abs=0.06)
    larger = [cv2.resize(a.astype(np.uint8) * 255, None, fx=3, fy=3) > 127 for a in (CELL, nucleus)]
    found = measure(cv2.resize(image, None, fx=3, fy=3), *larger)
    assert found["cell_area"] == pytest.approx(9 * whole["cell_area"], rel=0.01)
    # Of a larger one the skeleton reaches farther into the ends of the lobes.
    shapes = [name for name in (*shape.COLUMNS, *lobes.COLUMNS) if not COLUMNS[name][0] and "axis" not in name]
    assert {n: found[n] for n in shapes} == pytest.approx({n: whole[n] for n in shapes}, rel=0.15, abs=0.12)


def test_colours_relative_to_the_image_do_not_follow_its_light():
    plain, lighter = (measure(draw(ROUND, shift=shift), CELL, ROUND) for shift in (-25, 5))
    assert lighter["nucleus_l_mean"] > plain["nucleus_l_mean"] + 8
    for name in ("nucleus_l_to_plasma", "cytoplasm_l_to_plasma", "cytoplasm_l_to_red_cells", "difference_l"):
        assert abs(lighter[name] - plain[name]) < 2, name


def test_surroundings_tell_red_cells_from_plasma_and_do_without():
    plasma, red = describe_surroundings(draw(ROUND), CELL)
    assert plasma[0] > red[0] + 20
    bare = np.full((SIDE, SIDE, 3), PLASMA, np.uint8)
    plasma, red = describe_surroundings(bare, CELL)
    np.testing.assert_array_equal(plasma, red)
    assert np.isfinite(describe_surroundings(bare, np.ones_like(CELL)).plasma).all()


@pytest.mark.parametrize(
    ("cell", "nucleus"),
    [
        (CELL, np.zeros_like(CELL)),
        (np.zeros_like(CELL), ROUND),
        (CELL, np.ones_like(CELL)),
        (np.ones_like(CELL), ROUND),
        (discs((0, 80, 40)), discs((0, 80, 20))),
        (discs((80, 80, 1)), discs((80, 80, 0))),
        (discs((80, 80, 0)), discs((80, 80, 0))),
    ],
    ids=["no nucleus", "no cell", "no cytoplasm", "all cell", "cut by the edge", "five pixels", "one pixel"],
)
def test_everything_is_finite(cell, nucleus):
    found = measure(draw(nucleus, cell), cell, nucleus)
    assert list(found) == list(COLUMNS) and np.isfinite(list(found.values())).all()
    if not (nucleus & cell).any():
        assert not any(value for name, value in found.items() if name.startswith(("nucleus", "nc_")))


def test_pixel_size_gives_micrometres():
    pixels, micrometres = (measure(draw(ROUND), CELL, ROUND, pixel_size=size) for size in (None, 0.1))
    for name, (unit, _) in COLUMNS.items():
        factor = {"px": 0.1, "px²": 0.01}.get(unit, 1.0)
        assert micrometres[name] == pytest.approx(factor * pixels[name]), name


def test_detections_are_measured_as_their_pasted_masks_are():
    nucleus = NUCLEI["two lobes"]
    box = np.array([[30, 30, 131, 131]])
    small = {
        name: cv2.resize(mask[30:131, 30:131].astype(np.float32), (56, 56), interpolation=cv2.INTER_AREA)
        for name, mask in (("masks", CELL), ("nucleus_masks", nucleus))
    }
    result = {"rois": box, **{f"small_{name}": mask[np.newaxis] for name, mask in small.items()}}
    found = measure_detections(draw(nucleus), result, [0])
    assert found.shape == (1, len(COLUMNS)) and found.dtype == np.float32
    values = dict(zip(COLUMNS, found[0].tolist(), strict=True))
    assert values["cell_area"] == pytest.approx(CELL.sum(), rel=0.02) and values["nucleus_lobes"] == 2
    assert measure_detections(draw(nucleus), result, []).shape == (0, len(COLUMNS))
