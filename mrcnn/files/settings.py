"""Base class of all settings: read from YAML or JSON, checked as a whole, each fault told with its path."""

import difflib
import os
import re
import reprlib
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from mrcnn.files.errors import InputError, one_line
from mrcnn.files.json_io import read_json_file

_SHOWN = 8  # faults in a message


class Settings(BaseModel):
    """Named values with types, ranges and defaults. Unknown names are refused; an instance does not change.

    Nothing is converted: "3" is no number and 3.0 no whole number, but a whole number may stand for a fraction. A tuple
    needs `Field(strict=False)`, since files hold lists alone. An `InputError` tells all faults at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(describe(error, type(self))) from None

    # Tells pydantic that it may check nested settings without this method, so that a fault in them keeps its path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_dict(cls, values: Any, *, where: str | os.PathLike = "") -> Self:
        """Make settings of a mapping, nested as they are; `where` it comes from begins the message of an error."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(f"{where}: {describe(error, cls)}".removeprefix(": ")) from None

    @classmethod
    def load(cls, path: str | os.PathLike, *, missing: str = "no such file of settings") -> Self:
        """Read settings from a YAML file, or from JSON where the file's name ends so."""
        return cls.from_dict(read_mapping(path, missing=missing), where=path)

    def to_dict(self) -> dict[str, Any]:
        """All values, as JSON and YAML hold them."""
        return self.model_dump(mode="json")

    def replace(self, **values: Any) -> Self:
        """A copy with other values, checked like new settings."""
        return type(self)(**{**dict(self), **values})

    @classmethod
    def _check_some(cls, values: dict[str, Any]) -> dict[str, Any]:
        cls.model_validate(values)
        return values


def overrides(cls: type[Settings]) -> Any:
    """Type of a field that holds some of the settings of `cls` as a dictionary, checked but not completed."""
    return Annotated[dict[str, Any], AfterValidator(cls._check_some)]


def describe(error: ValidationError, cls: type[Settings]) -> str:
    """All faults that pydantic found, in one line: each with its dotted path and what was given."""
    faults = []
    for fault in error.errors(include_url=False):
        path, kind, given = fault["loc"], fault["type"], fault["input"]
        name = ".".join(map(str, path))
        if kind == "extra_forbidden":
            faults.append(f"unknown setting {name}, {did_you_mean(path[-1], _names_at(cls, path[:-1]))}")
        elif kind == "value_error":
            text = str(fault["ctx"]["error"])
            faults.append(f"{name}{' ' if text.startswith('must ') else ': '}{text}".removeprefix(": ").lstrip())
        elif kind == "missing":
            faults.append(f"{name} is missing")
        else:
            text = "must be settings with keys" if "dictionary" in fault["msg"] else fault["msg"]
            text = f"{name} {re.sub('^[A-Z][a-z]+ should ', 'must ', text)}, got {reprlib.repr(given)}".lstrip()
            is_exponent = kind == "float_type" and re.fullmatch(r"[-+.\d]+e[-+\d]+", str(given), re.IGNORECASE)
            faults.append(f"{text} (write 1.0e-3 for 1e-3)" if is_exponent else text)  # YAML 1.1 reads it as text
    more = [f"and {len(faults) - _SHOWN} more faults"] if len(faults) > _SHOWN else []
    return "; ".join([*faults[:_SHOWN], *more])


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A question for the known name nearest to a wrong one, or a list of all known names."""
    known = list(known)
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f"did you mean {folded[close[0]]!r}?" if close else f"known are {', '.join(known)}"


def _names_at(cls: type[Settings], path: tuple[int | str, ...]) -> list[str]:
    """Names of the settings at a path below `cls`; keys of mappings and places in lists lead nowhere else."""
    for part in path:
        field = cls.model_fields.get(str(part))
        if field is not None:
            cls = next(_settings_in([field.annotation, *field.metadata]), cls)
    return list(cls.model_fields)


def _settings_in(hints: Iterable[Any]) -> Iterator[type[Settings]]:
    """Classes of settings that types such as `dict[str, X | None]` are made of."""
    for hint in hints:
        if isinstance(hint, AfterValidator):  # of `overrides`
            hint = getattr(hint.func, "__self__", None)
        if isinstance(hint, type) and issubclass(hint, Settings):
            yield hint
        yield from _settings_in(typing.get_args(hint))


def read_mapping(path: str | os.PathLike, *, missing: str = "no such file of settings") -> dict[str, Any]:
    """Read the values of a YAML file, or of a JSON file where its name ends so; none if it is empty.

    Raises:
        InputError: if the file is missing, cannot be read, or holds something else than settings.
    """
    if Path(path).suffix == ".json":
        values = read_json_file(path, missing=missing, advice="correct it or make it again")
    else:
        values = read_yaml(path, missing=missing)
    if not isinstance(values, dict | None):
        raise InputError(f"{path}: must be settings with keys, got {reprlib.repr(values)}")
    return values or {}


def read_yaml(path: str | os.PathLike, *, missing: str = "no such file of settings") -> Any:
    """Read a YAML file of plain values, None if it holds nothing; errors are those of `read_mapping`."""
    try:
        return parse_yaml(Path(path).read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def parse_yaml(content: str | bytes, where: str) -> Any:
    """Parse one YAML document that stands at `where`; an `InputError` says that it is none."""
    try:
        return yaml.safe_load(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except Exception as error:  # besides YAMLError PyYAML lets pass what int(), date() and recursion raise
        raise InputError(f"{where}: not YAML ({one_line(error)})") from None
