"""The command `aecfe doctor`: whether this machine can do the work, and what to do where it cannot."""

import argparse
import importlib
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from aecfe.commands.options import new_command
from mrcnn.files.errors import InputError, one_line

LIBRARIES = (
    "aecfe", "tensorflow", "keras", "numpy", "h5py", "pydantic", "scikit-learn", "scikit-image",
    "opencv-python-headless", "imaug", "anndata", "umap-learn", "bokeh", "skops",
)  # fmt: skip
# Of what is installed under other names than it is imported by, those whose import has failed on servers.
FRAGILE_IMPORTS = {"opencv-python-headless": "cv2", "imaug": "imgaug"}
# GiB. The demo peaks below 3, and its training needs some room for the system beside it.
LEAST_MEMORY, LEAST_DISK = 4, 5
# A GPU and a CPU round sums of this length differently from the fourth digit on, with TF32 from the third.
LARGEST_DIFFERENCE = 2e-2
SEE_README = "see “NVIDIA GPUs” in README.md"


class Finding(NamedTuple):
    """One line of the report: `advice` is empty if all is well, `stops` where the work cannot be done as it is."""

    name: str
    value: str
    advice: str = ""
    stops: bool = False

    def line(self) -> str:
        """The finding as a line of text."""
        mark = "ok" if not self.advice else "FAULT" if self.stops else "note"
        return f"{mark:6}{self.name:24}{self.value}{'; ' + self.advice if self.advice else ''}"


def add_parser(commands) -> None:
    """Add the command."""
    summary = "look at versions, memory, disk and devices, and take one training step on each GPU"
    parser = new_command(commands, "doctor", doctor, summary, overwrite=False)
    parser.add_argument("--folder", default=".", help="where results will be written")


def doctor(arguments: argparse.Namespace) -> None:
    """Print what was found, a line each; status 1 if the work cannot be done."""
    if not Path(arguments.folder).is_dir():
        raise InputError(f"--folder {arguments.folder}: no such folder; name the one that results will be written to")
    here = Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    findings = chain([here], map(library, LIBRARIES), [memory(), disk(Path(arguments.folder))], devices())
    is_sound = True
    for finding in findings:  # devices come last and take some seconds
        print(finding.line(), flush=True)
        is_sound &= not finding.stops
    print("This machine can do the work." if is_sound else "Mend the faults above first.")
    if not is_sound:
        raise SystemExit(1)


def library(name: str) -> Finding:
    """Whether a package is installed, and works where that is in doubt."""
    try:
        if name in FRAGILE_IMPORTS:
            importlib.import_module(FRAGILE_IMPORTS[name])
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", "run `make venv`, or install requirements.txt", stops=True)
    except Exception as error:  # whatever a broken installation raises
        advice = "run `make distclean` and `make venv`, or install requirements.txt with --no-deps"
        return Finding(name, f"does not import ({one_line(error)})", advice, stops=True)


def memory() -> Finding:
    """Whether there is memory enough, on the machine or in the control group that this process is in."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) / 2**20
    except OSError:
        return Finding("memory", "cannot be told here")
    with suppress(OSError, ValueError):  # no such group, or one without a limit
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) / 2**30 for name in ("max", "current"))
        free = min(free, limit - used)
    advice = "" if free >= LEAST_MEMORY else f"the demo wants {LEAST_MEMORY} GiB; close other programs"
    return Finding("memory", f"{free:.1f} GiB free", advice)


def disk(folder: Path) -> Finding:
    """Whether there is room for results."""
    free = shutil.disk_usage(folder).free / 2**30
    if not os.access(folder, os.W_OK):
        return Finding("disk", f"{folder.resolve()} cannot be written to", "choose another folder with --folder", True)
    advice = "" if free >= LEAST_DISK else "10,000 cells take 2 GB as features; choose a larger disk for them"
    return Finding("disk", f"{free:.0f} GiB free at {folder.resolve()}", advice)


def devices() -> Iterator[Finding]:
    """The CPUs and GPUs that TensorFlow sees, each GPU checked with one training step against a CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("CPU cores", str(cores))
    try:
        import tensorflow as tf
    except Exception as error:  # whatever a broken installation raises
        yield Finding("TensorFlow", f"does not import ({one_line(error)})", "run `make venv`", stops=True)
        return
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:  # otherwise the first step takes all memory of the GPU
        tf.config.experimental.set_memory_growth(gpu, True)
    reference, seconds = training_step("/CPU:0")
    yield Finding("CPU step", f"{seconds * 1000:.0f} ms for a training step of a small network")
    for number, gpu in enumerate(gpus):
        name = tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        yield check_gpu(name, reference, lambda number=number: training_step(f"/GPU:{number}"))
    if not gpus:
        yield missing_gpu()


def check_gpu(name: str, reference: float, step: Callable[[], tuple[float, float]]) -> Finding:
    """Whether a training step on a GPU, which gives loss and seconds, comes to the loss of a CPU."""
    try:
        loss, seconds = step()
    except Exception as error:  # whatever TensorFlow, CUDA and cuDNN raise
        advice = f"driver, CUDA and TensorFlow may not fit together; {SEE_README}"
        return Finding(name, f"no training step ({one_line(error)})", advice, stops=True)
    if abs(loss - reference) > LARGEST_DIFFERENCE * abs(reference):
        return Finding(name, f"loss {loss:.4f}, on the CPU {reference:.4f}", "do not trust this GPU", stops=True)
    return Finding(name, f"{seconds * 1000:.0f} ms for the same step, same loss")


def missing_gpu() -> Finding:
    """What to tell where TensorFlow sees no GPU: the driver may see NVIDIA cards."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=20)
        cards = ", ".join(asked.stdout.split("\n")).strip(", ") if asked.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        cards = ""
    if not cards:
        return Finding("GPU", "none; everything runs on the CPU, with the settings of experiments/configs/demo.yaml")
    advice = f'install "tensorflow[and-cuda]=={version("tensorflow")}"; {SEE_README}'
    return Finding("GPU", f"{cards} is there, but TensorFlow does not see it", advice)


def training_step(device: str) -> tuple[float, float]:
    """Loss of a small convolutional network after a training step on a device, and the seconds of the step after it."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shapes = ((8, 64, 64, 3), (3, 3, 3, 16), (16, 4))
    with tf.device(device):
        images, kernel, dense = (tf.Variable(rng.normal(size=s, scale=0.3), dtype=tf.float32) for s in shapes)
        for _ in range(2):
            started = time.perf_counter()
            with tf.GradientTape() as tape:
                features = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME")), (1, 2))
                loss = tf.reduce_mean((features @ dense - 1) ** 2)
            kernel.assign_sub(0.1 * tape.gradient(loss, kernel))
            value, seconds = float(loss), time.perf_counter() - started
    return value, seconds
