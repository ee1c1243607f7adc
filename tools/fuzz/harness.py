"""What the fuzz targets share: how one is started, where its input goes, and what is no finding."""

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
MODULES = ["mrcnn", "autoencoder", "experiments", "yaml", "json"]
# Beyond this a reader is given no better a chance to show a new way through its code.
MAX_SEED = 20_000
for folder in (ROOT / "tests" / "malformed", ROOT):
    sys.path.insert(0, str(folder))

Read = Callable[[bytes, Path], None]


def start(read: Read, seeds: Callable[[], Iterable[bytes]]) -> None:
    """Write the seeds, if the command line asks for that, or else fuzz by libFuzzer's options on it.

    Args:
        read: is given bytes and an empty folder, and reads them as users' files are read. Anything but InputError that
            it raises is a finding.
        seeds: gives inputs to begin with.
    """
    if sys.argv[1:2] == ["--write-seeds"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--write-seeds", type=Path)
        write_seeds(seeds(), parser.parse_args().write_seeds)
        return
    from mrcnn.errors import InputError

    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)

        def one_input(data: bytes) -> None:
            try:
                read(data, folder)
            except InputError as error:
                text = str(error)
                if len(text.splitlines()) != 1 or not text.isprintable():
                    raise AssertionError(f"no line of text: {text!r}") from error

        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()


def write_seeds(seeds: Iterable[bytes], folder: Path) -> None:
    """Leave seeds where libFuzzer looks for them, each once."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds:
        if len(data) <= MAX_SEED:
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def seeds_of_cases(cases: Iterable, prefix: bytes) -> Iterable[bytes]:
    """What generated cases of malformed files hold, behind a byte that tells the reader.

    Args:
        cases: from a module of `tests/malformed`.
        prefix: that byte.
    """
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            path = case.make(Path(folder))
            if isinstance(path, Path) and path.is_file() and path.stat().st_size < MAX_SEED:
                yield prefix + path.read_bytes()
