"""The page of a run: `report.html`, one file that opens anywhere and prints well."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.reports.page import write_page
from experiments.reports.report_maps import maps_section
from experiments.reports.report_numbers import (
    cross_centre_section,
    detector_section,
    finding,
    key_numbers,
    settings_section,
)
from experiments.reports.report_pictures import augmentation_section, autoencoder_section, detections_section
from experiments.reports.run_folder import Run
from experiments.settings import RunSettings
from mrcnn.data.records import ImageRecord

log = logging.getLogger(__name__)

# By anchor: the data for the template `report_<anchor>.html`.
SECTIONS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "cross-centre": cross_centre_section,
    "detector": detector_section,
    "detections": detections_section,
    "augmentation": augmentation_section,
    "autoencoder": autoencoder_section,
    "maps": maps_section,
    "settings": settings_section,
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
    sections = {}
    for anchor, collect in SECTIONS.items():
        log.info("report: %s", anchor)
        sections[anchor] = collect(state)
    path = state.folder / "report.html"
    write_page(path, "report", sections, cards=key_numbers(state), finding=finding(state), run=state)
    return path
