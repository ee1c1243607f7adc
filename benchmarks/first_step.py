"""Time from the built detector of the demo to its first training step and first validation, and of a later step.

    python benchmarks/first_step.py

Prints seconds of the clock and of the processor, in the order in which a training spends them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tensorflow as tf
import yaml

from benchmarks.stages import Smears
from mrcnn.config import SmearConfig, make_config
from mrcnn.data.batches import TrainingImages
from mrcnn.model import MaskRCNN
from mrcnn.training import loop

CONFIG = Path(__file__).resolve().parents[1] / "experiments" / "configs" / "demo.yaml"
STEPS = 8


def measure(name: str, work: Callable[[], Any], times: int = 1) -> None:
    """Print what one of several runs of `work` takes."""
    started = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    clock, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"{name:24}{clock / times:8.2f} s {processor / times:8.2f} s of the processor")


def main() -> None:
    """Measure a training step of the demo's detector with random weights."""
    values = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config = make_config({**values["detector"]["settings"], "SEED": 0}, SmearConfig)
    with tempfile.TemporaryDirectory() as folder:
        trainer = MaskRCNN("training", config, folder).keras_model
    loop.compile_detector(trainer, config.LEARNING_RATE, 100)
    batch = TrainingImages([Smears(8, 128)], config, config.BATCH_SIZE)[0]
    batch = {name: tf.constant(value) for name, value in batch.items()}
    train, validate = tf.function(trainer.train_step), tf.function(trainer.test_step)
    with loop._without_graph_rewriting():
        measure("tracing", lambda: train.get_concrete_function(batch))
        measure("first step", lambda: train(batch))
        measure("a later step", lambda: train(batch), STEPS)
        measure("first validation", lambda: validate(batch))
    print(f"{len(train.get_concrete_function(batch).graph.get_operations())} operations in the graph")


if __name__ == "__main__":
    main()
