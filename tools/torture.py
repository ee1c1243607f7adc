"""Kills extraction, trainings and embedding again and again, and compares what they end with: see `torture/run.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "torture"))

from run import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
