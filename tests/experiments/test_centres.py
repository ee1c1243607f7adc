"""Layouts of a centre, on miniature folders: files are empty, since listing a centre opens no image."""

import logging

import pytest

from experiments.centres import detect_layout, load_centre
from experiments.class_maps import ELEVEN_CLASSES, FIVE_CLASSES, LAYOUT_MAPS, THESIS_CLASSES, make_class_map
from mrcnn.errors import InputError


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def types_of(centre):
    return {record.key: (record.label, record.cell_type) for record in centre.records}


def refusal(*args, **options):
    with pytest.raises(InputError) as error:
        load_centre(*args, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_acevedo20_labels_by_folder_and_prefix(tmp_path):
    root = plant(
        tmp_path / "acevedo",
        "basophil/BA_1.jpg",
        "ig/MY_1.jpg",
        "ig/PMY_1.jpg",
        "ig/MMY_1.jpg",
        "ig/IG_1.jpg",
        "neutrophil/SNE_1.jpg",
        "neutrophil/BNE_1.jpg",
        "neutrophil/NEUTROPHIL_1.jpg",
        "lymphocyte/LY_1.jpg",
        "platelet/PLATELET_1.jpg",
        "platelet/.DS_Store",
        "platelet/Thumbs.db",
    )
    centre = load_centre("acevedo", root)
    assert centre.layout == "acevedo20"
    assert types_of(centre) == {
        "basophil/BA_1.jpg": ("basophil", "basophil"),
        "ig/IG_1.jpg": ("IG", ""),
        "ig/MMY_1.jpg": ("MMY", "metamyelocyte"),
        "ig/MY_1.jpg": ("MY", "myelocyte"),
        "ig/PMY_1.jpg": ("PMY", "promyelocyte"),
        "lymphocyte/LY_1.jpg": ("lymphocyte", "lymphocyte_typical"),
        "neutrophil/BNE_1.jpg": ("BNE", "neutrophil_banded"),
        "neutrophil/NEUTROPHIL_1.jpg": ("NEUTROPHIL", ""),
        "neutrophil/SNE_1.jpg": ("SNE", "neutrophil_segmented"),
        "platelet/PLATELET_1.jpg": ("platelet", ""),
    }
    assert centre.unmapped == {"IG": 1, "NEUTROPHIL": 1, "platelet": 1}
    assert centre.num_other_files == 1
    five = load_centre("acevedo", root, class_map="five")
    assert five.counts == {"neutrophil": 2, "lymphocyte": 1, "monocyte": 0, "eosinophil": 0, "basophil": 1}


def test_matek19_and_int20_and_mll23_are_told_by_their_folders(tmp_path):
    matek = plant(tmp_path / "matek", "MOB/1.tiff", "NGS/1.tiff", "PMB/1.tiff", "KSC/1.tiff")
    int20 = plant(tmp_path / "int20", "17-Kernschatten/1.tif", "12-LYMPH-reaktiv/1.tif", "16-PLZ/1.tif")
    mll23 = plant(tmp_path / "mll23", "normoblast/1.tif", "lymphocyte/1.tif", "hairy_cell/1.tif")
    for layout, root, cell_types in [
        ("matek19", matek, ["smudge_cell", "monocyte", "neutrophil_segmented", ""]),
        ("int20", int20, ["lymphocyte_atypical", "", "smudge_cell"]),
        ("mll23", mll23, ["", "lymphocyte_typical", "erythroblast"]),
    ]:
        centre = load_centre(layout, root)
        assert centre.layout == layout
        assert [record.cell_type for record in centre.records] == cell_types
    later = load_centre("matek", matek, class_map="eleven")
    assert [r.cell_type for r in later.records] == ["", "", "neutrophil_segmented", ""]
    assert later.unmapped == {"KSC": 1, "MOB": 1, "PMB": 1}


@pytest.mark.parametrize(
    ("layout", "empty"),
    [
        ("matek19", {}),
        ("int20", {}),
        ("mll23", {}),
        ("acevedo20", {"myeloblast", "lymphocyte_atypical", "smudge_cell"}),
    ],
)
def test_layouts_reach_the_classes_of_the_thesis(layout, empty):
    """Some classes are empty for Acevedo-20 (thesis section 3.1)."""
    assert set(LAYOUT_MAPS[layout].values()) == set(THESIS_CLASSES) - set(empty)


def test_schemes_have_their_number_of_classes():
    assert (len(THESIS_CLASSES), len(ELEVEN_CLASSES), len(FIVE_CLASSES)) == (13, 11, 5)
    for layout in LAYOUT_MAPS:
        for scheme, classes in [("eleven", ELEVEN_CLASSES), ("five", FIVE_CLASSES)]:
            assert set(make_class_map(scheme, layout).mapping.values()) <= set(classes)


def test_generic_folders_and_spelling(tmp_path):
    root = plant(tmp_path / "lab", "Smudge Cell/a/2.png", "smudge-cell/3.PNG", "Artefact/1.jpg", "masks/1.png")
    centre = load_centre("lab", root)
    assert centre.layout == "folders"
    assert types_of(centre) == {
        "Artefact/1.jpg": ("Artefact", ""),
        "Smudge Cell/a/2.png": ("Smudge Cell", "smudge_cell"),
        "smudge-cell/3.PNG": ("smudge-cell", "smudge_cell"),
    }
    plain = plant(tmp_path / "plain", "basophil/1.png", "monocyte/1.png", "lymphocyte_typical/2.png")
    assert detect_layout(plain) == "folders"
    assert load_centre("plain", plain).unmapped == {}


def test_csv_keeps_images_without_a_row(tmp_path):
    root = plant(tmp_path / "bccd", "images/1.jpg", "images/2.jpg", "images/3.jpg", "annotations/1.xml")
    (root / "labels.csv").write_text("\ufeffimage, label,note\n1.jpg,neutrophil,x\n2.jpg,giant platelet,y\n\n")
    centre = load_centre("bccd", root)
    assert centre.layout == "csv"
    assert types_of(centre) == {
        "images/1.jpg": ("neutrophil", "neutrophil_segmented"),
        "images/2.jpg": ("giant platelet", ""),
        "images/3.jpg": ("", ""),
    }
    assert centre.unmapped == {"giant platelet": 1}
    assert centre.num_unlabelled == 1
    assert centre.masks is None
    assert centre.boxes == root / "annotations"


def test_csv_beside_its_images(tmp_path):
    root = plant(tmp_path / "lab", "1.png", "masks/1.png")
    (root / "labels.csv").write_text("image,label\n1.png,monocyte\n")
    centre = load_centre("lab", root)
    assert types_of(centre) == {"1.png": ("monocyte", "monocyte")}
    assert centre.masks == root / "masks"
    assert centre.num_other_files == 0


def test_unlabelled_images(tmp_path):
    for root in (plant(tmp_path / "a", "1.png"), plant(tmp_path / "b", "images/1.png")):
        centre = load_centre("new", root)
        assert centre.layout == "unlabelled"
        assert centre.num_unlabelled == 1


def test_csv_faults_are_all_named(tmp_path):
    root = plant(tmp_path / "lab", "images/1.png", "images/notes.txt")
    lines = ["image,label", "1.png,a", "1.png,b", "../x.png,a", ",a", "notes.txt,a"]
    (root / "labels.csv").write_text("\n".join(lines + [f"gone{i}.png,a" for i in range(20)]))
    message = refusal("lab", root)
    assert "24 faults" in message and "and 14 more" in message
    for fault in (
        "row 3: 1.png was named in row 2",
        "row 4: ../x.png lies outside",
        "row 5 names no image",
        "row 6: notes.txt is not an image file",
        "row 7: gone0.png is missing",
    ):
        assert fault in message
    assert "gone6.png" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image;label\n1.png;a\n", "no column image or label in its first line (image;label)"),
        ("image,class\n1.png,a\n", "no column label"),
        ("", "no column image or label in its first line (empty)"),
        (b"image,label\n1.png,\xff\xfe\n", "not a UTF-8 CSV file"),
    ],
)
def test_csv_without_its_columns(tmp_path, text, message):
    root = plant(tmp_path / "lab", "images/1.png")
    (root / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refusal("lab", root)


def test_folder_faults(tmp_path):
    assert "no such folder" in refusal("lab", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "empty; a centre holds" in refusal("lab", tmp_path / "empty")
    assert "no images" in refusal("lab", plant(tmp_path / "text", "BAS/readme.txt"))
    assert "layout csv needs it" in refusal("lab", plant(tmp_path / "one", "1.png"), layout="csv")
    assert "is not one of auto" in refusal("lab", tmp_path, layout="other")
    assert "usable as a file name" in refusal("a/b", tmp_path)


def test_folders_may_hold_images_of_equal_names(tmp_path):
    root = plant(
        tmp_path / "lab", "basophil/001.png", "monocyte/001.png", "masks/basophil/001.png", "annotations/a.json"
    )
    centre = load_centre("lab", root)
    assert [record.key for record in centre.records] == ["basophil/001.png", "monocyte/001.png"]
    assert centre.masks and centre.boxes


def test_folders_beside_images_are_no_classes(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("experiments"), "propagate", True)
    caplog.set_level(logging.INFO)
    root = plant(tmp_path / "lab", "images/1.png", "labels/1.png", "found/1.png.overlay.png", "notes/a.txt")
    centre = load_centre("lab", root)
    assert (centre.layout, [record.key for record in centre.records]) == ("unlabelled", ["images/1.png"])
    assert "not read: found, labels" in caplog.text
    # Without images of its own, images/ is a folder as any other.
    assert load_centre("b", plant(tmp_path / "b", "images/a/1.png", "blast/1.png")).layout == "folders"


def test_folder_of_masks_that_the_user_names_is_no_class(tmp_path, monkeypatch):
    root = plant(tmp_path / "lab", "basophil/1.png", "drawn/1.png", "basophil/drawn/1.png")
    names = ["basophil/1.png", "basophil/drawn/1.png"]
    assert [r.key for r in load_centre("lab", root, annotations="drawn").records] == names
    assert [r.key for r in load_centre("lab", root, annotations=root / "drawn").records] == names
    kept = [r.key for r in load_centre("lab", root, annotations="basophil/drawn").records]
    assert kept == ["basophil/1.png", "drawn/1.png"]
    assert len(load_centre("lab", root).records) == len(load_centre("lab", root, annotations="absent").records) == 3
    # Outlines may lie among the images that they belong to.
    plant(root, "drawn/1.json")
    assert len(load_centre("lab", root, annotations="drawn").records) == 3
    (root / "labels.csv").write_text("image,label\nbasophil/1.png,basophil\n")
    (root / "drawn" / "1.json").unlink()
    assert [r.key for r in load_centre("lab", root, annotations="drawn").records] == names


def test_own_class_map(tmp_path):
    root = plant(tmp_path / "lab", "Baso/1.png", "Junk/1.png", "01/1.png")
    own = {"baso": "basophil", "Junk": "", "01": "blast"}
    centre = load_centre("lab", root, class_map=own)
    assert centre.counts == {"basophil": 1, "blast": 1}
    assert centre.unmapped == {"Junk": 1}
    (tmp_path / "map.yaml").write_text('baso: basophil\nJunk:\n"01": blast\n')
    assert types_of(load_centre("lab", root, class_map=tmp_path / "map.yaml")) == types_of(centre)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("01: blast\n", "put it in quotes"),
        ("- a\n- b\n", "a list of lines"),
        ("a: [\n", "not a YAML file"),
        ("a: b\nA: c\n", "mapped twice"),
        ("a: ''\n", "maps no name"),
    ],
)
def test_own_class_map_faults(tmp_path, text, message):
    root = plant(tmp_path / "lab", "a/1.png")
    (tmp_path / "map.yaml").write_text(text)
    assert message in refusal("lab", root, class_map=tmp_path / "map.yaml")
    assert "cannot be read" in refusal("lab", root, class_map=tmp_path / "absent.yaml")
    assert "not one of thesis13" in refusal("lab", root, class_map="thesis12")
