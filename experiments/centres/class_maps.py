"""Class maps: how the names that each centre gives its cells map to common cell types.

Labs divide white blood cells differently. A scheme names the common types and says, for each layout of a centre, which
of its own names belong to which type; names that no type takes are left out of the comparison, not guessed.

Schemes:
    thesis13: the 13 classes of thesis section 3.1, agreed with a medical expert there.
    eleven: the same without atypical lymphocytes and smudge cells, which not every centre labels, and without
        monoblasts.
    five: the types that nearly every centre labels; banded and segmented neutrophils are one.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mrcnn.files.errors import InputError
from mrcnn.files.settings import read_yaml

THESIS_CLASSES = (
    "basophil", "eosinophil", "erythroblast", "myeloblast", "promyelocyte", "myelocyte", "metamyelocyte",
    "neutrophil_banded", "neutrophil_segmented", "monocyte", "lymphocyte_typical", "lymphocyte_atypical", "smudge_cell",
)  # fmt: skip
ELEVEN_CLASSES = tuple(c for c in THESIS_CLASSES if c not in ("lymphocyte_atypical", "smudge_cell"))
FIVE_CLASSES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
SCHEMES: dict[str, tuple[str, ...]] = {"thesis13": THESIS_CLASSES, "eleven": ELEVEN_CLASSES, "five": FIVE_CLASSES}

# Each centre's names and the classes of the thesis; "" where none takes the name, so that a folder which belongs to
# the data set is told from one that does not.
LAYOUT_MAPS: dict[str, dict[str, str]] = {
    "matek19": {
        "BAS": "basophil", "EBO": "erythroblast", "EOS": "eosinophil", "KSC": "smudge_cell",
        "LYA": "lymphocyte_atypical", "LYT": "lymphocyte_typical", "MMZ": "metamyelocyte", "MOB": "monocyte",
        "MON": "monocyte", "MYB": "myelocyte", "MYO": "myeloblast", "NGB": "neutrophil_banded",
        "NGS": "neutrophil_segmented", "PMB": "", "PMO": "promyelocyte",
    },
    "int20": {
        "01-NORMO": "erythroblast", "04-LGL": "", "05-MONO": "monocyte", "08-LYMPH-neo": "lymphocyte_atypical",
        "09-BASO": "basophil", "10-EOS": "eosinophil", "11-STAB": "neutrophil_banded",
        "12-LYMPH-reaktiv": "lymphocyte_atypical", "13-MYBL": "myeloblast", "14-LYMPH-typ": "lymphocyte_typical",
        "15-SEG": "neutrophil_segmented", "16-PLZ": "", "17-Kernschatten": "smudge_cell", "18-PMYEL": "promyelocyte",
        "19-MYEL": "myelocyte", "20-Meta": "metamyelocyte", "21-Haarzelle": "", "22-Atyp-PMYEL": "",
    },
    "mll23": {
        "basophil": "basophil", "eosinophil": "eosinophil", "hairy_cell": "", "lymphocyte": "lymphocyte_typical",
        "lymphocyte_large_granular": "", "lymphocyte_neoplastic": "lymphocyte_atypical",
        "lymphocyte_reactive": "lymphocyte_atypical", "metamyelocyte": "metamyelocyte", "monocyte": "monocyte",
        "myeloblast": "myeloblast", "myelocyte": "myelocyte", "neutrophil_band": "neutrophil_banded",
        "neutrophil_segmented": "neutrophil_segmented", "normoblast": "erythroblast", "plasma_cell": "",
        "promyelocyte": "promyelocyte", "promyelocyte_atypical": "", "smudge_cell": "smudge_cell",
    },
    # Where a folder of Acevedo-20 holds several types the label is the prefix of the file name, else the folder.
    "acevedo20": {
        "basophil": "basophil", "BNE": "neutrophil_banded", "eosinophil": "eosinophil", "erythroblast": "erythroblast",
        "IG": "", "lymphocyte": "lymphocyte_typical", "MMY": "metamyelocyte", "monocyte": "monocyte",
        "MY": "myelocyte", "NEUTROPHIL": "", "platelet": "", "PMY": "promyelocyte", "SNE": "neutrophil_segmented",
    },
    # Any other centre: the classes' own names, and the plain ones of data sets with five types.
    "generic": {
        **{name: name for name in THESIS_CLASSES},
        "lymphocyte": "lymphocyte_typical", "neutrophil": "neutrophil_segmented",
        "neutrophil_band": "neutrophil_banded", "normoblast": "erythroblast",
    },
}  # fmt: skip
_FIVE_OF_THIRTEEN = {name: name for name in FIVE_CLASSES[2:]} | {
    "neutrophil_segmented": "neutrophil",
    "neutrophil_banded": "neutrophil",
    "lymphocyte_typical": "lymphocyte",
}


@dataclass(frozen=True)
class ClassMap:
    """Cell types and the names that belong to them."""

    name: str  # the scheme's name, or the file that the map came from
    classes: tuple[str, ...]  # the cell types, in the order in which tables list them
    mapping: dict[str, str]  # from a centre's own name, folded by `fold_label`, to one of `classes`

    def cell_type(self, label: str) -> str:
        """The cell type of a centre's own name, or "" if none takes it."""
        return self.mapping.get(fold_label(label), "")


