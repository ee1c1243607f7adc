"""The same seed gives the same tables, from stores on; tests/mrcnn/training/test_exactness.py has the detector."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In a process of their own, since TensorFlow must not have computed before it is told to use one thread.
PROGRAM = """
import sys
from aecfe.cli import main

folder, *stores = sys.argv[1:]
for command in (
    ["train", *stores, "-o", f"{folder}/autoencoder", "--deterministic", "--seed", "5", "--steps", "4",
     "--batch-size", "8", "--image-size", "32", "--set", "log_every=1"],
    ["embed", f"{folder}/autoencoder", *stores, "-o", f"{folder}/embedding.h5ad"],
    ["evaluate", f"{folder}/embedding.h5ad", *stores, "-o", f"{folder}/tables", "--runs", "2", "--seed", "5"],
):
    status = main([*command, "--quiet"])
    if status:
        sys.exit(status)
"""


def run(folder: Path, stores) -> dict[str, bytes]:
    """Train, embed and evaluate; the tables as they were written."""
    command = [sys.executable, "-c", PROGRAM, str(folder), *map(str, stores)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (folder / "tables" / name).read_bytes() for name in ("cross_centre.csv", "cross_centre.txt")}


def test_same_seed_gives_the_same_tables(study_data, tmp_path):
    folders = [tmp_path / name / "run" for name in ("one", "other")]
    for folder in folders:
        folder.mkdir(parents=True)
    first, second = (run(folder, study_data[1].values()) for folder in folders)
    assert b"anna" in first["cross_centre.csv"]
    assert first == second
