"""The command `aecfe reproduce`: tables and figures of the thesis, reusing all that is there."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from aecfe.commands import options
from mrcnn.files.errors import InputError

if TYPE_CHECKING:
    from experiments.settings import RunSettings
    from experiments.thesis.oracle_table import Published

CONFIGS = Path(__file__).resolve().parents[2] / "experiments" / "configs"
# Options that stand for settings.
SETTINGS = {
    "data": "data",
    "output": "output",
    "seed": "seed",
    "detector": "detector.folder",
    "runs": "evaluate.runs",
    "test_on": "evaluate.test_on",
    "standardise": "reproduce.ablation.standardise",
    "weights": "reproduce.resnet_weights",
}


def add_parser(commands) -> None:
    """Add the command."""
    summary = "make tables and figures of the thesis, reusing all that is there"
    parser = options.new_command(commands, "reproduce", reproduce, summary)
    tables = "table-3.1 (bottleneck), table-3.2 (ablation), table-3.3 (oracles)"
    targets = f"{tables}, figure-2.6, figure-3.1 to figure-3.14, curves; or tables, figures, all"
    parser.add_argument("targets", nargs="+", metavar="TARGET", help=targets)
    configs = "demo (synthetic smears), real-small, thesis, or a YAML file of that form"
    parser.add_argument("--config", metavar="NAME", default="thesis", help=configs)
    parser.add_argument("--data", metavar="ROOT", help="folder that the centres' roots are relative to")
    parser.add_argument("-o", "--output", help="working folder (default: runs/reproduce-NAME)")
    options.add(parser, {"--centres NAME...": "compare only these centres of the configuration"})
    detector = "take this detector, or one that ships by its name, instead of training one"
    options.add(parser, {"--detector RUN": detector})
    numbers = {
        "--jobs N": "autoencoders to train at a time (default: 2 on several cores without a GPU, else 1)",
        "--runs N": "classifiers for each row (default: the configuration's, or 5)",
    }
    options.add(parser, numbers, type=options.positive)
    cells = "cells of the other centres: their test parts, as in the thesis, or all, as in its authors' code"
    parser.add_argument("--test-on", choices=("test", "all"), help=cells)
    columns = "columns of Table 3.2: features as they are, standardised within each centre without labels, or both"
    parser.add_argument("--standardise", nargs="+", choices=("none", "centre"), help=columns)
    options.add_protocol(parser)
    features = {"--features NAME=FILE...": "vectors made elsewhere (.h5ad or .npz) as further columns of Table 3.2"}
    options.add(parser, features, default=[])
    weights = "the file of keras.applications without its top, imagenet (downloads it), or random"
    options.add(parser, {"--weights FILE": f"ResNet-101 weights of ResNet-RF: {weights}"})
    parser.add_argument("--seed", type=options.whole, help="fixes everything random (default: the configuration's)")
    options.add_overrides(parser)
    group = parser.add_argument_group("a published classifier in Table 3.3")
    texts = {
        "--oracle FILE": "Keras model (.keras or .h5)",
        "--classes FILE": "its classes, one a line, in the order of its outputs",
        "--oracle-centre NAME": "centre that it was trained on, or none (default: the one of layout matek19)",
    }
    options.add(group, texts)
    pixels = "range of the pixels it takes (default: 0..1)"
    group.add_argument("--oracle-pixels", choices=("0..1", "0..255", "-1..1"), help=pixels)
    size = {"--oracle-size PX": "side of its images, if it takes images of any size"}
    options.add(group, size, type=options.positive)


def reproduce(arguments: argparse.Namespace) -> None:
    """Check the arguments, make what they ask for and print the names of the files."""
    from experiments.evaluation.comparison import Protocol
    from experiments.thesis import catalogue
    from experiments.thesis.study import Study
    from mrcnn.files.output_paths import check_output_folder

    targets = catalogue.resolve_targets(arguments.targets)
    features = _features(arguments.features, targets)
    published = _published(arguments, targets)
    settings = _settings(arguments)
    study = Study(settings, jobs=arguments.jobs, overwrite=arguments.overwrite)
    if not study.compared:
        raise InputError("centres: the detector alone is trained on them; give use: all to those that are compared")
    if arguments.oracle_centre not in (None, "none", *study.compared):
        raise InputError(f"--oracle-centre {arguments.oracle_centre}: is none of {', '.join(study.compared)}, none")
    check_output_folder(settings.output)
    on_disk = [name for name, centre in settings.centres.items() if centre.layout != "synthetic"]
    if arguments.data is not None and not on_disk:
        raise InputError(f"--data: the centres of {settings.name} are synthetic; leave it out, or give --config")
    if on_disk and not Path(settings.data).is_dir():
        raise InputError(f"--data: name the folder of the centres {', '.join(on_disk)}; {settings.data} is none")
    if arguments.jobs is not None and arguments.jobs > 1:
        # Else this process, which trains the detector, would leave the others nothing of a GPU's memory.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    runs, test_on, bootstrap = settings.evaluate.runs, settings.evaluate.test_on, settings.reproduce.bootstrap
    protocol = Protocol(arguments.protocol, runs, settings.seed, test_on, bootstrap, jobs=os.cpu_count() or 1)
    for path in catalogue.reproduce(study, targets, protocol, features, published):
        print(path)


def _settings(arguments: argparse.Namespace) -> "RunSettings":
    """The configuration, changed as the options say."""
    from experiments.settings import load_settings, parse_changes

    path = CONFIGS / f"{arguments.config}.yaml"
    if not path.is_file():
        path = Path(arguments.config)
        if path.suffix.lower() not in (".yaml", ".yml"):
            known = ", ".join(sorted(each.stem for each in CONFIGS.glob("*.yaml")))
            raise InputError(f"--config {arguments.config}: is none of {known}, and no .yaml file")
    changes = parse_changes(arguments.overrides)
    given = {setting: getattr(arguments, option) for option, setting in SETTINGS.items()}
    changes |= {setting: value for setting, value in given.items() if value is not None}
    settings = load_settings(path, changes)
    if "output" not in changes:
        settings = settings.replace(output=f"runs/reproduce-{settings.name}")
    return settings if arguments.centres is None else _keep_centres(settings, arguments.centres)


def _keep_centres(settings: "RunSettings", names: list[str]) -> "RunSettings":
    """Leave out the centres that are not to be compared; those that the detector is trained on stay for it."""
    unknown = [name for name in names if name not in settings.centres]
    if unknown:
        raise InputError(f"--centres {unknown[0]}: is none of {', '.join(settings.centres)}")
    if not any(settings.centres[name].use == "all" for name in names):
        raise InputError(f"--centres {names[0]}: only the detector is trained on it; name one that is compared")
    kept = {
        name: centre if name in names else centre.replace(use="detector")
        for name, centre in settings.centres.items()
        if name in (*names, *settings.detector.train_on)
    }
    source = settings.autoencoder.get("source_centre")
    if source not in (None, *names):
        raise InputError(f"--centres: leaves out {source}, the autoencoder.source_centre; name it too")
    return settings.replace(centres=kept)


def _published(arguments: argparse.Namespace, targets: list[str]) -> "Published | None":
    """What the options tell of the published classifier."""
    from experiments.thesis.oracle_table import Published

    if (arguments.oracle is None) != (arguments.classes is None):
        raise InputError("--oracle and --classes belong together: the model, and the file of its classes")
    if arguments.oracle is None:
        for option in ("centre", "size", "pixels"):
            if getattr(arguments, f"oracle_{option}") is not None:
                raise InputError(f"--oracle-{option} tells of the model of --oracle, and none is given")
        return None
    if "table-3.3" not in targets:
        raise InputError("--oracle: is a column of table-3.3, which is not asked for")
    model, classes = _file(arguments.oracle, "--oracle"), _file(arguments.classes, "--classes")
    return Published(model, classes, arguments.oracle_centre, arguments.oracle_pixels or "0..1", arguments.oracle_size)


def _features(texts: list[str], targets: list[str]) -> dict[str, Path]:
    """Files of the option --features by the name of their column."""
    features: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        name = name.strip()
        if not equals or not name or not path:
            raise InputError(f"--features {text}: write it as NAME=FILE, for example DinoBloom=dinobloom.npz")
        if name in features:
            raise InputError(f"--features: two columns are called {name}; give one of them another name")
        features[name] = _file(path, f"--features {name}")
    if features and "table-3.2" not in targets:
        raise InputError("--features: are columns of table-3.2, which is not asked for")
    return features


def _file(path: str, option: str) -> Path:
    if not Path(path).is_file():
        raise InputError(f"{option} {path}: no such file")
    return Path(path)
