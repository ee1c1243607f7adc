"""Layouts of a centre, on miniature folders: files are empty, since listing a centre opens no image."""

import pytest

from experiments.centres.centre import load_centre, read_columns
from experiments.centres.class_maps import THESIS_CLASSES
from mrcnn.files.errors import InputError


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def types_of(centre):
    return {record.image_id: (record.label, record.cell_type) for record in centre.records}


def refusal(*args, **options):
    with pytest.raises(InputError) as error:
        load_centre(*args, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_acevedo20_labels_by_folder_and_prefix(tmp_path):
    files = "basophil/BA_1.jpg ig/MY_1.jpg ig/PMY_1.jpg ig/MMY_1.jpg ig/IG_1.jpg neutrophil/SNE_1.jpg "
    files += "neutrophil/BNE_1.jpg neutrophil/NEUTROPHIL_1.jpg lymphocyte/LY_1.jpg platelet/PLATELET_1.jpg "
    files += "platelet/.DS_Store platelet/Thumbs.db neutrophil/.DS_169665.jpg neutrophil/__MACOSX/SNE_2.jpg"
    root = plant(tmp_path / "acevedo", *files.split())
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
    assert len(centre.other_files) == 1
    five = load_centre("acevedo", root, class_map="five")
    assert five.counts == {"neutrophil": 2, "lymphocyte": 1, "monocyte": 0, "eosinophil": 0, "basophil": 1}


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
    centre = load_centre("plain", plain)
    assert centre.layout == "folders" and centre.unmapped == {}


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
    assert centre.records[-1].label == ""
    assert centre.masks is None
    assert centre.boxes == root / "annotations"


def test_csv_beside_its_images(tmp_path):
    root = plant(tmp_path / "lab", "1.png", "masks/1.png")
    (root / "labels.csv").write_text("image,label\n1.png,monocyte\n")
    centre = load_centre("lab", root)
    assert types_of(centre) == {"1.png": ("monocyte", "monocyte")}
    assert centre.masks == root / "masks" and not centre.other_files
    for root in (plant(tmp_path / "a", "1.png"), plant(tmp_path / "b", "images/1.png")):
        centre = load_centre("new", root)
        assert (centre.layout, [record.label for record in centre.records]) == ("unlabelled", [""])


def test_csv_faults_are_all_named(tmp_path):
    root = plant(tmp_path / "lab", "images/1.png", "images/notes.txt", "x.png")
    lines = ["image,label", "1.png,a", "1.png,b", "../x.png,a", ",a", "notes.txt,a"]
    (root / "labels.csv").write_text("\n".join(lines + [f"gone{i}.png,a" for i in range(20)]))
    message = refusal("lab", root)
    assert "24 faults: row 3: 1.png was named in row 2; row 4: '../x.png' is none of the images" in message
    assert "row 6: 'notes.txt' is none" in message and "gone5.png" in message
    assert "and 14 more" in message and "gone6.png" not in message


ROWS = [("a.png", "LYT"), ("b.png", ""), ("c, d.png", 'say "MON"')]


@pytest.mark.parametrize(
    "content",
    [
        b'image,label\na.png,LYT\nb.png,\n"c, d.png","say ""MON"""\n',
        b'\xef\xbb\xbfimage,label\r\na.png,LYT\r\nb.png\r\n"c, d.png","say ""MON"""',
        b'label,x,image,\nLYT,1,a.png,\n\n,,b.png,,,\n"say ""MON""",,"c, d.png"\n',
    ],
)
def test_read_columns_gives_the_same_rows_in_several_ways(content, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    assert [row[1:] for row in read_columns(tmp_path / "a.csv", ("image", "label"), "give it")] == ROWS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"image;label\na;b\n", r"no column image or label in its first line, .*\(image;label\)"),
        (b"image,label,image\na,b,c\n", "no column image in its first line, or two"),
        (b'image,label\na,"b\nc,d\n', "unexpected end of data"),
        (b"image,label\na,b\nc,d,e\n", "row 3 has more values than the 2 columns"),
        ("image,label\n".encode("utf-16"), "not a UTF-8 CSV file"),
        (b"", r"\(empty\)"),
    ],
)
def test_read_columns_refuses_what_would_be_lost(content, reason, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_columns(tmp_path / "a.csv", ("image", "label"), "give the file")
    with pytest.raises(InputError, match="absent.csv: cannot be read .*; give the file"):
        read_columns(tmp_path / "absent.csv", ("image", "label"), "give the file")


def test_folder_faults(tmp_path):
    assert "no such folder" in refusal("lab", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "a centre holds images/" in refusal("lab", tmp_path / "empty")
    assert "no images" in refusal("lab", plant(tmp_path / "text", "BAS/readme.txt"))
    assert "layout csv needs it" in refusal("lab", plant(tmp_path / "one", "1.png"), layout="csv")
    assert "is not one of auto" in refusal("lab", tmp_path, layout="other")
    assert "usable as a file name" in refusal("a/b", tmp_path)
    assert "no such folder" in refusal("lab", tmp_path / ("a" * 300))
    (plant(tmp_path / "odd", "images/1.png") / "labels.csv").mkdir()
    assert "labels.csv: cannot be read" in refusal("odd", tmp_path / "odd")


def test_folders_beside_images_are_no_classes(tmp_path, logged):
    root = plant(tmp_path / "lab", "images/1.png", "labels/1.png", "found/1.png.overlay.png", "notes/a.txt")
    centre = load_centre("lab", root)
    assert (centre.layout, [record.image_id for record in centre.records]) == ("unlabelled", ["images/1.png"])
    assert f"not read are in {root / 'found'}, {root / 'labels'}" in logged.text
    # Without images of its own, images/ is a folder as any other.
    assert load_centre("b", plant(tmp_path / "b", "images/a/1.png", "blast/1.png")).layout == "folders"


def test_folder_of_masks_that_the_user_names_is_no_class(tmp_path, monkeypatch):
    root = plant(tmp_path / "lab", "basophil/1.png", "drawn/1.png", "basophil/drawn/1.png")
    names = ["basophil/1.png", "basophil/drawn/1.png"]
    for annotations, expected in {
        "drawn": names,
        root / "drawn": names,
        "basophil/drawn": ["basophil/1.png", "drawn/1.png"],
        "absent": [*names, "drawn/1.png"],
    }.items():
        assert [r.image_id for r in load_centre("lab", root, annotations=annotations).records] == expected
    # Outlines may lie among the images that they belong to.
    plant(root, "drawn/1.json")
    assert len(load_centre("lab", root, annotations="drawn").records) == 3
    (root / "labels.csv").write_text("image,label\nbasophil/1.png,basophil\n")
    (root / "drawn" / "1.json").unlink()
    assert [r.image_id for r in load_centre("lab", root, annotations="drawn").records] == names


def test_own_class_map(tmp_path):
    root = plant(tmp_path / "lab", "Baso/1.png", "Junk/1.png", "01/1.png")
    own = {"baso": "basophil", "Junk": "", "01": "blast"}
    centre = load_centre("lab", root, class_map=own)
    assert centre.counts == {"basophil": 1, "blast": 1}
    assert centre.unmapped == {"Junk": 1}
    (tmp_path / "map.yaml").write_text('baso: basophil\nJunk:\n"01": blast\n')
    assert types_of(load_centre("lab", root, class_map=tmp_path / "map.yaml")) == types_of(centre)
    assert "cannot be read" in refusal("lab", root, class_map=tmp_path / "absent.yaml")
    assert "not one of thesis13" in refusal("lab", root, class_map="thesis12")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("01: blast\n", "put it in quotes"),
        ("a: [\n", "not YAML"),
        ("a: b\nA: c\n", "mapped twice"),
    ],
)
def test_own_class_map_faults(tmp_path, text, message):
    root = plant(tmp_path / "lab", "a/1.png")
    (tmp_path / "map.yaml").write_text(text)
    assert message in refusal("lab", root, class_map=tmp_path / "map.yaml")


