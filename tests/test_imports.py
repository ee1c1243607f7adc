"""Rules of the packages, read from the syntax tree so that nothing has to be imported."""

import ast
import sys
from pathlib import Path

import pytest

from tools import house

ROOT = Path(__file__).parents[1]
PACKAGES = house.PACKAGES
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


def test_imports_go_down_and_in_no_circle():
    files = house.measure(*PACKAGES)
    assert not [fault for fault in house.faults(files, 0) if "imports" in fault or "circle" in fault]


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"mrcnn/files/a.py": "import aecfe.cli", "aecfe/cli.py": ""}, "aecfe/cli.py, which stands above"),
        ({"mrcnn/a.py": "from mrcnn import b", "mrcnn/b.py": "def f():\n    from mrcnn.a import x"}, "circle"),
        ({f"mrcnn/a{number}.py": "" for number in range(19)}, "19 files"),
        ({"mrcnn/a.py": "\n" * 450}, "450 lines"),
    ],
)
def test_house_names_what_breaks_a_bound(tmp_path, monkeypatch, files, fault):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [text for text in house.faults(house.measure("mrcnn", "aecfe"), 0) if fault in text]


@pytest.mark.parametrize("path", files_of("autoencoder"), ids=name_of)
def test_imports_autoencoder_knows_of_mrcnn_only_files_and_stores(path):
    assert not breaches(path, "mrcnn", ("mrcnn.files", "mrcnn.feature_store"))


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
