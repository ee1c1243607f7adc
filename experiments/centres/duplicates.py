"""Image files of the same content: published sets hold some, and a copy in the test part is no test.

Files are compared byte by byte, by their SHA-256. A picture that was saved again, cropped or scaled is another file and
is not found.
"""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import write_json
from mrcnn.files.json_io import parse_json
from mrcnn.files.progress import Progress
from mrcnn.files.read_ahead import read_ahead

logger = logging.getLogger(__name__)

Key = TypeVar("Key")

_AHEAD = 64
_CHUNK_BYTES = 1 << 20
_MAX_NAMED = 10


def content_hashes(records: Sequence[ImageRecord], name: str = "hash") -> dict[str, str]:
    """Compute the SHA-256 of each image file, in threads.

    Args:
        records: the images.
        name: what the progress is called.

    Returns:
        Hexadecimal SHA-256 by key, in the order of the records. Files that cannot be read are left out and listed in a
        warning.
    """
    hashes, faults = {}, []
    with (
        Progress(name, "images", len(records)) as bar,
        closing(read_ahead(_hash_or_fault, [record.path for record in records], num_ahead=_AHEAD)) as results,
    ):
        for record, (digest, fault) in zip(records, results, strict=True):
            if fault:
                faults.append(f"{record.key} ({fault})")
            else:
                hashes[record.key] = digest
            bar.advance(1)
    if faults:
        more = f" and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
        logger.warning("%d files cannot be read: %s%s", len(faults), ", ".join(faults[:_MAX_NAMED]), more)
    return hashes


def remembered_hashes(records: Sequence[ImageRecord], path: str | os.PathLike, name: str = "hash") -> dict[str, str]:
    """As `content_hashes`, but files that have not changed since `path` was written are not read again.

    Args:
        records: the images.
        path: JSON file of sizes, times of change and hashes; written if there is anything new.
        name: what the progress is called.
    """
    path = Path(path)
    try:
        known = parse_json(path.read_bytes())
    except (OSError, ValueError):
        known = {}  # only time is lost
    known = {key: noted for key, noted in known.items() if _is_note(noted)} if isinstance(known, dict) else {}
    states = {record.key: _state(record.path) for record in records}
    changed = [r for r in records if states[r.key] is None or known.get(r.key, [])[:2] != states[r.key]]
    fresh = content_hashes(changed, name) if changed else {}
    read_again = {record.key for record in changed}
    hashes = {r.key: fresh.get(r.key) if r.key in read_again else known[r.key][2] for r in records}
    hashes = {key: digest for key, digest in hashes.items() if digest is not None}
    if changed:
        write_json(path, {key: [*(states[key] or ()), digest] for key, digest in hashes.items()})
    return hashes


def _is_note(noted: object) -> bool:
    """Whether a value of the file is size, time of change and hash."""
    return (
        isinstance(noted, list)
        and len(noted) == 3
        and all(isinstance(value, int) for value in noted[:2])
        and isinstance(noted[2], str)
    )


def duplicate_sets(hashes: Mapping[Key, str]) -> list[tuple[Key, ...]]:
    """Find the keys that share a content.

    Args:
        hashes: content hash by key, as from `content_hashes`.

    Returns:
        Sets of two keys or more, each sorted, in the order of their first keys.
    """
    keys_of = defaultdict(list)
    for key, digest in hashes.items():
        keys_of[digest].append(key)
    return sorted(tuple(sorted(keys)) for keys in keys_of.values() if len(keys) > 1)


def _state(path: Path) -> list[int] | None:
    """Size in bytes and time of the last change in ns, or None if the file is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def _hash_or_fault(path: Path) -> tuple[str, str]:
    """Return (hash, "") or ("", why there is none)."""
    content = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            while chunk := handle.read(_CHUNK_BYTES):
                content.update(chunk)
    except OSError as error:
        return "", error.strerror or str(error)
    return content.hexdigest(), ""
