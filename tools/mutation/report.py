"""What became of the mutants: counts, survivors that nobody explained, explanations that nobody needs, the page."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

KILLED, TIMEOUT, SURVIVED = "killed", "timeout", "survived"
SKIPPED, NOT_SAMPLED, PENDING, FAULT = "skipped", "not sampled", "pending", "fault"


@dataclass(frozen=True)
class Mutant:
    """One change of a file, and what its tests said.

    Attributes:
        file: path of the changed file within the repository.
        row: number of the changed line.
        function: name of the function or class that the change lies in, or "".
        operator: what cosmic-ray calls the change.
        line: the line as it is, without indentation.
        mutant: the line as changed, without indentation; "" if it was removed.
        verdict: "killed" (a test failed), "timeout", "survived", "skipped" or "not sampled" (see `skip_mutants.py`),
            "pending" (not run yet) or "fault" (the tests could not be run).
        detail: the test that failed first, or what is known of a fault.
    """

    file: str
    row: int
    function: str
    operator: str
    line: str
    mutant: str
    verdict: str
    detail: str = ""


@dataclass
class Explanation:
    """Why mutants of one line change nothing that a test could see.

    Attributes:
        file: path of the file within the repository.
        function: name of the function or class that the line lies in, or "".
        line: the line as it is, without indentation.
        mutants: the line as changed, one entry for each mutant.
        reason: why nothing can tell them apart.
    """

    file: str
    function: str
    line: str
    mutants: list[str]
    reason: str


@dataclass
class Summary:
    """The counts of one file, and what is left to do."""

    file: str
    counts: Counter
    unexplained: list[Mutant] = field(default_factory=list)
    explained: int = 0
    faults: list[Mutant] = field(default_factory=list)
    unused: list[tuple[Explanation, str]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether every mutant has been killed or explained, and every explanation is of a survivor."""
        return not (self.unexplained or self.faults or self.unused or self.counts[PENDING])


def read_dump(lines: Iterable[str]) -> list[Mutant]:
    """Read what `cosmic-ray dump` prints: a line of JSON, [work item, result or null], for each mutant."""
    mutants = []
    for text in lines:
        item, result = json.loads(text)
        (mutation,) = item["mutations"]
        line, mutant = changed_lines((result or {}).get("diff") or "")
        verdict, detail = verdict_of(result)
        mutants.append(
            Mutant(
                file=Path(mutation["module_path"]).as_posix(),
                row=mutation["start_pos"][0],
                function=mutation["definition_name"] or "",
                operator=mutation["operator_name"].split("/")[-1],
                line=line,
                mutant=mutant,
                verdict=verdict,
                detail=detail,
            )
        )
    return sorted(mutants, key=lambda m: (m.file, m.row, m.operator, m.mutant))


def changed_lines(diff: str) -> tuple[str, str]:
    """The removed and the added lines of a unified diff, each joined and without indentation."""
    rows = [row for row in diff.splitlines() if not row.startswith(("---", "+++"))]
    return tuple(" ".join(row[1:].strip() for row in rows if row.startswith(sign)).strip() for sign in "-+")


def verdict_of(result: dict | None) -> tuple[str, str]:
    """Verdict and detail of a result of cosmic-ray's, whose output is the last line of `ask.py`.

    A test command that ends with an error tells cosmic-ray nothing but that, so a mutant counts as killed only where
    the output says that tests were run and what came of them.
    """
    if result is None:
        return PENDING, ""
    output = (result["output"] or "").strip()
    if result["worker_outcome"] == "skipped":
        return (NOT_SAMPLED, "") if output == NOT_SAMPLED else (SKIPPED, output)
    if output == "timeout":
        return FAULT, "cosmic-ray ended the tests, the zygote did not"
    try:
        outcome = json.loads(output)
        code = outcome["exit"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return FAULT, output[-300:]
    if (code == 0) != (result["test_outcome"] == "survived") or code == 5:
        return FAULT, f"exit code {code}, but {result['test_outcome']}"
    if code == 0:
        return SURVIVED, ""
    if code == "timeout":
        return TIMEOUT, ""
    # Without a failed test the module could not be imported, or the process crashed.
    return KILLED, outcome.get("failed") or f"exit {code}"


def read_explanations(path: Path) -> list[Explanation]:
    """Read the file of explanations: file -> list of function, line, mutants and reason.

    Raises:
        ValueError: if an entry lacks something or has something else.
    """
    found = []
    for file, entries in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
        for entry in entries:
            if set(entry) != {"function", "line", "mutants", "reason"} or not entry["reason"].strip():
                raise ValueError(f"{path.name}: an entry of {file} needs function, line, mutants and reason: {entry}")
            found.append(Explanation(file=file, **entry))
    return found


def summarize(file: str, mutants: Sequence[Mutant], explanations: Sequence[Explanation]) -> Summary:
    """Count what became of the mutants of a file and compare the survivors with the explanations."""
    summary = Summary(file, Counter(m.verdict for m in mutants))
    reasons = {(e.function, e.line, text): e for e in explanations if e.file == file for text in e.mutants}
    used = set()
    for mutant in mutants:
        key = mutant.function, mutant.line, mutant.mutant
        if mutant.verdict == FAULT:
            summary.faults.append(mutant)
        elif mutant.verdict == SURVIVED and key in reasons:
            used.add(key)
            summary.explained += 1
        elif mutant.verdict == SURVIVED:
            summary.unexplained.append(mutant)
    # What has not been run may still need its explanation.
    if not (summary.counts[PENDING] or summary.counts[NOT_SAMPLED]):
        summary.unused = [(e, key[2]) for key, e in reasons.items() if key not in used]
    return summary


COLUMNS = ("module", "mutants", "run", "killed", "timeouts", "survived", "explained", "left out")


def table(summaries: Sequence[Summary]) -> list[str]:
    """A Markdown table of the counts, with a last row of their sums."""
    rows = []
    for summary in summaries:
        counts = summary.counts
        total = sum(counts.values()) - counts[SKIPPED]
        done = [counts[KILLED], counts[TIMEOUT], counts[SURVIVED]]
        rows.append([total, sum(done), *done, summary.explained, counts[SKIPPED]])
    named = [[f"`{s.file}`", *row] for s, row in zip(summaries, rows, strict=True)]
    if len(rows) > 1:
        named.append(["all", *(sum(column) for column in zip(*rows, strict=True))])
    body = ["| " + " | ".join(str(v) for v in row) + " |" for row in named]
    return ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1), *body]


