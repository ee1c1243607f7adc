"""Malformed settings: run files, presets, overrides and class maps in YAML; configurations and splits in JSON."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, file_of

from autoencoder.config import CHOICES, AutoencoderConfig
from experiments.class_maps import ClassMap, make_class_map
from experiments.settings import RunSettings, load_settings, read_section
from experiments.splits import Split, load_split, make_split, save_split

AT_LEAST = 1200

_RUN = """
name: lab
seed: 3
scheme: five
centres:
  north: {root: a, layout: csv, num_images: 12, group_column: patient}
  south: {root: b, exclude_labels: [ART], use: all}
detector:
  train_on: [north]
  epochs: 3
  settings: {LEARNING_RATE: 1.0e-3, IMAGE_MIN_DIM: 128}
autoencoder: {beta: 0.5, steps: 10}
evaluate: {runs: 2}
reproduce:
  bottleneck: {sizes: [5, 10]}
"""
_PRESET = "autoencoder:\n  feature_scaling: centre\n  beta: 0.5\n  steps: 3000\n"
_MAP = "LYT: lymphocyte\nMON: monocyte\nNGS: neutrophil\nART: ''\n"


def read_preset(path: Path) -> AutoencoderConfig:
    """As `aecfe train --config` reads it."""
    return AutoencoderConfig.from_dict(read_section(path, "autoencoder"), where=f"{path}: autoencoder")


def read_overridden(path: Path) -> RunSettings:
    """A sound file with the overrides that stand in the lines of `path`."""
    run = path.parent / "run.yaml"
    run.write_text(_RUN)
    return load_settings(run, path.read_bytes().decode("utf-8", "surrogateescape").split("\n"))


def read_map(path: Path) -> ClassMap:
    """A class map of one's own."""
    return make_class_map(path, "folders")


READERS = {
    "load_settings": load_settings,
    "preset": read_preset,
    "--set": read_overridden,
    "class map": read_map,
    "autoencoder config": AutoencoderConfig.load,
    "load_split": load_split,
}


def cases(reader: str, seed: int) -> Iterator[Case]:
    """The cases of a reader."""
    makers: dict[str, Callable[[int], Iterator[Case]]] = {
        "load_settings": _run_files,
        "preset": _presets,
        "--set": _overrides,
        "class map": _class_maps,
        "autoencoder config": _autoencoder_configs,
        "load_split": _splits,
    }
    yield from makers[reader](seed)


