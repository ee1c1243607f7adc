"""The one exception that means "the user can mend this"."""


class InputError(ValueError):
    """A file, folder, option or value that the caller must change.

    The message is one line: what is wrong, with which file or option, and what to do. The command line prints
    it and exits with status 2; anything else that is raised is a fault of this software and keeps its traceback.
    """