def fold_label(label: str) -> str:
    """One spelling for "Smudge cell", "smudge-cell" and "SMUDGE_CELL"."""
    return re.sub(r"[\W_]+", "_", label.casefold()).strip("_")


def labels_of(layout: str) -> frozenset[str]:
    """Every name that the data set of a key of `LAYOUT_MAPS` gives its cells, folded by `fold_label`."""
    return frozenset(map(fold_label, LAYOUT_MAPS[layout]))


def make_class_map(source: str | os.PathLike | dict[str, str], layout: str) -> ClassMap:
    """Make the map for one centre of some layout; other layouts than those of `LAYOUT_MAPS` get the generic names.

    The source is "thesis13", "eleven" or "five"; or a dict from the centre's own names to cell types, where "" or None
    leaves a name out; or a YAML file with such a dict. An unknown or faulty one is refused.
    """
    if isinstance(source, dict):
        return _own_map("own map", source)
    if str(source) in SCHEMES:
        return _scheme_map(str(source), layout if layout in LAYOUT_MAPS else "generic")
    if Path(source).suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"class map {source}: not one of {', '.join(SCHEMES)} and not a .yaml file")
    return _own_map(str(source), read_yaml(source, missing="cannot be read (no such file); give a YAML file"))


def _scheme_map(scheme: str, layout: str) -> ClassMap:
    types = {fold_label(label): cell_type for label, cell_type in LAYOUT_MAPS[layout].items()}
    if scheme != "thesis13":
        types.pop("mob", None)  # the thesis counts monoblasts as monocytes, the later schemes leave them out
    if scheme == "five":
        types = {label: _FIVE_OF_THIRTEEN.get(cell_type, "") for label, cell_type in types.items()}
    known = {label: cell_type for label, cell_type in types.items() if cell_type in SCHEMES[scheme]}
    return ClassMap(scheme, SCHEMES[scheme], known)


def _own_map(name: str, content: object) -> ClassMap:
    if not isinstance(content, dict) or not content:
        raise InputError(f"{name}: a class map is a list of lines like 'LYT: lymphocyte_typical'")
    mapping: dict[str, str] = {}
    for label, cell_type in content.items():
        if not isinstance(label, str) or not isinstance(cell_type, str | None):
            # YAML reads an unquoted 01 as a number and NO as false.
            raise InputError(f"{name}: {label!r}: {cell_type!r} must be text; put it in quotes")
        known = mapping.setdefault(fold_label(label), cell_type or "")
        if known != (cell_type or ""):
            raise InputError(f"{name}: {label!r} is mapped twice, to {known!r} and {cell_type!r}")
    classes = tuple(dict.fromkeys(c for c in mapping.values() if c))
    if not classes:
        raise InputError(f"{name}: maps no name to any cell type")
    return ClassMap(name, classes, mapping)
