"""Boxes of Pascal VOC: known answers, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from mrcnn.annotations.voc import VocBoxDataset, read_voc_boxes
from mrcnn.data.records import ImageRecord
from mrcnn.files.errors import InputError

VOC = """<annotation><filename>a.jpg</filename>
<object><name>WBC</name><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object>
<object><name>RBC</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>
</annotation>"""
SIZE = (80, 100)
SIZED = VOC.replace("<object>", "<size><width>100</width><height>80</height></size><object>", 1)


def test_voc_boxes_by_name(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(VOC)
    boxes = read_voc_boxes(path, {"WBC"}, SIZE)
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, [[20, 10, 60, 30]])
    np.testing.assert_array_equal(read_voc_boxes(path, {"RBC"}, SIZE), [[0, 0, 5, 5]])
    assert read_voc_boxes(path, {"Platelets"}, SIZE).shape == (0, 4)
    path.write_text(SIZED.replace(">60<", ">82<"))  # two pixels over the edge are a slip of the mouse
    assert read_voc_boxes(path, {"WBC"}, SIZE).shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        (VOC[:90], SIZE, "no xml"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', SIZE, "no xml"),
        ("<html></html>", SIZE, "not Pascal VOC"),
        (VOC.replace(">21<", ">99<").replace("RBC", "WBC").replace("<xmax>5", "<xmax>x"), SIZE, "area.*object 2 lacks"),
        (SIZED.replace(">60<", ">90<"), SIZE, "outside the image of 100x80 px"),
        (SIZED, (100, 80), "made for an image of 100x80 px, this one has 80x100 px"),
    ],
)
def test_voc_faults_are_all_named_with_the_file(tmp_path, text, size, message):
    path = tmp_path / "broken.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"broken.xml: .*{message}"):
        read_voc_boxes(path, {"WBC"}, size)


def test_voc_dataset_gives_boxes_and_no_masks(tmp_path):
    (tmp_path / "a.xml").write_text(VOC)
    Image.new("RGB", (200, 100)).save(tmp_path / "a.jpg")
    dataset = VocBoxDataset([ImageRecord("images/a.jpg", tmp_path / "a.jpg")], tmp_path)
    np.testing.assert_array_equal(dataset.load_boxes(0), [[20, 10, 60, 30]])
    with pytest.raises(InputError, match="has no masks"):
        dataset.load_mask(0)
    with pytest.raises(InputError, match="no annotation"):
        VocBoxDataset([ImageRecord("images/b.jpg", tmp_path / "b.jpg")], tmp_path)
    with pytest.raises(InputError, match=r"a\.xml: could be that of basophil/a\.jpg or eosinophil/a\.jpg"):
        VocBoxDataset([ImageRecord(f"{name}/a.jpg", tmp_path) for name in ("basophil", "eosinophil")], tmp_path)
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="outside the image of 20x20 px"):
        dataset.load_boxes(0)
