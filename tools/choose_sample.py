"""Choose the images of `aecfe/sample/` from the whole of Acevedo-20 and BCCD, balanced over the five types.

    python tools/choose_sample.py DATA

DATA holds the folders acevedo20 and bccd. The files are copied as they are.
"""

import argparse
import csv
import shutil
from pathlib import Path

import numpy as np

IMAGES = 150
TYPES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
SAMPLE = Path(__file__).parents[1] / "aecfe" / "sample"


def main() -> None:
    """Write `images/`, `labels.csv` and, of BCCD, the boxes in `annotations/`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    # Early neutrophils, which have a prefix of their own, and cells of no clear stage are left out.
    acevedo = [(path, path.parent.name) for path in sorted((data / "acevedo20").glob("*/*.jpg"))]
    acevedo = [
        (path, label) for path, label in acevedo if label != "neutrophil" or path.name.startswith(("SNE", "BNE"))
    ]
    with open(data / "bccd" / "labels.csv", encoding="utf-8") as file:
        bccd = [(data / "bccd" / "images" / row["image"], row["label"]) for row in csv.DictReader(file)]
    for name, images in (("acevedo20", acevedo), ("bccd", bccd)):
        chosen = choose([(path, label) for path, label in images if label in TYPES])
        shutil.rmtree(SAMPLE / name / "images", ignore_errors=True)
        (SAMPLE / name / "images").mkdir(parents=True)
        for path, _ in chosen:
            shutil.copyfile(path, SAMPLE / name / "images" / path.name)
            boxes = path.parents[1] / "annotations" / f"{path.stem}.xml"
            if boxes.is_file():
                (SAMPLE / name / "annotations").mkdir(exist_ok=True)
                shutil.copyfile(boxes, SAMPLE / name / "annotations" / boxes.name)
        with open(SAMPLE / name / "labels.csv", "w", newline="", encoding="utf-8") as file:
            rows = [(path.name, label) for path, label in chosen]
            csv.writer(file, lineterminator="\n").writerows([("image", "label"), *rows])


def choose(images: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """As many images of each type as there are, up to the number that makes IMAGES of all, at random."""
    rng = np.random.default_rng(0)
    shuffled = [images[i] for i in rng.permutation(len(images))]
    by_type = {name: [image for image in shuffled if image[1] == name] for name in TYPES}
    chosen: list[tuple[Path, str]] = []
    for number, name in enumerate(sorted(TYPES, key=lambda name: len(by_type[name]))):  # the rarest first
        share = -(-(IMAGES - len(chosen)) // (len(TYPES) - number))
        chosen += by_type[name][:share]
    return sorted(chosen[:IMAGES], key=lambda image: (image[1], image[0].name))


if __name__ == "__main__":
    main()
