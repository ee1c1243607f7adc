from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from mrcnn.annotations import label_masks as annotations
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError

REAL_DATA = Path(__file__).parents[4] / "shared" / "data"


def write_cell(folder, name, mask, image_size=None):
    """Write an image of a sample and, unless None, its mask; return its record."""
    (folder / "images").mkdir(exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    path = folder / "images" / f"{name}.png"
    height, width = image_size or mask.shape
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    if mask is not None:
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return ImageRecord(f"images/{name}.png", path)


def make_label_mask():
    """A cell with a nucleus of another value, a second cell, and a fragment of one pixel."""
    mask = np.zeros((40, 50), np.uint8)
    mask[5:20, 5:20] = 128
    mask[8:15, 8:15] = 255
    mask[25:35, 30:40] = 128
    mask[38, 2] = 255
    return mask


def test_cell_masks_are_components_without_fragments(tmp_path):
    dataset = annotations.CellMaskDataset([write_cell(tmp_path, "a", make_label_mask())], tmp_path / "masks")
    assert dataset.class_names == ["BG", "cell"] and dataset.num_images == 1
    masks, class_ids = dataset.load_mask(0)
    assert masks.dtype == bool and masks.shape == (40, 50, 2)
    np.testing.assert_array_equal(masks.sum(axis=(0, 1)), [225, 100])
    np.testing.assert_array_equal(class_ids, [1, 1])
    assert class_ids.dtype == np.int32
    assert dataset.load_image(0).shape == (40, 50, 3)


def test_instances_semantics_takes_each_value_as_drawn(tmp_path):
    labels = np.zeros((20, 20), np.uint16)
    labels[2:8, 2:8] = 300
    labels[2:8, 8:14] = 7  # touches the other
    labels[19, 19] = 7  # a second part of it
    record = write_cell(tmp_path, "a", labels)
    dataset = annotations.CellMaskDataset([record], tmp_path / "masks", semantics="instances")
    masks, _ = dataset.load_mask(0)
    np.testing.assert_array_equal(masks.sum(axis=(0, 1)), [37, 36])
    np.testing.assert_array_equal(masks[..., 1], labels == 300)


def test_fragment_rule_keeps_cells_of_unlike_size():
    labels = np.zeros((100, 100), int)
    labels[:50, :50] = 1  # 2,500 px: fragments are below 50
    labels[60:68, 60:68] = 1  # 64 px
    labels[80:86, 80:86] = 1  # 36 px
    components, instances = annotations.find_instances(labels)
    assert [(components == number).sum() for number in instances] == [2500, 64]
    assert not annotations.find_instances(np.zeros((9, 9), int))[1].size


@pytest.mark.parametrize("name", ["images/s/a.jpg", "a.jpg", "s/a.png"])
def test_find_mask_by_key_shortened_key_or_name(tmp_path, name):
    record = ImageRecord(name, tmp_path / name)
    assert annotations.find_mask(record, tmp_path / "masks") is None
    mask = tmp_path / "masks" / "s" / "a.tif" if "s/" in name else tmp_path / "masks" / "a.tif"
    mask.parent.mkdir(parents=True)
    mask.touch()
    assert annotations.find_mask(record, tmp_path / "masks") == mask


def test_check_lists_every_fault_and_keeps_the_good(tmp_path):
    good = write_cell(tmp_path, "good", make_label_mask())
    missing = write_cell(tmp_path, "missing", None, (40, 50))
    other_size = write_cell(tmp_path, "size", make_label_mask(), (30, 30))
    specks = np.zeros((40, 50), np.uint8)
    specks[3, 3] = specks[20, 20:30] = 255
    empty = write_cell(tmp_path, "empty", specks)
    unreadable = write_cell(tmp_path, "cut", make_label_mask())
    unreadable.path.write_bytes(unreadable.path.read_bytes()[:60])
    bad_mask = write_cell(tmp_path, "badmask", make_label_mask())
    (tmp_path / "masks" / "badmask.png").write_text("no image")
    shared = [write_cell(tmp_path, "shared", make_label_mask())]
    shared.append(ImageRecord("other/shared.png", shared[0].path))
    records = [missing, good, other_size, empty, unreadable, bad_mask, *shared]
    check = annotations.check_annotations(records, tmp_path / "masks")
    faults, kept = check.faults, check.good
    assert kept == [good]
    assert [key for key, _ in faults] == [
        r.image_id for r in (missing, other_size, empty, unreadable, bad_mask, *shared)
    ]
    reasons = [reason for _, reason in faults]
    expected = ["missing mask", "50x40 px, image is 30x30", "only specks", "cut.png", "badmask.png"]
    for reason, part in zip(reasons, [*expected, *["shared by 2 images"] * 2], strict=True):
        assert part in reason


def test_masks_of_zeros_say_that_there_is_no_cell(tmp_path):
    cell, empty = write_cell(tmp_path, "a", make_label_mask()), write_cell(tmp_path, "b", np.zeros((40, 50), np.uint8))
    check = annotations.check_annotations([cell, empty], tmp_path / "masks")
    assert (check.faults, check.good) == ([], [cell, empty])
    assert check.num_objects == {"images/a.png": 2, "images/b.png": 0}
    masks, class_ids = annotations.CellMaskDataset(check.good, tmp_path / "masks").load_mask(1)
    assert masks.shape == (40, 50, 0) and masks.dtype == bool and class_ids.shape == (0,)


@pytest.mark.parametrize("suffix", [".TIF", ".Tiff", ".Bmp"])
def test_find_mask_takes_endings_in_any_case_but_never_the_image_itself(tmp_path, suffix):
    record = ImageRecord("a.PNG", tmp_path / "a.PNG")
    record.path.touch()
    assert annotations.find_mask(record, tmp_path) is None
    (tmp_path / f"a{suffix}").touch()
    assert annotations.find_mask(record, tmp_path).samefile(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("value", [0.6, np.nan, np.inf, 1e20])
def test_masks_of_values_that_are_no_numbers_of_cells_are_refused(tmp_path, value):
    labels = np.zeros((20, 30), np.float32)
    labels[5:15, 5:15] = 2
    Image.fromarray(labels).save(tmp_path / "a.tif")
    assert annotations.read_label_mask(tmp_path / "a.tif").sum() == 200
    labels[7, 7] = value
    Image.fromarray(labels).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="a.tif: mask has values such as"):
        annotations.read_label_mask(tmp_path / "a.tif")


def test_label_masks_with_transparency_are_refused(tmp_path):
    # As drawing programs save a shape on nothing: whatever is beneath the transparency is 0 too.
    clear = np.zeros((20, 30, 4), np.uint8)
    clear[3:13, 2:12, 3] = 255
    Image.fromarray(clear).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: mask has colours or transparency"):
        annotations.read_label_mask(tmp_path / "a.png")
    clear[..., 3] = 255
    clear[3:13, 2:12, :3] = 7
    Image.fromarray(clear).save(tmp_path / "a.png")
    assert (annotations.read_label_mask(tmp_path / "a.png") == 7).sum() == 100


def test_a_photograph_in_place_of_a_mask_does_not_fill_the_memory(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.png")
    values = np.arange(1_000_000, dtype=np.int32).reshape(1000, 1000)
    tifffile.imwrite(tmp_path / "masks" / "a.tif", values, photometric="minisblack")
    records = [ImageRecord("a.png", tmp_path / "a.png")]
    check = annotations.check_annotations(records, tmp_path / "masks", semantics="instances")
    ((key, reason),) = check.faults
    assert key == "a.png" and "a.tif: 999999 objects on 1000x1000 px, whose masks take more than 1 GiB" in reason
    with pytest.raises(InputError, match="999999 objects"):
        annotations.CellMaskDataset(records, tmp_path / "masks", semantics="instances").load_mask(0)
