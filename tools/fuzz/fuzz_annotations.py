"""Fuzzes the readers of annotations: COCO, VIA and labelme files, and Pascal VOC boxes, up to the masks of an image."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent))
with atheris.instrument_imports(include=["mrcnn", "json", "xml"], enable_loader_override=False):
    from harness import start

    from mrcnn.data.annotation_files import read_annotations
    from mrcnn.data.annotations import VocBoxDataset
    from mrcnn.data.outline_dataset import OutlineDataset, check_outlines
    from mrcnn.data.records import ImageRecord

from outline_files import IMAGE, coco, labelme, via
from voc_cases import VOC

FORMATS = ("auto", "coco", "via", "labelme", "voc")


def read(data: bytes, folder: Path) -> None:
    """The first byte tells the format, the rest is the file."""
    image = folder / "a.png"
    if not image.exists():
        image.write_bytes(IMAGE)
    file_format = FORMATS[data[0] % len(FORMATS)] if data else "auto"
    records = [ImageRecord("a.png", image)]
    if file_format == "voc":
        (folder / "a.xml").write_bytes(data[1:])
        VocBoxDataset(records, folder).load_boxes(0)
        return
    path = folder / "a.json"
    path.write_bytes(data[1:])
    annotations = read_annotations(path, file_format)
    check = check_outlines(records, annotations)
    if check.good:
        OutlineDataset(check.good, annotations).load_mask(0)


def seeds() -> Iterator[bytes]:
    """A sound file of each format, read as what it is and as what it is not."""
    for made in (coco(), via(), labelme()):
        for number in range(4):
            yield bytes([number]) + json.dumps(made).encode()
    yield b"\x04" + VOC.encode()


if __name__ == "__main__":
    start(read, seeds)
