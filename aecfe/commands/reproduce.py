"""The command `aecfe reproduce`: its arguments, and what it does with them."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aecfe.commands.options import GO_ON, GO_ON_WITHOUT_OVERWRITE, add_overrides, add_protocol
from mrcnn.files.errors import InputError

if TYPE_CHECKING:
    from experiments.settings import RunSettings

CONFIGS = Path(__file__).resolve().parents[2] / "experiments" / "configs"
LARGEST_SEED = 2**31 - 1  # further ones are counted up from it, and scikit-learn takes no more than twice as much


def add_reproduce(commands, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command to the parser.

    Args:
        commands: subparsers of `aecfe`.
        command: adds a command that calls a function of `aecfe.commands.actions`, see `aecfe.cli`.
    """
    parser = command(
        commands, "reproduce", "reproduce", "make tables and figures of the thesis, reusing all that is there"
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="table-3.1 (bottleneck), table-3.2 (ablation), table-3.3 (oracles), figure-2.6, figure-3.1 to "
        "figure-3.14, curves; or tables, figures, all",
    )
    parser.add_argument(
        "--config",
        default="thesis",
        metavar="NAME",
        help="demo (drawn smears), real-small, thesis, or a YAML file of that form",
    )
    parser.add_argument("--data", metavar="ROOT", help="folder that the centres' roots are relative to")
    parser.add_argument("-o", "--output", help="working folder; default: runs/reproduce-NAME")
    parser.add_argument("--centres", nargs="+", metavar="NAME", help="compare only these centres of the configuration")
    parser.add_argument(
        "--jobs",
        type=int,
        default=None,
        metavar="N",
        help="autoencoders to train at a time; default: 2 on several cores without a GPU, else 1",
    )
    parser.add_argument("--runs", type=int, default=None, metavar="N", help="classifiers for each row; default: 5")
    parser.add_argument(
        "--test-on",
        choices=("test", "all"),
        default=None,
        help="cells of the other centres: their test parts, as in the thesis, or all, as in its authors' code",
    )
    parser.add_argument(
        "--standardise",
        nargs="+",
        choices=("none", "centre"),
        default=None,
        help="columns of Table 3.2: features as they are, standardised within each centre without labels, or both",
    )
    add_protocol(parser)
    parser.add_argument(
        "--features",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="vectors made elsewhere (.h5ad or .npz) as further columns of Table 3.2",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="ResNet-101 weights of ResNet-RF: the file of keras.applications without its top, imagenet (downloads "
        "it), or random",
    )
    parser.add_argument("--oracle", metavar="FILE", help="published Keras classifier for Table 3.3 (.keras or .h5)")
    parser.add_argument("--classes", metavar="FILE", help="its classes, one a line, in the order of its outputs")
    parser.add_argument(
        "--oracle-centre",
        metavar="NAME",
        help="centre that it learned from, or none; default: the one of layout matek19",
    )
    parser.add_argument(
        "--oracle-pixels",
        choices=("0..1", "0..255", "-1..1"),
        default=None,
        help="range of the pixels that it takes; default: 0..1",
    )
    parser.add_argument(
        "--oracle-size", type=int, metavar="PX", help="side of the images that it takes, if it takes images of any size"
    )
    parser.add_argument("--seed", type=int, default=None, help="fixes everything random; default: the configuration's")
    add_overrides(parser)
    parser.set_defaults(after_interrupt=GO_ON, after_interrupted_overwrite=GO_ON_WITHOUT_OVERWRITE)


def reproduce_command(arguments: argparse.Namespace) -> None:
    """Check the arguments, make what they ask for and print the names of the files."""
    from experiments.settings import load_settings
    from experiments.thesis.catalogue import Options, reproduce, resolve_targets
    from mrcnn.files.output_paths import check_output_folder

    targets = resolve_targets(arguments.targets)
    features = _features(arguments, targets)
    for option in ("jobs", "runs", "oracle-size"):
        value = getattr(arguments, option.replace("-", "_"))
        if value is not None and value < 1:
            raise InputError(f"--{option} must be 1 or more; got {value}")
    _check_oracle(arguments, targets)
    settings = load_settings(*_config(arguments))
    if settings.evaluate.runs < 1:
        raise InputError(f"evaluate.runs must be 1 or more; got {settings.evaluate.runs}")
    if not 0 <= settings.seed <= LARGEST_SEED:
        raise InputError(f"--seed must be a number from 0 to {LARGEST_SEED}; got {settings.seed}")
    if arguments.output is None and not any(text.startswith("output=") for text in arguments.overrides):
        settings.output = f"runs/reproduce-{settings.name}"
    _keep_centres(settings, arguments.centres)
    compared = [name for name, centre in settings.centres.items() if centre.use == "all"]
    if not compared:
        raise InputError("centres: only the detector learns from them; give use: all to those that are compared")
    if arguments.oracle_centre not in (None, "none", *compared):
        raise InputError(f"--oracle-centre {arguments.oracle_centre}: is none of {', '.join(compared)}, none")
    check_output_folder(settings.output)
    _check_data(settings, arguments.data)
    if arguments.jobs is not None and arguments.jobs > 1:
        # Else this process, which trains the detector, would leave the others nothing of a GPU's memory.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

    from experiments.evaluation.comparison import Protocol  # imports scikit-learn
    from experiments.thesis.study import Study

    evaluate = settings.evaluate
    protocol = Protocol(
        name=arguments.protocol,
        runs=evaluate.runs,
        seed=settings.seed,
        test_on=evaluate.test_on,
        bootstrap=settings.reproduce.bootstrap,
        jobs=os.cpu_count() or 1,
    )
    published = None
    if arguments.oracle is not None:
        published = {
            "model": Path(arguments.oracle),
            "classes": Path(arguments.classes),
            "centre": arguments.oracle_centre,
            "pixels": arguments.oracle_pixels or "0..1",
            "image_size": arguments.oracle_size,
        }
    study = Study(settings, jobs=arguments.jobs, overwrite=arguments.overwrite)
    for path in reproduce(settings, targets, Options(protocol, features, published), study):
        print(path)


