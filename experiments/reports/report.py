"""The page of a run: `report.html`, one file that opens anywhere and prints well."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.reports import html as h
from experiments.reports.interactive_map import page_scripts
from experiments.reports.report_maps import maps_section
from experiments.reports.report_numbers import cross_centre_section, detector_section, head, settings_section
from experiments.reports.report_pictures import augmentation_section, autoencoder_section, detections_section
from experiments.reports.run_folder import Run
from experiments.settings import RunSettings
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import write_text

log = logging.getLogger(__name__)

NAME = "report.html"
SECTIONS: dict[str, tuple[str, Callable[[Run], h.Html]]] = {
    "cross-centre": ("Across centres", cross_centre_section),
    "detector": ("Detector", detector_section),
    "detections": ("Detections", detections_section),
    "augmentation": ("Augmentation", augmentation_section),
    "autoencoder": ("Autoencoder", autoencoder_section),
    "maps": ("Maps", maps_section),
    "settings": ("How this was made", settings_section),
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
        records: the images by centre, to draw detections over; images that are not among them are not drawn.
        seed: of the choice of examples and of the maps.

    Returns:
        Path of the page.

    Raises:
        InputError: if a file of the run is damaged.
    """
    state = Run(Path(run), settings, records or {}, seed)
    links = [h.tag("li", h.tag("a", name, href=f"#{anchor}")) for anchor, (name, _) in SECTIONS.items()]
    content = [head(state), h.tag("nav", h.tag("ol", *links))]
    for anchor, (_, make) in SECTIONS.items():
        log.info("report: %s", anchor)
        content.append(make(state))
    footer = f"Examples are chosen at random with seed {seed}. Every figure also lies below figures/ in the run."
    content.append(h.tag("footer", h.paragraph(footer, kind="note")))
    path = state.folder / NAME
    title = f"{settings.name}: white blood cells across centres"
    write_text(path, h.page(title, *content, scripts=page_scripts(content)))
    return path
