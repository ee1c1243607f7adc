"""What measurements of cells tell of the attributes that experts gave to them.

    python -m benchmarks.attributes cells.csv --data wbcatt

`cells.csv` is a table with an image of each cell and columns of numbers, or a feature store with "morphology";
the folder of `--data` holds the `attributes.csv` of WBCAtt (Tsutsui et al. 2023, arXiv 2306.13531).
"""

import argparse
import logging
from pathlib import Path, PurePosixPath

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mrcnn.feature_store import open_store
from mrcnn.files.errors import InputError

FOLDS = 5
REGULARISATION = 0.1  # C; many of the measurements go together
ATTRIBUTES = (
    "cell_size",
    "cell_shape",
    "nucleus_shape",
    "nuclear_cytoplasmic_ratio",
    "chromatin_density",
    "cytoplasm_vacuole",
    "cytoplasm_texture",
    "cytoplasm_colour",
    "granule_type",
    "granule_colour",
    "granularity",
)
# A measurement that should tell two values apart by itself: column, attribute, how the higher and the lower one begin.
SINGLE = {
    "nc_ratio": ("nuclear_cytoplasmic_ratio", "high", "low"),
    "cell_area": ("cell_size", "big", "small"),
    "nucleus_second_lobe": ("nucleus_shape", "segmented", "unsegmented"),
}


def read_measurements(path: Path) -> pd.DataFrame:
    """Numbers of each cell by the file name of its image, the first cell of each image."""
    if path.suffix.lower() == ".h5":
        with open_store(path) as store:
            table = pd.DataFrame(store.read("morphology", 0, len(store)), columns=store.attributes["morphology"])
            table.index = store.image_ids
    else:
        table = pd.read_csv(path)
        name = next((name for name in ("image_id", "image") if name in table), None)
        if name is None:
            raise InputError(f"{path}: has no column image_id or image")
        table = table.set_index(name).select_dtypes("number")
    table.index = [PurePosixPath(str(name)).name for name in table.index]
    return table[~table.index.duplicated()]


def score_attributes(measurements: pd.DataFrame, attributes: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Areas under the curves of `SINGLE`, and macro F1 of logistic regression in five folds, with its mean.

    Both tables have one row for each image, by its file name; images in one of them alone are left out.
    """
    known = attributes.index.intersection(measurements.index)
    measurements, attributes = measurements.loc[known], attributes.loc[known]
    scores = {"images": float(len(known))}
    for column, (attribute, high, low) in SINGLE.items():
        named = attributes[attribute]
        rows = named.str.startswith((high, low))
        scores[f"AUC {column}: {high}/{low}"] = roc_auc_score(
            named[rows].str.startswith(high), measurements[column][rows]
        )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=2000))
    found = {}
    for attribute in ATTRIBUTES:
        predicted = cross_val_predict(model, measurements.to_numpy(), attributes[attribute], cv=folds)
        found[attribute] = float(f1_score(attributes[attribute], predicted, average="macro"))
    scores |= {f"macro F1 {name}": value for name, value in found.items()}
    return scores | {"macro F1 mean": sum(found.values()) / len(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", type=Path, help="a table (.csv) or a feature store (.h5)")
    parser.add_argument("--data", type=Path, required=True, help="folder with attributes.csv of WBCAtt")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    attributes = pd.read_csv(arguments.data / "attributes.csv", keep_default_na=False).set_index("img_name")
    for name, value in score_attributes(read_measurements(arguments.measurements), attributes).items():
        print(f"{name:48} {value:.3f}")


if __name__ == "__main__":
    main()
