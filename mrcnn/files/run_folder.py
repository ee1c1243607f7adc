"""Identity of a result, kept beside it: whether what is there is what would be made now.

An identity is a JSON value that names all that a result depends on: settings, inputs, hashes. Files carry it in their
own way and call `check_same`; folders of trained models keep it in `run.json` and are a `RunFolder`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mrcnn.files.atomic import OutputLock, write_json
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file

RUN = "run.json"
_ADVICE = "choose another output, or give --overwrite to make it again"
_SHOWN = 5  # differences in a message
_LONG = 60  # characters of a value in a message


def differences(there: Any, wanted: Any, name: str = "") -> list[str]:
    """Name what differs between two JSON values, as `config.steps 10, not 20`."""
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        names = list(dict.fromkeys([*wanted, *there]))
        parts = ((there.get(each), wanted.get(each), f"{name}.{each}" if name else each) for each in names)
        return [text for old, new, path in parts for text in differences(old, new, path)]
    if there == wanted:
        return []
    old, new = json.dumps(there), json.dumps(wanted)
    return [f"{name} {old}, not {new}" if len(old) + len(new) <= _LONG else f"another {name.replace('_', ' ')}"]


def check_same(path: str | os.PathLike, there: Any, wanted: Any, advice: str = _ADVICE) -> None:
    """Refuse a result at `path` that was made of something else than would be taken now, naming what differs.

    `there` is its identity, as JSON gives it back, and `wanted` that of what would be made now; tuples count as lists.
    """
    found = differences(there, json.loads(json.dumps(wanted)))
    if found:
        more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise InputError(f"{path}: is there already, made with {'; '.join([*found[:_SHOWN], *more])}; {advice}")


class RunFolder:
    """A folder of a trained model, with what it was made of and whether it is complete in its `run.json`.

    Args:
        path: the folder; may be missing.
        kind: of the model, such as "detector".
        identity: what decides the result, a JSON object.
    """

    def __init__(self, path: str | os.PathLike, kind: str, identity: Mapping[str, Any]):
        self.path, self.kind, self.identity = Path(path), kind, identity

    @property
    def record(self) -> dict[str, Any] | None:
        """What `run.json` holds, or None if there is none; an `InputError` says that it is damaged."""
        path = self.path / RUN
        if not path.exists():
            return None
        advice = f"remove the folder or give --overwrite, and the {self.kind} is trained again"
        record = read_json_file(path, missing=advice, advice=advice)
        if not isinstance(record, dict) or not isinstance(record.get("complete"), bool):
            raise InputError(f"{path}: not the record of a trained {self.kind}; {advice}")
        return record

    def is_complete(self) -> bool:
        """Say whether this very model is there, trained to its end; refuse another one, begun or complete."""
        record = self.record
        if record is None:
            return False
        check_same(self.path, record.get("identity"), self.identity)
        return record["complete"]

    @contextmanager
    def writing(self, overwrite: bool = False) -> Iterator[bool]:
        """Be the only one who writes the folder in a block, which is told whether there is something to train.

        Raises:
            InputError: if another run is writing the folder, or it holds another model and `overwrite` is False.
        """
        if not overwrite and self.is_complete():  # it may lie where nothing can be written
            yield False
            return
        with OutputLock(self.path, inside=True):
            # Once more, since another run may have ended meanwhile.
            yield overwrite or not self.is_complete()

    def write(self, complete: bool, values: Mapping[str, Any]) -> None:
        """Write `run.json`: the identity, `complete`, and `values` beside them."""
        write_json(self.path / RUN, {"complete": complete, "identity": self.identity, **values})
