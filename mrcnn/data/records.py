"""An image file as the detector knows it, whatever the layout of its centre."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageRecord:
    """One image of a centre.

    Attributes:
        image_id: name that is unique within the centre: the path relative to its root, with "/" between parts.
        path: where the file lies.
        label: the centre's own name for the cell, or "".
        cell_type: the harmonised name of the cell type, or "" where the label maps to none.
    """

    image_id: str
    path: Path
    label: str = ""
    cell_type: str = ""
