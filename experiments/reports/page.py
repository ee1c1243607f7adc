"""Pages that need nothing but themselves: no network, no other files, and scripts only for plots.

The templates escape every text, since file names and labels come from other people's folders. A page asks the browser
to load nothing and to run only the scripts whose hashes it names, whatever text slipped into it.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from experiments.reports.interactive_map import page_scripts
from mrcnn.files.atomic import write_text

JPEG_QUALITY = 85
CROP_SIDE, CROP_QUALITY = 56, 75  # of the thousands of crops that a page's plots show


class Embedded(NamedTuple):
    """A picture inside a page: its data: URI, and its size in pixels."""

    src: str
    width: int
    height: int


def write_page(path: Path, kind: str, sections: Mapping[str, Mapping[str, Any]], **head: Any) -> None:
    """Write a page; the same content gives the same bytes.

    Args:
        path: the file, written atomically.
        kind: "report" or "qc": the template `<kind>.html` has the page's head and the titles of its sections, each
            `<kind>_<anchor>.html` a section.
        sections: data of each section, by its anchor; `map_data`, as from `interactive_maps`, brings the scripts of
            the plots.
        head: what else the templates show.
    """
    scripts = page_scripts() if any(data.get("map_data") for data in sections.values()) else ()
    page = _TEMPLATES.get_template(f"{kind}.html")
    write_text(path, page.render(kind=kind, sections=sections, scripts=scripts, **head))


def embed(image: bytes | np.ndarray, max_side: int | None = None) -> Embedded:
    """Make a PNG or JPEG, or pixels, which become a JPEG of sides of at most `max_side`, part of a page."""
    data = image if isinstance(image, bytes) else encode_image(image, max_side=max_side)
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    width, height = Image.open(io.BytesIO(data)).size
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", width, height)


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


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


_TEMPLATES = Environment(
    loader=PackageLoader("experiments.reports"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.filters |= {
    "digest": _digest,
    "embed": embed,
    "percent": percent,
    "spaced": lambda name: str(name).replace("_", " "),
}
_TEMPLATES.globals["DASH"] = "–"  # where there is no value
_TEMPLATES.globals["m"] = _TEMPLATES.get_template("macros.html").module
