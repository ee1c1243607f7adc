"""Provenance of a result, in words."""

from mrcnn.files.provenance import command_text, machine_text


def test_command_text_can_be_typed_again(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/aecfe", "evaluate", "my file.h5", "--set=a=b"])
    assert command_text() == "aecfe evaluate 'my file.h5' --set=a=b"


def test_machine_text_names_cores_and_gpus():
    text = machine_text()
    assert " cores of " in text and text.endswith(("GPUs", "no GPU"))
