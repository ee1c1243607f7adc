"""Figures as files: PNG for the screen, PDF for print, JSON that says what made them.

The same figure and provenance give the same bytes, so that a changed file means a changed figure. Hence the files
hold no date; the name of the program's release stands in `Provenance.software`.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mrcnn.files.atomic import atomic_path, write_json
from mrcnn.files.provenance import command_text

FORMAT = "aecfe-figure"
PRINT_DPI = 300
_PRINT = {
    "pdf.fonttype": 42,  # TrueType, which printers and publishers take; Type 3, the default, many refuse
    "image.composite_image": False,  # every photo stays one of its own, that a program can take out of the PDF
    "savefig.bbox": None,  # the size that the figure was laid out for
}


@dataclass(frozen=True)
class Provenance:
    """What a figure was made from.

    Attributes:
        config_hash: hash of the settings in force.
        inputs: hash of each file that was read, by its name.
        software: name and version of the program.
    """

    config_hash: str
    inputs: Mapping[str, str]
    software: str


def save_figure(
    figure: Figure, folder: str | os.PathLike, name: str, title: str, provenance: Provenance
) -> dict[str, Path]:
    """Write `<name>.png`, `<name>.pdf` and `<name>.json`, each atomically, the JSON last.

    The PNG has 300 dots an inch. The PDF holds lines and text as such, with its fonts inside, and photos as images of
    the same 300. Both name title, command and settings in their metadata; the JSON adds the inputs and the hashes of
    both files.

    Args:
        figure: laid out at the size that it is printed in; a layout engine runs once and is then taken off.
        folder: made if it is missing.
        name: of the files without their ending, as "figure-3.4".
        title: what the figure shows, in one line.
        provenance: what it was made from.

    Returns:
        The paths, by ending.
    """
    made_by = f"Made by: {command_text()}"
    settings = f"settings {provenance.config_hash}"
    chunks = {"Title": title, "Description": f"{made_by}; {settings}", "Software": provenance.software or None}
    information = {"Title": title, "Subject": made_by, "Keywords": settings, "CreationDate": None}
    information["Creator"] = provenance.software or None
    # Both before the first file: a figure that cannot be drawn leaves none.
    contents = {"png": _render(figure, "png", chunks)}
    figure.set_layout_engine("none")  # a second run of the engine moves things by hairs
    contents["pdf"] = _render(figure, "pdf", information)
    paths = {ending: Path(folder) / f"{name}.{ending}" for ending in (*contents, "json")}
    for ending, content in contents.items():
        with atomic_path(paths[ending]) as temporary:
            temporary.write_bytes(content)
    files = {paths[ending].name: hashlib.sha256(content).hexdigest() for ending, content in contents.items()}
    made = asdict(provenance) | {"inputs": dict(sorted(provenance.inputs.items()))}
    write_json(paths["json"], {"format": FORMAT, "title": title, "command": command_text(), **made, "sha256": files})
    return paths


def _render(figure: Figure, kind: str, metadata: Mapping[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_PRINT):
        figure.savefig(buffer, format=kind, dpi=PRINT_DPI, facecolor="white", metadata=dict(metadata))
    return buffer.getvalue()
