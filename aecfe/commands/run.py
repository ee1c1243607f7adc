"""The commands `aecfe run` and `aecfe report`: every stage of a configuration, and the page of a run."""

import argparse
from pathlib import Path

from aecfe.commands.options import add, add_deterministic, add_overrides, chosen, new_command, obey_deterministic, whole
from mrcnn.files.errors import InputError


def add_parser(commands) -> None:
    """Add the commands."""
    summary = "run every stage of a configuration, from smears to the report"
    parser = new_command(commands, "run", run, summary)
    parser.add_argument("config", help="YAML file, for example experiments/configs/demo.yaml")
    parser.add_argument("--data", help="folder that the centres' roots are relative to (default: the file's)")
    parser.add_argument("-o", "--output", help="folder of the run (default: the file's, or else runs/NAME)")
    parser.add_argument("--seed", type=whole, help="fixes everything random (default: the file's)")
    add(parser, {"--detector RUN": "take this detector, or one that ships by its name, instead of training one"})
    add_deterministic(parser)
    add_overrides(parser)

    parser = new_command(commands, "report", report, "write report.html of a run", overwrite=False)
    parser.add_argument("run", help="folder of a run that `aecfe run` made")


def run(arguments: argparse.Namespace) -> None:
    """Run every stage of a configuration."""
    from experiments.cells.models import add_cards
    from experiments.pipeline import Pipeline
    from experiments.settings import load_settings, parse_changes
    from mrcnn.files.output_paths import check_output_folder

    given = chosen(arguments, "data", "output", "seed")
    given["detector.folder"] = arguments.detector
    changes = parse_changes(arguments.overrides) | {n: v for n, v in given.items() if v is not None}
    settings = load_settings(arguments.config, changes)
    check_output_folder(settings.output)
    obey_deterministic(arguments)
    page = Pipeline(settings, overwrite=arguments.overwrite).run()
    add_cards(Path(settings.output))
    print((Path(settings.output) / "tables" / "cross_centre.txt").read_text(encoding="utf-8"))
    print(f"report: {page}")


def report(arguments: argparse.Namespace) -> None:
    """Write the page of a run."""
    from experiments.pipeline import CONFIG, Pipeline
    from experiments.settings import load_settings
    from mrcnn.files.atomic import OutputLock
    from mrcnn.files.output_paths import check_output_folder

    path = Path(arguments.run) / CONFIG
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a folder that `aecfe run` made")
    settings = load_settings(path, {"output": arguments.run})
    check_output_folder(arguments.run, "run")
    with OutputLock(arguments.run, inside=True):
        print(f"report: {Pipeline(settings).report()}")
