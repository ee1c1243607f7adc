"""Reads generated malformed input with every reader and prints how many cases were refused, accepted and read badly.

The cases are those of `tests/malformed/*_cases.py`; `tests/malformed/run_cases.py` says what a bad one is. Exit status
1 if there is one, with a line for each on standard error.
"""

import argparse
import sys
from pathlib import Path

CASES = Path(__file__).resolve().parents[1] / "tests" / "malformed"
sys.path.insert(0, str(CASES))

from run_cases import find_modules, format_bad, format_table, run_module  # noqa: E402


def main() -> int:
    """Run the cases that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the generated cases (default 0)")
    parser.add_argument("--module", action="append", help="only this one, such as image or a path; may be repeated")
    parser.add_argument("--reader", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--slowest", type=int, default=0, help="list so many cases that took longest")
    options = parser.parse_args()
    modules = [_find(name, parser) for name in options.module] if options.module else find_modules()
    outcomes = [outcome for module in modules for outcome in run_module(module, options.seed, options.reader)]
    print(format_table(outcomes))
    for outcome in sorted(outcomes, key=lambda o: -o.seconds)[: options.slowest]:
        print(f"{outcome.seconds:6.2f} s {outcome.memory / 1e6:6.0f} MB  {outcome.reader}: {outcome.name}")
    bad = format_bad(outcomes)
    if bad:
        print(bad, file=sys.stderr)
    return int(bool(bad))


def _find(name: str, parser: argparse.ArgumentParser) -> Path:
    for path in (Path(name), CASES / f"{name}.py", CASES / f"{name}_cases.py"):
        if path.is_file():
            return path
    parser.error(f"no module of cases {name}; there are {', '.join(path.stem for path in find_modules())}")


if __name__ == "__main__":
    sys.exit(main())
