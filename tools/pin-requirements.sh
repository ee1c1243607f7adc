#!/bin/sh
# Pins every package with its hashes for Python 3.10 to 3.13: requirements.txt from setup.cfg, and
# requirements-tools.txt from tools/requirements.in. Called by `make pins`; versions stay as they are unless a range in
# setup.cfg forbids them. UPGRADE=1 takes the newest that the ranges allow.
set -eu
cd "$(dirname "$0")/.."

# pin FILE SOURCE... : writes FILE with the comment of standard input above the pins.
pin() {
    file=$1
    shift
    new=$(mktemp)
    [ ! -f "$file" ] || cp "$file" "$new"
    .venv/bin/python -m uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header \
        --no-emit-package opencv-python ${UPGRADE:+--upgrade} --output-file "$new" "$@" >/dev/null
    cat - "$new" >"$file"
    rm -f "$new"
}

pin requirements.txt setup.cfg --extra dev --extra docs <<'HEAD'
# Every package that a run, the tests and the site of the documentation use, pinned with hashes by `make pins`, for
# Python 3.10 to 3.13. The list is complete: install it with
#     pip install --no-deps --require-hashes -r requirements.txt
# so that imaug's demand for opencv-python is not followed: that one needs libGL, which servers seldom have, and it
# would share its files with opencv-python-headless. Ranges for use as a library are in setup.cfg.
HEAD

pin requirements-tools.txt tools/requirements.in --constraint requirements.txt <<'HEAD'
# What `make fuzz`, `make mutation` and `make audit` install beside requirements.txt, pinned with hashes by `make pins`.
HEAD
