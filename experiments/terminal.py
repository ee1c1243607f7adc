"""What the commands say on the terminal, and what the libraries below them may say beside it."""

import importlib.abc
import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec

from mrcnn.progress_bar import Bar, hide_bars

PACKAGES = ("mrcnn", "autoencoder", "experiments")
QUIET, NORMAL, VERBOSE = -1, 0, 1


def set_up_terminal(verbosity: int = NORMAL) -> None:
    """Send the log of our packages to stderr, and keep the libraries' notes from drowning it.

    Args:
        verbosity: `QUIET` shows warnings and errors alone, and no progress bar; `NORMAL` adds what is done and bars;
            `VERBOSE` adds our debug lines, TensorFlow's start-up notes and the warnings of all libraries.
    """
    handler = _TerminalHandler()
    handler.setFormatter(_LevelFormatter())
    level = {QUIET: logging.WARNING, NORMAL: logging.INFO}.get(verbosity, logging.DEBUG)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    hide_bars(verbosity <= QUIET)
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if verbosity < VERBOSE:
        _quiet_libraries()


def _quiet_libraries() -> None:
    """Hold back what libraries warn of and what TensorFlow says at its start; whoever sets its variable gets it."""
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ["PYTHONWARNINGS"] = "ignore"  # for processes that a command starts
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3":
        return
    if "tensorflow" not in sys.modules and not any(isinstance(f, _QuietFinder) for f in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow once, so that it is loaded with stderr held back.

    Some of what its C++ parts say at that moment comes before they have read `TF_CPP_MIN_LOG_LEVEL`.
    """

    def find_spec(self, name: str, path, target=None) -> ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(importlib.abc.Loader):
    """Loads a module as `loader` does. What was written to stderr meanwhile is shown only if that fails."""

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        with _stderr_held_back():
            self._loader.exec_module(module)


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Send what the process writes to file descriptor 2 to a file, and on to stderr if the block fails."""
    sys.stderr.flush()
    shown = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            except BaseException:
                held.seek(0)
                os.write(shown, held.read())
                raise
            finally:
                os.dup2(shown, 2)
    finally:
        os.close(shown)


class _TerminalHandler(logging.Handler):
    """Writes above the progress bar, if there is one, to what `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            Bar.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class _LevelFormatter(logging.Formatter):
    """The message alone, with its level where it is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"
