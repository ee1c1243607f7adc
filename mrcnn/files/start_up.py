"""TensorFlow's notes at its start and about its optimiser, which would drown what a script prints."""

import faulthandler
import importlib.abc
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec

# Which of its C++ parts' lines TensorFlow shows: "0" all, "3" none; what goes wrong raises an exception all the same.
LOG_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
_NOTE = re.compile(rb"[IWE]\d{4} |WARNING: All log messages before absl|To enable the following instructions:")
_set_here: set[str] = set()


def hold_back_notes() -> None:
    """Hold back the notes, unless whoever started the process has set `LOG_VARIABLE`; it is too late after the import.

    Our packages call it when they are imported.
    """
    if LOG_VARIABLE not in os.environ:
        os.environ[LOG_VARIABLE] = "3"
        _set_here.add(LOG_VARIABLE)
    if os.environ[LOG_VARIABLE] == "3" and "tensorflow" not in sys.modules and not _finders():
        sys.meta_path.insert(0, _QuietTensorFlow())


def show_notes() -> None:
    """Undo `hold_back_notes`."""
    for finder in _finders():
        sys.meta_path.remove(finder)
    if LOG_VARIABLE in _set_here:
        _set_here.remove(LOG_VARIABLE)
        os.environ.pop(LOG_VARIABLE, None)


def _finders() -> list[importlib.abc.MetaPathFinder]:
    return [finder for finder in sys.meta_path if isinstance(finder, _QuietTensorFlow)]


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Has TensorFlow loaded, once, with its notes held back and shown only if the import fails.

    Some of what its C++ parts say at that moment comes before they have read `LOG_VARIABLE`.
    """

    def find_spec(self, name: str, path, target=None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _notes_held_back()(spec.loader.exec_module)
        return spec


@contextmanager
def _notes_held_back() -> Iterator[None]:
    """Send what the process writes to file descriptor 2 to a file, and on to stderr afterwards, less the notes.

    They too are shown if the block fails. If the process crashes, Python's traceback of the place is.
    """
    try:
        real = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    note, watches = _NOTE, not faulthandler.is_enabled()
    with tempfile.TemporaryFile() as held, os.fdopen(real, "wb") as shown:
        if watches:
            faulthandler.enable(shown)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            note = re.compile(rb"(?!)")
            raise
        finally:
            os.dup2(shown.fileno(), 2)
            if watches:
                faulthandler.disable()
            held.seek(0)
            shown.writelines(line for line in held if not note.match(line))
