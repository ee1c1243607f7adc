"""Mark the mutants of a session that cannot tell anything as skipped: of annotations, and those that are no Python.

    COSMIC_RAY'S PYTHON tools/mutation/skip_mutants.py SESSION [--sample SHARE]

No test can notice another annotation, save that `A + None` fails on import. cosmic-ray also takes the `*` of
`def f(a, *, b)` and the `**` of `{**a}` for operators; what it makes of these is no Python and would count as found.
With `--sample` a share of the others stays, the same one whenever it is drawn; a larger share holds the smaller one.
"""

import argparse
import ast
import hashlib
import sys
from pathlib import Path

from cosmic_ray.operators.binary_operator_replacement import BinaryOperators
from cosmic_ray.tools.filters.filter_app import FilterApp
from cosmic_ray.work_item import MutationSpec, WorkerOutcome, WorkResult

Position = tuple[int, int]
BINARY = "core/ReplaceBinaryOperator_"


def annotation_spans(tree: ast.Module) -> list[tuple[Position, Position]]:
    """Start and end, (line, column), of every annotation; columns are characters as long as the line is ASCII."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
    return [((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset)) for a in found if a is not None]


def is_python(source: str, mutation: MutationSpec) -> bool:
    """Whether a mutant can be compiled; only mutants of binary operators may not."""
    if not mutation.operator_name.startswith(BINARY):
        return True
    new = BinaryOperators[mutation.operator_name.rsplit("_", 1)[1]].value
    lines = source.splitlines(keepends=True)
    row = mutation.start_pos[0] - 1
    lines[row] = lines[row][: mutation.start_pos[1]] + new + lines[row][mutation.end_pos[1] :]
    try:
        compile("".join(lines), "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def place_in_order(mutation: MutationSpec) -> float:
    """A number from 0 to 1 that looks random and depends on the mutant alone."""
    name = f"{mutation.module_path.as_posix()} {mutation.operator_name} {mutation.occurrence}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


class MutantsFilter(FilterApp):
    """The filter as a program of cosmic-ray's."""

    def add_args(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sample", type=float, default=1.0, help="share of the mutants to keep, 0 to 1")

    def description(self) -> str | None:
        return __doc__

    def filter(self, work_db, args) -> None:
        for item in work_db.pending_work_items:
            (mutation,) = item.mutations
            source = Path(mutation.module_path).read_text(encoding="utf-8")
            spans = annotation_spans(ast.parse(source))
            if any(start <= mutation.start_pos < end for start, end in spans):
                reason = "annotation"
            elif not is_python(source, mutation):
                reason = "no Python"
            elif place_in_order(mutation) >= args.sample:
                reason = "not sampled"
            else:
                continue
            work_db.set_result(item.job_id, WorkResult(output=reason, worker_outcome=WorkerOutcome.SKIPPED))


if __name__ == "__main__":
    sys.exit(MutantsFilter().main())
