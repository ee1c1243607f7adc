"""Put the columns of `mrcnn.morphology` into the table of docs/morphology.md: python tools/morphology_table.py."""

from pathlib import Path

from mrcnn.morphology import COLUMNS

PAGE = Path(__file__).parents[1] / "docs" / "morphology.md"
HEAD = "| column | unit | what it is |\n| --- | --- | --- |\n"


def table() -> str:
    """The table in Markdown."""
    return HEAD + "".join(f"| `{name}` | {unit} | {text} |\n" for name, (unit, text) in COLUMNS.items())


if __name__ == "__main__":
    before, _, after = PAGE.read_text(encoding="utf-8").partition(HEAD)
    rest = "".join(line for line in after.splitlines(keepends=True) if not line.startswith("| "))
    PAGE.write_text(before + table() + rest, encoding="utf-8")
