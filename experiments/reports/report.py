"""The page of a run: `report.html`, one file that opens anywhere and prints well."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.reports.page import Section, write_page
from experiments.reports.report_maps import maps_section
from experiments.reports.report_numbers import cross_centre_section, detector_section, key_numbers, settings_section
from experiments.reports.report_pictures import augmentation_section, autoencoder_section, detections_section
from experiments.reports.run_folder import Run
from experiments.settings import RunSettings
from mrcnn.data.records import ImageRecord

log = logging.getLogger(__name__)

NAME = "report.html"
# By anchor: name in the list of sections, title, and the data for the template `report_<anchor>.html`.
SECTIONS: dict[str, tuple[str, str, Callable[[Run], dict[str, Any]]]] = {
    "cross-centre": ("Across centres", "Does a classifier generalise across centres?", cross_centre_section),
    "detector": ("Detector", "How well are the cells found?", detector_section),
    "detections": ("Detections", "What the detector sees", detections_section),
    "augmentation": ("Augmentation", "How the training images are varied", augmentation_section),
    "autoencoder": ("Autoencoder", "What the autoencoder keeps of a cell", autoencoder_section),
    "maps": ("Maps", "Maps of the cells", maps_section),
    "settings": ("How this was made", "How this was made", settings_section),
}


def write_report(
    run: str | Path,
    settings: RunSettings,
    *,
    records: Mapping[str, Sequence[ImageRecord]] | None = None,
    seed: int = 0,
) -> Path:
    """Write `report.html` of a run, and its figures as PNG to `figures/`.

    Stages that were not run are named as such. The same run gives the same page, byte for byte.

    Args:
        run: the run's folder.
        settings: its resolved settings.
        records: the images by centre; detections are drawn over these alone.
        seed: of the choice of examples and of the maps.

    Returns:
        Path of the page.

    Raises:
        InputError: if a file of the run is damaged.
    """
    state = Run(Path(run), settings, records or {}, seed)
    sections = []
    for anchor, (name, title, collect) in SECTIONS.items():
        log.info("report: %s", anchor)
        sections.append(Section(anchor, name, title, f"report_{anchor}.html", collect(state)))
    lead = (
        f"This run compares white blood cells of {len(state.centres)} centres ({', '.join(state.centres)}). A detector "
        f"trained on {', '.join(settings.detector.train_on)} finds the cells, autoencoders describe each cell by a "
        "short list of numbers, and classifiers trained on the labels of one centre predict the cell types of all. "
        "This page shows how well each step went."
    )
    path = state.folder / NAME
    write_page(
        path,
        f"{settings.name}: white blood cells across centres",
        lead=lead,
        cards=key_numbers(state),
        sections=sections,
        footer=f"Examples are chosen at random with seed {seed}. Every figure also lies below figures/ in the run.",
    )
    return path
