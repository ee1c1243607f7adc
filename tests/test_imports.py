"""Rules of the packages, read from the syntax tree so that nothing has to be imported."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mrcnn", "autoencoder", "experiments")
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


@pytest.mark.parametrize("path", files_of("mrcnn"), ids=name_of)
def test_imports_mrcnn_knows_neither_other_package(path):
    assert not breaches(path, "autoencoder") + breaches(path, "experiments")


@pytest.mark.parametrize("path", files_of("autoencoder"), ids=name_of)
def test_imports_autoencoder_knows_of_mrcnn_only_what_has_no_detector(path):
    assert not breaches(path, "experiments")
    without_detector = (
        "feature_store",
        "errors",
        "atomic",
        "overlap",
        "parallel_model",
        "json_values",
        "array_files",
        "plain_hdf5",
        "progress_bar",
        "interruption",
        "output_lock",
        "hdf5_files",
        "summary_writer",
    )
    assert not breaches(path, "mrcnn", tuple(f"mrcnn.{name}" for name in without_detector))


@pytest.mark.parametrize("path", files_of("mrcnn/network"), ids=name_of)
def test_imports_network_stands_below_the_rest(path):
    assert not breaches(path, "mrcnn", ("mrcnn.network", "mrcnn.errors", "mrcnn.config"))


STORE_FILES = [p for p in files_of("mrcnn") if p.name.startswith("store_") or p.stem in ("feature_store", "shards")]


@pytest.mark.parametrize("path", STORE_FILES, ids=name_of)
def test_imports_feature_store_needs_h5py_and_numpy_alone(path):
    foreign = {name for name in imported_modules(path) if name.split(".")[0] not in sys.stdlib_module_names}
    stores = tuple(f"mrcnn.{path.stem}" for path in STORE_FILES)
    allowed = (
        "h5py",
        "numpy",
        "mrcnn.errors",
        "mrcnn.atomic",
        "mrcnn.output_lock",
        "mrcnn.hdf5_files",
        "mrcnn.json_values",
        *stores,
    )
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
