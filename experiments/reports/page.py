"""Pages that need nothing but themselves: no network, no other files, and scripts only for plots.

The templates escape every text, since file names and labels come from other people's folders. A page asks the browser
to load nothing and to run only the scripts whose hashes it names, whatever text slipped into it.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from experiments.reports.interactive_map import page_scripts
from mrcnn.files.atomic import write_text

DASH = "–"  # where there is no value
JPEG_QUALITY = 85
CROP_SIDE, CROP_QUALITY = 56, 75  # of the thousands of crops that a page's plots show


class Embedded(NamedTuple):
    """A picture inside a page: its data: URI, what it shows for those who do not see it, and its size in pixels."""

    src: str
    alt: str
    width: int
    height: int


class Tile(NamedTuple):
    """A picture of a grid, with a bold name, further text and a file below it."""

    image: Embedded
    name: str
    text: str = ""
    file: str = ""


class Row(NamedTuple):
    """A row of a table: its name and its cells.

    A cell is text, a whole number, None where there is no value, or a dict of text and, if need be, spread and best.
    The kind is "same" (tinted), "total" (ruled) or "".
    """

    cells: Sequence[Any]
    kind: str = ""


class Table(NamedTuple):
    """A table: the first `texts` columns are text, the others numbers; groups are (name, number of columns)."""

    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    texts: int = 1
    groups: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Section:
    """A section of a page: where links lead, its name among them, its title, and its template with the data for it."""

    anchor: str
    name: str
    title: str
    template: str
    data: dict[str, Any]


def write_page(
    path: Path,
    title: str,
    *,
    lead: str,
    cards: Sequence[tuple[str, str, str]],
    sections: Sequence[Section],
    footer: str,
) -> None:
    """Write a page; the same content gives the same bytes.

    Args:
        path: the file, written atomically.
        title: of page and window.
        lead: what the page is about.
        cards: key numbers, as (name, value, detail).
        sections: a section whose data has `map_data`, as from `interactive_maps`, brings the scripts of the plots.
        footer: its last words.
    """
    scripts = page_scripts() if any(section.data.get("map_data") for section in sections) else ()
    page = _TEMPLATES.get_template("page.html")
    text = page.render(title=title, lead=lead, cards=cards, sections=sections, footer=footer, scripts=scripts)
    write_text(path, text)


def embed(image: bytes | np.ndarray, alt: str, *, max_side: int | None = None) -> Embedded:
    """Make a PNG or JPEG, or pixels, which become a JPEG of sides of at most `max_side`, part of a page."""
    data = image if isinstance(image, bytes) else encode_image(image, max_side=max_side)
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    width, height = Image.open(io.BytesIO(data)).size
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", alt, width, height)


def encode_image(
    pixels: np.ndarray, *, max_side: int | None = None, photo: bool = True, quality: int = JPEG_QUALITY
) -> bytes:
    """Encode pixels, uint8 of shape (height, width, 3), as JPEG, or as PNG if they are no photo."""
    picture = Image.fromarray(pixels)
    if max_side is not None:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG" if photo else "PNG", optimize=True, **({"quality": quality} if photo else {}))
    return buffer.getvalue()


def crop_jpeg(pixels: np.ndarray) -> bytes:
    """Encode the crop of a cell, uint8 of shape (height, width, 3), small enough for a page of thousands."""
    return encode_image(pixels, max_side=CROP_SIDE, quality=CROP_QUALITY)


def percent(share: float) -> str:
    """Write a proportion as per cent."""
    return f"{100 * share:.1f} %"


def spaced(name: str) -> str:
    """Write a name with spaces for underscores."""
    return str(name).replace("_", " ")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


_TEMPLATES = Environment(
    loader=PackageLoader("experiments.reports"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.filters |= {"digest": _digest, "spaced": spaced}
_TEMPLATES.globals["DASH"] = DASH
_TEMPLATES.globals["m"] = _TEMPLATES.get_template("macros.html").module