def _config(arguments: argparse.Namespace) -> tuple[Path, list[str]]:
    """The configuration's file, and the overrides that the arguments amount to."""
    path = CONFIGS / f"{arguments.config}.yaml"
    if not path.is_file():
        path = Path(arguments.config)
        if path.suffix.lower() not in (".yaml", ".yml"):
            known = ", ".join(sorted(each.stem for each in CONFIGS.glob("*.yaml")))
            raise InputError(f"--config {arguments.config}: is none of {known}, and no .yaml file")
    overrides = list(arguments.overrides)
    for name, key in (
        ("data", "data"),
        ("output", "output"),
        ("seed", "seed"),
        ("runs", "evaluate.runs"),
        ("test_on", "evaluate.test_on"),
        ("standardise", "reproduce.ablation.standardise"),
        ("weights", "reproduce.resnet_weights"),
    ):
        value = getattr(arguments, name)
        if value is not None:
            overrides.append(f"{key}={json.dumps(value)}")
    return path, overrides


def _keep_centres(settings: "RunSettings", names: list[str] | None) -> None:
    """Leave out the centres that are not to be compared; those that the detector learns from stay for it."""
    if names is None:
        return
    unknown = [name for name in names if name not in settings.centres]
    if unknown:
        raise InputError(f"--centres {unknown[0]}: is none of {', '.join(settings.centres)}")
    kept = {}
    for name, centre in settings.centres.items():
        if name in names:
            kept[name] = centre
        elif name in settings.detector.train_on:
            centre.use = "detector"
            kept[name] = centre
    settings.centres = kept
    if not any(kept[name].use == "all" for name in names):
        raise InputError(f"--centres {names[0]}: only the detector learns from it; name one that is compared")
    for setting, needed in (
        ("autoencoder.source_centre", settings.autoencoder.get("source_centre")),
        ("reproduce.bottleneck.centre", settings.reproduce.bottleneck.centre),
    ):
        if needed is not None and needed not in names:
            raise InputError(f"--centres: leaves out {needed}, the {setting}; name it too, or --set {setting}=")


def _check_data(settings: "RunSettings", given: str | None) -> None:
    """Check that there is a folder of data where one is needed, and none where everything is drawn."""
    on_disk = [name for name, centre in settings.centres.items() if centre.layout != "synthetic"]
    if given is not None and not on_disk:
        raise InputError(f"--data: the centres of {settings.name} are drawn; leave it out, or give another --config")
    if on_disk and not Path(settings.data).is_dir():
        raise InputError(f"--data: name the folder of the centres {', '.join(on_disk)}; {settings.data} is none")


def _check_oracle(arguments: argparse.Namespace, targets: list[str]) -> None:
    """Check what can be told of the published classifier before it is loaded."""
    if (arguments.oracle is None) != (arguments.classes is None):
        raise InputError("--oracle and --classes belong together: the model, and the file of its classes")
    if arguments.oracle is None:
        for option in ("oracle-centre", "oracle-size", "oracle-pixels"):
            if getattr(arguments, option.replace("-", "_")) is not None:
                raise InputError(f"--{option} tells of the model of --oracle, and none is given")
        return
    if "table-3.3" not in targets:
        raise InputError("--oracle: is a column of table-3.3, which is not asked for")
    for option in ("oracle", "classes"):
        if not Path(getattr(arguments, option)).is_file():
            raise InputError(f"--{option} {getattr(arguments, option)}: no such file")


def _features(arguments: argparse.Namespace, targets: list[str]) -> dict[str, Path]:
    """Files of the option --features by the name of their column."""
    features: dict[str, Path] = {}
    for text in arguments.features:
        name, equals, path = text.partition("=")
        if not equals or not name.strip() or not path:
            raise InputError(f"--features {text}: write it as NAME=FILE, for example DinoBloom=dinobloom.npz")
        if name.strip() in features:
            raise InputError(f"--features: two columns are called {name.strip()}; give one of them another name")
        if not Path(path).is_file():
            raise InputError(f"--features {text}: no such file {path}")
        features[name.strip()] = Path(path)
    if features and "table-3.2" not in targets:
        raise InputError("--features: are columns of table-3.2, which is not asked for")
    return features
