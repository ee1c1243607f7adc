"""The commands `aecfe train` and `aecfe embed`: training an autoencoder, and the latents of cells."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from aecfe.commands import options
from autoencoder.config import AutoencoderConfig
from mrcnn.files.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

# Options that are not called as their settings.
OPTIONS = {"adaptation_reduction": "--reduction", "source_centre": "--source", "global_batch_size": "--batch-size"}


def add_parser(commands) -> None:
    """Add the commands."""
    summary = "train the autoencoder on feature files of one or more centres"
    parser = options.new_command(commands, "train", train, summary)
    parser.add_argument("stores", nargs="+", metavar="FILE", help="feature file of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help="folder of the autoencoder")
    parser.add_argument("--config", help="YAML file whose section `autoencoder` gives the settings")
    parser.add_argument("--gpus", type=options.positive, metavar="N", help="GPUs of this machine that share a batch")
    options.add(parser, {"--multi-worker": "share each batch with the processes that TF_CONFIG names"})
    options.add_deterministic(parser)
    options.add_tracker(parser)
    options.add_overrides(parser)
    options.add_settings(
        parser.add_argument_group("settings (they win over --config and --set)"), AutoencoderConfig, OPTIONS
    )

    summary = "write the latents of every cell to an .h5ad file"
    parser = options.new_command(commands, "embed", embed, summary, overwrite=False)
    parser.add_argument("autoencoder", help="folder of a trained autoencoder")
    parser.add_argument("stores", nargs="+", metavar="FILE", help="feature file of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help=".h5ad file to write")
    parser.add_argument("--splits", help="folder of splits (a run's splits/) to note in the embedding")


def train(arguments: argparse.Namespace) -> None:
    """Train an autoencoder."""
    from mrcnn.feature_store import stores_by_centre

    values = options.section_values(arguments, "autoencoder") | options.given_settings(arguments, AutoencoderConfig)
    config = AutoencoderConfig.from_dict(values)
    options.check_run_folder(arguments)
    stores = stores_by_centre(arguments.stores)
    options.obey_deterministic(arguments)
    strategy = _strategy(arguments)  # before TensorFlow has computed anything

    from autoencoder.training import train_autoencoder
    from experiments.cells.models import add_cards

    output = Path(arguments.output)
    with options.tracking(arguments, config.to_dict(), strategy) as callbacks:
        resume = not arguments.overwrite
        train_autoencoder(config, stores, output, strategy=strategy, resume=resume, callbacks=callbacks)
    add_cards(output)
    print(output)


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
    """Write latents."""
    from experiments.centres.splits import load_split
    from mrcnn.feature_store import stores_by_centre
    from mrcnn.files.output_paths import check_output_file

    check_output_file(arguments.output)
    stores = stores_by_centre(arguments.stores)
    splits = None
    if arguments.splits:
        splits = {name: load_split(Path(arguments.splits) / f"{name}.json").part_of for name in stores}

    from autoencoder.embedding import embed as embed_stores

    table = embed_stores(arguments.autoencoder, stores, arguments.output, splits=splits)
    print(f"{arguments.output}: {table.n_obs} cells, {table.n_vars} latents each")
