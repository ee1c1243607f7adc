"""Every table and figure of the thesis by its name: `aecfe reproduce table-3.2`."""

import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from experiments.comparison import Protocol
from experiments.settings import RunSettings
from experiments.study import Study
from mrcnn.atomic import write_json
from mrcnn.errors import InputError

log = logging.getLogger(__name__)

TABLES = ("table-3.1", "table-3.2", "table-3.3")
RECONSTRUCTIONS = tuple(f"figure-3.{number}" for number in range(6, 14))
SAMPLES = ("figure-3.1", "figure-3.2", "figure-3.3")
FIGURES = ("figure-2.6", *SAMPLES, "figure-3.4", "figure-3.5", *RECONSTRUCTIONS, "figure-3.14", "curves")
GROUPS = {"tables": TABLES, "figures": FIGURES, "all": (*FIGURES, *TABLES)}
TIMES = "times.json"


@dataclass(frozen=True)
class Options:
    """What the command line says beside the settings.

    Attributes:
        protocol: how representations are compared.
        features: vectors made elsewhere, by the name of their column.
        published: a published classifier for Table 3.3, as `experiments.oracle_table.Published` takes it, or None.
        command: the command line.
    """

    protocol: Protocol
    features: Mapping[str, Path] = field(default_factory=dict)
    published: Mapping[str, object] | None = None
    command: Sequence[str] = field(default_factory=lambda: tuple(sys.argv))


def resolve_targets(names: Iterable[str]) -> list[str]:
    """The tables and figures that some names stand for, each once, figures of data first.

    Raises:
        InputError: for a name that is none.
    """
    wanted = set()
    for name in names:
        if name not in (*GROUPS, *GROUPS["all"]):
            raise InputError(f"reproduce {name}: is none of {', '.join((*GROUPS, *GROUPS['all']))}")
        wanted.update(GROUPS.get(name, (name,)))
    return [name for name in GROUPS["all"] if name in wanted]


def reproduce(settings: RunSettings, targets: Sequence[str], options: Options, study: Study) -> list[Path]:
    """Make tables and figures, and write them below the study's folder.

    Args:
        settings: resolved settings.
        targets: as from `resolve_targets`.
        options: of the command line.
        study: what they are made from.

    Returns:
        The files that were written; of each table its Markdown, of each figure its PNG.

    Raises:
        InputError: if something that a target needs is missing or does not fit.
    """
    study.write_config()
    written: list[Path] = []
    for number, name in enumerate(targets, 1):
        log.info("[%d/%d] %s", number, len(targets), name)
        started = time.monotonic()
        written += _MAKERS[name](settings, name, options, study, started)
        log.info("[%d/%d] %s: %.0f s", number, len(targets), name, time.monotonic() - started)
    return written


def describe_machine() -> str:
    """Processor, cores, memory and GPUs, in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    return f"{os.cpu_count()} cores of {model}{memory}, {f'{gpus} GPUs' if gpus else 'no GPU'}"


def _provenance(study: Study, options: Options, name: str, started: float) -> dict[str, str]:
    """Lines that say what made a table."""
    seconds = _longest_time(study, name, time.monotonic() - started)
    names = ("tensorflow", "keras", "numpy", "scikit-learn")
    return {
        "command": f"`{_command_text(options)}`",
        "configuration": f"{study.settings.name}, hash {study.config_hash()}, seed {study.settings.seed}",
        "machine": describe_machine(),
        "time": f"{seconds / 60:.1f} min (the longest that this table took; what an earlier call left is read again)",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)]),
    }


def _command_text(options: Options) -> str:
    program, *rest = options.command
    return shlex.join([Path(program).name, *rest])


def _longest_time(study: Study, name: str, seconds: float) -> float:
    """Keep the longest time of each table, which is that of making it and not of reading it again."""
    path = study.output / TIMES
    try:
        times = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        times = {}
    if seconds > times.get(name, 0.0):
        times[name] = round(seconds, 1)
        write_json(path, times)
    return times[name]


def _make_table_3_1(settings: RunSettings, name: str, options: Options, study: Study, started: float) -> list[Path]:
    from experiments.bottleneck import make_bottleneck, write_bottleneck
    from experiments.thesis_figures import bottleneck_figure
    from experiments.thesis_numbers import thesis_centres

    result = make_bottleneck(study, options.protocol)
    thesis = thesis_centres(study.centres, settings.scheme).get(result.centre)
    provenance = _provenance(study, options, name, started)
    paths = write_bottleneck(result, study.output / "tables", options.protocol, provenance, thesis)
    return [paths["md"], *_save([bottleneck_figure(result)], options, study)]


def _make_table_3_2(settings: RunSettings, name: str, options: Options, study: Study, started: float) -> list[Path]:
    from experiments.ablation import make_ablation

    comparison = make_ablation(study, options.protocol, options.features)
    title = "Representations across centres (thesis Table 3.2)"
    return _write_comparison(comparison, name, title, settings, options, study, started)


def _make_table_3_3(settings: RunSettings, name: str, options: Options, study: Study, started: float) -> list[Path]:
    from experiments.oracle_table import Published, make_oracles

    published = None if options.published is None else Published(**options.published)
    comparison = make_oracles(study, options.protocol, published)
    title = "Networks trained on one centre, and AE-CFE (thesis Table 3.3)"
    return _write_comparison(comparison, name, title, settings, options, study, started)


def _write_comparison(comparison, name, title, settings, options, study, started) -> list[Path]:
    from experiments.comparison_tables import Heading, write_comparison
    from experiments.thesis_figures import comparison_figures
    from experiments.thesis_numbers import thesis_centres

    heading = Heading(
        name,
        title,
        _provenance(study, options, name, started),
        thesis_centres(study.centres, settings.scheme),
        settings.reproduce.ablation.reference,
    )
    paths = write_comparison(comparison, study.output / "tables", heading)
    return [paths["md"], *_save(comparison_figures(comparison, name), options, study)]


def _make_figure(settings: RunSettings, name: str, options: Options, study: Study, started: float) -> list[Path]:
    from experiments import thesis_figures as figures

    makers: dict[str, Callable[[], Iterable[figures.Drawing]]] = {
        "figure-2.6": lambda: figures.augmentation_sheet(study),
        "figure-3.4": lambda: figures.class_distribution(study),
        "figure-3.5": lambda: figures.segmentations(study),
        "figure-3.14": lambda: figures.maps(study),
        "curves": lambda: figures.training_curves(study),
    }
    if name in SAMPLES:
        drawings = figures.sample_sheets(study, [int(name.rpartition(".")[2])])
    elif name in RECONSTRUCTIONS:
        drawings = figures.reconstructions(study, [name])
    else:
        drawings = makers[name]()
    return _save(drawings, options, study)


def _save(drawings: Iterable, options: Options, study: Study) -> list[Path]:
    """Save drawings below `figures/`; returns the PNG files."""
    from experiments.figure_files import Provenance, save_figure

    written = []
    for drawing in drawings:
        provenance = Provenance(
            command=_command_text(options),
            config_hash=study.config_hash(),
            inputs=dict(drawing.inputs),
            software=f"aecfe {version('aecfe')}",
        )
        written.append(
            save_figure(drawing.figure, study.output / "figures", drawing.name, drawing.title, provenance)["png"]
        )
    return written


_MAKERS: dict[str, Callable[[RunSettings, str, Options, Study, float], list[Path]]] = {
    **dict.fromkeys(FIGURES, _make_figure),
    "table-3.1": _make_table_3_1,
    "table-3.2": _make_table_3_2,
    "table-3.3": _make_table_3_3,
}
