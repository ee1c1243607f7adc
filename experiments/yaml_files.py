"""Reading YAML that users write: the plain part of the language, and no mistake passed over.

PyYAML keeps the last of two equal keys, turns unquoted dates into objects, and lets an alias stand for a list of
aliases, so that some lines become gigabytes once they are walked. Here a value is what JSON could hold too.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from mrcnn.errors import InputError, one_line

MAX_BYTES = 2**18  # the longest configuration of ours has 6 KB; PyYAML reads some 100 KB in a second
_MAX_DEPTH = 30
_MAX_NODES = 50_000  # with aliases counted as often as they stand for something
_MAX_DIGITS = 19  # more do not fit into 64 bits, nor always into a float
# YAML 1.1 reads 010 as 8 and 1:30 as 90, which hardly anybody means.
_ODD_NUMBER = re.compile(r"[-+]?0[0-9_]+|.*:.*")
_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml_file(path: str | Path, *, missing: str) -> Any:
    """Read a YAML file.

    Args:
        path: a UTF-8 file, with or without byte order mark.
        missing: what to say if there is no such file.

    Returns:
        Its value, None if it holds nothing.

    Raises:
        InputError: if the file is missing, cannot be read, or is not as `parse_yaml` wants it.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: not a YAML file of settings ({size} bytes, at most {MAX_BYTES} are read)")
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a YAML file (not UTF-8 text, byte {error.start}); save it as UTF-8") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not a YAML file ({error})") from None


def parse_yaml(text: str) -> Any:
    """Parse one YAML document.

    Returns:
        None, a bool, int, float or str, or lists and dicts of these. Dates are text. What several aliases stand for is
        one object in several places.

    Raises:
        ValueError: saying in one line what is wrong: no YAML or several documents; a key twice in one mapping; a tag
            such as `!!python/object`; nesting too deep; too many aliases of aliases; a number out of range.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # a SafeLoader that takes less
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        # The constructors raise these on `!!int "x"`, `!!float ""` and the like.
        raise ValueError(f"a value is not what its tag says ({one_line(error)})") from None


class _PlainLoader(yaml.SafeLoader):
    """Makes plain values alone, and counts what it makes."""

    # Without the implicit types that JSON has not: 2020-01-01 is text.
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (*_TAGS, _MERGE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS}

    def __init__(self, stream: str):
        super().__init__(stream)
        self._depth = self._num_nodes = 0
        self._sizes: dict[int, int] = {}

    def fetch_flow_collection_start(self, token_class: type) -> None:
        # The scanner's own work grows with the square of this.
        if self.flow_level >= _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep")
        super().fetch_flow_collection_start(token_class)

    def add_indent(self, column: int) -> bool:
        if len(self.indents) >= _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep")
        return super().add_indent(column)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep")
        before = self._num_nodes
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.YAMLError("an alias stands for something that holds it")
        self._num_nodes += self._sizes[id(node)] if is_alias else 1
        self._sizes[id(node)] = self._num_nodes - before
        if self._num_nodes > _MAX_NODES:
            raise yaml.YAMLError(f"more than {_MAX_NODES} values, aliases counted as what they stand for")
        return node

    def construct_plain_mapping(self, node: yaml.MappingNode) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.YAMLError(f"{_place(key_node)}: a key must be text")
            if key in seen:
                raise yaml.YAMLError(f"{_place(key_node)}: key {key!r:.60} twice in one mapping")
            seen.add(key)
        return self.construct_mapping(node, deep=True)

    def construct_plain_list(self, node: yaml.SequenceNode) -> list:
        return self.construct_sequence(node, deep=True)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        # Before it is made: Python takes long for numbers of many digits.
        if len(node.value) > 4 * _MAX_DIGITS:
            raise yaml.YAMLError(f"{_place(node)}: number {node.value[:20]}... out of range")
        _check_notation(node)
        value = self.construct_yaml_int(node)
        if len(str(abs(value))) > _MAX_DIGITS:
            raise yaml.YAMLError(f"{_place(node)}: number {node.value[:20]}... out of range")
        return value

    def construct_number(self, node: yaml.ScalarNode) -> float:
        _check_notation(node)
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.YAMLError(f"{_place(node)}: number {node.value[:40]} out of range")
        return value

    def construct_nothing(self, node: yaml.ScalarNode) -> None:
        value = self.construct_scalar(node)
        if value not in ("", "~", "null", "Null", "NULL"):
            raise yaml.YAMLError(f"{_place(node)}: {value[:40]} is not null")

    def construct_text(self, node: yaml.ScalarNode) -> str:
        value = self.construct_scalar(node)
        value.encode()  # half of a surrogate pair cannot be written again
        return value


_PlainLoader.add_constructor("tag:yaml.org,2002:map", _PlainLoader.construct_plain_mapping)
_PlainLoader.add_constructor("tag:yaml.org,2002:seq", _PlainLoader.construct_plain_list)
_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_whole_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:str", _PlainLoader.construct_text)
_PlainLoader.add_constructor("tag:yaml.org,2002:null", _PlainLoader.construct_nothing)
_PlainLoader.add_constructor(None, yaml.SafeLoader.construct_undefined)


def _check_notation(node: yaml.ScalarNode) -> None:
    if _ODD_NUMBER.fullmatch(node.value):
        raise yaml.YAMLError(
            f"{_place(node)}: {node.value[:40]} would be a number to the base 8 or 60; write it plainly, or put it in "
            "quotes"
        )


def _place(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
