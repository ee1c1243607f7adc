"""Columns of a table that somebody made with whatever program: what is there is read, and what is lost is told."""

import pytest

from experiments.centres.centre import read_columns
from mrcnn.files.errors import InputError

ROWS = [("a.png", "LYT"), ("b.png", ""), ("c, d.png", 'say "MON"')]


def read(path):
    return read_columns(path, ("image", "label"), "give the file")


@pytest.mark.parametrize(
    "content",
    [
        b'image,label\na.png,LYT\nb.png,\n"c, d.png","say ""MON"""\n',
        b'\xef\xbb\xbfimage,label\r\na.png,LYT\r\nb.png\r\n"c, d.png","say ""MON"""',
        b'label,x,image,\nLYT,1,a.png,\n\n,,b.png,,,\n"say ""MON""",,"c, d.png"\n',
    ],
)
def test_the_same_rows_in_several_ways(content, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    assert [row[1:] for row in read(tmp_path / "a.csv")] == ROWS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"image;label\na;b\n", r"no column image or label in its first line \(image;label\)"),
        (b"image,label,image\na,b,c\n", "column image is there twice"),
        (b'image,label\na,"b\nc,d\n', "unexpected end of data"),
        (b'image,label\na,"b"c\n', "expected after"),
        (b"image,label\na,b\nc,d,e\n", "row 3 has 3 values, but there are 2 columns"),
        (b"image,label\na,b\0\n", "NUL"),
        (b"image,label\na,\xff\n", "not a UTF-8 CSV file"),
        ("image,label\n".encode("utf-16"), "not a UTF-8 CSV file"),
        (b"image,label\na," + b"b" * 200_000, "field larger than field limit"),
        (b"a" * 3000, r"\(a{200} \.\.\.\)"),
        (b"", r"\(empty\)"),
    ],
)
def test_what_would_be_lost_is_refused(content, reason, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read(tmp_path / "a.csv")
    assert str(caught.value).startswith(str(tmp_path / "a.csv")) and len(str(caught.value)) < 1000


def test_a_folder_and_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file; give the file"):
        read(tmp_path / "a.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
