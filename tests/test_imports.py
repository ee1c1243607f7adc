"""Rules of the packages, read from the syntax tree so that nothing has to be imported."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mrcnn", "autoencoder", "experiments", "aecfe")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_modules(path: Path) -> set[str]:
    """Full names of what a file imports; `from a import b` counts as both `a` and `a.b`."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def breaches(path: Path, package: str, allowed: tuple[str, ...] = ()) -> list[str]:
    names = (name for name in imported_modules(path) if is_within(name, package) and name != package)
    return sorted(name for name in names if not any(is_within(name, module) for module in allowed))


def files_of(folder: str) -> list[Path]:
    return [path for path in FILES if name_of(path).startswith(folder + "/")]


def test_imports_every_package_has_files():
    assert all(files_of(package) for package in PACKAGES)


# From the ground up: a file imports from its own row and from those before it.
READING_ORDER = (
    ("mrcnn/files", "mrcnn/config.py"),
    ("mrcnn/feature_store",),
    ("mrcnn/data", "mrcnn/network"),
    ("mrcnn/annotations",),
    ("mrcnn/parallel_model.py", "mrcnn/training"),
    ("mrcnn/matterport",),
    ("mrcnn",),
    ("autoencoder",),
    ("experiments/cache.py", "experiments/provenance.py", "experiments/settings.py"),
    ("experiments/synthetic", "experiments/centres"),
    ("experiments/cells",),
    ("experiments/evaluation",),
    ("experiments/classifier",),
    ("experiments/figures",),
    ("experiments/reports",),
    ("experiments",),
    ("experiments/thesis",),
    ("aecfe/commands",),
    ("aecfe",),
)


def floor_of(path: Path) -> int:
    """Row of the reading order that a file belongs to: that of the longest name that it lies in."""
    name = name_of(path)
    rows = {room: floor for floor, rooms in enumerate(READING_ORDER) for room in rooms}
    return rows[max((room for room in rows if name == room or name.startswith(room + "/")), key=len)]


MODULES = {name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    imported = {MODULES[name] for name in imported_modules(path) if name in MODULES and MODULES[name] != path}
    # A package's own file stands with its folder: `from mrcnn.data import images` names both.
    above = [name_of(other) for other in imported if floor_of(other) > floor_of(path) and other.name != "__init__.py"]
    assert not above


def test_imports_no_circles():
    graph = {path: set() for path in FILES}
    for path in FILES:
        names = {name for name in imported_modules(path) if name in MODULES}
        # `from package import module` is an import of the module, not of what the package's own file imports.
        longest = {name for name in names if not any(other.startswith(name + ".") for other in names)}
        graph[path] = {MODULES[name] for name in longest} - {path}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(name_of(path) for path in error.args[1]))


@pytest.mark.parametrize("path", files_of("autoencoder"), ids=name_of)
def test_imports_autoencoder_knows_of_mrcnn_only_files_and_stores(path):
    assert not breaches(path, "mrcnn", ("mrcnn.files", "mrcnn.feature_store", "mrcnn.parallel_model"))


STORE_FILES = files_of("mrcnn/feature_store")


@pytest.mark.parametrize("path", STORE_FILES, ids=name_of)
def test_imports_feature_store_needs_h5py_and_numpy_alone(path):
    foreign = {name for name in imported_modules(path) if name.split(".")[0] not in sys.stdlib_module_names}
    allowed = ("h5py", "numpy", "mrcnn.files", "mrcnn.feature_store")
    assert not [name for name in foreign if not any(is_within(name, module) for module in allowed)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_no_lambda_layer_assert_or_bare_except(path):
    faults = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):
            faults.append(f"{node.lineno}: assert")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            faults.append(f"{node.lineno}: bare except")
        elif isinstance(node, ast.Attribute) and node.attr == "Lambda":
            faults.append(f"{node.lineno}: Lambda layer")
        elif isinstance(node, ast.ImportFrom) and any(alias.name == "Lambda" for alias in node.names):
            faults.append(f"{node.lineno}: Lambda layer")
    assert not faults


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_squeeze_names_its_axis(path):
    calls = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "squeeze"
    ]
    assert all(call.args[1:] or any(k.arg == "axis" for k in call.keywords) for call in calls)
