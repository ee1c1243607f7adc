"""The layout of a store's file, as h5py and other programs see it."""

import numpy as np
import pytest

from mrcnn.feature_store import layout as store_layout
from mrcnn.feature_store.layout import cell_fields, check_cell, encode_text, make_header, new_store


def make_cell(**changes):
    values = {
        "features": np.zeros((14, 14, 256), np.float32),
        "crop": np.zeros((128, 128, 3), np.uint8),
        "image": np.zeros((128, 128, 3), np.uint8),
        "box": (1, 2, 3, 4),
        "score": 0.5,
        "class_id": 1,
        "image_shape": (40, 30),
    }
    return store_layout.Cell(**{**values, **changes})


@pytest.mark.parametrize(("num_rows", "chunk"), [(0, 1), (1, 1), (3, 3), (5000, 1024)])
def test_new_store_makes_chunks_of_one_row_of_arrays_and_many_of_numbers(tmp_path, num_rows, chunk):
    header = make_header("north", {"hash": "abc"}, True, {"min_score": 0.5})
    with new_store(tmp_path / "store.h5", header, num_rows, num_rows, {"cells/image_id": 7}) as file:
        cells, images = file["cells"], file["images"]
        assert list(cells) == sorted(cell_fields(True)) and "mask" not in cell_fields(False)
        assert cells["features"].chunks == (1, 14, 14, 256) and cells["mask"].chunks == (1, 28, 28)
        assert cells["box"].chunks == (chunk, 4) and cells["score"].chunks == images["num_cells"].chunks == (chunk,)
        for dataset in (*cells.values(), *images.values()):
            assert len(dataset) == num_rows and dataset.maxshape[0] is None
            assert dataset.fletcher32 and dataset.compression is None
        assert cells["image_id"].dtype.itemsize == 7 and images["image_id"].dtype.itemsize == 1
        assert file.attrs["schema"] == 2 and file.attrs["with_masks"] == 1 and file.attrs["centre"] == b"north"


def test_make_header_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="reserved names: centre, schema"):
        make_header("c", {"hash": "abc"}, False, {"schema": 1, "centre": 2, "free": 3})
    with pytest.raises(ValueError, match="has no hash"):
        make_header("c", {"hash": ""}, False, {})


def test_check_cell_brings_values_to_the_types_of_the_store():
    row = check_cell("a", make_cell(features=np.full((14, 14, 256), 65504.0)), False)
    assert {name: str(value.dtype) for name, value in row.items()} == {
        name: dtype for name, (dtype, _) in store_layout.ARRAY_FIELDS.items() if name != "mask"
    }
    assert row["features"].max() == 65504 and row["box"].tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="a: features holds NaN or values too large for float16"):
        check_cell("a", make_cell(features=np.full((14, 14, 256), 65520.0)), False)
    with pytest.raises(ValueError, match="a: cell lacks its mask, unlike the store"):
        check_cell("a", make_cell(), True)
    with pytest.raises(ValueError, match=r"a: mask must have shape \(28, 28\), got \(28, 27\)"):
        check_cell("a", make_cell(mask=np.zeros((28, 27), np.uint8)), True)


def test_encode_text_refuses_what_a_column_cannot_hold():
    assert encode_text("label", "") == b"" and encode_text("image_id", "ä") == b"\xc3\xa4"
    assert len(encode_text("image_id", "a" * 4096)) == 4096
    for name, text in (("image_id", ""), ("label", "a\0b"), ("label", "ä" * 2048 + "a")):
        with pytest.raises(ValueError, match=f"{name} must be text of at most 4096 bytes without NUL"):
            encode_text(name, text)
