"""The tool of mutation testing, without cosmic-ray: what counts as killed, what is left to do, and the zygote."""

import ast
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "tools" / "mutation"
FILE = "package/module.py"
DIFF = "--- mutation diff ---\n--- a/m.py\n+++ b/m.py\n@@ -7 +7 @@\n context\n-    return a - b\n+    return a + b\n"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("mutation_report", FOLDER / "report.py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def dumped(outcome, test_outcome="killed", diff=DIFF, worker_outcome="normal", row=7):
    mutation = {
        "module_path": FILE,
        "operator_name": "core/ReplaceBinaryOperator_Sub_Add",
        "occurrence": 0,
        "start_pos": [row, 13],
        "end_pos": [row, 14],
        "operator_args": {},
        "definition_name": "subtract",
    }
    output = outcome if isinstance(outcome, str) else json.dumps(outcome)
    result = {"worker_outcome": worker_outcome, "output": output, "test_outcome": test_outcome, "diff": diff}
    return json.dumps([{"job_id": "x", "mutations": [mutation]}, result])


def test_read_dump_tells_verdicts_apart(report):
    lines = [
        dumped({"exit": 1, "failed": "tests/test_a.py::test_b"}, row=1),
        dumped({"exit": 2, "failed": None}, row=2),
        dumped({"exit": "timeout"}, row=3),
        dumped({"exit": 0}, "survived", row=4),
        dumped("annotation", None, diff=None, worker_outcome="skipped", row=5),
        json.dumps([json.loads(dumped({}, row=6))[0], None]),
        # The client ended with an error, but no test was run.
        dumped("ConnectionRefusedError", row=7),
        dumped({"exit": 5, "failed": None}, row=8),
        dumped({"exit": 1}, "survived", row=9),
        dumped("timeout", row=10),
        dumped("not sampled", None, diff=None, worker_outcome="skipped", row=11),
    ]
    mutants = report.read_dump(lines)
    expected = ["killed", "killed", "timeout", "survived", "skipped", "pending", *["fault"] * 4, "not sampled"]
    assert [m.verdict for m in mutants] == expected
    first = mutants[0]
    assert (first.file, first.function, first.operator) == (FILE, "subtract", "ReplaceBinaryOperator_Sub_Add")
    assert (first.line, first.mutant, first.detail) == ("return a - b", "return a + b", "tests/test_a.py::test_b")
    assert mutants[1].detail == "exit 2"


def test_changed_lines_of_a_removed_line_and_of_nothing(report):
    assert report.changed_lines("--- a\n+++ b\n@@\n-    @property\n def f():\n") == ("@property", "")
    assert report.changed_lines("") == ("", "")


@pytest.fixture
def mutants(report):
    def mutant(line, text, verdict, function="f"):
        return report.Mutant(FILE, 3, function, "NumberReplacer", line, text, verdict)

    return [
        mutant("a = 1", "a = 2", "killed"),
        mutant("a = 1", "a = 0", "timeout"),
        mutant("b = x > 0", "b = x >= 0", "survived"),
        mutant("c = 1", "c = 2", "survived"),
        mutant("d: int | None", "d: int + None", "skipped"),
    ]


def test_summary_counts_and_wants_every_survivor_explained(report, mutants):
    explanation = report.Explanation(FILE, "f", "b = x > 0", ["b = x >= 0"], "x is never 0")
    summary = report.summarize(FILE, mutants, [explanation])
    assert [m.line for m in summary.unexplained] == ["c = 1"]
    assert summary.explained == 1 and not summary.unused and not summary.is_complete
    assert "  # line 3" in report.left_to_do(summary)
    rest = report.Explanation(FILE, "f", "c = 1", ["c = 2"], "nobody reads c")
    whole = report.summarize(FILE, mutants, [explanation, rest])
    assert whole.is_complete and report.left_to_do(whole) == []
    rows = report.table([whole, whole])
    assert rows[2] == f"| `{FILE}` | 4 | 4 | 1 | 1 | 2 | 2 | 1 |"
    assert rows[4] == "| all | 8 | 8 | 2 | 2 | 4 | 4 | 2 |"


def test_explanations_are_of_one_function_and_one_file(report, mutants):
    for place in ((FILE, "g"), ("package/other.py", "f")):
        entries = [report.Explanation(*place, "b = x > 0", ["b = x >= 0"], "x is never 0")]
        assert len(report.summarize(FILE, mutants, entries).unexplained) == 2


def test_summary_refuses_an_explanation_that_nothing_needs(report, mutants):
    survivors = [m for m in mutants if m.verdict == "survived"]
    entries = [
        report.Explanation(FILE, "f", "b = x > 0", ["b = x >= 0", "b = x != 0"], "x is never 0"),
        report.Explanation(FILE, "f", "c = 1", ["c = 2"], "nobody reads c"),
    ]
    summary = report.summarize(FILE, survivors, entries)
    assert [text for _, text in summary.unused] == ["b = x != 0"] and not summary.is_complete
    assert report.left_to_do(summary) == [f"{FILE}: no survivor is explained by 'b = x > 0' -> 'b = x != 0'"]
    # A mutant that has not been run yet may be the one.
    pending = report.Mutant(FILE, 3, "f", "ReplaceComparisonOperator_Gt_NotEq", "", "", "pending")
    assert not report.summarize(FILE, [*survivors, pending], entries).unused
    not_sampled = dataclasses.replace(pending, verdict="not sampled")
    summary = report.summarize(FILE, [*survivors, not_sampled], entries)
    assert summary.is_complete and report.table([summary])[2] == f"| `{FILE}` | 3 | 2 | 0 | 0 | 2 | 2 | 0 |"


def test_summary_is_not_complete_with_faults(report):
    fault = report.Mutant(FILE, 3, "f", "NumberReplacer", "a = 1", "a = 2", "fault", "no zygote")
    summary = report.summarize(FILE, [fault], [])
    assert not summary.is_complete
    assert report.left_to_do(summary) == [f"{FILE}:3: NumberReplacer could not be tested: no zygote"]


def test_read_explanations_wants_all_fields(report, tmp_path):
    path = tmp_path / "explained.yaml"
    entry = "m.py:\n- function: f\n  line: a = 1\n  mutants: [a = 2]\n"
    path.write_text(entry + "  reason: nobody reads a\n")
    assert report.read_explanations(path) == [report.Explanation("m.py", "f", "a = 1", ["a = 2"], "nobody reads a")]
    for wrong in (entry, entry + "  reason: ' '\n", entry + "  reason: x\n  why: y\n"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="an entry of m.py needs function, line, mutants and reason"):
            report.read_explanations(path)
    path.write_text("{}\n")
    assert report.read_explanations(path) == []


def test_explanations_of_this_project_are_of_lines_that_exist(report):
    for explanation in report.read_explanations(FOLDER / "explained.yaml"):
        lines = [line.strip() for line in (FOLDER.parents[1] / explanation.file).read_text().splitlines()]
        assert explanation.line in lines, f"{explanation.file} has no line {explanation.line!r}"
        assert explanation.line not in explanation.mutants


def test_page_has_the_table_and_the_reasons(report, mutants):
    entries = [report.Explanation(FILE, "f", "b = x > 0", ["b = x >= 0"], "x is\nnever 0")]
    text = report.page([report.summarize(FILE, mutants, entries)], entries, "2 cores of an abacus", "2026-01-02")
    assert "writes this page; this one is from 2 cores of an abacus, 2026-01-02." in text
    assert f"| `{FILE}` | 4 | 4 | 1 | 1 | 2 | 1 | 1 |" in text
    assert "- `b = x > 0`, in `f`: x is never 0\n    - `b = x >= 0`\n" in text
    assert "## Not in order" in text and "c = 2" in text and "Not run" not in text
    text = report.page([], [], "an abacus", "2026-01-02", ["a.py", "b.py"])
    assert "Not run, or not since they changed: `a.py`, `b.py`." in text


ZYGOTE = """
import json, sys
import zygote
order = zygote.Order({}, {})
for name in sys.argv[2:]:
    outcome = zygote.run_forked([f"{sys.argv[1]}/{name}.py"], 2.0 if name == "hangs" else 60.0, order)
    print(json.dumps([name, outcome["exit"], outcome.get("failed"), outcome.get("tests")]))
"""
TESTS = {
    "passes": "def test_a(): pass",
    "fails": "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pass",
    "hangs": "import time\ndef test_a(): time.sleep(60)",
    "dies": "import os\ndef test_a(): os.abort()",
    "breaks": "import no_such_module",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_zygote_runs_tests_in_forks(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name, text in TESTS.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
    command = [sys.executable, "-c", ZYGOTE, tmp_path, *TESTS]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=True, timeout=120)
    results = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert results["passes"][:2] == [0, None] and [*results["passes"][2]] == ["passes.py::test_a"]
    assert results["fails"][:2] == [1, "fails.py::test_b"]
    assert [results[name][0] for name in ("hangs", "dies", "breaks")] == ["timeout", "crash", 2]


def test_skip_mutants_leaves_out_annotations_and_what_is_no_python():
    pytest.importorskip("cosmic_ray", reason="cosmic-ray has an environment of its own")
    spec = importlib.util.spec_from_file_location("mutation_skip", FOLDER / "skip_mutants.py")
    skip = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(skip)
    source = "def f(a: int | None, *, b=1 * 2) -> float | None:\n    c: int | None = a\n    return {**b}\n"
    spans = skip.annotation_spans(ast.parse(source))
    assert sorted(spans) == [((1, 9), (1, 19)), ((1, 36), (1, 48)), ((2, 7), (2, 17))]

    def mutation(name, row, start, end):
        return skip.MutationSpec("m.py", f"core/{name}", 0, (row, start), (row, end))

    assert not skip.is_python(source, mutation("ReplaceBinaryOperator_Mul_Add", 1, 21, 22))
    assert skip.is_python(source, mutation("ReplaceBinaryOperator_Mul_Add", 1, 28, 29))
    assert not skip.is_python(source, mutation("ReplaceBinaryOperator_Pow_BitOr", 3, 12, 14))
    assert skip.is_python(source, mutation("NumberReplacer", 1, 26, 27))
    places = [skip.place_in_order(mutation("NumberReplacer", 1, 0, 1))]
    places += [skip.place_in_order(skip.MutationSpec("m.py", "x", n, (1, 0), (1, 1))) for n in range(200)]
    assert min(places) >= 0 and max(places) < 1 and 60 < sum(place < 0.5 for place in places) < 140
