"""The wheel, installed in an empty environment that finds the other packages where they are."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("aecfe", "mrcnn", "autoencoder", "experiments")


def run(*command, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": "", **variables}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy, since a build leaves files in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    (source / "aecfe" / "models" / "tiny").mkdir(parents=True)
    (source / "aecfe" / "models" / "tiny" / "SHA256SUMS").touch()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ".", cwd=source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def aecfe(wheel, tmp_path_factory) -> Path:
    """The command as the wheel installs it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = ("pip", "--python", python, "install", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    run(sys.executable, "-m", *install, cwd=folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import experiments; print(experiments.__path__)", cwd=folder).stdout
    assert str(folder) in where  # and not the tree that the tests stand in
    return folder / "bin" / "aecfe"


def test_wheel_holds_the_packages_and_their_configurations_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    data = [*(ROOT / "experiments" / "configs").rglob("*.yaml"), *(ROOT / "experiments").rglob("templates/*.html")]
    data += (ROOT / "aecfe" / "models").glob("*/*")
    assert {path.relative_to(ROOT).as_posix() for path in data} | {"aecfe/models/tiny/SHA256SUMS"} <= set(names)


def test_wheel_shows_its_help_without_loading_tensorflow(aecfe, tmp_path):
    done = run(aecfe, "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert "detector" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "aecfe.cli" in loaded
    assert not loaded & {"tensorflow", "keras", "numpy", "h5py", "sklearn", "cv2", "bokeh", "matplotlib"}


def test_wheel_draws_centres(aecfe, tmp_path):
    run(aecfe, "synth", "smears", "--centres", "north", "--images", "2", "--size", "64", cwd=tmp_path)
    assert len(list((tmp_path / "smears" / "north" / "images").iterdir())) == 2