def left_to_do(summary: Summary) -> list[str]:
    """What is not in order with a file, for a person to read; survivors as entries of the file of explanations."""
    rows = []
    if summary.counts[PENDING]:
        rows.append(f"{summary.file}: {summary.counts[PENDING]} mutants have not been run")
    for mutant in summary.faults:
        rows.append(f"{mutant.file}:{mutant.row}: {mutant.operator} could not be tested: {mutant.detail}")
    for explanation, text in summary.unused:
        rows.append(f"{summary.file}: no survivor is explained by {explanation.line!r} -> {text!r}")
    groups: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in summary.unexplained:
        groups.setdefault((mutant.function, mutant.line), []).append(mutant)
    if groups:
        rows.append(f"{summary.file}: nothing kills or explains")
    for (function, line), mutants in groups.items():
        entry = [{"function": function, "line": line, "mutants": [m.mutant for m in mutants], "reason": ""}]
        numbers = ", ".join(sorted({str(m.row) for m in mutants}, key=int))
        text = yaml.safe_dump(entry, sort_keys=False, width=10_000, allow_unicode=True)
        rows += [f"  # line {numbers}", *(f"  {row}" for row in text.splitlines())]
    return rows


def page(
    summaries: Sequence[Summary],
    explanations: Sequence[Explanation],
    machine: str,
    dates: str,
    missing: Sequence[str] = (),
) -> str:
    """The page of results, Markdown.

    Args:
        summaries: of the files that have been run.
        explanations: of all files.
        machine: what it was run on, and
        dates: when.
        missing: files that have not been run, or not since they changed.
    """
    lines = [
        "# Mutation testing",
        "",
        "Would the tests notice a fault? [cosmic-ray](https://cosmic-ray.readthedocs.io) changes one operator, number,"
        " comparison or loop of a module at a time, and the tests of that module alone are run on each such mutant. A"
        " mutant is killed if a test fails; every other one is explained below: it does the same as the original as far"
        " as anyone can see. Left out are mutants of annotations and what is no Python. Where fewer were run than there"
        " are, they are a sample, drawn by a hash of each mutant.",
        "",
        "```",
        "make mutation",
        "```",
        "",
        f"writes this page; this one is from {machine}, {dates}.",
        "",
        *table(summaries),
    ]
    if missing:
        lines += ["", f"Not run, or not since they changed: {', '.join(f'`{file}`' for file in missing)}."]
    shown = [s.file for s in summaries]
    if any(e.file in shown for e in explanations):
        lines += ["", "## Survivors and why"]
    for file in shown:
        entries = [e for e in explanations if e.file == file]
        if entries:
            lines += ["", f"### `{file}`", ""]
        for entry in entries:
            where = f", in `{entry.function}`" if entry.function else ""
            lines += [f"- `{entry.line}`{where}: {' '.join(entry.reason.split())}"]
            lines += [f"    - `{text or '(removed)'}`" for text in entry.mutants]
    unfinished = [row for summary in summaries if not summary.is_complete for row in left_to_do(summary)]
    if unfinished:
        lines += ["", "## Not in order", "", "```", *unfinished, "```"]
    return "\n".join(lines) + "\n"
