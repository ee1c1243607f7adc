"""Kills the four stages again and again, lets them resume to their end, and compares with undisturbed runs.

Every kill is a `kill -9` of the command's process group: at a random moment, or just before one of its file operations
(a move, a removal, a sync), where a moment hits seldom. After each kill every file under its final name has to be
whole. At the end of each round the files have to hold what those of the undisturbed run hold, bit for bit.

Commands are forked from a process that has imported TensorFlow, and run with one thread and a short network.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

import h5py
import numpy as np

import autoencoder.embedding  # noqa: F401  what is imported here need not be imported by each command
import autoencoder.training  # noqa: F401
import experiments.cells.detector  # noqa: F401
import mrcnn.features
from aecfe.cli import main as aecfe
from mrcnn.network import backbone

STAGES = ("detector", "extract", "train", "embed")
LONGEST_RUN = 900.0  # seconds
NOT_COMPARED = {"seconds", "command", "created", "weights_sha256", "versions"}  # of JSON files
DETECTOR = """settings.BACKBONE=resnet50 settings.FPN_CLASSIF_FC_LAYERS_SIZE=64 settings.IMAGE_MIN_DIM=64
settings.IMAGE_MAX_DIM=64 settings.RPN_ANCHOR_SCALES=[8,16,24,32,48] settings.TRAIN_ROIS_PER_IMAGE=8
settings.PRE_NMS_LIMIT=100 settings.POST_NMS_ROIS_TRAINING=20 settings.POST_NMS_ROIS_INFERENCE=10
settings.MAX_GT_INSTANCES=2 settings.DETECTION_MAX_INSTANCES=2 settings.IMAGES_PER_GPU=1 settings.STEPS_PER_EPOCH=4
settings.VALIDATION_STEPS=0 settings.ROI_POSITIVE_RATIO=0.9 epochs=4"""
AUTOENCODER = "image_size=32 latent_size=8 checkpoint_every=2 log_every=3 adaptation=adversarial"


def run(arguments: list[str], log: Path, *, seconds: float | None = None, operation: int | None = None) -> Counter:
    """Run a command of `aecfe`, and kill it after some seconds or before a file operation, counted from 1.

    Returns:
        `status`, negative for a signal; `seconds` that it took; `operation`s of a command that came to its end.
    """
    reading, writing = os.pipe()
    started, child = time.monotonic(), os.fork()
    if not child:
        try:
            os.setpgid(0, 0)
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(handle, 1), os.dup2(handle, 2)  # what it prints
            counter = _count_operations(operation)
            sys.argv = ["aecfe", *arguments]
            status = aecfe(arguments)
            os.write(writing, str(counter["operation"]).encode())
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    os.close(writing)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - started > (LONGEST_RUN if seconds is None else seconds):
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    status, took = os.waitstatus_to_exitcode(ended[1]), time.monotonic() - started
    with os.fdopen(reading) as told:
        return Counter(status=status, seconds=took, operation=int(told.read() or 0))


def _count_operations(killed_at: int | None) -> Counter:
    """Count the file operations of this process, and kill its group before one of them."""
    counter = Counter()

    def watched(operation, *arguments, **options):
        counter["operation"] += 1
        if counter["operation"] == killed_at:
            os.killpg(0, signal.SIGKILL)
        return operation(*arguments, **options)

    for module, names in ((os, ("replace", "rename", "unlink", "fsync", "rmdir")), (shutil, ("rmtree",))):
        for name in names:
            setattr(module, name, partial(watched, getattr(module, name)))
    return counter


def contents(folder: Path) -> dict[str, Any]:
    """What the files of a folder hold, less hidden files, logs, curves and texts; raises if one is not whole."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name, arrays = path.relative_to(folder).as_posix(), {}
        if "/." in f"/{name}":
            continue
        if path.suffix in (".h5", ".h5ad"):
            with h5py.File(path, "r") as file:
                file.visititems(lambda n, d, a=arrays: a.update({n: d[()]}) if isinstance(d, h5py.Dataset) else None)
        elif path.suffix == ".npz":
            with np.load(path) as file:
                arrays = dict(file)
        elif path.suffix == ".json":
            values = json.loads(path.read_text(encoding="utf-8"))
            items = values.items() if isinstance(values, dict) else enumerate(values)
            found |= {f"{name}:{n}": value for n, value in items if n not in NOT_COMPARED}
        for n, array in arrays.items():
            values = np.asarray(array)
            if not n.startswith("uns/"):  # of an embedding: the texts of run.json and config.json
                content = values.tolist() if values.dtype == object else values.tobytes()
                found[f"{name}:{n}"] = values.dtype, values.shape, content
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What differs between two results of `contents`."""
    lone = [f"{n}: {'missing' if n in expected else 'left over'}" for n in sorted(expected.keys() ^ found.keys())]
    return lone + [f"{n}: differs" for n in expected if n in found and expected[n] != found[n]]


def command(stage: str, folder: Path, output: Path, centre: str = "north") -> list[str]:
    """The command line of a stage that writes to `output`; its inputs are those of the undisturbed runs."""
    whole = folder / "whole"
    stores = [str(whole / "extract" / "north.h5"), str(whole / "river.h5")]
    return {
        "detector": ["detector", "train", str(folder / "data" / "north"), "-o", str(output / "detector"),
                     "--instances", "--deterministic", *[f"--set={value}" for value in DETECTOR.split()]],
        "extract": ["extract", str(folder / "data" / centre), "--detector", str(whole / "detector" / "detector"),
                    "-o", str(output / f"{centre}.h5"), "--scheme", "eleven", "--min-score", "0", "--batch-size", "2"],
        "train": ["train", *stores, "-o", str(output / "autoencoder"), "--deterministic", "--steps", "8",
                  "--batch-size", "4", *[f"--set={value}" for value in AUTOENCODER.split()]],
        "embed": ["embed", str(whole / "train" / "autoencoder"), *stores, "-o", str(output / "embedding.h5ad")],
    }[stage]  # fmt: skip


def torture(folder: Path, num_kills: int, chance: random.Random) -> int:
    """Run every stage undisturbed, then kill them in turn; returns the number of faults."""
    # One narrow block in each stage of the network: what is tried here is not the network.
    backbone.STAGE_BLOCKS, backbone.STAGE_FILTERS = {"resnet50": (1, 1, 1, 1)}, (32, 32, 64, 64)
    mrcnn.features.extract_features.__kwdefaults__["part_size"] = 4  # so that few images make several parts
    whole, log, undisturbed = folder / "whole", folder / "log.txt", {}
    whole.mkdir(parents=True)
    synth = ["synth", str(folder / "data"), "--centres", "north", "river", "--images", "12", "--size", "64"]
    for stage, arguments in (
        ("synth", synth),
        ("detector", command("detector", folder, whole / "detector")),
        ("river", command("extract", folder, whole, "river")),
        *((stage, command(stage, folder, whole / stage)) for stage in STAGES[1:]),
    ):
        undisturbed[stage] = run(arguments, log)
        print(f"undisturbed {stage}: {undisturbed[stage]['seconds']:.1f} s", flush=True)
        if undisturbed[stage]["status"]:
            raise RuntimeError(f"{stage} fails undisturbed; see {log}")
    kills, faults = 0, 0
    for number, stage in enumerate(cycle(STAGES)):
        if kills >= num_kills:
            return faults
        output, is_whole, expected = folder / f"killed-{number}", True, undisturbed[stage]
        for _ in range(min(chance.randint(1, 3), num_kills - kills)):
            moment = chance.choice(("seconds", "operation"))
            at = chance.uniform(0, expected[moment]) if moment == "seconds" else chance.randint(1, expected[moment])
            was_killed = run(command(stage, folder, output), log, **{moment: at})["status"] == -signal.SIGKILL
            kills += was_killed
            try:
                there = len(contents(output))
            except Exception as error:  # whatever it is, a file is not whole
                there, is_whole = f"NOT WHOLE: {type(error).__name__}: {error}", False
            print(f"{kills:4} {stage} {'killed' if was_killed else 'ended'}, {moment} {at:.4g}: {there}", flush=True)
        status = run(command(stage, folder, output), log)["status"]
        found = differences(contents(whole / stage), contents(output)) if not status else [f"status {status}, see log"]
        faults += bool(found or not is_whole)
        print(f"     {stage}: {'; '.join(found[:5]) or 'as undisturbed'}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the status is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of moments and operations")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    faults = torture(folder, options.kills, random.Random(options.seed))
    if faults:
        print(f"{faults} rounds with faults; what is left lies in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
