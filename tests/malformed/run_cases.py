"""Runs cases of malformed input through readers, and tells which were read in a way that they must not be.

A module of cases is a file `tests/malformed/<subject>_cases.py`. `test_malformed.py` and `tools/malformed.py` find all
of these by their names. Such a module has

    from case import Case, file_of, files_of    # case.py lies in the same folder, which is on the path

    READERS = {"read_image": read_image, ...}   # by the name in the table: a function of what `Case.make` returned
    AT_LEAST = 300                              # cases of all readers together; fewer are a failure

    def cases(reader: str, seed: int) -> Iterator[Case]:
        ...                                     # the same cases in the same order for the same arguments, made lazily
        yield Case("cut after 7 bytes", file_of("a.json", b'{"a": 1'), "refused")
        yield Case("grey", file_of("a.png", png), "accepted", lambda pixels: np.testing.assert_array_equal(...))

`Case` in case.py says what its fields mean. A reader may be an adaptor around the code in question (which opens what
`make` returned in the way users do, and raises InputError for the faults that a check lists). Imports of the module and
`WARM_UP`, an optional function without arguments for what is imported at first use, are not part of any case's time.
`MAX_SECONDS` and `MAX_MEMORY` may be set lower than here.

The cases of a module run one after the other in one process, which ends with a kill if need be and goes on with the
next case in another. A case is bad if
- the reader raises anything but `mrcnn.errors.InputError`, or an InputError whose text is not one line of at most
  1,000 characters (beside the path) that contains `Case.mentions`;
- it takes longer than 10 s (`MAX_SECONDS`), or the process dies;
- the resident memory of the process rises above 2 GB (`MAX_MEMORY`) while it runs;
- it is refused or accepted against `Case.expect`, the value fails `Case.check`, or nothing contains `Case.says`;
- something appears beside the case's folder, which is empty before and removed after it.

From the command line, with a table of counts: `python tools/malformed.py [--seed 1] [--module image] [--reader NAME]`.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from case import Case

FOLDER = Path(__file__).resolve().parent
MAX_SECONDS = 10
MAX_MEMORY = 2_000_000_000
MAX_MESSAGE = 1000
# Until a process has imported what it needs.
_START_SECONDS = 120
# Beyond MAX_SECONDS, for code that does not return to Python, where the alarm has no effect.
_GRACE_SECONDS = 5


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        reader: its reader.
        name: of the case.
        result: "refused", "accepted" or "bad".
        detail: the message of the refusal, or why it is bad.
        seconds: how long the reader took.
        memory: most bytes of resident memory meanwhile, 0 where the system does not say.
    """

    reader: str
    name: str
    result: str
    detail: str = ""
    seconds: float = 0.0
    memory: int = 0


def find_modules(folder: Path = FOLDER) -> list[Path]:
    """The modules of cases."""
    return sorted(path for path in folder.glob("*_cases.py") if path.name != Path(__file__).name)


def run_module(module: Path, seed: int = 0, readers: Sequence[str] = ()) -> list[Outcome]:
    """Run the cases of a module in a process of their own.

    Args:
        module: its file.
        seed: for `cases`.
        readers: names of its readers; none stands for all.

    Returns:
        One for each case. A module that gives fewer than its AT_LEAST has a bad outcome for that.
    """
    outcomes: list[Outcome] = []
    at_least = 0
    while True:
        running = None
        with _process(module, seed, readers, len(outcomes)) as (process, messages):
            for message in messages:
                if message is None:
                    break
                kind, value = message
                if kind == "at_least":
                    at_least = value
                elif kind == "start":
                    running = value
                elif kind == "outcome":
                    outcomes.append(Outcome(**value))
                    running = None
                elif kind == "end":
                    if not readers and len(outcomes) < at_least:
                        why = f"only {len(outcomes)} cases instead of {at_least}"
                        outcomes.append(Outcome(module.stem, "number of cases", "bad", why))
                    return outcomes
            status = process.poll()
        what = f"no end after {MAX_SECONDS} s" if status is None else f"the process died with status {status}"
        if running is None:
            return [*outcomes, Outcome(module.stem, "between two cases", "bad", what)]
        outcomes.append(Outcome(*running, "bad", what))


def count_outcomes(outcomes: Iterable[Outcome]) -> dict[str, Counter]:
    """Numbers of "cases", "refused", "accepted" and "bad" for each reader."""
    counts: dict[str, Counter] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.reader, Counter()).update(("cases", outcome.result))
    return counts


def format_table(outcomes: Sequence[Outcome]) -> str:
    """The counts as lines of text, with a last line for all readers."""
    counts = count_outcomes(outcomes)
    counts["all"] = sum(counts.values(), Counter())
    width = max(map(len, counts))
    columns = ("cases", "refused", "accepted", "bad")
    lines = [" ".join([f"{'reader':<{width}}", *(f"{column:>9}" for column in columns)])]
    lines += [" ".join([f"{name:<{width}}", *(f"{of[c]:>9}" for c in columns)]) for name, of in counts.items()]
    return "\n".join(lines)


def format_bad(outcomes: Iterable[Outcome]) -> str:
    """A line for each bad case, "" if there is none."""
    return "\n".join(f"{o.reader}: {o.name}: {o.detail}" for o in outcomes if o.result == "bad")


