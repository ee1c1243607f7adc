"""Measure the house: lines, files, arrows. `make house` prints it, and fails where a bound is broken."""

import ast
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mrcnn", "autoencoder", "experiments", "aecfe")
# From the ground up: a file imports from its own row and from those before it. The longest name that fits counts.
READING_ORDER = """
mrcnn/files mrcnn/config.py | mrcnn/feature_store | mrcnn/data mrcnn/network | mrcnn/annotations mrcnn/morphology
| mrcnn/training | mrcnn/matterport | mrcnn | autoencoder
| experiments/settings.py experiments/cache.py | experiments/synthetic experiments/centres | experiments/cells
| experiments/evaluation | experiments/classifier | experiments/figures | experiments/reports | experiments
| experiments/thesis | aecfe/commands | aecfe"""
FLOORS = {room: floor for floor, rooms in enumerate(READING_ORDER.split("|")) for room in rooms.split()}
MOST_LINES, MOST_FILES, TOO_LONG, TEST_SHARE = 26_500, 18, 450, 0.8


def measure(*folders: str) -> Counter:
    """Lines of each Python file below some folders, by its name relative to the project."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return Counter({path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in paths})


def arrows(files: Counter) -> dict[str, set[str]]:
    """By file, those among `files` that it imports, at its top or inside functions."""
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in files}
    found = {}
    for name in files:
        nodes = list(ast.walk(ast.parse((ROOT / name).read_text("utf-8"))))
        named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):  # `from package import module` is an import of the module
                named |= {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys() or {node.module}
        found[name] = {modules[module] for module in named & modules.keys()} - {name}
    return found


def floor_of(name: str) -> int:
    """Row of the reading order that a file belongs to."""
    return FLOORS[max((room for room in FLOORS if name == room or name.startswith(room + "/")), key=len)]


def faults(files: Counter, test_lines: int) -> list[str]:
    """What breaks a bound, each in a line."""
    found, total = arrows(files), files.total()
    broken = [f"{a} imports {b}, which stands above it" for a in files for b in found[a] if floor_of(b) > floor_of(a)]
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        broken.append("circle: " + " -> ".join(error.args[1]))
    folders = Counter(name.rpartition("/")[0] for name in files)
    broken += [f"{folder}: {n} files, at most {MOST_FILES}" for folder, n in folders.items() if n > MOST_FILES]
    broken += [f"{name}: {n} lines, fewer than {TOO_LONG}" for name, n in files.items() if n >= TOO_LONG]
    broken += [f"{total} lines of product code, at most {MOST_LINES}"] if total > MOST_LINES else []
    return broken + ([f"tests are more than {TEST_SHARE} of it"] if test_lines > TEST_SHARE * total else [])


def main() -> int:
    """Print the measures, then what breaks a bound; 1 if something does."""
    files, tests = measure(*PACKAGES), measure("tests")
    for folder in sorted({name.rpartition("/")[0] for name in files}):
        own = [lines for name, lines in files.items() if name.rpartition("/")[0] == folder]
        print(f"{folder:24}{len(own):4} files {sum(own):6} lines")
    print(f"{'product code':24}{len(files):4} files {files.total():6} lines")
    print(f"{'tests':24}{len(tests):4} files {tests.total():6} lines, {tests.total() / files.total():.2f} of it")
    print("longest:", ", ".join(f"{name} {lines}" for name, lines in files.most_common(3)))
    broken = faults(files, tests.total())
    print(*broken, sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
