"""The command line: help, mistakes, interruptions, exit statuses, and what the terminal says."""

import logging
import os
import signal
import subprocess
import sys

import pytest

import aecfe as door
from aecfe import cli
from aecfe.cli import build_parser, main
from aecfe.commands import autoencoder, centres, detector
from mrcnn.files.interruption import held_back
from mrcnn.files.progress import Bar


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Leaves loggers, bars, finders and variables as they were."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(Bar, "hidden", False)
    for name in ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    loggers = [logging.getLogger(name) for name in (*cli.PACKAGES, "tensorflow", "absl")]
    states = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, states, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def parsers(parser, name=""):
    """Every parser below one, by its command."""
    below = [action.choices for action in parser._actions if hasattr(action, "_name_parser_map")]
    if not below:
        yield name.strip(), parser
    for word, sub in (item for choices in below for item in choices.items()):
        yield from parsers(sub, f"{name} {word}")


def test_every_command_has_help_and_a_verbosity():
    found = dict(parsers(build_parser()))
    assert {"run", "detector train", "merge", "join", "classifier apply", "export pipeline", "doctor"} <= set(found)
    for name, parser in found.items():
        assert "usage: aecfe" in parser.format_help() and "--quiet" in parser.format_help(), name
        assert parser.description[0].islower() and callable(parser.get_default("command"))
    for flags, verbosity in (([], 0), (["-v"], 1), (["--quiet"], -1)):
        assert build_parser().parse_args(["synth", "out", *flags]).verbosity == verbosity


def test_help_and_parsing_import_nothing_heavy():
    code = "import sys, aecfe.cli; aecfe.cli.build_parser().parse_args(['train', 'a.h5', '-o', 'b'])\n"
    code += "print([m for m in ('tensorflow', 'keras', 'numpy', 'h5py', 'sklearn', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_train_has_an_option_for_each_setting_and_shows_its_default():
    train = dict(parsers(build_parser()))["train"]
    text = " ".join(train.format_help().split())
    assert "length of the latent, the thesis' bottleneck size (default: 50)" in text
    assert "learning rate of Adam (default: 0.001)" in text
    given = train.parse_args(
        "a.h5 -o b --source river --batch-size 4 --reduction sum --beta 0.25 --image-size 32".split()
    )
    assert (given.source_centre, given.global_batch_size, given.adaptation_reduction) == ("river", 4, "sum")
    assert (given.beta, given.image_size, given.epochs, given.ssim) == (0.25, 32, None, None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("synth out --images 0", "--images: '0' is no whole number of 1 or more"),
        ("extract c --detector d -o x.h5 --min-score 1.5", "--min-score: '1.5' is no number from 0 to 1"),
        ("extract c --detector d -o x.h5 --min-score nan", "--min-score: 'nan' is no number from 0 to 1"),
        ("detect a.png --detector d --pixel-size 65000", "'65000' is no number from 0.0001 to 10000"),
        ("train a.h5 -o b --image-size 48", "--image-size: invalid choice: 48"),
        ("nosuch", "invalid choice: 'nosuch'"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(capsys, words, told):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("aecfe") and told in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("detector train c -o out --layers (", "detector: layers must be heads"),
        ("detector train c -o out --set weights=5 --set epochs=0", "epochs must be greater than or equal to 1, got 0"),
        ("detector train c -o out --exclude mrcnn_mask", "exclude: names layers that do not take the weights"),
        ("detector train c -o out --config list.yaml", "list.yaml: detector must be settings with keys, got [1]"),
        ("train a.h5 -o out --set latent_sise=5", "unknown setting latent_sise, did you mean 'latent_size'?"),
        ("train a.h5 -o out --set autoencoder.beta=-1", "beta must be greater than or equal to 0, got -1"),
        ("extract c --detector d -o x.h5 --shard 4/3", "shard '4/3': give I/N with I from 1 to N"),
        ("train a.h5 -o out", "a.h5: no such"),
        (
            "run list.yaml -o out",
            "list.yaml: centres is missing; detector must be settings with keys, got [1]; unknown setting autoe",
        ),
        ("report out", "give a folder that `aecfe run` made"),
        ("extract absent --detector d -o out/x.h5", "absent: no such folder"),
        ("qc a.h5 -o page.csv", "end it in .html"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, refused, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("detector: [1]\nautoencoders: {}\n")
    assert told in refused(*words.split())
    assert [path.name for path in tmp_path.iterdir()] == ["list.yaml"]


def test_a_library_that_does_not_import_is_told_but_not_a_fault_of_our_own(monkeypatch, refused, tmp_path):
    def fail(arguments):
        raise ImportError("libGL.so.1: cannot open shared object file\nmore", name=name)

    monkeypatch.setattr(centres, "synth", fail)
    name = "cv2"
    error = refused("synth", tmp_path)
    assert "cv2" in error and "libGL" in error and "aecfe doctor" in error
    name = "mrcnn.feature_store"
    with pytest.raises(ImportError):
        main(["synth", str(tmp_path)])


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, "aecfe: interrupted; run"), (signal.SIGTERM, 143, "aecfe: ended by SIGTERM; run")],
)
def test_signals_end_with_their_status_and_say_how_to_go_on(monkeypatch, capfd, number, status, told, block):
    def command(arguments):
        if not block:
            os.kill(os.getpid(), number)
            raise AssertionError("went on")
        with held_back() as waiting:
            os.kill(os.getpid(), number)
            waiting.check()

    before = signal.getsignal(number)
    monkeypatch.setattr(autoencoder, "train", command)
    assert main(["train", "x.h5", "-o", "a"]) == status
    error = capfd.readouterr().err
    assert error.endswith(f"{told} the same command again\n")
    assert (f"{signal.Signals(number).name}: saving after this step; once more ends at once" in error) == block
    assert signal.getsignal(number) == before


def test_an_interrupted_command_says_what_overwrite_does(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(detector, "train", interrupted)
    assert main("detector train c -o d --overwrite".split()) == 130
    assert "run the same command again; --overwrite begins anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [
        (cli.QUIET, "warning: warning\n"),
        (cli.NORMAL, "info\nwarning: warning\n"),
        (cli.VERBOSE, "debug\ninfo\nwarning: warning\n"),
    ],
)
def test_terminal_says_as_much_as_was_asked_for(verbosity, said, capsys):
    cli.set_up_terminal(verbosity)
    log = logging.getLogger("experiments.some_module")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        log.log(level, logging.getLevelName(level).lower())
    assert capsys.readouterr().err == said
    with Bar(total=2, desc="bar", disable=False) as bar:
        bar.update()
    assert ("bar" in capsys.readouterr().err) == (verbosity > cli.QUIET)
    assert ("TF_CPP_MIN_LOG_LEVEL" in os.environ) == (verbosity < cli.VERBOSE)


def test_the_python_door_finds_what_it_names():
    assert {"load_detector", "load_centre", "open_store"} <= set(dir(door))
    assert all(callable(getattr(door, name)) for name in door.__all__)
    with pytest.raises(AttributeError, match="nosuch"):
        door.nosuch  # noqa: B018
