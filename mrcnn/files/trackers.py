"""Trackers of experiments: each epoch of a training in Weights & Biases, MLflow or TensorBoard."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
from typing_extensions import Self

from mrcnn.files.errors import InputError, one_line


class Tracker(keras.callbacks.Callback):
    """Hand the epochs of a training to the callback that `open_run` gives in a block.

    The run is opened when the training begins, so that none is made for a training that is only reused or refused. It
    ends with the block of this tracker: as failed if an error leaves it, whether or not Keras told of an end.
    """

    def __init__(self, name: str, open_run: Callable[[], AbstractContextManager[keras.callbacks.Callback]]):
        super().__init__()
        self._name, self._open_run, self._stack = name, open_run, ExitStack()
        self._callback: keras.callbacks.Callback | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Open the run; an `InputError` says why it cannot be."""
        if self._callback is None:
            try:
                self._callback = self._stack.enter_context(self._open_run())
            except Exception as error:  # whatever the trackers and their servers raise
                raise InputError(f"--tracker {self._name}: {one_line(error)}; mend that or leave it out") from error
            self._callback.set_params(self.params)
            self._callback.set_model(self.model)
            self._callback.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Log what was measured."""
        self._callback.on_epoch_end(epoch, logs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def tracker_callback(name: str, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    """Make the callback that logs the epochs of a training; use it in a block that ends its run.

    Servers, projects and modes are those of the variables WANDB_* and MLFLOW_*. Without MLFLOW_TRACKING_URI, MLflow
    writes to `mlruns/` in the current folder. It sends no statistics of its use to its makers unless
    MLFLOW_DISABLE_TELEMETRY is false.

    Args:
        name: "wandb", "mlflow" or "tensorboard".
        folder: of what is trained; its name is the run's. TensorBoard writes to `tensorboard/` in it.
        settings: what the run notes as its parameters.

    Raises:
        InputError: if a package is missing.
    """
    if name == "mlflow":
        # Else the default is a database, which needs more packages; files must be allowed.
        os.environ.setdefault("MLFLOW_TRACKING_URI", Path("mlruns").absolute().as_uri())
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at the import
    open_run, module = {
        "wandb": (_wandb_run, "wandb.integration.keras"),
        "mlflow": (_mlflow_run, "mlflow.keras"),
        "tensorboard": (_tensorboard_run, "tensorboard"),
    }[name]
    try:
        import_module(module)
    except ImportError as error:
        raise InputError(f"--tracker {name}: {one_line(error)}; pip install 'aecfe[tracking]'") from None
    return Tracker(name, partial(open_run, Path(folder).absolute(), settings))


@contextmanager
def _wandb_run(folder: Path, settings: Mapping[str, Any]) -> Iterator[keras.callbacks.Callback]:
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    run = wandb.init(name=folder.name, project=os.environ.get("WANDB_PROJECT", "aecfe"), config=dict(settings))
    has_failed = True
    try:  # the run's own block would print the traceback of what the user can mend
        yield WandbMetricsLogger()
        has_failed = False
    finally:
        run.finish(exit_code=int(has_failed))


@contextmanager
def _mlflow_run(folder: Path, settings: Mapping[str, Any]) -> Iterator[keras.callbacks.Callback]:
    import mlflow
    from mlflow.keras import MlflowCallback

    with mlflow.start_run(run_name=folder.name):
        mlflow.log_params(settings)
        yield MlflowCallback()


@contextmanager
def _tensorboard_run(folder: Path, settings: Mapping[str, Any]) -> Iterator[keras.callbacks.Callback]:
    callback = keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)
    try:
        yield callback
    finally:
        callback.on_train_end()  # closes its files