@contextlib.contextmanager
def _process(
    module: Path, seed: int, readers: Sequence[str], skip: int
) -> Iterator[tuple[subprocess.Popen, Iterator[Any]]]:
    """Start a process for the cases after the first `skip`; it is killed at the end of the block."""
    command = [sys.executable, os.fspath(FOLDER / "run_cases.py"), os.fspath(module), str(seed), str(skip), *readers]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        try:
            yield process, _messages(process)
            if process.wait(timeout=_GRACE_SECONDS) > 0:
                said.seek(0)
                sys.stderr.write(said.read().decode(errors="replace")[-1500:])
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _messages(process: subprocess.Popen) -> Iterator[tuple[str, Any] | None]:
    """What a process tells; None if it has been silent for too long."""
    patience = _START_SECONDS
    rest = b""
    while select.select([process.stdout], [], [], patience)[0]:
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            process.wait()
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)
        if lines:
            patience = MAX_SECONDS + _GRACE_SECONDS
    yield None


class _TooLongError(BaseException):
    """No Exception, so that no reader takes it for a fault of the file."""


def _give_up(signum: int, frame: Any) -> None:
    raise _TooLongError


class _Log(logging.Handler):
    """Keeps what was logged."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def main(arguments: Sequence[str]) -> None:
    """The process for the cases: tells of each on standard output, a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("skip", type=int)
    parser.add_argument("readers", nargs="*")
    options = parser.parse_args(arguments)
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed

    def tell(kind: str, value: Any) -> None:
        pipe.write(json.dumps([kind, value]) + "\n")
        pipe.flush()

    sys.path.insert(0, os.fspath(FOLDER.parents[1]))
    module = _load(options.module)
    getattr(module, "WARM_UP", lambda: None)()
    limits = (getattr(module, "MAX_SECONDS", MAX_SECONDS), getattr(module, "MAX_MEMORY", MAX_MEMORY))
    log = _Log()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.INFO)
    _limit_address_space()
    signal.signal(signal.SIGALRM, _give_up)
    tell("at_least", module.AT_LEAST)
    number = 0
    with tempfile.TemporaryDirectory() as base:
        for reader in options.readers or module.READERS:
            seen = set()
            for case in module.cases(reader, options.seed):
                number += 1
                if case.name in seen:
                    raise ValueError(f"{reader}: two cases are called {case.name!r}")
                seen.add(case.name)
                if number <= options.skip:
                    continue
                tell("start", (reader, case.name))
                log.texts.clear()
                tell("outcome", asdict(_run(reader, module.READERS[reader], case, Path(base), log.texts, *limits)))
    tell("end", number)


def _run(
    reader: str, read: Any, case: Case, base: Path, logged: list[str], max_seconds: float, max_memory: int
) -> Outcome:
    """Make a case, read it, and judge what came of it."""
    from mrcnn.errors import InputError

    folder = base / "case"
    folder.mkdir()
    given = case.make(folder)
    result, value, message = "accepted", None, ""
    _forget_peak()
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, max_seconds)
    try:
        value = read(given)
    except InputError as error:
        result, message = "refused", str(error)
    except _TooLongError:
        result, message = "bad", f"no end after {max_seconds} s"
    except Exception as error:  # what a user would see as a traceback
        result, message = "bad", f"{type(error).__name__}: {_on_one_line(error)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.perf_counter() - start
    memory = _peak()
    fault = "" if result == "bad" else _find_fault(case, given, result, value, message, logged)
    if memory > max_memory:
        fault = f"{memory / 1e9:.1f} GB of memory"
    strangers = sorted(path.name for path in base.iterdir() if path != folder)
    if strangers:
        fault = f"made {', '.join(strangers)} outside its folder"
    for path in base.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if fault:
        result, message = "bad", fault
    return Outcome(reader, case.name, result, message, round(seconds, 3), memory)


def _find_fault(case: Case, given: Any, result: str, value: Any, message: str, logged: list[str]) -> str:
    """Return what is wrong with a refusal or with an accepted value, or ""."""
    if case.expect not in ("either", result):
        return f"{result} instead of {case.expect}{': ' + message if message else f' (got {_on_one_line(value)})'}"
    if case.says and not any(case.says in text for text in (message, *logged)):
        return f"nothing says {case.says!r}; got {message or logged!r}"
    if result == "accepted":
        try:
            case.check(value)
        except AssertionError as error:
            return f"wrong value: {_on_one_line(error)}"
        return ""
    mentions = given.name if case.mentions is None and isinstance(given, Path) else case.mentions or ""
    # A name with line breaks has to be written in another way.
    if mentions.isprintable() and mentions not in message:
        return f"the message does not name {mentions!r}: {message[:300]}"
    if len(message.splitlines()) != 1 or len(message) > MAX_MESSAGE + len(str(given)):
        return f"a message of {len(message.splitlines())} lines and {len(message)} characters: {message[:300]!r}"
    return ""


def _on_one_line(value: Any) -> str:
    return " ".join(str(value).split())[:300]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _limit_address_space() -> None:
    """Let no case take the machine's memory: what it asks for beyond the limit is not there."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 2 * MAX_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main(sys.argv[1:])
