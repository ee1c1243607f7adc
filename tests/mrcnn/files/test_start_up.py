"""TensorFlow's notes are held back until whoever starts a process asks for them, and what else is said is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrcnn.files import start_up

ROOT = Path(__file__).parents[3]
# Says what TensorFlow does at its start, and something else.
FAKE = "import os\nos.write(2, b'I0000 00:00 note\\nWARNING: All log messages before absl\\nelse\\n')\n"
PROGRAM = "import sys, mrcnn, tensorflow\nprint('after', file=sys.stderr)\nprint(type(tensorflow.__loader__).__name__)"


@pytest.mark.parametrize(
    ("end", "level", "told"),
    [
        ("", None, "else\nafter\n"),
        ("", "0", "I0000 00:00 note\nWARNING: All log messages before absl\nelse\nafter\n"),
        ("raise ImportError('broken')", None, "I0000 00:00 note\n"),
        ("os.abort()", None, "Fatal Python error: Aborted"),
    ],
)
def test_notes_are_shown_where_they_are_asked_for_or_tensorflow_does_not_import(tmp_path, end, level, told):
    (tmp_path / "tensorflow.py").write_text(FAKE + end)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", start_up.LOG_VARIABLE: level}
    env = {name: value for name, value in env.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=env)
    if end:
        assert done.returncode and told in done.stderr and "tensorflow.py" in done.stderr
    else:
        assert (done.stdout, done.stderr) == ("SourceFileLoader\n", told)


def test_notes_can_be_shown_again_unless_the_user_chose(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    for chosen, held in ((None, "3"), ("1", "1")):
        monkeypatch.setattr(start_up, "_set_here", set())
        monkeypatch.delenv(start_up.LOG_VARIABLE, raising=False)
        if chosen:
            monkeypatch.setenv(start_up.LOG_VARIABLE, chosen)
        start_up.hold_back_notes()
        assert os.environ[start_up.LOG_VARIABLE] == held and len(start_up._finders()) == (not chosen)
        start_up.show_notes()
        assert os.environ.get(start_up.LOG_VARIABLE) == chosen and not start_up._finders()
