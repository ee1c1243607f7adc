"""The table of docs/morphology.md, and the columns that the program writes."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_lists_the_columns_as_they_are():
    spec = importlib.util.spec_from_file_location("morphology_table", ROOT / "tools" / "morphology_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table() in module.PAGE.read_text(encoding="utf-8"), "run python tools/morphology_table.py"