# Folders of the published data sets, with a number of images for each that no other has.
MATEK19 = "BAS EBO EOS KSC LYA LYT MMZ MOB MON MYB MYO NGB NGS PMB PMO"
INT20 = """01-NORMO 04-LGL 05-MONO 08-LYMPH-neo 09-BASO 10-EOS 11-STAB 12-LYMPH-reaktiv 13-MYBL 14-LYMPH-typ 15-SEG
    16-PLZ 17-Kernschatten 18-PMYEL 19-MYEL 20-Meta 21-Haarzelle 22-Atyp-PMYEL"""
MLL23 = """basophil eosinophil hairy_cell lymphocyte lymphocyte_large_granular lymphocyte_neoplastic lymphocyte_reactive
    metamyelocyte monocyte myeloblast myelocyte neutrophil_band neutrophil_segmented normoblast plasma_cell promyelocyte
    promyelocyte_atypical smudge_cell"""
ACEVEDO20 = """basophil/BA eosinophil/EO erythroblast/ERB ig/IG ig/MMY ig/MY ig/PMY lymphocyte/LY monocyte/MO
    neutrophil/BNE neutrophil/NEUTROPHIL neutrophil/SNE platelet/PLATELET"""
# Images of each of the 13 classes, in the order of THESIS_CLASSES, where the first folder has 1 image, the second 2 ...
PUBLISHED = {
    "matek19": ([1, 3, 2, 11, 15, 10, 7, 12, 13, 8 + 9, 6, 5, 4], {"PMB": 14}),
    "int20": ([5, 6, 1, 9, 14, 15, 16, 7, 11, 3, 10, 4 + 8, 13], {"04-LGL", "16-PLZ", "21-Haarzelle", "22-Atyp-PMYEL"}),
    "mll23": ([1, 2, 14, 10, 16, 11, 8, 12, 13, 9, 4, 6 + 7, 18], {"hairy_cell", "plasma_cell"}),
    "acevedo20": ([1, 2, 3, 0, 7, 6, 5, 10, 12, 9, 8, 0, 0], {"IG", "NEUTROPHIL", "platelet"}),
}


