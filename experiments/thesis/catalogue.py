"""Catalogue of the thesis: every table and figure by its name, as in `aecfe reproduce table-3.2`."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.evaluation.comparison import STANDARDISED, Comparison, Protocol
from experiments.settings import COLUMNS, RESNET, RunSettings
from experiments.thesis.study import Study
from mrcnn.files.atomic import OutputLock, write_json
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import command_text, machine_text, versions_text

if TYPE_CHECKING:
    from experiments.thesis.figures import Drawing

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
        published: a published classifier for Table 3.3, as `oracle_table.Published` takes it, or None.
    """

    protocol: Protocol
    features: Mapping[str, Path] = field(default_factory=dict)
    published: Mapping[str, object] | None = None


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
        settings: of the study.
        targets: as from `resolve_targets`.
        options: of the command line.
        study: what they are made from.

    Returns:
        The files that were written; of each table its Markdown, of each figure its PNG.

    Raises:
        InputError: if something that a target needs is missing or does not fit, or another run is writing the folder.
    """
    check_targets(settings, targets, options, study)
    written: list[Path] = []
    with OutputLock(study.output, inside=True):
        write_json(study.output / "config.json", settings.to_dict())
        for number, name in enumerate(targets, 1):
            log.info("[%d/%d] %s", number, len(targets), name)
            started = time.monotonic()
            if name in RECONSTRUCTIONS:
                from experiments.thesis.figures import train_reconstructions

                train_reconstructions(study, [target for target in targets if target in RECONSTRUCTIONS])
            made = _TABLES[name](study, options, started) if name in TABLES else _make_figure(study, name)
            files = ", ".join(map(str, made)) or "nothing to draw"
            log.info("[%d/%d] %s: %.0f s, %s", number, len(targets), name, time.monotonic() - started, files)
            written += made
    return written


def check_targets(settings: RunSettings, targets: Iterable[str], options: Options, study: Study) -> None:
    """Find what would stop a table or figure before hours of work on it.

    Raises:
        InputError: naming the setting or option.
    """
    from experiments.thesis.ablation import MAPPED, check_resnet_weights
    from experiments.thesis.bottleneck import scored_centre

    ablation, wanted = settings.reproduce.ablation, set(targets)
    known = (*COLUMNS, *ablation.autoencoders)
    names = {*ablation.columns} if wanted & {"table-3.2", "table-3.3", "curves"} else set()
    names |= {*MAPPED} if "figure-3.14" in wanted else set()
    if "table-3.2" in wanted:
        for name in options.features:
            if name in ablation.columns:
                raise InputError(f"--features {name}: Table 3.2 has a column of this name; give yours another")
            if name.endswith(STANDARDISED):
                raise InputError(
                    f"--features {name}: {STANDARDISED.strip()!r} marks standardised columns; leave it out"
                )
        if RESNET in ablation.columns:
            check_resnet_weights(settings.reproduce.resnet_weights)
    if "table-3.3" in wanted:
        names.add(ablation.reference)
        if ablation.reference not in known:
            raise InputError(
                f"reproduce.ablation.reference: Table 3.3 shows it beside the networks, and {ablation.reference!r} is "
                f"none of {', '.join(known)}"
            )
    if wanted & {"table-3.2", "table-3.3"} and options.protocol.runs < ablation.training_runs:
        raise InputError(
            f"--runs {options.protocol.runs}: run number r takes training number r, and there are "
            f"{ablation.training_runs} trainings (reproduce.ablation.training_runs); give as many runs or more"
        )
    overrides = {f"column {name}": ablation.autoencoder_of(name) for name in sorted(names)}
    if wanted & {"table-3.1", *RECONSTRUCTIONS}:
        scored_centre(study)
        overrides["reproduce.bottleneck"] = {**settings.reproduce.bottleneck.autoencoder, "adaptation": "none"}
    for where, values in overrides.items():
        source = None if values is None else study.autoencoder_config(values)["source_centre"]
        if source is not None and source not in study.compared:
            raise InputError(f"{where}: source_centre {source!r} is none of the centres {', '.join(study.compared)}")


def _provenance(study: Study, name: str, started: float) -> dict[str, str]:
    """Lines that say what made a table."""
    seconds = _longest_time(study, name, time.monotonic() - started)
    versions = versions_text(("tensorflow", "keras", "numpy", "scikit-learn"))
    return {
        "command": f"`{command_text()}`",
        "configuration": f"{study.settings.name}, hash {study.config_hash()}, seed {study.settings.seed}",
        "machine": machine_text(),
        "time": f"{seconds / 60:.1f} min (of the longest call that made this table with these settings; what other "
        "calls and tables left is read again)",
        "versions": f"{versions} (those under which a network was trained stand in its run.json)",
    }


def _longest_time(study: Study, name: str, seconds: float) -> float:
    """Keep the longest time of each table and settings, which is that of making it and not of reading it again."""
    path, key = study.output / TIMES, f"{name} {study.config_hash()}"
    times = read_json_file(path, missing="", advice="delete it") if path.exists() else {}
    if seconds > times.get(key, 0.0):
        times[key] = round(seconds, 1)
        write_json(path, times)
    return times[key]


def _make_table_3_1(study: Study, options: Options, started: float) -> list[Path]:
    from experiments.evaluation.thesis_numbers import thesis_centres
    from experiments.thesis.bottleneck import NAME, make_bottleneck, write_bottleneck
    from experiments.thesis.figures import bottleneck_figure

    result = make_bottleneck(study, options.protocol)
    thesis = thesis_centres(study.centres, study.settings.scheme).get(result.centre)
    provenance = _provenance(study, NAME, started)
    paths = write_bottleneck(result, study.output / "tables", options.protocol, provenance, thesis)
    return [paths["md"], *_save([bottleneck_figure(result)], study)]


def _make_table_3_2(study: Study, options: Options, started: float) -> list[Path]:
    from experiments.thesis.ablation import make_ablation

    comparison = make_ablation(study, options.protocol, options.features)
    title = "Representations across centres (thesis Table 3.2)"
    return _write_comparison(comparison, "table-3.2", title, study, started)


def _make_table_3_3(study: Study, options: Options, started: float) -> list[Path]:
    from experiments.thesis.oracle_table import Published, make_oracles

    published = None if options.published is None else Published(**options.published)
    comparison = make_oracles(study, options.protocol, published)
    title = f"Networks trained on one centre, and {study.settings.reproduce.ablation.reference} (thesis Table 3.3)"
    return _write_comparison(comparison, "table-3.3", title, study, started)


_TABLES = dict(zip(TABLES, (_make_table_3_1, _make_table_3_2, _make_table_3_3), strict=True))


def _write_comparison(comparison: Comparison, name: str, title: str, study: Study, started: float) -> list[Path]:
    from experiments.evaluation.comparison_records import Heading
    from experiments.evaluation.comparison_tables import write_comparison
    from experiments.evaluation.thesis_numbers import thesis_centres
    from experiments.thesis.figures import comparison_figures

    reference = study.settings.reproduce.ablation.reference
    if reference not in comparison.columns and reference + STANDARDISED in comparison.columns:
        reference += STANDARDISED
    if reference not in comparison.columns:
        log.warning("%s: has no column %s (reproduce.ablation.reference) to compare with", name, reference)
    thesis = thesis_centres(study.centres, study.settings.scheme)
    heading = Heading(name, title, _provenance(study, name, started), thesis, reference)
    paths = write_comparison(comparison, study.output / "tables", heading)
    return [paths["md"], *_save(comparison_figures(comparison, name), study)]


def _make_figure(study: Study, name: str) -> list[Path]:
    from experiments.thesis import figures

    makers = {
        "figure-2.6": figures.augmentation_sheet,
        "figure-3.4": figures.class_distribution,
        "figure-3.5": figures.segmentations,
        "figure-3.14": figures.maps,
        "curves": figures.training_curves,
    }
    if name in SAMPLES:
        return _save(figures.sample_sheets(study, int(name.rpartition(".")[2])), study)
    return _save(figures.reconstructions(study, name) if name in RECONSTRUCTIONS else makers[name](study), study)


def _save(drawings: Iterable["Drawing"], study: Study) -> list[Path]:
    """Save drawings below `figures/`; returns the PNG files."""
    from experiments.figures.files import Provenance, save_figure

    software, folder = f"aecfe {version('aecfe')}", study.output / "figures"
    written = []
    for drawing in drawings:
        provenance = Provenance(config_hash=study.config_hash(), inputs=dict(drawing.inputs), software=software)
        written.append(save_figure(drawing.figure, folder, drawing.name, drawing.title, provenance)["png"])
    return written
