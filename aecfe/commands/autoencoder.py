"""The command `aecfe train`: what it takes."""

import argparse
from collections.abc import Callable

from aecfe.commands.options import GO_ON, GO_ON_WITHOUT_OVERWRITE, add_deterministic, add_overrides, positive, whole


def add_train(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    parser = command(commands, "train", "train", "train the autoencoder on feature stores of one or more centres")
    parser.add_argument("stores", nargs="+", metavar="STORE", help="feature store of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help="folder of the autoencoder")
    parser.add_argument("--config", help="YAML file whose section `autoencoder` gives the settings")
    _add_adaptation(parser.add_argument_group("alignment of the centres"))
    _add_network(parser.add_argument_group("network and losses"))
    parser.add_argument("--steps", type=positive, default=None, help="training steps")
    parser.add_argument("--batch-size", type=positive, default=None, help="cells in a step, over all devices")
    parser.add_argument(
        "--gpus", type=positive, default=None, metavar="N", help="GPUs of this machine that share a batch"
    )
    parser.add_argument(
        "--multi-worker", action="store_true", help="share each batch with the processes that TF_CONFIG names"
    )
    add_deterministic(parser)
    add_overrides(parser)
    parser.add_argument("--seed", type=whole, default=None, help="fixes everything random; default: the config's")
    parser.set_defaults(after_interrupt=GO_ON, after_interrupted_overwrite=GO_ON_WITHOUT_OVERWRITE)


def _add_adaptation(group) -> None:
    group.add_argument(
        "--adaptation",
        metavar="METHOD",
        default=None,
        help="none; mmd: match the first two moments (thesis 2.14); normal: those of N(0, I); adversarial: hide the "
        "centre from a discriminator; kernel-mmd: Gaussian kernels; coral: covariances; or MODULE:FUNCTION, a loss of "
        "your own (docs/add-a-method.md)",
    )
    group.add_argument(
        "--reduction",
        choices=("mean", "sum"),
        default=None,
        help="of the divergence in mmd and normal: mean as the reference implementation, sum as the equation",
    )
    group.add_argument(
        "--adaptation-units",
        choices=("latent", "deviation"),
        default=None,
        help="align latents as they are, or in units of their deviation, so that shrinking them aligns nothing",
    )
    group.add_argument("--beta", type=float, default=None, help="weight of the alignment")
    group.add_argument("--source", default=None, help="centre that the others are brought to; default: the first")
    group.add_argument(
        "--balance",
        choices=("none", "centre", "type"),
        default=None,
        help="cells of a batch: by the sizes of the centres, as many of each centre, or also as many of each cell type "
        "of the source (labels of the others are not looked at)",
    )


def _add_network(group) -> None:
    group.add_argument("--latent-size", type=positive, default=None, help="length of the latent")
    group.add_argument("--image-size", type=int, choices=(128, 64, 32), default=None, help="reconstructed image, px")
    group.add_argument(
        "--image-source", choices=("crop", "image"), default=None, help="reconstruct the cell's box or the whole image"
    )
    group.add_argument(
        "--image-colours",
        choices=("stored", "standardised"),
        default=None,
        help="reconstruct images as they are, or with each channel of each brought to one mean and deviation",
    )
    group.add_argument("--image-loss", choices=("ssim", "mse"), default=None, help="loss of the image")
    group.add_argument(
        "--ssim",
        choices=("tf", "reference"),
        default=None,
        help="SSIM of TensorFlow or of the reference implementation",
    )
    group.add_argument(
        "--group-norm", choices=("keras", "reference"), default=None, help="GroupNorm of Keras or of the reference"
    )
    group.add_argument(
        "--feature-scaling", choices=("minmax", "channel", "centre"), default=None, help="how features are scaled"
    )
    group.add_argument(
        "--precision",
        choices=("float32", "mixed_float16", "mixed_bfloat16"),
        default=None,
        help="of the network; losses of the alignment and SSIM stay float32",
    )
