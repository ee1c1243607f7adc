import subprocess
from pathlib import Path

import pytest

from aecfe.cli import main
from aecfe.commands import doctor


def test_doctor_finds_every_library_of_the_list():
    assert [finding.stops for finding in map(doctor.library, doctor.LIBRARIES)] == [False] * len(doctor.LIBRARIES)


def test_doctor_says_what_to_do_about_a_missing_library():
    finding = doctor.library("no-such-package")
    assert finding.stops and "make venv" in finding.line() and finding.line().startswith("FAULT")


def test_doctor_finds_a_library_that_does_not_import(monkeypatch):
    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file\nand more")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    finding = doctor.library("opencv-python-headless")
    assert finding.stops and "libGL" in finding.value and "\n" not in finding.line()


@pytest.mark.parametrize(("free", "advises"), [(3.9, True), (4.0, False)])
def test_doctor_memory_asks_for_what_the_demo_needs(free, advises):
    assert bool(doctor.memory(24.0, free).advice) is advises


def test_doctor_memory_is_that_of_this_machine():
    total, free = doctor._memory()
    assert total is None or 0 < free <= total


def test_doctor_disk_notes_a_full_one(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2**30})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    assert "larger disk" in doctor.disk(tmp_path).advice


def test_doctor_training_step_repeats():
    first, second = (doctor.training_step("/CPU:0")[0] for _ in range(2))
    assert first == pytest.approx(second, rel=1e-5) and first > 0


def test_doctor_trusts_a_gpu_that_agrees_with_the_cpu():
    assert not doctor.check_gpu("A100", 1.0, lambda: (1.001, 0.01)).advice


def test_doctor_distrusts_a_gpu_with_another_loss():
    finding = doctor.check_gpu("A100", 1.0, lambda: (1.1, 0.01))
    assert finding.stops and "do not trust" in finding.advice


def test_doctor_tells_in_one_line_why_a_gpu_takes_no_step():
    def step():
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    finding = doctor.check_gpu("A100", 1.0, step)
    assert finding.stops and "no kernel image" in finding.line() and "\n" not in finding.line()


def test_doctor_names_a_card_that_tensorflow_does_not_see():
    assert "tensorflow[and-cuda]" in doctor.missing_gpu("NVIDIA H100").advice
    assert not doctor.missing_gpu("").advice


def test_doctor_reads_the_names_of_cards(monkeypatch):
    answer = subprocess.CompletedProcess([], 0, stdout="NVIDIA H100\nNVIDIA H100\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: answer)
    assert doctor._cards() == "NVIDIA H100, NVIDIA H100"


def test_doctor_command_reports_and_ends_with_status_0(tmp_path, capsys):
    assert main(["doctor", "--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "tensorflow" in out and "CPU step" in out and out.endswith("This machine can do the work.\n")


def test_doctor_command_ends_with_status_1_on_a_fault(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "LIBRARIES", ("no-such-package",))
    monkeypatch.setattr(doctor, "devices", lambda: iter(()))
    with pytest.raises(SystemExit, match="1"):
        main(["doctor", "--folder", str(tmp_path)])
    assert "Mend the faults" in capsys.readouterr().out


def test_doctor_command_refuses_a_folder_that_is_none(tmp_path, capsys):
    assert main(["doctor", "--folder", str(Path(tmp_path) / "nowhere")]) == 2
    assert "--folder" in capsys.readouterr().err