def plant_published(root, layout):
    folders = {"matek19": MATEK19, "int20": INT20, "mll23": MLL23, "acevedo20": ACEVEDO20}[layout].split()
    for number, folder in enumerate(folders, start=1):
        parent, prefix = folder.split("/") if layout == "acevedo20" else (folder, folder)
        suffix = {"acevedo20": "jpg", "matek19": "tiff"}.get(layout, "tif")
        plant(root, *(f"{parent}/{prefix}_{i:04d}.{suffix}" for i in range(1, number + 1)))
    return root


@pytest.mark.parametrize("layout", sorted(PUBLISHED))
def test_published_layouts_have_their_counts(tmp_path, layout):
    counts, left_out = PUBLISHED[layout]
    root = plant_published(tmp_path / "data", layout)
    centre = load_centre("data", root)
    assert centre.layout == layout
    assert centre.counts == dict(zip(THESIS_CLASSES, counts, strict=True))
    assert set(left_out) <= set(centre.unmapped)
    assert sum(counts) + sum(centre.unmapped.values()) == len(centre.records)

    eleven = load_centre("data", root, class_map="eleven")
    expected = dict(zip(THESIS_CLASSES, counts, strict=True))
    smudges, atypical = expected.pop("smudge_cell"), expected.pop("lymphocyte_atypical")
    # Monoblasts, the 8 images of MOB, are monocytes in the thesis and nothing in the later scheme.
    monoblasts = 8 if layout == "matek19" else 0
    expected["monocyte"] -= monoblasts
    assert eleven.counts == expected
    assert sum(eleven.unmapped.values()) == sum(centre.unmapped.values()) + smudges + atypical + monoblasts


@pytest.mark.parametrize("layout", sorted(PUBLISHED))
@pytest.mark.parametrize("wrappers", ["PBC_dataset_normal_DIB", "PKG - AML/AML-Cytomorphology_LMU/AML-Cytomorphology"])
def test_folders_around_a_published_layout_change_nothing(tmp_path, layout, wrappers):
    plain = load_centre("plain", plant_published(tmp_path / "plain", layout))
    plant_published(tmp_path / "wrapped" / wrappers, layout)
    plant(tmp_path / "wrapped", "__MACOSX/data/._1.jpg", "__MACOSX/1.jpg", "readme.txt", "empty/notes.txt")
    wrapped = load_centre("wrapped", tmp_path / "wrapped")
    assert (wrapped.layout, wrapped.inner, plain.inner) == (layout, wrappers, "")
    assert types_of(wrapped) == types_of(plain)
    assert all(record.path == tmp_path / "wrapped" / wrappers / record.image_id for record in wrapped.records)
    assert wrapped.other_files == ("empty/notes.txt", "readme.txt")


def test_folders_that_say_something_are_not_passed_over(tmp_path):
    alone = load_centre("a", plant(tmp_path / "a", "basophil/slide1/1.png", "basophil/slide2/1.png"))
    assert {record.label for record in alone.records} == {"basophil"}
    own = load_centre("b", plant(tmp_path / "b", "blast/1.png"))
    assert types_of(own) == {"blast/1.png": ("blast", "")}
    # labels.csv and images/ begin a centre wherever they lie.
    root = plant(tmp_path / "c", "lab/images/1.png", "masks/1.png")
    assert types_of(load_centre("c", root)) == {"images/1.png": ("", "")}
    (root / "lab" / "labels.csv").write_text("image,label\n1.png,monocyte\n")
    listed = load_centre("c", root)
    assert (listed.layout, listed.inner, listed.masks) == ("csv", "lab", root / "masks")
    assert types_of(listed) == {"images/1.png": ("monocyte", "monocyte")}


def test_links_to_folders_are_named_and_not_followed(tmp_path, logged):
    root = plant(tmp_path / "lab", "BAS/1.png", "EOS/2.png")
    (root / "BAS" / "again").symlink_to("..")
    assert sorted(types_of(load_centre("lab", root))) == ["BAS/1.png", "EOS/2.png"]
    assert f"{root / 'BAS' / 'again'}: a link to a folder, which is not followed" in logged.text
