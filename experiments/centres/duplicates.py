"""Image files of the same content: published sets hold some, and a copy in the test part is no test.

Files are compared byte by byte, by their SHA-256. A picture that was saved again, cropped or scaled is another file and
is not found.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from experiments.centres.centre import shorten
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import write_json
from mrcnn.files.json_io import parse_json
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import file_hash
from mrcnn.files.read_ahead import read_ahead

logger = logging.getLogger(__name__)

Key = TypeVar("Key")
_AHEAD = 64


def content_hashes(records: Sequence[ImageRecord], name: str = "hash") -> dict[str, str]:
    """Compute the SHA-256 of each image file, in threads; `name` is that of the bar.

    Returns:
        Hexadecimal SHA-256 by image_id, in the order of the records. Unreadable files are left out and listed in a
        warning.
    """
    hashes, faults = {}, []
    with closing(read_ahead(_hash_or_error, [record.path for record in records], num_ahead=_AHEAD)) as results:
        for record, result in zip(Bar(records, desc=name, unit="image"), results, strict=True):
            if isinstance(result, OSError):
                faults.append(f"{record.image_id} ({result.strerror or result})")
            else:
                hashes[record.image_id] = result
    if faults:
        logger.warning("files that cannot be read: %s", shorten(faults))
    return hashes


def remembered_hashes(records: Sequence[ImageRecord], path: str | os.PathLike, name: str = "hash") -> dict[str, str]:
    """As `content_hashes`, but files that have not changed since the JSON file `path` was written are not read again.

    It holds sizes, times of change and hashes, and is written anew if there is anything new.
    """
    try:
        known = parse_json(Path(path).read_bytes())
        noted = {
            (image_id, size, time): digest
            for image_id, (size, time, digest) in known.items()
            if isinstance(digest, str)
        }
    except (OSError, ValueError, TypeError, AttributeError):
        noted = {}  # only time is lost
    states = {record.image_id: (record.image_id, *_state(record)) for record in records}
    changed = [record for record in records if states[record.image_id] not in noted]
    fresh = content_hashes(changed, name) if changed else {}
    hashes = {image_id: fresh.get(image_id) or noted.get(state) for image_id, state in states.items()}
    hashes = {image_id: digest for image_id, digest in hashes.items() if digest}
    if changed:
        write_json(path, {image_id: [*states[image_id][1:], digest] for image_id, digest in hashes.items()})
    return hashes


def duplicate_sets(hashes: Mapping[Key, str]) -> list[tuple[Key, ...]]:
    """Sets of two image_ids or more that share a content hash, each sorted, in the order of their first image_ids."""
    keys_of = defaultdict(list)
    for image_id, digest in hashes.items():
        keys_of[digest].append(image_id)
    return sorted(tuple(sorted(image_ids)) for image_ids in keys_of.values() if len(image_ids) > 1)


def _state(record: ImageRecord) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; size -1 of a file that is gone."""
    try:
        state = record.path.stat()
    except OSError:
        return -1, 0
    return state.st_size, state.st_mtime_ns


def _hash_or_error(path: Path) -> str | OSError:
    try:
        return file_hash(path)
    except OSError as error:
        return error
