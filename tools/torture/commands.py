"""Commands of `aecfe` as children of a process that has imported all they need, to be killed at a chosen point."""

import os
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aecfe.commands.actions  # noqa: F401
import autoencoder.embedding  # noqa: F401  what follows is imported for the children
import autoencoder.training  # noqa: F401
import experiments.cells.detector  # noqa: F401
import mrcnn.features
from aecfe.cli import main
from mrcnn.network import backbone

PART_SIZE = 4  # images: so that few of them make several parts of a store
POLL = 0.005  # seconds
OPERATIONS = ((os, "replace"), (os, "rename"), (os, "unlink"), (os, "fsync"), (os, "rmdir"), (shutil, "rmtree"))


@dataclass(frozen=True)
class Kill:
    """When a command is killed.

    Attributes:
        after: seconds, or None.
        after_first_file: they count from the first new file of the output on, not from the start.
        operation: or just before this file operation, counted from 1.
    """

    after: float | None = None
    after_first_file: bool = False
    operation: int | None = None

    def __str__(self) -> str:
        if self.operation is not None:
            return f"before operation {self.operation}"
        return f"{self.after:.2f} s after {'the first file' if self.after_first_file else 'the start'}"


@dataclass
class Command:
    """A command, and what became of it.

    Attributes:
        arguments: as after `aecfe`.
        output: folder in which files appear.
        kill: or None, to let it be.
        to_first: seconds until the first file appeared.
        seconds: in all.
        operations: file operations, of a command that was not killed.
        was_killed: whether the kill came before its end.
    """

    arguments: list[str]
    output: Path
    kill: Kill | None = None
    to_first: float = 0.0
    seconds: float = 0.0
    operations: int = 0
    was_killed: bool = False
    log: Path = field(init=False)

    def __post_init__(self):
        self.log = self.output.with_name(f"{self.output.name}.log")

    def told(self) -> str:
        """The end of what it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:] if self.log.exists() else ""


class Running:
    """A command that has been started."""

    def __init__(self, command: Command, process: int, count: int):
        self.command, self._process, self._count = command, process, count
        self._started = time.monotonic()
        self._first: float | None = None
        self._before = files_of(command.output)

    def wait(self, longest: float) -> int:
        """Wait for its end, killing it when its time has come; returns its status, negative for a signal.

        Raises:
            TimeoutError: if it takes longer than `longest` seconds; it is killed then.
        """
        kill = self.command.kill
        while True:
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                break
            now = time.monotonic() - self._started
            if self._first is None and files_of(self.command.output) - self._before:
                self._first = now
            if kill is not None and kill.after is not None and self._is_due(kill, now):
                os.killpg(self._process, signal.SIGKILL)
                _, status = os.waitpid(self._process, 0)
                break
            if now > longest:
                os.killpg(self._process, signal.SIGKILL)
                os.waitpid(self._process, 0)
                raise TimeoutError(f"{' '.join(self.command.arguments[:2])}: still running after {longest:.0f} s")
            time.sleep(POLL)
        self.command.seconds = time.monotonic() - self._started
        self.command.to_first = self.command.seconds if self._first is None else self._first
        code = os.waitstatus_to_exitcode(status)
        self.command.was_killed = code == -signal.SIGKILL
        told = os.read(self._count, 64)
        os.close(self._count)
        self.command.operations = int(told or 0)
        return code

    def _is_due(self, kill: Kill, now: float) -> bool:
        if not kill.after_first_file:
            return now >= kill.after
        return self._first is not None and now >= self._first + kill.after


def files_of(folder: Path) -> set[tuple[str, int]]:
    """Files below a folder with the time of their last change, locks left out."""
    found = set()
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            try:
                if not name.endswith(".lock"):
                    found.add((path, os.stat(path).st_mtime_ns))
            except FileNotFoundError:
                continue
    return found


def start(command: Command) -> Running:
    """Start a command in a process group of its own."""
    command.output.parent.mkdir(parents=True, exist_ok=True)
    count, told = os.pipe()
    process = os.fork()
    if process:
        os.close(told)
        with suppress(PermissionError, ProcessLookupError):  # whoever of the two is faster
            os.setpgid(process, process)
        return Running(command, process, count)
    status = 1
    try:
        os.setpgid(0, 0)
        os.close(count)
        status = _run(command, told)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _run(command: Command, told: int) -> int:
    handle = os.open(command.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(handle, descriptor)
    # One narrow block in each stage: what is tried here is not the network.
    backbone.STAGE_BLOCKS, backbone.STAGE_FILTERS = {"resnet50": (1, 1, 1, 1)}, (32, 32, 64, 64)
    mrcnn.features.extract_features.__kwdefaults__["part_size"] = PART_SIZE
    counter = _watch_operations(command.kill.operation if command.kill else None)
    sys.argv = ["aecfe", *command.arguments]
    status = main(command.arguments)
    os.write(told, str(counter[0]).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _watch_operations(killed_at: int | None) -> list[int]:
    """Count file operations, and end this process group before one of them."""
    counter = [0]

    def watch(operation):
        def watched(*arguments, **options):
            counter[0] += 1
            if counter[0] == killed_at:
                os.killpg(0, signal.SIGKILL)
            return operation(*arguments, **options)

        return watched

    for module, name in OPERATIONS:
        setattr(module, name, watch(getattr(module, name)))
    return counter
