import pytest

from mrcnn.files.errors import InputError, escape_unprintable, one_line


@pytest.mark.parametrize("name", ["a\r\nb", "a\u2028b", "a\x1b[31mb", "a\0b", "a\udcffb"])
def test_input_error_is_one_printable_line_whatever_a_file_is_called(name):
    text = str(InputError(f"{name}.png: no such file"))
    assert text.isprintable() and text.startswith("a\\") and text.endswith("b.png: no such file")
    assert escape_unprintable("Zölle 細胞\\n.png") == "Zölle 細胞\\n.png"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("mapping values\n  in line 2\n"), "mapping values in line 2"),
        (FileNotFoundError(2, "No such file or directory", "a.h5"), "No such file or directory"),
        (OSError("truncated file"), "truncated file"),
        (MemoryError(" \n "), "MemoryError"),
        (ValueError("9" * 5000), "9" * 296 + " ..."),
    ],
)
def test_one_line_says_what_is_wrong_whatever_the_error_holds(error, text):
    assert one_line(error) == text
