#!/bin/sh
# Pins every package of setup.cfg in requirements.txt, with hashes, for Python 3.10 to 3.13. Called by `make pins`.
# Versions stay as they are unless a range forbids them; UPGRADE=1 takes the newest that the ranges allow.
set -eu
cd "$(dirname "$0")/.."

new=$(mktemp)
cp requirements.txt "$new"
.venv/bin/python -m uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header \
    --no-emit-package opencv-python ${UPGRADE:+--upgrade} --output-file "$new" setup.cfg --extra dev --extra docs --extra tracking >/dev/null
cat - "$new" >requirements.txt <<'HEAD'
# Every package that a run, the tests and the site of the documentation use, pinned with hashes by `make pins`, for
# Python 3.10 to 3.13. The list is complete: install it with
#     pip install --no-deps --require-hashes -r requirements.txt
# so that imaug's demand for opencv-python is not followed: that one needs libGL, which servers seldom have, and it
# would share its files with opencv-python-headless. Ranges for use as a library are in setup.cfg.
HEAD
rm -f "$new"
