#!/bin/sh
# Builds the wheel into dist/, installs it with all that it asks for in an empty environment, and tries it there: the
# help, with its time, and the cells that the detector finds on two synthetic images. Called by `make wheel`; takes minutes and
# 3 GB, since TensorFlow comes along.
set -eu
cd "$(dirname "$0")/.."

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
rm -rf dist
.venv/bin/python -m build --wheel --no-isolation -o dist . >"$place/build.log" 2>&1 || { cat "$place/build.log" >&2; exit 1; }
rm -rf build ./*.egg-info
wheel=$(ls "$PWD"/dist/*.whl)
echo "built $wheel"

.venv/bin/python -m venv "$place/venv"
.venv/bin/python -m uv pip install --quiet --python "$place/venv/bin/python" "$wheel"
cd "$place"
for attempt in 1 2 3; do
    venv/bin/python - venv/bin/aecfe <<'TIME'
import subprocess
import sys
import time

started = time.perf_counter()
subprocess.run([sys.argv[1], "--help"], check=True, stdout=subprocess.DEVNULL)
print(f"aecfe --help: {time.perf_counter() - started:.2f} s")
TIME
done
venv/bin/aecfe synth smears --centres north --images 2 --quiet
venv/bin/aecfe detect smears/north/images --csv cells.csv
venv/bin/aecfe doctor
