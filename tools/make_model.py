"""Make the detector that ships, as a recipe says.

python tools/make_model.py experiments/configs/recipes/smear-small.yaml --data DATA --ship aecfe/models/smear-small
"""

import argparse
import logging
from pathlib import Path

from experiments.cells.recipe import Recipe, make_detector
from experiments.settings import apply_changes, parse_changes
from mrcnn.files.settings import read_mapping
from mrcnn.training.folder import ship_detector


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True, help="folder of the centres")
    parser.add_argument("--ship", metavar="FOLDER", help="also write it there as it ships, in half precision")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change settings of the recipe")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    values = {**read_mapping(arguments.recipe), "data": arguments.data}
    apply_changes(values, parse_changes(arguments.set))
    folder = make_detector(Recipe.from_dict(values, where=arguments.recipe))
    print(folder)
    if arguments.ship:
        ship_detector(folder, Path(arguments.ship))


if __name__ == "__main__":
    main()