def broken_yaml(seed: int, sound: str, key: str) -> Iterator[tuple[str, bytes]]:
    """YAML that no file of settings is, whatever is expected in it.

    Args:
        seed: of the places where it is cut and changed.
        sound: a file that is read.
        key: one of its keys at the outermost level.
    """
    yield "not UTF-8", sound.encode() + b"# \xff\xfe\n"
    yield "Latin-1", sound.encode() + "# Z\u00fcrich\n".encode("latin-1")
    yield "UTF-16", sound.encode("utf-16")
    yield "NUL", sound.encode() + b"a: \0\n"
    yield "escape characters", sound.encode() + b"a: \x1b[31m\n"
    yield "zeros", bytes(3000)
    yield "a list", b"- a\n- b\n"
    yield "text", b"nothing but text"
    yield "a number", b"3\n"
    yield "two documents", sound.encode() + b"---\n" + sound.encode()
    yield "a key twice", sound.encode() + f"{key}: {{}}\n".encode() * 2
    yield "tabs", f"{key}:\n\ta: 1\n".encode()
    yield "unclosed bracket", sound.encode() + b"a: [1, 2\n"
    yield "unclosed quote", sound.encode() + b'a: "b\n'
    yield "unknown alias", sound.encode() + b"a: *nothing\n"
    yield "cyclic alias", b"&a [*a]\n"
    yield "cyclic mapping", f"{key}: &a {{b: *a}}\n".encode()
    yield "10,000 brackets", f"{key}: ".encode() + b"[" * 10_000
    yield "10,000 pairs of brackets", f"{key}: ".encode() + b"[" * 10_000 + b"]" * 10_000
    yield "10,000 braces", f"{key}: ".encode() + b"{a: " * 10_000
    yield "10,000 dashes", b"- " * 10_000
    yield "10,000 question marks", b"? " * 10_000
    yield "500 levels", "".join(f"{' ' * level}a:\n" for level in range(500)).encode()
    yield "10,000 anchors", "".join(f"a{n}: &a{n} x\n" for n in range(10_000)).encode()
    laughs = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    laughs += [
        f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]"
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    yield "billion laughs", "\n".join(laughs).encode()
    merges = ["a: &a {x: 1}"] + [
        f"{n}: &{n} {{<<: [{', '.join([f'*{b}'] * 9)}], {n}: 1}}" for b, n in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    yield "billion merges", "\n".join(merges).encode()
    for tag in (
        "!!python/object/apply:os.system ['touch sprung']",
        "!!python/object/new:os.system ['touch sprung']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object:experiments.settings.RunSettings {}",
        "!!python/tuple [1]",
        "!!binary aGFsbG8=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!timestamp 2020-01-01",
        "!other x",
        "!!int x",
        "!!float ''",
        "!!bool maybe",
        "!!null x",
        "!!map x",
        "!!seq {a: 1}",
        "!!str [a]",
    ):
        yield f"tag {tag.split()[0]}: {tag[-12:]}", f"{key}: {tag}\n".encode()
    for number in (
        "9" * 30,
        "-" + "9" * 30,
        "9" * 5000,
        "0x" + "f" * 4000,
        ".nan",
        ".inf",
        "-.inf",
        "1.0e+999",
        "010",
        "1:30",
        "1:30.5",
    ):
        yield f"number {number[:12]} ({len(number)})", f"{key}: {number}\n".encode()
    yield "half of a surrogate pair", f'{key}: "\\ud800"\n'.encode()
    yield "a mapping for a key", f"? {{a: 1}}\n: b\n{key}: 1\n".encode()
    yield "a list for a key", f"[1, 2]: 3\n{key}: 1\n".encode()
    yield "a megabyte of comments", b"# " + b"a" * 2**20 + b"\n" + sound.encode()
    random = np.random.default_rng(seed)
    for number in range(12):
        yield f"noise {number}", random.bytes(60)


def broken_json(seed: int, sound: bytes) -> Iterator[tuple[str, bytes]]:
    """JSON that no file of ours is; `sound` is an object that is read."""
    inner = sound.strip()[1:-1]
    for end in sorted(
        {
            0,
            1,
            2,
            len(sound) // 2,
            len(sound.strip()) - 1,
            *np.random.default_rng(seed).integers(0, len(sound) - 3, 20).tolist(),
        }
    ):
        yield f"cut after {end} bytes", sound[:end]
    yield "not UTF-8", sound.replace(b"{", b'{"\xff": 1,', 1)
    yield "UTF-16", sound.decode().encode("utf-16")
    yield "NUL", sound + b"\0"
    yield "two values", sound + sound
    yield "zeros", bytes(1000)
    for value in (
        b"[]",
        b"3",
        b'"a"',
        b"null",
        b"true",
        b"NaN",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 200 + b"]" * 200,
    ):
        yield f"{value[:10].decode()} ({len(value)})", value
    for extra in (
        b'"a": NaN',
        b'"a": Infinity',
        b'"a": 1e999',
        b'"a": ' + b"9" * 30,
        b'"a": ' + b"9" * 5000,
        b'"a": 1, "a": 2',
        b'"a": "\\ud800"',
        b'"\\udfff": 1',
        b'"a": 1,',
        b"'a': 1",
        b"a: 1",
        b'"a": 0x10',
        b'"a": 01',
        b'"a": "\x01"',
        b'"a": // comment\n 1',
        b'"__class__": "os.system"',
        b'"unknown": 1',
        b'"a": ' + b"[" * 100 + b"]" * 100,
    ):
        yield f"with {extra[:24]!r} ({len(extra)})", b"{" + inner + b"," + extra + b"}"


def _is_sound_run(settings: RunSettings) -> None:
    assert list(settings.centres) == ["north", "south"] and settings.seed == 3
    assert settings.centres["north"].num_images == 12 and settings.autoencoder == {"beta": 0.5, "steps": 10}


def _run_files(seed: int) -> Iterator[Case]:
    yield Case("sound", file_of("a.yaml", _RUN), "accepted", _is_sound_run)
    yield Case("byte order mark", file_of("a.yaml", b"\xef\xbb\xbf" + _RUN.encode()), "accepted", _is_sound_run)
    yield Case("CRLF", file_of("a.yaml", _RUN.replace("\n", "\r\n")), "accepted", _is_sound_run)
    yield Case(
        "dates are text", file_of("a.yaml", _RUN.replace("name: lab", "name: 2020-13-45")), "accepted", _is_sound_run
    )
    merged = _RUN.replace("north: {", "north: &n {").replace("south: {", "south: {<<: *n, ")
    yield Case("an alias", file_of("a.yaml", merged), "accepted", _is_sound_run)
    yield Case("empty", file_of("a.yaml", b""), "refused", mentions="centres")
    for name, content in broken_yaml(seed, _RUN, "name"):
        yield Case(name, file_of("a.yaml", content), "refused", mentions="")
    lines = _RUN.strip().splitlines()
    for number in range(len(lines)):
        # A line less is another file, which may be as good.
        rest = "\n".join(lines[:number] + lines[number + 1 :])
        yield Case(f"without line {number}", file_of("a.yaml", rest), "either", _is_run, mentions="")
    for end in range(20, len(_RUN), 12):
        yield Case(f"cut after {end} characters", file_of("a.yaml", _RUN[:end]), "either", _is_run, mentions="")
    for path, hint in _leaves(RunSettings):
        for value in _wrong_values(hint):
            yield Case(
                f"{path}: {value}", file_of("a.yaml", _with(path, value)), "refused", mentions=path.rpartition(".")[2]
            )
    for path, value in (
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("centres.north.num_images", "0"),
        ("centres.north.num_images", "1000000000"),
        ("centres.north.use", "none"),
        ("centres.north.layuot", "csv"),
        ("centres.north.mask_semantics", "cells"),
        ("centres.north.annotation_format", "yolo"),
        ("detector.train_on", "[east]"),
        ("detector.train_on", "[]"),
        ("detector.train_share", "0"),
        ("detector.train_share", "1"),
        ("detector.epochs", "0"),
        ("detector.layers", "'('"),
        ("detector.exclude", "[heads]"),
        ("detector.settings.LEARNING_RAET", "1"),
        ("detector.settings.BACKBONE", "vgg"),
        ("detector.settings.TOP_DOWN_PYRAMID_SIZE", "1000000000"),
        ("detector.settings.NUM_CLASSES", "100000000"),
        ("detector.settings.IMAGE_MAX_DIM", "100000"),
        ("detector.settings.RPN_ANCHOR_SCALES", "[1, 2, 3, 4, -5]"),
        ("detector.settings.LEARNING_RATE", "'1e-3'"),
        ("autoencoder.betta", "1"),
        ("autoencoder.beta", "-1"),
        ("autoencoder.latent_size", "1000000000"),
        ("autoencoder.adaptation", "mdd"),
        ("autoencoder.source_centre", "east"),
        ("extract.batch_size", "0"),
        ("evaluate.runs", "0"),
        ("evaluate.methods", "[AE]"),
        ("evaluate.test_on", "train"),
        ("reproduce.bottleneck.sizes", "[]"),
        ("reproduce.bottleneck.sizes", "[5, 5, 0]"),
        ("reproduce.bottleneck.centre", "east"),
        ("reproduce.bottleneck.autoencoder", "{latent_size: 3}"),
        ("reproduce.bottleneck.autoencoder", "{stebs: 3}"),
        ("reproduce.ablation.columns", "[AE]"),
        ("reproduce.ablation.autoencoders", "{mine: {bta: 1}}"),
        ("reproduce.oracle.normalizations", "[layer]"),
        ("reproduce.bootstrap", "1"),
        ("other", "1"),
    ):
        name = f"{path} is {value}"
        yield Case(name, file_of("a.yaml", _with(path, value)), "refused", mentions=path.rpartition(".")[2][:6])
    for name in ("''", "../a", "a/b", '"a\\nb"', ".a", '"a\\\\b"'):
        content = _RUN.replace("south:", f"{name}:")
        yield Case(f"a centre called {name}", file_of("a.yaml", content), "refused", mentions="centres")
    yield Case("absent", lambda folder: folder / "a.yaml", "refused")
    yield Case("folder", lambda folder: folder, "refused", mentions="")


def _is_run(settings: RunSettings) -> None:
    settings.validate()
    json.dumps(settings.to_dict(), allow_nan=False)


def _leaves(cls: type, path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a run that hold values, with their types."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], f"{path}{field.name}"
        if dataclasses.is_dataclass(hint):
            yield from _leaves(hint, f"{name}.")
        elif name == "centres":
            yield from _leaves(typing.get_args(hint)[1], "centres.north.")
        else:
            yield name, hint


def _wrong_values(hint: Any) -> tuple[str, ...]:
    """What a setting of a type cannot be, as YAML."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return ("[a]", "{a: 1}", "true")
    if origin is dict:
        return ("[a]", "3", "text")
    if origin is list:
        return ("3", "text", "{a: 1}", "[[a]]", "[{a: 1}]", "null")
    return {
        int: ("text", "1.5", "true", "[1]", "{a: 1}", "null", "'1'", "1.0"),
        float: ("text", "true", "[1]", "{a: 1}", "null", "'1'", "1e5x"),
        bool: ("1", "'yes'", "[true]", "null", "0"),
        str: ("3", "true", "[a]", "{a: b}", "1.5", "null"),
    }[hint]


def _with(path: str, value: str) -> str:
    """The sound file with a setting that reads as `value`."""
    import yaml

    content = yaml.safe_load(_RUN)
    *sections, key = path.split(".")
    inner = content
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[key] = "PLACEHOLDER"
    return yaml.safe_dump(content).replace("PLACEHOLDER", value)


def _presets(seed: int) -> Iterator[Case]:
    def is_sound(config: AutoencoderConfig) -> None:
        assert (config.feature_scaling, config.beta, config.steps) == ("centre", 0.5, 3000)

    yield Case("sound", file_of("a.yaml", _PRESET), "accepted", is_sound)
    yield Case("byte order mark", file_of("a.yaml", "\ufeff" + _PRESET), "accepted", is_sound)
    yield Case("without the section", file_of("a.yaml", "other: 1\n"), "accepted", lambda config: None)
    for name, content in broken_yaml(seed, _PRESET, "autoencoder"):
        if name == "10,000 anchors":
            continue  # other sections are not this reader's business
        yield Case(name, file_of("a.yaml", content), "refused", mentions="a.yaml")


def _overrides(seed: int) -> Iterator[Case]:
    yield Case("sound", file_of("a.txt", "seed=3\nautoencoder.steps=10"), "accepted", _is_sound_run)
    for text in (
        "",
        "seed",
        "=3",
        "seed=",
        "seed=[",
        "seed=x",
        "seed=true",
        "seed=1.5",
        "seed=-1",
        "seed=010",
        "seed=1:30",
        "seed=.nan",
        "seed=" + "9" * 5000,
        "seed=" + "[" * 10_000,
        "seed=!!python/name:os.system",
        "seed=&a [*a]",
        "seed.more=3",
        "seed=3\nseed.more=4",
        "sede=3",
        "autoencoder=3",
        "autoencoder.beta=x",
        "autoencoder.betta=3",
        "detector.epochs=0",
        "detector.settings.EPOCHS=3",
        "centres.north.layout=3",
        "centres.east.layuot=3",
        "centres=3",
        "..=3",
        "a" * 5000 + "=3",
        "seed='\udcff'",
        "name=\x00",
        "name='a\x1bb'",
    ):
        yield Case(
            f"{text[:30]!a} ({len(text)})",
            file_of("a.txt", text.encode("utf-8", "surrogateescape")),
            "refused",
            mentions="",
        )


def _class_maps(seed: int) -> Iterator[Case]:
    def is_sound(found: ClassMap) -> None:
        assert found.classes == ("lymphocyte", "monocyte", "neutrophil")
        assert (found.cell_type("lyt"), found.cell_type("ART")) == ("lymphocyte", "")

    yield Case("sound", file_of("a.yaml", _MAP), "accepted", is_sound)
    yield Case("byte order mark", file_of("a.yaml", "\ufeff" + _MAP), "accepted", is_sound)
    for name, content in broken_yaml(seed, _MAP, "LYT"):
        if name in ("10,000 anchors", "Latin-1"):
            continue
        yield Case(name, file_of("a.yaml", content), "refused")
    for text in (
        "",
        "{}",
        "LYT: 3",
        "3: LYT",
        "no: monocyte",
        "LYT: [a]",
        "LYT: {a: b}",
        "LYT: ''",
        "a: b\nA: c",
        "01: a",
        "LYT: true",
        "null: a",
    ):
        yield Case(f"{text!r}", file_of("a.yaml", text), "refused")
    yield Case("absent", lambda folder: folder / "a.yaml", "refused")
    yield Case("folder", _make_folder, "refused")
    yield Case("of another suffix", file_of("a.txt", _MAP), "refused")


def _make_folder(folder: Path) -> Path:
    (folder / "a.yaml").mkdir()
    return folder / "a.yaml"


def _autoencoder_configs(seed: int) -> Iterator[Case]:
    sound = AutoencoderConfig(steps=10, source_centre="north").to_dict()
    data = json.dumps(sound, indent=2).encode()

    def is_sound(config: AutoencoderConfig) -> None:
        assert config.to_dict() == sound

    yield Case("sound", file_of("config.json", data), "accepted", is_sound)
    yield Case("byte order mark", file_of("config.json", b"\xef\xbb\xbf" + data), "accepted", is_sound)
    for name, content in broken_json(seed, data):
        yield Case(name, file_of("config.json", content), "refused")
    allowed = {"steps": (None,), "source_centre": (None, "a"), "adaptation": ("os:system",)}
    for name, value in sound.items():
        for wrong in (None, True, False, "text", "", [1], {"a": 1}, -1, 2**80, 1e300, 1.5, "os:system", "../x"):
            if wrong in allowed.get(name, ()) or _may_be(name, value, wrong):
                continue
            content = json.dumps({**sound, name: wrong})
            yield Case(f"{name}: {wrong!r:.20}", file_of("config.json", content), "refused")
        unknown = json.dumps({**sound, f"{name}x": value})
        yield Case(f"unknown {name}x", file_of("config.json", unknown), "refused")


def _may_be(name: str, value: Any, other: Any) -> bool:
    """Whether a setting could have another value."""
    if name == "source_centre":
        return isinstance(other, str) and other != ""
    if name in CHOICES:
        return other in CHOICES[name] and not isinstance(other, bool)
    is_number = isinstance(other, (int, float)) and not isinstance(other, bool)
    return (
        name in ("beta", "learning_rate", "discriminator_learning_rate", "epochs")
        and is_number
        and 0 < other < 2**63
        or (name in ("learning_rate", "discriminator_learning_rate", "epochs", "beta") and other == 1e300)
    )


def _splits(seed: int) -> Iterator[Case]:
    import tempfile

    keys = [f"images/{number}.png" for number in range(12)]
    split = make_split("north", keys, ["a", "b"] * 6)
    with tempfile.TemporaryDirectory() as folder:
        save_split(split, Path(folder) / "a.json")
        data = (Path(folder) / "a.json").read_bytes()

    def is_sound(found: Split) -> None:
        assert found == split

    yield Case("sound", file_of("a.json", data), "accepted", is_sound)
    yield Case("byte order mark", file_of("a.json", b"\xef\xbb\xbf" + data), "accepted", is_sound)
    for name, content in broken_json(seed, data):
        yield Case(name, file_of("a.json", content), "refused")
    content = json.loads(data)
    for name in content:
        less = {key: value for key, value in content.items() if key != name}
        yield Case(f"without {name}", file_of("a.json", json.dumps(less)), "refused")
        for wrong in (
            None,
            True,
            3,
            -1,
            1.5,
            "text",
            [],
            ["a", 3],
            {"a": 1},
            [["a"]],
            [""],
            ["images/1.png", "images/1.png"],
        ):
            if wrong == content[name]:
                continue
            yield Case(
                f"{name}: {wrong!r:.20}, old hash", file_of("a.json", json.dumps({**content, name: wrong})), "refused"
            )
            if name not in ("hash", "format") and not _may_stand(name, wrong):
                # Whoever forges the hash too must not get past it.
                yield Case(
                    f"{name}: {wrong!r:.20}, its hash",
                    file_of("a.json", _rehashed({**content, name: wrong})),
                    "refused",
                )
    both = {**content, "test": [*content["test"], content["train"][0]]}
    yield Case("an image in both parts", file_of("a.json", _rehashed(both)), "refused")
    yield Case("a part more", file_of("a.json", _rehashed({**content, "more": 1})), "refused")
    for position in np.random.default_rng(seed).integers(0, len(data), 30).tolist():
        changed = bytearray(data)
        changed[position] ^= 1
        yield Case(f"bit 0 of byte {position}", file_of("a.json", bytes(changed)), "either", is_sound)
    yield Case("absent", lambda folder: folder / "a.json", "refused")
    yield Case("folder", lambda folder: folder, "refused", mentions="")


def _may_stand(name: str, value: Any) -> bool:
    return (
        (name in ("centre", "data_hash") and isinstance(value, str))
        or (name in ("train", "test") and value == [])
        or (name == "seed" and value == 3 and not isinstance(value, bool))
    )


def _rehashed(content: dict[str, Any]) -> str:
    inner = {key: value for key, value in content.items() if key not in ("format", "hash")}
    return json.dumps(
        {
            "format": content["format"],
            **inner,
            "hash": hashlib.sha256(json.dumps(inner, sort_keys=True).encode()).hexdigest(),
        }
    )
