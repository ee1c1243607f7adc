"""What `aecfe train` and `aecfe embed` do with their arguments."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from aecfe.commands.checks import check_run_folder, named_stores, obey_deterministic, section_values
from experiments.cells.models import add_cards
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import check_output_file

if TYPE_CHECKING:
    import tensorflow as tf

# Options of `aecfe train` that are called as the settings.
AUTOENCODER_FLAGS = (
    "adaptation",
    "adaptation_units",
    "balance",
    "beta",
    "feature_scaling",
    "group_norm",
    "image_colours",
    "image_loss",
    "image_size",
    "image_source",
    "latent_size",
    "precision",
    "seed",
    "ssim",
    "steps",
)


def train(arguments: argparse.Namespace) -> None:
    """`aecfe train`: train an autoencoder."""
    values = section_values(arguments, "autoencoder")
    renamed = {
        "adaptation_reduction": arguments.reduction,
        "source_centre": arguments.source,
        "global_batch_size": arguments.batch_size,
    }
    alike = {name: getattr(arguments, name) for name in AUTOENCODER_FLAGS}
    values.update({key: value for key, value in (renamed | alike).items() if value is not None})
    check_run_folder(arguments)
    stores = named_stores(arguments.stores)

    from autoencoder.config import AutoencoderConfig

    config = AutoencoderConfig.from_dict(values)
    obey_deterministic(arguments)
    strategy = _strategy(arguments)  # before TensorFlow has computed anything

    from autoencoder.training import train_autoencoder

    output, resume = Path(arguments.output), not arguments.overwrite
    train_autoencoder(config, stores, output, strategy=strategy, resume=resume)
    add_cards(output)
    print(arguments.output)


def _strategy(arguments: argparse.Namespace) -> "tf.distribute.Strategy | None":
    """How several devices share a batch, if they do."""
    from mrcnn.files.devices import mirrored_strategy, multi_worker_strategy

    if arguments.multi_worker and arguments.gpus:
        raise InputError(
            "--gpus and --multi-worker exclude each other; CUDA_VISIBLE_DEVICES chooses the GPUs of a worker"
        )
    if arguments.multi_worker:
        return multi_worker_strategy()
    return mirrored_strategy(arguments.gpus, option="--gpus") if arguments.gpus else None


def embed(arguments: argparse.Namespace) -> None:
    """`aecfe embed`: write latents."""
    from experiments.centres.splits import load_split

    check_output_file(arguments.output)
    stores = named_stores(arguments.stores)
    splits = None
    if arguments.splits:
        splits = {name: load_split(Path(arguments.splits) / f"{name}.json").part_of for name in stores}

    from autoencoder.embedding import embed as embed_stores

    table = embed_stores(arguments.autoencoder, stores, arguments.output, splits=splits)
    print(f"{arguments.output}: {table.n_obs} cells, {table.n_vars} latents each")
