import logging
import os
import subprocess
import sys

import pytest

from aecfe import cli as terminal
from aecfe.cli import build_parser, main
from aecfe.commands import actions as commands
from mrcnn.files.progress import Bar


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Leaves loggers, bars, finders and variables as they were."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(Bar, "hidden", False)
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    loggers = [logging.getLogger(name) for name in (*terminal.PACKAGES, "tensorflow", "absl")]
    states = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, states, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def say_all():
    log = logging.getLogger("experiments.some_module")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        log.log(level, logging.getLevelName(level).lower())


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [
        (terminal.QUIET, "warning: warning\n"),
        (terminal.NORMAL, "info\nwarning: warning\n"),
        (terminal.VERBOSE, "debug\ninfo\nwarning: warning\n"),
    ],
)
def test_set_up_terminal_says_as_much_as_was_asked_for(verbosity, said, capsys):
    terminal.set_up_terminal(verbosity)
    say_all()
    assert capsys.readouterr().err == said


def test_set_up_terminal_hides_bars_when_quiet(capsys):
    terminal.set_up_terminal(terminal.QUIET)
    with Bar(total=2, disable=False) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
    terminal.set_up_terminal(terminal.NORMAL)
    with Bar(total=2, desc="shown") as bar:
        bar.update()
    assert "shown" in capsys.readouterr().err


def test_set_up_terminal_leaves_the_users_variable_alone(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    terminal.set_up_terminal()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_set_up_terminal_verbose_holds_nothing_back():
    terminal.set_up_terminal(terminal.VERBOSE)
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ and "PYTHONWARNINGS" not in os.environ


@pytest.mark.parametrize(
    ("flags", "verbosity"), [([], 0), (["-v"], 1), (["--verbose"], 1), (["-q"], -1), (["--quiet"], -1)]
)
def test_every_command_takes_a_verbosity(flags, verbosity):
    assert build_parser().parse_args(["synth", "out", *flags]).verbosity == verbosity


def load_fake_tensorflow(tmp_path, body: str) -> subprocess.CompletedProcess:
    """Import a package named tensorflow after `set_up_terminal`, in a process of its own."""
    (tmp_path / "tensorflow.py").write_text(body)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from aecfe.cli import set_up_terminal\n"
        "set_up_terminal()\n"
        "import tensorflow\n"
        "print('after', file=sys.stderr)\n"
        "print(tensorflow.VALUE, type(tensorflow.__loader__).__name__)\n"
    )
    return subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)


def test_start_up_notes_are_held_back(tmp_path):
    done = load_fake_tensorflow(tmp_path, "import os\nos.write(2, b'I0000 note\\n')\nVALUE = 3\n")
    assert (done.stdout, done.stderr) == ("3 SourceFileLoader\n", "after\n")


def test_start_up_notes_are_shown_when_the_import_fails(tmp_path):
    done = load_fake_tensorflow(tmp_path, "import os\nos.write(2, b'no such CPU\\n')\nraise ImportError('broken')\n")
    assert done.returncode == 1 and "no such CPU" in done.stderr and "broken" in done.stderr


def test_a_library_that_does_not_import_is_told_in_one_line(monkeypatch, capsys, tmp_path):
    def fail(arguments):
        raise ImportError("libGL.so.1: cannot open shared object file\nmore", name="cv2")

    monkeypatch.setattr(commands, "synth", fail)
    assert main(["synth", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cv2" in error and "libGL" in error and "aecfe doctor" in error


def test_a_fault_of_our_own_imports_is_not_hidden(monkeypatch, tmp_path):
    def fail(arguments):
        raise ImportError("cannot import name 'x'", name="mrcnn.feature_store")

    monkeypatch.setattr(commands, "synth", fail)
    with pytest.raises(ImportError):
        main(["synth", str(tmp_path)])
