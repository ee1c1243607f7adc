"""Base class of all settings: read from YAML or JSON, checked as a whole, each fault told with its path."""

import difflib
import os
import reprlib
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from mrcnn.files.errors import InputError, one_line
from mrcnn.files.json_io import read_json_file

MAX_BYTES = 2**18  # ours have 6 KB; PyYAML reads some 100 KB in a second
_SHOWN = 8  # faults in a message
# Pydantic's kinds of faults in our words; others keep pydantic's text.
_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be settings with keys",
    "model_type": "must be settings with keys",
    "model_attributes_type": "must be settings with keys",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "too_short": "must have {min_length} entries or more",
    "too_long": "must have at most {max_length} entries",
}


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
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **values})


@dataclass(frozen=True)
class _SomeOf:
    cls: type[Settings]


def overrides(cls: type[Settings]) -> Any:
    """Type of a field that holds some of the settings of `cls` as a dictionary, checked but not completed."""

    def check(values: dict[str, Any]) -> dict[str, Any]:
        cls.model_validate(values)
        return values

    return Annotated[dict[str, Any], AfterValidator(check), _SomeOf(cls)]


def describe(error: ValidationError, cls: type[Settings]) -> str:
    """All faults that pydantic found, in one line: each with its dotted path and what was given."""
    faults = []
    for fault in error.errors(include_url=False):
        path, context = fault["loc"], fault.get("ctx", {})
        name = ".".join(map(str, path))
        if fault["type"] == "extra_forbidden":
            faults.append(f"unknown setting {name}, {did_you_mean(path[-1], _names_at(cls, path[:-1]))}")
        elif fault["type"] == "value_error":
            text = str(context["error"])
            faults.append(f"{name}{' ' if text.startswith('must ') else ': '}{text}".removeprefix(": ").lstrip())
        elif fault["type"] == "missing":
            faults.append(f"{name} is missing")
        else:
            text = _WORDS.get(fault["type"], fault["msg"].replace("Input should be", "must be"))
            text = text.format(**{key: _shown(value) for key, value in context.items()})
            faults.append(f"{name} {text}, got {reprlib.repr(fault['input'])}{_hint(fault)}".lstrip())
    more = [f"and {len(faults) - _SHOWN} more faults"] if len(faults) > _SHOWN else []
    return "; ".join([*faults[:_SHOWN], *more])


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """A question for the known name nearest to a wrong one, or a list of all known names."""
    known = list(known)
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1)
    return f"did you mean {folded[close[0]]!r}?" if close else f"known are {', '.join(known)}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("'", "")


def _hint(fault: Any) -> str:
    # YAML 1.1 reads 1e-3 as text.
    is_exponent = fault["type"] == "float_type" and isinstance(fault["input"], str) and "e" in fault["input"].lower()
    return " (write 1.0e-3 for 1e-3)" if is_exponent else ""


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
        if isinstance(hint, _SomeOf):
            yield hint.cls
        elif isinstance(hint, type) and issubclass(hint, Settings):
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
        with open(path, "rb") as handle:
            content = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: not a YAML file of settings (more than {MAX_BYTES} bytes)")
    return parse_yaml(content, str(path))


def parse_yaml(content: str | bytes, where: str) -> Any:
    """Parse one YAML document that stands at `where`; an `InputError` says that it is none."""
    try:
        return yaml.safe_load(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except Exception as error:  # besides YAMLError PyYAML lets pass what int(), date() and recursion raise
        raise InputError(f"{where}: not YAML ({one_line(error)})") from None
