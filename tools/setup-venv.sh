#!/bin/sh
# Makes .venv with everything that requirements.txt pins, and this project in it. Called by `make venv`.
# The environment variable PYTHON names the interpreter to use; otherwise the first suitable one is taken.
set -eu
cd "$(dirname "$0")/.."

suitable='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))'
has_venv='import ensurepip, venv'

fail() {
    echo "error: $*" >&2
    exit 1
}

# A name may be on the PATH and still not run, as the shims of pyenv do, so each candidate is tried.
find_python() {
    without_venv=""
    for candidate in ${PYTHON:+"$PYTHON"} ${PYTHON:-python3.12 python3.11 python3.13 python3.10 python3 python}; do
        "$candidate" -c "$suitable" >/dev/null 2>&1 || continue
        if "$candidate" -c "$has_venv" >/dev/null 2>&1; then
            python=$candidate
            return
        fi
        without_venv=$candidate
    done
    [ -z "$without_venv" ] || fail "$without_venv has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not a Python of version 3.10 to 3.13 that runs"
    fail "no Python of version 3.10 to 3.13 found; install one, or name it: make PYTHON=/path/to/python3.12"
}

# Shows how far pip is: one line that counts on a terminal, every tenth package elsewhere. Keeps pip's own words
# for the case that it fails.
install() {
    { PYTHONUNBUFFERED=1 .venv/bin/python -m pip install --disable-pip-version-check "$@" 2>&1 || echo "pip-failed"; } |
    {
        count=0
        failed=no
        while IFS= read -r line; do
            printf '%s\n' "$line" >>"$log"
            case $line in
            # "Processing" is what pip says of a file at hand instead of "Collecting".
            Collecting* | Processing* | "Requirement already satisfied"*)
                count=$((count + 1))
                if [ -t 1 ]; then
                    printf '\r  %d of %d packages collected' "$count" "$total"
                elif [ $((count % 10)) -eq 0 ]; then
                    echo "  $count of $total packages collected"
                fi
                ;;
            "Installing collected packages"*)
                [ ! -t 1 ] || echo
                echo "  unpacking"
                ;;
            pip-failed) failed=yes ;;
            esac
        done
        if [ "$failed" = yes ]; then
            grep -i '^error' "$log" >&2 || tail -n 5 "$log" >&2
            fail "pip could not install; all it said is in $log"
        fi
    }
}

if ! .venv/bin/python -c "$suitable" >/dev/null 2>&1 || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    find_python
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "$python could not make .venv"
fi

# opencv-python needs libGL and shares its files with opencv-python-headless: if it is here, both must go first.
if .venv/bin/python -m pip show --quiet opencv-python >/dev/null 2>&1; then
    .venv/bin/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless
fi

log=.venv/install.log
: >"$log"
total=$(.venv/bin/python - requirements.txt <<'COUNT'
import sys
from pip._vendor.packaging.requirements import Requirement

lines = (line.rstrip(" \\\n") for line in open(sys.argv[1], encoding="utf-8") if line[0].isalpha())
print(sum(r.marker is None or r.marker.evaluate() for r in map(Requirement, lines)))
COUNT
)
echo "Installing $total packages into .venv (about 3 GB; some minutes the first time)"
install --no-deps --require-hashes -r requirements.txt
total=1
install --no-deps --no-build-isolation --editable . >/dev/null

.venv/bin/python -c 'import cv2, imgaug' || fail "OpenCV or imgaug does not work in .venv; run 'make distclean' and try again"
echo "Ready: .venv/bin/aecfe"
