"""An image file as the detector knows it, whatever the layout of its centre."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageRecord:
    """One image of a centre."""

    image_id: str  # unique within the centre: the path relative to its root, with "/" between parts
    path: Path
    label: str = ""  # the centre's own name for the cell
    cell_type: str = ""  # the harmonised name of the cell type; "" where the label maps to none
