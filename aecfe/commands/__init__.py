"""Commands of `aecfe`, a file for each subject."""
