"""`python -m aecfe` is the command `aecfe`."""

import sys

from aecfe.cli import main

if __name__ == "__main__":
    sys.exit(main())
