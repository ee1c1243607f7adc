"""Kills the stages at random moments, runs them again until they end, and compares with undisturbed runs.

Every kill is a `kill -9` of the command's whole process group: at a moment of its duration, or at one of its file
operations (a move, a removal, a sync), where a moment hits seldom. After each kill every file under its final name has
to be whole; at the end of each round, content and names of the files have to be those of the undisturbed run, bit for
bit. Prints a line for each kill and a table; exit status 1 if anything differs.

Commands start from a process that has imported TensorFlow once. They run with one thread and a shortened network.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

import inspect_files
from commands import Command, Kill, start
from small_disk import CannotMount, SmallDisk, small_disk

STAGES = ("detector", "extract", "train", "embed")
MAX_KILLS_OF_ROUND = 4
SHARE_AT_OPERATIONS = 0.4
SHARE_FROM_START = 0.3  # of the kills at a moment; the others come after the first output
LONGEST_RUN = 900.0  # seconds

NUM_IMAGES, IMAGE_SIZE = 24, 64
DETECTOR = {
    "settings.BACKBONE": "resnet50",
    "settings.FPN_CLASSIF_FC_LAYERS_SIZE": 64,
    "settings.IMAGE_MIN_DIM": 64,
    "settings.IMAGE_MAX_DIM": 64,
    "settings.RPN_ANCHOR_SCALES": [8, 16, 24, 32, 48],
    "settings.TRAIN_ROIS_PER_IMAGE": 8,
    "settings.PRE_NMS_LIMIT": 100,
    "settings.POST_NMS_ROIS_TRAINING": 20,
    "settings.POST_NMS_ROIS_INFERENCE": 10,
    "settings.MAX_GT_INSTANCES": 2,
    "settings.DETECTION_MAX_INSTANCES": 2,
    "settings.IMAGES_PER_GPU": 1,
    "settings.STEPS_PER_EPOCH": 2,
    "settings.VALIDATION_STEPS": 0,
    "epochs": 6,
}
AUTOENCODER = {"image_size": 32, "latent_size": 8, "checkpoint_every": 2, "log_every": 3, "adaptation": "adversarial"}


@dataclass
class Reference:
    """What an undisturbed run of a stage took.

    Attributes:
        folder: its output.
        to_first: seconds until its first file appeared.
        seconds: in all.
        operations: number of its file operations.
    """

    folder: Path
    to_first: float
    seconds: float
    operations: int


class Torture:
    """The runs below one folder.

    Args:
        folder: empty, or not there.
        seed: of moments and order.
        stages: which ones are killed.
        log: called with each line.
    """

    def __init__(self, folder: Path, seed: int, stages=STAGES, log=print):
        self.folder, self.stages, self.log = folder, stages, log
        self.random = random.Random(seed)
        self.kills, self.rounds, self.faults = Counter(), Counter(), Counter()
        self.disks, self.seconds = Counter(), Counter()
        self.references: dict[str, Reference] = {}

    def arguments(self, stage: str, output: Path) -> list[str]:
        """The command line of a stage that writes to `output`; inputs are those of the undisturbed runs."""
        whole, data = self.folder / "whole", self.folder / "data"
        stores = [str(whole / "extract" / "north.h5"), str(self.folder / "river" / "river.h5")]
        return {
            "detector": ["detector", "train", str(data / "north"), "-o", str(output / "detector"), "--instances",
                         "--deterministic", *[f"--set={k}={v}" for k, v in DETECTOR.items()]],
            "extract": self._extract("north", output),
            "train": ["train", *stores, "-o", str(output / "autoencoder"), "--deterministic", "--steps", "12",
                      "--batch-size", "4", *[f"--set={k}={v}" for k, v in AUTOENCODER.items()]],
            "embed": ["embed", str(whole / "train" / "autoencoder"), *stores, "-o", str(output / "embedding.h5ad")],
        }[stage]  # fmt: skip

    def _extract(self, centre: str, output: Path) -> list[str]:
        detector = self.folder / "whole" / "detector" / "detector"
        command = ["extract", str(self.folder / "data" / centre), "--detector", str(detector)]
        command += ["-o", str(output / f"{centre}.h5"), "--scheme", "eleven", "--min-score", "0", "--batch-size", "2"]
        return command

    def prepare(self) -> None:
        """Draw the centres and run every stage undisturbed.

        Raises:
            RuntimeError: if a command fails.
        """
        sizes = ["--images", str(NUM_IMAGES), "--size", str(IMAGE_SIZE)]
        self._run(Command(["synth", str(self.folder / "data"), "--centres", "north", "river", *sizes], self.folder))
        last = max(STAGES.index(stage) for stage in self.stages)
        for stage in STAGES[: last + 1]:
            output = self.folder / "whole" / stage
            if stage == "train":
                self._run(Command(self._extract("river", self.folder / "river"), self.folder / "river"))
            command = Command(self.arguments(stage, output), output)
            self._run(command)
            self.references[stage] = Reference(output, command.to_first, command.seconds, command.operations)
            self.log(
                f"undisturbed {stage}: first file after {command.to_first:.1f} s, end after {command.seconds:.1f} s, "
                f"{command.operations} file operations"
            )

    def _run(self, command: Command) -> None:
        status = start(command).wait(LONGEST_RUN)
        if status:
            raise RuntimeError(f"{' '.join(command.arguments[:2])}: status {status}\n{command.told()}")

    def torture(self, num_kills: int) -> int:
        """Kill until `num_kills` kills are reached, spread over the stages; returns the number of faults."""
        quota = {s: num_kills // len(self.stages) for s in self.stages}
        for stage in self.stages[: num_kills % len(self.stages)]:
            quota[stage] += 1
        for stage in self.stages:
            while self.kills[stage] < quota[stage]:
                self._round(stage, quota[stage])
        return sum(self.faults.values())

    def _round(self, stage: str, quota: int) -> None:
        """Kill one output's command some times, let it come to its end, and compare."""
        self.rounds[stage] += 1
        output = self.folder / f"killed-{stage}-{self.rounds[stage]}"
        left = min(self.random.randint(1, MAX_KILLS_OF_ROUND), quota - self.kills[stage])
        started = time.monotonic()
        while left:
            kill = self._choose_kill(stage)
            command = Command(self.arguments(stage, output), output, kill)
            status = start(command).wait(LONGEST_RUN)
            if not command.was_killed:
                if status:
                    self._fault(stage, f"status {status} instead of 0\n{command.told()}")
                break  # it had come to its end before
            left -= 1
            self.kills[stage] += 1
            there, faults = inspect_files.check_whole(output)
            number = sum(self.kills.values())
            verdict = "; ".join(faults) or "whole"
            self.log(f"kill {number:3} {stage:8} round {self.rounds[stage]:2} {kill}: {there}: {verdict}")
            if faults:
                self._fault(stage, None)
        command = Command(self.arguments(stage, output), output)
        status = start(command).wait(LONGEST_RUN)
        self.seconds[stage] += time.monotonic() - started
        if status:
            self._fault(stage, f"the last run: status {status}\n{command.told()}")
            return
        differences = inspect_files.compare(self.references[stage].folder, output)
        for difference in differences:
            self._fault(stage, difference)
        self.log(f"end      {stage:8} round {self.rounds[stage]:2}: {'DIFFERS' if differences else 'as undisturbed'}")
        if not differences:
            shutil.rmtree(output)

    def fill_disks(self, num_disks: int) -> int:
        """Run stages on disks that are too small, then make room and run them again; returns the number of faults.

        Raises:
            CannotMount: if there can be no such disks.
        """
        for number in range(num_disks):
            stage = self.stages[number % len(self.stages)]
            output = self.folder / f"disk-{stage}-{number}"
            needed = sum(path.stat().st_size for path in self.references[stage].folder.rglob("*") if path.is_file())
            with small_disk(output, self.random.randint(1, max(needed, 2))) as disk:
                self._fill_disk(stage, output, disk)
        return sum(self.faults.values())

    def _fill_disk(self, stage: str, output: Path, disk: SmallDisk) -> None:
        self.disks[stage] += 1
        command = Command(self.arguments(stage, output), output)
        status = start(command).wait(LONGEST_RUN)
        there, faults = inspect_files.check_whole(output)
        faults += [f"{name}: was left" for name in inspect_files.hidden_names(output)]
        last = command.told().strip().rpartition("\n")[2]
        if status != 2 or not last.startswith(f"aecfe: error: {output}"):
            faults.append(f"status {status}: {command.told()[-1500:]}")
        self.log(f"full disk {stage:8}: {there}: {'; '.join(faults) or last}")
        disk.change("size=256m")
        command = Command(self.arguments(stage, output), output)
        status = start(command).wait(LONGEST_RUN)
        if status:
            faults.append(f"with room: status {status}\n{command.told()}")
        else:
            faults += inspect_files.compare(self.references[stage].folder, output)
        for fault in faults:
            self._fault(stage, fault)
        self.log(f"with room {stage:8}: {'DIFFERS' if faults else 'as undisturbed'}")

    def _choose_kill(self, stage: str) -> Kill:
        reference = self.references[stage]
        if self.random.random() < SHARE_AT_OPERATIONS:
            return Kill(operation=self.random.randint(1, reference.operations))
        if self.random.random() < SHARE_FROM_START:
            return Kill(after=self.random.uniform(0.0, reference.seconds))
        return Kill(after=self.random.uniform(0.0, reference.seconds - reference.to_first), after_first_file=True)

    def _fault(self, stage: str, text: str | None) -> None:
        self.faults[stage] += 1
        if text:
            self.log(f"FAULT    {stage:8} round {self.rounds[stage]:2}: {text}")

    def table(self) -> str:
        """Kills, rounds, full disks, faults and minutes of the kills of each stage."""
        lines = [f"{'stage':10}{'kills':>7}{'rounds':>8}{'disks':>7}{'faults':>8}{'min':>7}"]
        for stage in (*self.stages, "all"):
            counters = (self.kills, self.rounds, self.disks, self.faults, self.seconds)
            kills, rounds, disks, faults, s = [sum(c.values()) if stage == "all" else c[stage] for c in counters]
            lines.append(f"{stage:10}{kills:7}{rounds:8}{disks:7}{faults:8}{s / 60:7.1f}")
        return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="in all (default 100)")
    parser.add_argument("--disks", type=int, default=0, help="also so many full disks, which root alone may mount")
    parser.add_argument("--seed", type=int, default=0, help="of moments and operations (default 0)")
    parser.add_argument("--folder", type=Path, default=None, help="working folder, kept; default: one that is removed")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="which ones (default: all)")
    options = parser.parse_args(arguments)
    if options.folder is not None and options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"--folder {options.folder}: is not empty")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    torture = Torture(folder, options.seed, tuple(options.stages), log=lambda line: print(line, flush=True))
    torture.prepare()
    faults = torture.torture(options.kills)
    try:
        faults = torture.fill_disks(options.disks)
    except CannotMount as error:
        print(f"no full disks: {error}", file=sys.stderr)
    print(torture.table())
    if faults:
        print(f"{faults} faults; what the killed runs left is in {folder}", file=sys.stderr)
    elif options.folder is None:
        shutil.rmtree(folder)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
