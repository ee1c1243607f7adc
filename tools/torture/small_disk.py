"""A file system of a few kilobytes or megabytes in memory, that gets full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotMount(Exception):
    """This user or this machine may not mount anything."""


class SmallDisk:
    """A mounted tmpfs; see `small_disk`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def change(self, options: str) -> None:
        """Mount it again with other options, such as size=64m or ro."""
        _call("mount", "-o", f"remount,{options}", str(self.folder))

    def used(self) -> int:
        """Bytes of all files, as blocks."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*") if path.is_file())


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount a disk on a folder, which is made, while the block lasts.

    Args:
        folder: where.
        size: bytes.

    Raises:
        CannotMount: with what the system said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        _call("umount", "--lazy", str(folder))


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CannotMount(str(error)) from None
    if done.returncode:
        raise CannotMount(done.stderr.strip())
