"""Label masks as a Dataset: what an instance is, where a mask is found, and what is refused."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from mrcnn.annotations import label_masks as annotations
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError


def write_cell(folder, name, mask, size=(50, 40)):
    """Write an image of a sample and, unless None, its mask; return its record."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    path = folder / "images" / f"{name}.png"
    Image.new("RGB", size).save(path)
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
    assert dataset.class_names == ["BG", "cell"] and dataset.load_image(0).shape == (40, 50, 3)
    masks, class_ids = dataset.load_mask(0)
    assert masks.dtype == bool and masks.shape == (40, 50, 2) and class_ids.dtype == np.int32
    assert masks.sum(axis=(0, 1)).tolist() == [225, 100] and class_ids.tolist() == [1, 1]


def test_instances_are_values_as_drawn_or_components_but_fragments():
    labels = np.zeros((100, 100), int)
    labels[:50, :50] = 1  # 2,500 px: fragments are below 50
    labels[60:68, 60:68] = 7  # 64 px
    labels[80:86, 80:86] = 7  # 36 px
    assert annotations.find_instances(labels, "instances")[1].tolist() == [1, 7]
    components, instances = annotations.find_instances(labels)
    assert [(components == number).sum() for number in instances] == [2500, 64]


def test_nuclei_are_255_beside_128_or_lie_in_a_folder_of_their_own(tmp_path):
    coded, other = make_label_mask(), np.where(make_label_mask() > 0, 200, 0).astype(np.uint8)
    coded[38, 2] = 0
    records = [write_cell(tmp_path, name, mask) for name, mask in {"coded": coded, "other": other}.items()]
    dataset = annotations.CellMaskDataset(records, tmp_path / "masks")
    nuclei = dataset.load_parts(0)["nucleus"]
    # The second cell's is not known.
    assert nuclei.dtype == bool and nuclei.shape == (40, 50, 2) and nuclei.sum(axis=(0, 1)).tolist() == [49, 0]
    np.testing.assert_array_equal(nuclei[..., 0], coded == 255)
    assert dataset.load_parts(1) == {}
    values = annotations.CellMaskDataset(records, tmp_path / "masks", semantics="instances")
    assert values.load_parts(0) == {}

    (tmp_path / "nuclei").mkdir()
    drawn = np.zeros((40, 50), np.uint8)
    drawn[27:33, 32:48] = drawn[12:14, 12:14] = 9
    Image.fromarray(drawn).save(tmp_path / "nuclei" / "other.png")
    dataset = annotations.CellMaskDataset(records, tmp_path / "masks")
    assert dataset.load_parts(1)["nucleus"].sum(axis=(0, 1)).tolist() == [4, 48]
    Image.fromarray(drawn[:30]).save(tmp_path / "nuclei" / "other.png")
    with pytest.raises(InputError, match=r"nuclei/other\.png: 50x30 px, .*50x40 px"):
        dataset.load_parts(1)
    check = annotations.check_annotations(records, tmp_path / "masks")
    assert check.good == records[:1] and [image_id for image_id, _ in check.faults] == ["images/other.png"]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/s/a.jpg", "masks/s/a.tif"),
        ("s/a.png", "masks/a.bmp"),
        ("masks/a.PNG", "masks/a.TIF"),  # the image itself is none
        ("masks/a.PNG", "masks/a.Tiff"),
    ],
)
def test_find_mask_by_image_id_its_end_or_name_and_endings_in_any_case(tmp_path, image, mask):
    record, path = ImageRecord(image, tmp_path / image), tmp_path / mask
    for parent in (record.path.parent, path.parent):
        parent.mkdir(parents=True, exist_ok=True)
    record.path.touch()
    assert annotations.find_mask(record, tmp_path / "masks") is None
    path.touch()
    assert annotations.find_mask(record, tmp_path / "masks").samefile(path)


def test_check_lists_every_fault_and_keeps_the_good(tmp_path):
    good = write_cell(tmp_path, "good", make_label_mask())
    missing = write_cell(tmp_path, "missing", None)
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
    faulty = [missing, other_size, empty, unreadable, bad_mask, *shared]
    check = annotations.check_annotations([good, *faulty], tmp_path / "masks")
    assert check.good == [good] and [image_id for image_id, _ in check.faults] == [r.image_id for r in faulty]
    told = ["missing mask", "30x30", "only specks", "cut.png", "badmask.png", "shared by 2", "shared by 2"]
    assert all(part in reason for part, (_, reason) in zip(told, check.faults, strict=True)), check.faults


def test_masks_of_zeros_say_that_there_is_no_cell(tmp_path):
    cell, empty = write_cell(tmp_path, "a", make_label_mask()), write_cell(tmp_path, "b", np.zeros((40, 50), np.uint8))
    check = annotations.check_annotations([cell, empty], tmp_path / "masks")
    assert (check.faults, check.num_objects) == ([], {"images/a.png": 2, "images/b.png": 0})
    masks, class_ids = annotations.CellMaskDataset(check.good, tmp_path / "masks").load_mask(1)
    assert masks.shape == (40, 50, 0) and masks.dtype == bool and class_ids.shape == (0,)


def test_masks_of_other_values_or_with_transparency_are_refused(tmp_path):
    labels = np.full((20, 30), 2, np.float32)
    Image.fromarray(labels).save(tmp_path / "a.tif")
    assert (annotations.read_label_mask(tmp_path / "a.tif") == 2).all()
    for value in (0.6, np.nan, np.inf, 1e20):
        labels[7, 7] = value
        Image.fromarray(labels).save(tmp_path / "a.tif")
        with pytest.raises(InputError, match="a.tif: mask has values such as"):
            annotations.read_label_mask(tmp_path / "a.tif")
    # As drawing programs save a shape on nothing: whatever is beneath the transparency is 0 too.
    for opacity in (0, 255):
        Image.new("RGBA", (30, 20), (7, 7, 7, opacity)).save(tmp_path / f"{opacity}.png")
    assert (annotations.read_label_mask(tmp_path / "255.png") == 7).all()
    with pytest.raises(InputError, match=r"0\.png: mask has colours or transparency"):
        annotations.read_label_mask(tmp_path / "0.png")


def test_a_photograph_in_place_of_a_mask_does_not_fill_the_memory(tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.png")
    values = np.arange(1_000_000, dtype=np.int32).reshape(1000, 1000)
    tifffile.imwrite(tmp_path / "masks" / "a.tif", values, photometric="minisblack")
    records = [ImageRecord("a.png", tmp_path / "a.png")]
    ((_, reason),) = annotations.check_annotations(records, tmp_path / "masks", semantics="instances").faults
    assert "a.tif: 999999 objects on 1000x1000 px" in reason
    with pytest.raises(InputError, match="999999 objects"):
        annotations.CellMaskDataset(records, tmp_path / "masks", semantics="instances").load_mask(0)
