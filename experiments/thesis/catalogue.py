"""Catalogue of the thesis: every table and figure by its name, as in `aecfe reproduce table-3.2`."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.evaluation.comparison import STANDARDISED, Protocol
from experiments.evaluation.comparison_tables import Heading, write_comparison
from experiments.evaluation.thesis_numbers import thesis_centres
from experiments.figures.files import Drawing, save_figure
from experiments.settings import COLUMNS, RESNET
from experiments.thesis import figures
from experiments.thesis.ablation import MAPPED, make_ablation
from experiments.thesis.bottleneck import (
    FIGURES,
    make_bottleneck,
    scored_centre,
    settings_variants,
    train_grid,
    write_bottleneck,
)
from experiments.thesis.oracle_table import Published, make_oracles
from experiments.thesis.study import Study
from mrcnn.files.atomic import OutputLock, write_json
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file
from mrcnn.files.provenance import command_text, machine_text, versions_text

log = logging.getLogger(__name__)

TABLES = ("table-3.1", "table-3.2", "table-3.3")
RECONSTRUCTIONS = tuple(FIGURES.values())
_MAKERS = {
    "figure-2.6": figures.augmentation_sheet,
    "figure-3.4": figures.class_distribution,
    "figure-3.5": figures.segmentations,
    "figure-3.14": figures.maps,
    "curves": figures.training_curves,
}
SAMPLES = ("figure-3.1", "figure-3.2", "figure-3.3")
ALL_FIGURES = ("figure-2.6", *SAMPLES, "figure-3.4", "figure-3.5", *RECONSTRUCTIONS, "figure-3.14", "curves")
GROUPS = {"tables": TABLES, "figures": ALL_FIGURES, "all": (*ALL_FIGURES, *TABLES)}


def resolve_targets(names: Iterable[str]) -> list[str]:
    """The tables and figures that some names stand for, each once, figures of data first."""
    wanted = set()
    for name in names:
        if name not in (*GROUPS, *GROUPS["all"]):
            raise InputError(f"reproduce {name}: is none of {', '.join((*GROUPS, *GROUPS['all']))}")
        wanted.update(GROUPS.get(name, (name,)))
    return [name for name in GROUPS["all"] if name in wanted]


def reproduce(
    study: Study,
    targets: Sequence[str],
    protocol: Protocol,
    features: Mapping[str, Path] | None = None,
    published: Published | None = None,
) -> list[Path]:
    """Make tables and figures, and write them below the study's folder.

    Args:
        study: what they are made from.
        targets: as from `resolve_targets`.
        protocol: how representations are compared.
        features: vectors made elsewhere, by the name of their column of Table 3.2.
        published: a published classifier for Table 3.3.

    Returns:
        The files that were written; of each table its Markdown, of each figure its PNG.

    Raises:
        InputError: if something that a target needs is missing or does not fit, or another run is writing the folder.
    """
    check_targets(study, targets, protocol, features or {})
    written: list[Path] = []
    with OutputLock(study.output, inside=True):
        write_json(study.output / "config.json", study.settings.to_dict())
        for number, name in enumerate(targets, 1):
            log.info("[%d/%d] %s", number, len(targets), name)
            started, made = time.monotonic(), []
            if name in RECONSTRUCTIONS:  # together, which is faster than figure by figure
                train_grid(study, [variant for variant in settings_variants(study) if FIGURES[variant] in targets])
            if name in TABLES:
                path, drawings = _make_table(study, name, started, protocol, features, published)
                made.append(path)
            elif name in SAMPLES:
                drawings = figures.sample_sheets(study, int(name[-1]))
            else:
                drawings = figures.reconstructions(study, name) if name in RECONSTRUCTIONS else _MAKERS[name](study)
            made += [save_figure(each, study.output / "figures", study.config_hash())["png"] for each in drawings]
            files = ", ".join(map(str, made)) or "nothing to draw"
            log.info("[%d/%d] %s: %.0f s, %s", number, len(targets), name, time.monotonic() - started, files)
            written += made
    return written


def check_targets(study: Study, targets: Iterable[str], protocol: Protocol, features: Mapping[str, Path]) -> None:
    """Find what would stop a table or figure before hours of work on it; an InputError names the setting or option."""
    settings, wanted = study.settings.reproduce, set(targets)
    ablation, weights = settings.ablation, settings.resnet_weights
    names = {*ablation.columns} if wanted & {"table-3.2", "table-3.3", "curves"} else set()
    names |= {*MAPPED} if "figure-3.14" in wanted else set()
    if "table-3.2" in wanted:
        for name in features:
            if name in ablation.columns:
                raise InputError(f"--features {name}: Table 3.2 has a column of this name; give yours another")
            if name.endswith(STANDARDISED):
                raise InputError(f"--features {name}: leave out{STANDARDISED}, which marks standardised columns")
        if RESNET in ablation.columns and weights not in ("imagenet", "random") and not Path(weights).is_file():
            kinds = "the ResNet-101 weights of keras.applications, imagenet or random"
            raise InputError(f"--weights {weights}: no such file; give {kinds}")
    if "table-3.3" in wanted:
        names.add(ablation.reference)
        known = (*COLUMNS, *ablation.autoencoders)
        if ablation.reference not in known:
            raise InputError(f"reproduce.ablation.reference: {ablation.reference!r} is none of {', '.join(known)}")
    if wanted & {"table-3.2", "table-3.3"} and protocol.runs < ablation.training_runs:
        trainings = f"{ablation.training_runs} trainings (reproduce.ablation.training_runs)"
        raise InputError(f"--runs {protocol.runs}: run r takes training r, and there are {trainings}; give more runs")
    overrides = {f"column {name}": ablation.autoencoder_of(name) for name in sorted(names)}
    if wanted & {"table-3.1", *RECONSTRUCTIONS}:
        scored_centre(study)
        overrides["reproduce.bottleneck"] = {**settings.bottleneck.autoencoder, "adaptation": "none"}
    for where, values in overrides.items():
        source = None if values is None else study.autoencoder_config(values).source_centre
        if source is not None and source not in study.compared:
            raise InputError(f"{where}: source_centre {source!r} is none of the centres {', '.join(study.compared)}")


def _make_table(
    study: Study,
    name: str,
    started: float,
    protocol: Protocol,
    features: Mapping[str, Path] | None,
    published: Published | None,
) -> tuple[Path, Iterable[Drawing]]:
    """Make and write one table; returns its Markdown file, and the figures that belong to it."""
    folder, reference = study.output / "tables", study.settings.reproduce.ablation.reference
    if name == "table-3.1":
        result = make_bottleneck(study, protocol)
        thesis = thesis_centres(study.centres, study.settings.scheme).get(result.centre)
        paths = write_bottleneck(result, folder, protocol, _provenance(study, name, started), thesis)
        return paths["md"], [figures.bottleneck_figure(result)]
    if name == "table-3.2":
        comparison = make_ablation(study, protocol, features)
        title = "Representations across centres (thesis Table 3.2)"
    else:
        comparison = make_oracles(study, protocol, published)
        title = f"Networks trained on one centre, and {reference} (thesis Table 3.3)"
    if reference not in comparison.columns and reference + STANDARDISED in comparison.columns:
        reference += STANDARDISED
    if reference not in comparison.columns:
        log.warning("%s: has no column %s (reproduce.ablation.reference) to compare with", name, reference)
    thesis = thesis_centres(study.centres, study.settings.scheme)
    paths = write_comparison(
        comparison, folder, Heading(name, title, _provenance(study, name, started), thesis, reference)
    )
    return paths["md"], figures.comparison_figures(comparison, name)


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
    path, key = study.output / "times.json", f"{name} {study.config_hash()}"
    times = read_json_file(path, missing="", advice="delete it") if path.exists() else {}
    if seconds > times.get(key, 0.0):
        times[key] = round(seconds, 1)
        write_json(path, times)
    return times[key]
