"""What a skops file may consist of, looked at before anything of it is built."""

import io
import json
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

from experiments.classifier.forest_checks import Unfit, check_array

MAX_CONTENT_BYTES = 2**30  # unpacked; the thesis' forest on its 65,693 cells stays below a third of it
# The JSON, of which a tree takes some 30 kB; what is made of it takes thirty times as much.
MAX_SCHEMA_BYTES = 12 * 2**20
MAX_MEMBERS = 2000  # of which a tree has five
MAX_NESTING = 64  # of the JSON; a forest has 20

_PROTOCOL = 2  # of skops 0.11 and later; files that claim an older one are read by other, less careful code
_SCHEMA = "schema.json"
# Module, class and how skops builds it: all that the classifiers of `save_classifier` consist of.
_ALLOWED = {
    ("builtins", "dict", "DictNode"),
    ("builtins", "list", "ListNode"),
    ("builtins", "tuple", "TupleNode"),
    ("builtins", "str", "JsonNode"),
    ("builtins", "str", "TypeNode"),
    ("numpy", "ndarray", "NdArrayNode"),
    ("numpy", "int32", "NdArrayNode"),
    ("numpy", "int64", "NdArrayNode"),
    ("numpy", "float64", "NdArrayNode"),
    ("sklearn.ensemble._forest", "RandomForestClassifier", "ObjectNode"),
    ("sklearn.linear_model._logistic", "LogisticRegression", "ObjectNode"),
    ("sklearn.preprocessing._data", "StandardScaler", "ObjectNode"),
    ("sklearn.tree._classes", "DecisionTreeClassifier", "ObjectNode"),
    ("sklearn.tree._tree", "Tree", "TreeNode"),
}


def check_archive(content: bytes) -> None:
    """Refuse a file that is no skops file, or names a type that no stored classifier consists of.

    Nothing is built: what is looked at is JSON, and what arrays state of themselves.

    Args:
        content: of the file.

    Raises:
        Unfit: naming what is wrong.
        Exception: one of those that zipfile, zlib, json and NumPy raise on damaged files.
    """
    _check_directory(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check_members(archive)
        _check_types(archive)


def _check_directory(content: bytes) -> None:
    """Refuse an archive whose directory zipfile would read whatever its size."""
    if not content.startswith(b"PK\x03\x04"):
        raise Unfit("is no skops file (a pickle or another format)")
    end = content[-22:]
    if end[:4] != b"PK\x05\x06" or content[-42:-38] == b"PK\x06\x07":
        raise Unfit("does not end as the archives that skops writes")
    num_members, num_bytes = struct.unpack("<10xHL6x", end)
    if num_members > MAX_MEMBERS or num_bytes > 128 * MAX_MEMBERS:
        raise Unfit(f"is an archive of {num_members} files, at most {MAX_MEMBERS} are read")


def _check_members(archive: zipfile.ZipFile) -> None:
    """Refuse names, kinds and sizes of members that skops does not write."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise Unfit(f"is an archive of {len(members)} files, at most {MAX_MEMBERS} are read")
    if len({member.filename for member in members}) < len(members):
        raise Unfit("holds a file twice")
    for member in members:
        name = member.filename
        if name != _SCHEMA and not (name.endswith(".npy") and name[:-4].isascii() and name[:-4].isdigit()):
            raise Unfit(f"holds a file called {name[:80]!r}, which skops does not write")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise Unfit(f"holds {name[:80]!r}, which is a link")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unfit(f"holds {name!r}, which is encrypted or packed in a way that skops does not use")
    # zipfile unpacks no more of a member than the size that its directory states.
    total = sum(member.file_size for member in members)
    if total > MAX_CONTENT_BYTES:
        raise Unfit(f"unpacks to {total / 2**20:.0f} MiB, at most {MAX_CONTENT_BYTES // 2**20} are read")
    if archive.getinfo(_SCHEMA).file_size > MAX_SCHEMA_BYTES:
        raise Unfit(f"has a {_SCHEMA} of more than {MAX_SCHEMA_BYTES // 2**20} MiB")


def _check_types(archive: zipfile.ZipFile) -> None:
    """Refuse any type that a stored classifier does not consist of, and arrays of objects or of false sizes."""
    schema = json.loads(archive.read(_SCHEMA))
    if not isinstance(schema, dict) or type(schema.get("protocol")) is not int or schema["protocol"] < _PROTOCOL:
        raise Unfit(f"is not of skops' protocol {_PROTOCOL} or later")
    num_bytes, checked = 0, set()
    for node in _nodes(schema):
        described = tuple(node.get(name) for name in ("__module__", "__class__", "__loader__"))
        if not all(isinstance(part, str) for part in described):
            raise Unfit("holds something without a type")
        if described not in _ALLOWED:
            shown = ".".join(described[:2])[:120]
            raise Unfit(f"holds the type {shown!r} ({described[2][:40]!r}), which no classifier of this software has")
        if described[2] != "NdArrayNode":
            continue
        # Arrays of Python objects would come as further nodes.
        if node.get("type") != "numpy" or not isinstance(node.get("file"), str):
            raise Unfit("holds an array of Python objects")
        # skops unpacks a file as often as it is named.
        num_bytes += archive.getinfo(node["file"]).file_size
        if num_bytes > MAX_CONTENT_BYTES:
            raise Unfit(f"names arrays of more than {MAX_CONTENT_BYTES // 2**20} MiB")
        if node["file"] not in checked:
            with archive.open(node["file"]) as member:
                check_array(member, archive.getinfo(node["file"]).file_size)
            checked.add(node["file"])


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every JSON object that skops may take for something to build, however deep it lies."""
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_NESTING:
            raise Unfit(f"is nested more than {MAX_NESTING} deep")
        if isinstance(value, dict):
            if "__loader__" in value or "__class__" in value or "__module__" in value:
                yield value
            waiting.extend((part, depth + 1) for part in value.values())
        elif isinstance(value, list):
            waiting.extend((part, depth + 1) for part in value)
