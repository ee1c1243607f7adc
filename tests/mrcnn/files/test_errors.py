import pytest

from mrcnn.files.errors import InputError, escape_unprintable, first_line, one_line


@pytest.mark.parametrize("name", ["a\nb", "a\r\nb", "a\u2028b", "a\x1b[31mb", "a\0b", "a\udcffb", "a\u202eb"])
def test_input_error_is_one_printable_line_whatever_a_file_is_called(name):
    text = str(InputError(f"{name}.png: no such file"))
    assert text.isprintable() and text.startswith("a\\") and text.endswith("b.png: no such file")


def test_escape_unprintable_keeps_what_can_be_read():
    assert escape_unprintable("Zölle 細胞\\n.png") == "Zölle 細胞\\n.png"
    assert escape_unprintable("a\nb") == "a\\nb"


def test_input_error_of_a_huge_value_keeps_its_beginning_and_its_end():
    text = str(InputError("a.csv: value " + "9" * 50_000 + " is no label; write a name"))
    assert len(text) <= 1000 and text.startswith("a.csv: value 999") and text.endswith(" is no label; write a name")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such layer\n  of the graph"), "no such layer"),
        (ValueError("\n  no such layer\n"), "no such layer"),
        (FileNotFoundError(2, "No such file or directory", "a.h5"), "No such file or directory"),
        (OSError("truncated file"), "truncated file"),
        (ValueError(), "ValueError"),
        (MemoryError(" \n "), "MemoryError"),
        (ValueError("9" * 5000), "9" * 300),
    ],
)
def test_first_line_says_what_is_wrong_whatever_the_error_holds(error, text):
    assert first_line(error) == text


def test_one_line_joins_lines_and_cuts_long_ones():
    assert one_line(ValueError("mapping values\n  in line 2")) == "mapping values in line 2"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("9" * 5000))) == 300 and one_line(ValueError("9" * 5000)).endswith("9 ...")
