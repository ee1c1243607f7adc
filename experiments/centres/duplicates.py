"""Image files of the same content: published sets hold some, and a copy in the test part is no test.

Files are compared byte by byte, by their SHA-256. A picture that was saved again, cropped or scaled is another file and
is not found.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from experiments.centres.centre import shorten
from mrcnn.data.records import ImageRecord
from mrcnn.files.atomic import write_json
from mrcnn.files.json_io import parse_json
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import file_hash
from mrcnn.files.read_ahead import read_ahead

logger = logging.getLogger(__name__)

Key = TypeVar("Key")
_AHEAD = 32


def read_each(
    records: Sequence[ImageRecord], read: Callable[[Path], Any], bar: str, error: type[Exception]
) -> Iterator[tuple[ImageRecord, Any]]:
    """Each image with what `read` gives for its path, in threads, or with the `error` that it raised."""

    def attempt(record: ImageRecord) -> Any:
        try:
            return read(record.path)
        except error as fault:
            return fault

    with closing(read_ahead(attempt, records, num_ahead=_AHEAD)) as results:
        yield from zip(Bar(records, desc=bar, unit="image"), results, strict=True)


def content_hashes(records: Sequence[ImageRecord], bar: str = "hash") -> dict[str, str]:
    """SHA-256 of each image file by its image_id; those that cannot be read are left out and listed in a warning."""
    hashes, faults = {}, []
    for record, result in read_each(records, file_hash, bar, OSError):
        if isinstance(result, OSError):
            faults.append(f"{record.image_id} ({result.strerror or result})")
        else:
            hashes[record.image_id] = result
    if faults:
        logger.warning("files that cannot be read: %s", shorten(faults))
    return hashes


def remembered_hashes(records: Sequence[ImageRecord], path: str | os.PathLike, bar: str = "hash") -> dict[str, str]:
    """As `content_hashes`, but files that have not changed since the JSON file `path` was written are not read again.

    It holds size, time of change and hash of each, and is written anew if there is anything new.
    """
    try:
        known = {image_id: tuple(noted) for image_id, noted in parse_json(Path(path).read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        known = {}  # only time is lost
    states = {r.image_id: (s.st_size, s.st_mtime_ns) for r in records if r.path.exists() for s in [r.path.stat()]}
    hashes = {name: known[name][2] for name, state in states.items() if known.get(name, ())[:2] == state}
    changed = [record for record in records if record.image_id not in hashes]
    if changed:
        hashes |= content_hashes(changed, bar)
        write_json(path, {image_id: [*states[image_id], digest] for image_id, digest in hashes.items()})
    return hashes


def duplicate_sets(hashes: Mapping[Key, str]) -> list[tuple[Key, ...]]:
    """Sets of two keys or more that share a content hash, each sorted, in the order of their first keys."""
    keys_of = defaultdict(list)
    for key, digest in hashes.items():
        keys_of[digest].append(key)
    return sorted(tuple(sorted(keys)) for keys in keys_of.values() if len(keys) > 1)
