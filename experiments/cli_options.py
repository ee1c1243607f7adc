"""What several commands take and say: options, types of arguments, and how to go on after an interruption."""

import argparse

from mrcnn.errors import InputError

GO_ON = "run the same command again to go on from here"
GO_ON_WITHOUT_OVERWRITE = "run the same command without --overwrite to go on from here"
START_AGAIN = "nothing was written; the same command starts again"
OVERRIDE_HELP = "override a setting, for example --set detector.epochs=3 (may be repeated)"


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the option `--seed`, which is 0 if left out."""
    parser.add_argument("--seed", type=whole, default=0, help="fixes everything random")


def add_deterministic(parser: argparse.ArgumentParser) -> None:
    """Add the option `--deterministic`."""
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="compute on one thread, so that the same seed gives the same numbers to the last bit (slower; CPU only)",
    )


def shard(text: str):
    """Read I/N as a `mrcnn.shards.Shard`."""
    from mrcnn.shards import Shard

    try:
        return Shard.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def whole(text: str) -> int:
    """Read a whole number of 0 or more."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must not be negative")
    return value
