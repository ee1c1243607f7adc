"""Rules of the packages, read from the syntax tree so that nothing has to be imported."""

import ast
import sys

import pytest

from tools import house

FILES = house.measure(*house.PACKAGES)


def tree_of(name: str) -> ast.Module:
    return ast.parse((house.ROOT / name).read_text(encoding="utf-8"), filename=name)


def test_imports_go_down_and_in_no_circle():
    assert {name.partition("/")[0] for name in FILES} == set(house.PACKAGES)
    assert not [fault for fault in house.faults(FILES, 0) if "imports" in fault or "circle" in fault]


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


def test_imports_autoencoder_knows_of_mrcnn_only_files_and_stores():
    known = ("autoencoder/", "mrcnn/files/", "mrcnn/feature_store/", "mrcnn/__init__.py")
    for name, imported in house.arrows(FILES).items():
        assert not name.startswith("autoencoder/") or all(other.startswith(known) for other in imported), name


def test_imports_feature_store_needs_h5py_and_numpy_alone():
    for name in (name for name in FILES if name.startswith("mrcnn/feature_store/")):
        nodes = list(ast.walk(tree_of(name)))
        modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        allowed = sys.stdlib_module_names | {"h5py", "numpy"}
        foreign = [module for module in modules if module.split(".")[0] not in allowed]
        assert all(module.startswith(("mrcnn.files", "mrcnn.feature_store")) for module in foreign), name


@pytest.mark.parametrize("name", FILES)
def test_imports_no_relative_one_lambda_layer_assert_bare_except_or_squeeze_of_any_axis(name):
    faults = []
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Assert):
            faults.append(f"{node.lineno}: assert")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            faults.append(f"{node.lineno}: bare except")
        elif isinstance(node, ast.Attribute) and node.attr == "Lambda":
            faults.append(f"{node.lineno}: Lambda layer")
        elif isinstance(node, ast.ImportFrom) and (node.level or any(alias.name == "Lambda" for alias in node.names)):
            faults.append(f"{node.lineno}: relative import or Lambda layer")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "squeeze":
            if not node.args[1:] and all(keyword.arg != "axis" for keyword in node.keywords):
                faults.append(f"{node.lineno}: squeeze without an axis")
    assert not faults
