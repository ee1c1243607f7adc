"""The one exception that means "the user can mend this"."""

MAX_LENGTH = 1000  # characters
MAX_REASON = 300  # characters of what a library says


class InputError(ValueError):
    """A file, folder, option or value that the caller must change.

    The command line prints the message and exits with status 2; any other error is a fault of this software.

    Args:
        message: what is wrong, with which file or option, and what to do. It becomes one printable line, cut in its
            midst where it is longer than a screen.
    """

    def __init__(self, message: object = ""):
        text = escape_unprintable(str(message))
        super().__init__(text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 250]} ... {text[-200:]}")


def one_line(error: BaseException) -> str:
    """What a library says, on one line and cut where it is long; of an error of the system its reason alone."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 4]} ..."


def escape_unprintable(text: str) -> str:
    """Write line breaks, control characters and what is no character as `\\n`, `\\x1b`, `\\udcff`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
