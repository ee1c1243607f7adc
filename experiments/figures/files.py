"""Figures as files: PNG for the screen, PDF for print, JSON that says what made them.

The same figure gives the same bytes, so that a changed file means a changed figure. Hence the files hold no date.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mrcnn.files.atomic import atomic_path, write_json
from mrcnn.files.provenance import command_text

PRINT_DPI = 300
_PRINT = {
    "pdf.fonttype": 42,  # TrueType, which printers and publishers take; Type 3, the default, many refuse
    "image.composite_image": False,  # every photo stays one of its own, that a program can take out of the PDF
    "savefig.bbox": None,  # the size that the figure was laid out for
}


@dataclass(frozen=True)
class Drawing:
    """A figure that is ready to be saved.

    Attributes:
        name: of its files without their ending, as "figure-3.4".
        title: what it shows, in one line.
        figure: laid out at the size that it is printed in; a layout engine runs once and is then taken off.
        inputs: hash of each thing that it was made from, by its name.
    """

    name: str
    title: str
    figure: Figure
    inputs: Mapping[str, str] = field(default_factory=dict)


def save_figure(drawing: Drawing, folder: str | os.PathLike, config_hash: str) -> dict[str, Path]:
    """Write `<name>.png`, `<name>.pdf` and `<name>.json`, each atomically, the JSON last; returns the paths by ending.

    The PNG has 300 dots an inch. The PDF holds lines and text as such, with its fonts inside, and photos as images of
    the same 300. Both name title, command and the hash of the settings in their metadata; the JSON adds the inputs and
    the hashes of both files.
    """
    made_by, settings, software = f"Made by: {command_text()}", f"settings {config_hash}", f"aecfe {version('aecfe')}"
    chunks = {"Title": drawing.title, "Description": f"{made_by}; {settings}", "Software": software}
    information = {"Title": drawing.title, "Subject": made_by, "Keywords": settings, "Creator": software}
    # Both before the first file: a figure that cannot be drawn leaves none.
    contents = {"png": _render(drawing.figure, "png", chunks)}
    drawing.figure.set_layout_engine("none")  # a second run of the engine moves things by hairs
    contents["pdf"] = _render(drawing.figure, "pdf", {**information, "CreationDate": None})
    paths = {ending: Path(folder) / f"{drawing.name}.{ending}" for ending in (*contents, "json")}
    for ending, content in contents.items():
        with atomic_path(paths[ending]) as temporary:
            temporary.write_bytes(content)
    record = {"format": "aecfe-figure", "title": drawing.title, "command": command_text(), "config_hash": config_hash}
    record |= {"inputs": dict(sorted(drawing.inputs.items())), "software": software}
    record["sha256"] = {paths[ending].name: hashlib.sha256(content).hexdigest() for ending, content in contents.items()}
    write_json(paths["json"], record)
    return paths


def _render(figure: Figure, kind: str, metadata: Mapping[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(_PRINT):
        figure.savefig(buffer, format=kind, dpi=PRINT_DPI, facecolor="white", metadata=dict(metadata))
    return buffer.getvalue()
