"""Boxes of Pascal VOC: known answers, and what is refused."""

import os

import numpy as np
import pytest

from mrcnn.annotations import voc as voc_boxes
from mrcnn.annotations.voc import read_voc_boxes
from mrcnn.files.errors import InputError

VOC = """<annotation><filename>a.jpg</filename>
<object><name>WBC</name><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object>
<object><name>RBC</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>
</annotation>"""


def test_voc_boxes_by_name(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(VOC)
    boxes = read_voc_boxes(path)
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, [[20, 10, 60, 30]])
    np.testing.assert_array_equal(read_voc_boxes(path, {"RBC"}), [[0, 0, 5, 5]])
    assert read_voc_boxes(path, {"Platelets"}).shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VOC[:90], "malformed xml"),
        ("<html></html>", "not Pascal VOC"),
        (VOC.replace("<ymin>21</ymin>", ""), "lacks a number"),
        (VOC.replace(">21<", ">top<"), "lacks a number"),
        (VOC.replace(">21<", ">nan<"), "without area"),
        (VOC.replace(">21<", ">99<"), "without area"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "malformed xml"),
    ],
)
def test_voc_faults_name_the_file(tmp_path, text, message):
    path = tmp_path / "broken.xml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"broken.xml: .*{message}"):
        read_voc_boxes(path)
    with pytest.raises(InputError, match="no such annotation"):
        read_voc_boxes(tmp_path / "absent.xml")


SIZED = VOC.replace("<object>", "<size><width>100</width><height>80</height></size><object>", 1)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        (SIZED.replace(">60<", ">90<"), None, "outside the image of 100x80 px"),
        (VOC.replace(">60<", ">90<"), (80, 100), "outside the image of 100x80 px"),
        (VOC.replace(">30<", ">1e9<"), (80, 100), "outside the image"),
        (SIZED, (100, 80), "made for an image of 100x80 px, this one has 80x100 px"),
    ],
)
def test_voc_boxes_must_lie_within_their_image(tmp_path, text, size, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=f"a.xml: .*{message}"):
        read_voc_boxes(tmp_path / "a.xml", size=size)
    (tmp_path / "a.xml").write_text(SIZED.replace(">60<", ">82<"))  # two pixels over the edge are a slip of the mouse
    assert read_voc_boxes(tmp_path / "a.xml", size=(80, 100)).shape == (1, 4)


def test_voc_boxes_are_read_from_files_alone(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.xml")
    (tmp_path / "folder.xml").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(InputError, match=f"{name}.xml: cannot be read, since it is a {name}"):
            read_voc_boxes(tmp_path / f"{name}.xml")
    monkeypatch.setattr(voc_boxes, "MAX_XML_BYTES", 100)
    (tmp_path / "a.xml").write_text(VOC)
    with pytest.raises(InputError, match="split the file"):
        read_voc_boxes(tmp_path / "a.xml")
    monkeypatch.undo()
    (tmp_path / "a.xml").write_text('<?xml version="1.0" encoding="klingon"?>' + VOC)
    with pytest.raises(InputError, match="malformed xml"):
        read_voc_boxes(tmp_path / "a.xml")
