import subprocess

import pytest

from aecfe.cli import main
from aecfe.commands import doctor


def test_doctor_finds_the_libraries_and_says_what_to_do_about_others(monkeypatch):
    assert not any(doctor.library(name).stops for name in doctor.LIBRARIES)
    finding = doctor.library("no-such-package")
    assert finding.stops and "make venv" in finding.line() and finding.line().startswith("FAULT")

    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file\nand more")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    finding = doctor.library("opencv-python-headless")
    assert finding.stops and "libGL" in finding.value and "\n" not in finding.line()


def test_doctor_notes_a_small_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 2**30}))
    assert "larger disk" in doctor.disk(tmp_path).advice
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 10**6)
    assert "close other programs" in doctor.memory().advice or "cannot be told" in doctor.memory().value


def test_doctor_trusts_a_gpu_that_agrees_with_the_cpu_alone():
    def fail():
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    assert not doctor.check_gpu("A100", 1.0, lambda: (1.001, 0.01)).advice
    assert "do not trust" in doctor.check_gpu("A100", 1.0, lambda: (1.1, 0.01)).advice
    finding = doctor.check_gpu("A100", 1.0, fail)
    assert finding.stops and "no kernel image" in finding.line() and "\n" not in finding.line()


def test_doctor_names_a_card_that_tensorflow_does_not_see(monkeypatch):
    answers = [subprocess.CompletedProcess([], code, stdout="NVIDIA H100\nNVIDIA H100\n") for code in (0, 1)]
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: answers.pop(0))
    finding = doctor.missing_gpu()
    assert "tensorflow[and-cuda]" in finding.advice and "NVIDIA H100, NVIDIA H100 is there" in finding.value
    assert not doctor.missing_gpu().advice


def test_doctor_command_reports_and_ends_with_a_status(tmp_path, monkeypatch, capsys):
    assert main(["doctor", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "tensorflow" in out and "CPU step" in out and out.endswith("This machine can do the work.\n")

    monkeypatch.setattr(doctor, "LIBRARIES", ("no-such-package",))
    monkeypatch.setattr(doctor, "devices", lambda: iter(()))
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", "--folder", str(tmp_path)])
    assert "Mend the faults" in capsys.readouterr().out
    assert main(["doctor", "--folder", str(tmp_path / "nowhere")]) == 2
    assert "--folder" in capsys.readouterr().err
