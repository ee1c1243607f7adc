"""Make the detector that ships, as a recipe says.

python tools/make_model.py experiments/configs/smear-small.yaml --data DATA
"""

import argparse
import logging

from experiments.cells.recipe import Recipe, make_detector
from experiments.settings import apply_changes, parse_changes
from mrcnn.files.settings import read_mapping


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True, help="folder of the centres")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change settings of the recipe")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    values = {**read_mapping(arguments.recipe), "data": arguments.data}
    apply_changes(values, parse_changes(arguments.set))
    print(make_detector(Recipe.from_dict(values, where=arguments.recipe)))


if __name__ == "__main__":
    main()
