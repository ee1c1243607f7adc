"""The same seed gives the same tables, from stores on; tests/mrcnn/training/test_exactness.py has the detector."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In a process of their own, since TensorFlow must not have computed before it is told to use one thread.
PROGRAM = """
import sys
from aecfe.cli import main

one, other, *stores = sys.argv[1:]
for folder in (one, other):
    for command in (
        ["train", *stores, "-o", f"{folder}/autoencoder", "--deterministic", "--seed", "5", "--steps", "3",
         "--batch-size", "8", "--image-size", "32", "--set", "log_every=1"],
        ["embed", f"{folder}/autoencoder", *stores, "-o", f"{folder}/embedding.h5ad"],
        ["evaluate", f"{folder}/embedding.h5ad", *stores, "-o", f"{folder}/tables", "--runs", "2", "--seed", "5"],
    ):
        status = main([*command, "--quiet"])
        if status:
            sys.exit(status)
"""


def test_same_seed_gives_the_same_tables(study_data, tmp_path):
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, *map(str, (*folders, *study_data[1].values()))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("cross_centre.csv", "cross_centre.txt"):
        first, second = ((folder / "tables" / name).read_bytes() for folder in folders)
        assert b"anna" in first and first == second
