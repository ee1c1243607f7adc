"""The one exception that means "the user can mend this"."""

MAX_LENGTH = 1000  # characters
MAX_REASON = 300  # characters of what a library says


class InputError(ValueError):
    """A file, folder, option or value that the caller must change.

    The message is one line: what is wrong, with which file or option, and what to do. The command line prints
    it and exits with status 2; anything else that is raised is a fault of this software and keeps its traceback.

    Args:
        message: names of files in it may hold anything; line breaks and other characters that are not printable are
            written as escapes. What is longer than a screen, since it shows a value of that size, is cut in its midst.
    """

    def __init__(self, message: object = ""):
        text = escape_unprintable(str(message))
        super().__init__(text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 250]} ... {text[-200:]}")


def first_line(error: BaseException) -> str:
    """What an error of a library says, in short, as the reason in a message: its first line, cut where it is long.

    The rest is often a stack or a graph. Of an error of the system it is the reason alone, since the path stands in the
    message anyway; of an error that says nothing it is the name of its class.
    """
    text = error.strerror if isinstance(error, OSError) else None
    lines = str(text or error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:MAX_REASON]


def one_line(error: BaseException) -> str:
    """All that an error of a library says, joined to one line: of those that say on the second line where it is."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 4]} ..."


def escape_unprintable(text: str) -> str:
    """Write line breaks, control characters and what is no character as `\\n`, `\\x1b`, `\\udcff`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
