"""Groups of images from a CSV file: how images are named, and what is refused."""

import pytest

from experiments.centres.splits import read_groups
from mrcnn.files.errors import InputError

KEYS = ["images/1.png", "images/2.png", "images/a/1.png", "images/a/3.png", "images/b/3.png", "images/Müller.png"]


def write(tmp_path, *rows, header="image,patient", encoding="utf-8"):
    path = tmp_path / "groups.csv"
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def refusal(path, column="patient", keys=KEYS):
    with pytest.raises(InputError) as error:
        read_groups(path, column, keys, "centre lab")
    message = str(error.value)
    assert "\n" not in message and message.startswith("centre lab: ")
    return message


def test_groups_are_read_by_key_and_by_what_only_one_image_ends_with(tmp_path):
    path = write(
        tmp_path,
        "images/1.png,x,p1",
        " 2.png ,x, p1 ",
        "a\\1.png,x,p2",
        "./images/a/3.png,x,p2",
        "b/3.png,x,7",
        "Mu\u0308ller.png,x,7",
        "1.png,x,p1",
        "",
        header="\ufeffimage,label, patient",
    )
    assert read_groups(path, "patient", KEYS, "lab") == dict(zip(KEYS, ["p1", "p1", "p2", "p2", "7", "7"], strict=True))
    assert list(read_groups(path, "patient", KEYS[::-1], "lab")) == KEYS[::-1]
    assert set(read_groups(path, "label", KEYS, "lab").values()) == {"x"}


def test_groups_of_labels_csv_mean_the_image_in_the_folder(tmp_path):
    """labels.csv names files by their path in images/: `1.png` is images/1.png and not images/a/1.png."""
    keys = KEYS[:3]
    path = write(tmp_path, "1.png,p1", "2.png,p2", "a/1.png,p3")
    assert read_groups(path, "patient", keys, "lab") == dict(zip(keys, ["p1", "p2", "p3"], strict=True))


def test_faults_of_rows_are_counted_and_named(tmp_path):
    rows = ["4.png,p", "3.png,p", ",p", "1.png,p", "images/1.png,q", "../1.png,p"]
    message = refusal(write(tmp_path, *rows, *(f"gone{i}.png,p" for i in range(20))))
    assert "25 faults" in message and "and 15 more" in message
    for fault in (
        "row 2: 4.png is none of the images of the centre",
        "row 3: 3.png could be images/a/3.png or images/b/3.png; write the folder too",
        "row 4 names no image",
        "row 6: images/1.png is in patient q, and in p above",
        "row 7: ../1.png is none of the images",
    ):
        assert fault in message
    assert "gone5.png" not in message


def test_images_without_a_group_are_counted(tmp_path):
    message = refusal(write(tmp_path, "images/1.png,p1", "2.png,", "a/1.png"))
    assert "5 of 6 images have no patient, the first is images/2.png" in message


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "groups.csv"
    for text, message in [
        (b"image,patient\n1.png,\xff\xfe\n", "not a UTF-8 CSV file"),
        (b"image;patient\n1.png;p\n", "no column image or patient in its first line (image;patient)"),
        (b"image,slide\n1.png,p\n", "no column patient in its first line (image,slide)"),
        (b"", "no column image or patient in its first line (empty)"),
    ]:
        path.write_bytes(text)
        with pytest.raises(InputError) as error:
            read_groups(path, "patient", KEYS, "lab")
        assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"absent\.csv: no such file; lab: it must hold the column patient"):
        read_groups(tmp_path / "absent.csv", "patient", KEYS, "lab")
    for column in ("", "image"):
        assert "is no column of groups" in refusal(path, column)
