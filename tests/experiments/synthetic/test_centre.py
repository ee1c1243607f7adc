"""The embedded synthetic centres: exact masks, stable images, and folders that are never spoilt."""

import dataclasses
import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.centres.class_maps import ELEVEN_CLASSES
from experiments.synthetic import centre as synthetic
from experiments.synthetic.cells import CELL_TYPES, NUM_DYES, synthetic_cell
from experiments.synthetic.centre import CENTRES, generate_centre, synthetic_image
from mrcnn.files.errors import InputError

SMALL = {"num_images": 2, "seed": 0, "image_size": 64}


def read_folder(folder):
    """Every file of a folder by relative path, as bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", CENTRES)
@pytest.mark.parametrize("cell_type", CELL_TYPES)
def test_synthetic_image_masks_the_labelled_cell_exactly(name, cell_type):
    style = CENTRES[name]
    image, instances, nuclei = synthetic_image(style, cell_type, np.random.default_rng(7), image_size=96)
    assert image.shape == (96, 96, 3) and image.dtype == np.uint8
    assert instances.shape == nuclei.shape == (96, 96) and instances.dtype == np.uint8

    cell = instances == 1
    assert cell[47:49, 47:49].all(), "the labelled cell covers the middle of the image"
    radius = np.sqrt(cell.sum() / np.pi) / (style.red_cell_radius * 96)
    low, high = CELL_TYPES[cell_type].radius
    assert 0.8 * low < radius < 1.2 * high, "its area is that of its type"

    nucleus = nuclei & cell
    assert nucleus.sum() > 0.1 * cell.sum() and not nuclei[instances == 0].any()
    grey = image.astype(float).mean(axis=-1)
    assert np.median(grey[nucleus]) < 0.85 * np.percentile(grey[instances == 0], 90)


def test_mask_edge_is_where_the_image_changes():
    """On a bare slide without noise, everything that is darker than the background is in the mask."""
    clean = dict.fromkeys(("noise", "crowding", "second_cell_share", "vignetting"), 0.0)
    clean |= {"blur": (0.0, 0.0), "jpeg_quality": (100, 100), "platelets": (0, 0), "debris": (0, 0)}
    style = dataclasses.replace(CENTRES["north"], **clean)
    for seed in range(5):
        image, instances, _ = synthetic_image(style, "lymphocyte_typical", np.random.default_rng(seed))
        level = image.astype(float).sum(axis=-1)
        dark = level < np.median(level[instances == 0]) - 90
        assert (dark & (instances == 1)).sum() / (dark | (instances == 1)).sum() > 0.93


def test_second_cell_touches_the_border_and_spares_the_first():
    style = dataclasses.replace(CENTRES["river"], second_cell_share=1.0)
    for seed in range(12):
        _, instances, _ = synthetic_image(style, "monocyte", np.random.default_rng(seed), image_size=96)
        second = instances == 2
        assert second.sum() > 15 and second.sum() > second[1:-1, 1:-1].sum(), "the border cuts it"
        assert instances[48, 48] == 1 and (instances == 1).sum() > second.sum() / 2


def test_white_cell_dyes_stay_inside_the_cell():
    for cell_type in CELL_TYPES:
        cell = synthetic_cell(cell_type, 12.0, np.random.default_rng(3))
        side = cell.coverage.shape[0]
        assert cell.dyes.shape == (side, side, NUM_DYES) and side % 2 == 0
        assert np.abs(cell.dyes[cell.coverage == 0]).max(initial=0) == 0
        assert cell.coverage[[0, -1]].max() == 0 and cell.coverage[:, [0, -1]].max() == 0
        assert (cell.coverage[cell.nucleus] > 0.5).all()


def test_nuclei_have_the_lobes_of_their_type():
    """Round nuclei fill their hull, dented ones less, lobed ones least."""
    from skimage.morphology import convex_hull_image

    def solidity(cell_type):
        cells = [synthetic_cell(cell_type, 16.0, np.random.default_rng(seed)) for seed in range(10)]
        return np.mean([c.nucleus.sum() / convex_hull_image(c.nucleus).sum() for c in cells])

    assert solidity("lymphocyte_typical") > 0.95
    assert solidity("monocyte") < solidity("myelocyte")
    assert solidity("neutrophil_segmented") < 0.8 and solidity("neutrophil_banded") < 0.8


def test_generate_centre_writes_matching_files(tmp_path):
    folder = generate_centre("north", tmp_path / "a" / "north", num_images=6, seed=1)
    assert folder == tmp_path / "a" / "north"
    labels = pd.read_csv(folder / "labels.csv")
    assert labels["image"].tolist() == [f"{i:04d}.png" for i in range(6)] and set(labels["label"]) <= {*ELEVEN_CLASSES}
    for name in labels["image"]:
        image, mask, nuclei = (np.asarray(Image.open(folder / part / name)) for part in ("images", "masks", "nuclei"))
        size = CENTRES["north"].image_size
        assert image.shape == (size, size, 3) and mask.shape == (size, size)
        assert set(np.unique(mask)) <= {0, 1, 2} and mask[size // 2, size // 2] == 1
        assert set(np.unique(nuclei)) == {0, 255} and mask[nuclei > 0].all()
    assert json.loads((folder / "synthetic.json").read_text())["num_images"] == 6
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["north"], "nothing is left beside it"


def test_generation_depends_on_name_seed_and_index_only(tmp_path):
    short, long, other = (
        read_folder(generate_centre("river", tmp_path / f"{count}-{seed}", num_images=count, seed=seed, image_size=64))
        for count, seed in ((3, 5), (5, 5), (3, 6))
    )
    pictures = [name for name in short if name.endswith(".png")]
    assert len(pictures) == 9
    assert all(short[name] == long[name] for name in pictures)
    assert long["labels.csv"].startswith(short["labels.csv"])
    assert all(short[name] != other[name] for name in pictures if name.startswith("images"))


@pytest.mark.parametrize("name", CENTRES)
def test_types_are_dealt_in_the_stated_numbers(name):
    counts = CENTRES[name].type_counts
    assert set(counts) == set(CELL_TYPES) <= set(ELEVEN_CLASSES)
    deck = sum(counts.values())
    first, second = ([synthetic.cell_type_of_image(name, 0, start + i) for i in range(deck)] for start in (0, deck))
    assert {t: first.count(t) for t in counts} == {t: second.count(t) for t in counts} == dict(counts)
    assert first != second, "shuffled anew"


def test_centres_differ_in_proportions_and_in_colours_more_than_within():
    def colours(style):
        made = [synthetic_image(style, "neutrophil_banded", np.random.default_rng(i), image_size=64) for i in range(6)]
        background = [np.median(d.image[d.instances == 0], axis=0) for d in made]
        return np.concatenate(
            [background, [np.median(d.image[d.nuclei & (d.instances == 1)], axis=0) for d in made]], axis=1
        )

    assert len({tuple(style.type_counts[t] for t in CELL_TYPES) for style in CENTRES.values()}) == len(CENTRES)
    values = [colours(style) for style in CENTRES.values()]
    spread = max(of.std(axis=0).max() for of in values)
    for one, other in combinations(values, 2):
        gap = np.abs(one.mean(axis=0) - other.mean(axis=0))
        assert gap[:3].max() > 30 and gap[3:].max() > 30 and gap.max() > 1.5 * spread


def test_a_centre_is_reused_if_it_is_what_is_asked_for_and_replaced_only_by_overwrite(tmp_path):
    folder = generate_centre("north", tmp_path / "n", **SMALL)
    complete, times = read_folder(folder), {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert generate_centre("north", folder, **SMALL, overwrite=True) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == times
    with pytest.raises(InputError, match="num_images 2, not 3.*overwrite"):
        generate_centre("north", folder, **SMALL | {"num_images": 3})
    (folder / "masks" / "0001.png").unlink()
    with pytest.raises(InputError, match="missing"):
        generate_centre("north", folder, **SMALL)
    generate_centre("north", folder, **SMALL | {"num_images": 3}, overwrite=True)
    assert len(list((folder / "images").iterdir())) == len(list((folder / "masks").iterdir())) == 3
    generate_centre("north", folder, **SMALL, overwrite=True)
    assert read_folder(folder) == complete and [p.name for p in tmp_path.iterdir()] == ["n"]


def test_foreign_files_are_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    generated = generate_centre("north", tmp_path / "n", **SMALL)
    for path in (tmp_path / "mine" / "thesis.txt", generated / "notes.txt"):
        path.write_text("years of work")
        for overwrite in (False, True):
            with pytest.raises(InputError, match=path.name):
                generate_centre("north", path.parent, num_images=1, seed=0, overwrite=overwrite)
        assert path.read_text() == "years of work"
    with pytest.raises(InputError, match="is a file"):
        generate_centre("north", tmp_path / "mine" / "thesis.txt", num_images=1, seed=0)


def test_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(path, pixels):
        if path.name == "0001.png":
            raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_write_png", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generate_centre("north", tmp_path / "n", num_images=3, seed=0, image_size=64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "south"}, "south.*north, river, harbour"),
        ({"num_images": 0}, "num_images is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"image_size": 8}, "image_size is 8"),
    ],
)
def test_bad_arguments_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        generate_centre(**{"name": "north", "folder": tmp_path / "n", "num_images": 1, "seed": 0} | change)
    assert list(tmp_path.iterdir()) == []
