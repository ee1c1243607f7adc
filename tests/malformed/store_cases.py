"""Malformed feature stores: cut, flipped, linked, of other types, shapes and sizes, and with values that cannot be."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from case import Case, file_of

from mrcnn.feature_store import Cell, FeatureStoreWriter, ShardedStore, open_store, stores_by_centre

AT_LEAST = 600

TEXT_COLUMNS = ("key", "label", "cell_type")
_NUM_CELLS = 3


def write_store(path: Path, *, centre: str = "anna", first: int = 0, **options: Any) -> Path:
    """Write a store of three cells on three images, and one image without."""
    random = np.random.default_rng((7, first))
    with FeatureStoreWriter(path, centre=centre, detector={"hash": "abc"}, with_masks=True, **options) as writer:
        for number in range(first, first + _NUM_CELLS):
            cell = Cell(
                features=random.normal(size=(14, 14, 256)),
                crop=random.integers(0, 256, (128, 128, 3), dtype=np.uint8),
                image=random.integers(0, 256, (128, 128, 3), dtype=np.uint8),
                box=np.array([1.5, 2, 30, 40 + number], np.float32),
                score=0.5 + number / 100,
                class_id=1,
                image_shape=(128, 128),
                mask=random.integers(0, 256, (28, 28), dtype=np.uint8),
            )
            writer.add(f"images/{number}.png", [cell], label="L", cell_type="monocyte", num_detections=2)
        writer.missed(f"images/{first + 9}.png", "no detection above score 0.7", label="M", cell_type="basophil")
    return path


@functools.cache
def store_bytes(first: int = 0, shard: str = "") -> bytes:
    """The bytes of a whole and valid store."""
    attributes = {"shard": shard, "centre_images": "8 images, list 0"} if shard else {"min_score": 0.7}
    with tempfile.TemporaryDirectory() as folder:
        return write_store(Path(folder) / "a.h5", first=first, attributes=attributes).read_bytes()


def read_store(path: Path) -> dict[str, Any]:
    """All that a store offers, as every command reads some of it."""
    with open_store(path) as store:
        content: dict[str, Any] = {name: store.read(name, 0, len(store)) for name in store.fields}
        content |= {f"image {name}": store.image_column(name) for name in ("key", "num_detections", "num_cells")}
        return content | {"centre": store.centre, "counts": store.counts, "missed": store.missed, "n": len(store)}


def read_shards(paths: list[Path]) -> dict[str, Any]:
    """Several files as one store."""
    with ShardedStore(paths) as store:
        return {"key": store.keys, "features": store.read("features", 0, len(store)), "n": len(store)}


def sort_stores(paths: list[Path]) -> dict[str, Any]:
    """Files by the centre that each holds."""
    return stores_by_centre(paths)


READERS = {"open_store": read_store, "ShardedStore": read_shards, "stores_by_centre": sort_stores}


@functools.cache
def known() -> dict[str, Any]:
    """What reading the valid store gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        path.write_bytes(store_bytes())
        return read_store(path)


def is_known(content: dict[str, Any]) -> None:
    """Every column that has a checksum is as it was written; attributes have none."""
    for name, value in known().items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(content[name], value, err_msg=name)
    assert content["counts"] == known()["counts"]
    assert content["missed"] == known()["missed"]
    assert content["centre"].isprintable() and "/" not in content["centre"]


def is_right(content: dict[str, Any]) -> None:
    """As written, attributes included."""
    is_known(content)
    assert content["centre"] == "anna"


def edited(change: Callable[[h5py.File], Any], content: Callable[[], bytes] = store_bytes) -> Callable[[Path], Path]:
    """A `make` that changes a valid store through h5py."""

    def make(folder: Path) -> Path:
        path = folder / "a.h5"
        path.write_bytes(content())
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


def cases(reader: str, seed: int) -> Iterator[Case]:
    """The cases of a reader."""
    if reader == "open_store":
        yield Case("valid", file_of("a.h5", store_bytes()), "accepted", is_right)
        yield from _damaged(seed)
        yield from _attributes()
        yield from _columns()
        yield from _links()
        yield from _sizes()
        yield from _values()
    elif reader == "ShardedStore":
        yield from _shards()
    else:
        yield from _sorted()


def _damaged(seed: int) -> Iterator[Case]:
    """Cut, longer, of other bytes."""
    data = store_bytes()
    random = np.random.default_rng(seed)
    ends = {0, 1, 7, 8, 9, 16, 48, 95, 96, 97, 512, 2048, len(data) // 2, len(data) - 1, len(data) - 4}
    ends |= set(random.integers(0, len(data), 25).tolist())
    for end in sorted(ends):
        yield Case(f"cut after {end} bytes", file_of("a.h5", data[:end]), "refused")
    yield Case("bytes behind the end", file_of("a.h5", data + b"more" * 100), "accepted", is_right)
    yield Case("other file", file_of("a.h5", b"PK\3\4" + data[4:]), "refused")
    yield Case("text", file_of("a.h5", "a,b\n1,2\n"), "refused")
    yield Case("zeros", file_of("a.h5", bytes(len(data))), "refused")
    yield Case("signature and zeros", file_of("a.h5", data[:8] + bytes(4000)), "refused")
    yield Case("shifted by 512 bytes", file_of("a.h5", bytes(512) + data), "refused")
    yield Case("folder", lambda folder: folder, "refused", mentions="")
    yield Case("absent", lambda folder: folder / "a.h5", "refused")
    for name, place in _places(seed).items():
        for bit in (0, 6) if not name.startswith("header") else (int(random.integers(8)),):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            # Within a chunk the checksum tells; elsewhere a bit may have no meaning, or be one of an attribute's text.
            expect = "refused" if name.startswith("chunk") else "either"
            yield Case(f"{name}, bit {bit} of byte {place}", file_of("a.h5", bytes(flipped)), expect, is_known)
    for number in range(20):
        other = bytearray(data)
        start = int(random.integers(0, 9000))
        other[start : start + 16] = random.bytes(16)
        yield Case(f"noise {number} from byte {start}", file_of("a.h5", bytes(other)), "either", is_known)
    for number, (one, two) in enumerate(random.integers(0, len(data) - 512, (10, 2)).tolist()):
        other = bytearray(data)
        other[one : one + 512] = data[two : two + 512]
        yield Case(f"block {number} at another place", file_of("a.h5", bytes(other)), "either", is_known)


def _places(seed: int) -> dict[str, int]:
    """Bytes by what they belong to: chunks of every column, their checksums, and the structure of the file."""
    random = np.random.default_rng((seed, 1))
    data = store_bytes()
    is_data = np.zeros(len(data), bool)
    places = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        path.write_bytes(data)
        with h5py.File(path) as file:
            for name in sorted(f"{group}/{column}" for group in file for column in file[group]):
                dataset = file[name]
                for number in range(dataset.id.get_num_chunks()):
                    chunk = dataset.id.get_chunk_info(number)
                    is_data[chunk.byte_offset : chunk.byte_offset + chunk.size] = True
                    # Of a chunk that has room for a thousand rows the first ones are real, the rest has a checksum too.
                    if number < 2:
                        places[f"chunk {number} of {name}"] = chunk.byte_offset + int(random.integers(chunk.size - 4))
                        places[f"chunk checksum {number} of {name}"] = chunk.byte_offset + chunk.size - 2
    structure = np.flatnonzero(~is_data)
    for number, place in enumerate(random.choice(structure, 120, replace=False).tolist()):
        places[f"header {number}"] = place
    for place in range(0, 96, 3):
        places[f"header superblock {place}"] = place
    return places


def _attributes() -> Iterator[Case]:
    """The attributes of the root."""
    texts = {
        "format": ("other", "", "aecfe-features2", "AECFE-FEATURES"),
        "centre": ("", "a/b", "../a", "a\nb", ".a", "a\\b"),
        "detector": ("{", "[]", "{}", '{"hash": 1}', '{"hash": "a", "hash": "b"}', "[" * 5000, '{"hash": "\\ud800"}'),
        "versions": ("", "3", "null"),
        "settings": ("[]", "x", '{"a": 1, "a": 2}', '{"a": 1e999}', '{"shard": "5/3"}', '{"shard": "1/2"}', "NaN"),
    }
    for name, values in texts.items():
        for number, value in enumerate(values):
            yield Case(f"{name} {number}: {value[:20]!r}", edited(_set_text(name, value)), "refused")
    for name in (*texts, "created", "schema", "with_masks"):
        yield Case(f"without {name}", edited(lambda file, name=name: file.attrs.__delitem__(name)), "refused")
        yield Case(f"{name} as a list", edited(_set(name, [1, 2])), "refused")
        yield Case(f"{name} as a float", edited(_set(name, 1.0)), "refused")
        yield Case(f"{name} as text of variable length", edited(_set(name, "a" * 100)), "refused")
        yield Case(f"{name} as bytes that are not UTF-8", edited(_set(name, np.bytes_(b"\xff\xfe"))), "refused")
    for schema in (0, 2, -1, 2**31 - 1):
        yield Case(f"schema {schema}", edited(_set("schema", np.int32(schema))), "refused")
    for value in (2, -1, 256):
        yield Case(f"with_masks {value}", edited(_set("with_masks", np.int32(value))), "refused")
    yield Case("masks that are not announced", edited(_set("with_masks", np.int32(0))), "accepted", _is_without_masks)
    yield Case("an attribute more", edited(_set("other", 3)), "accepted", is_right)
    many = {f"note {n}": "a" * 100 for n in range(500)}
    noted = edited(lambda file: [file.attrs.create(key, value) for key, value in many.items()])
    yield Case("five hundred attributes", noted, "accepted", is_right)


def _is_without_masks(content: dict[str, Any]) -> None:
    assert "mask" not in content and content["n"] == _NUM_CELLS


def _set(name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.create(name, value)


def _set_text(name: str, text: str) -> Callable[[h5py.File], None]:
    data = text.encode()
    return lambda file: file.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(len(data), 1)))


def _replace(name: str, **options: Any) -> Callable[[h5py.File], None]:
    """Make a column anew: of other values, or with other options of `create_dataset`."""

    def change(file: h5py.File) -> None:
        old = file[name]
        values = options.pop("data", old[...]) if "shape" not in options else None
        kept = {"maxshape": (None, *old.shape[1:])} if options.pop("keep", True) and values is not None else {}
        del file[name]
        file.create_dataset(name, data=values, **{**kept, **options})

    return change


def _columns() -> Iterator[Case]:
    """Columns and groups that are missing, of other types, shapes or lengths."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        path.write_bytes(store_bytes())
        with h5py.File(path) as file:
            values = {f"{group}/{name}": file[group][name][...] for group in file for name in file[group]}
    for name in ("cells", "images", *values):
        yield Case(f"without {name}", edited(lambda file, name=name: file.__delitem__(name)), "refused")
    for name, column in values.items():
        other = column.astype("float64") if column.dtype.kind != "S" else np.arange(len(column))
        yield Case(f"{name} of another type", edited(_replace(name, data=other)), "refused")
        yield Case(f"{name} of another length", edited(_replace(name, data=column[:2], keep=False)), "refused")
        deeper = edited(_replace(name, data=column[..., np.newaxis], keep=False))
        yield Case(f"{name} with a dimension more", deeper, "refused")
        yield Case(f"{name} as a group", edited(lambda file, name=name: _as_group(file, name)), "refused")
        yield Case(f"{name} as a single value", edited(_replace(name, data=3, keep=False)), "refused")
    for name in ("cells/features", "cells/box", "cells/score"):
        turned = values[name].astype(values[name].dtype.newbyteorder(">"))
        yield Case(f"{name} big-endian", edited(_replace(name, data=turned)), "refused")
    for name in ("cells/key", "images/reason"):
        texts = [text.decode() for text in values[name]]
        variable = edited(_replace(name, data=texts, dtype=h5py.string_dtype()))
        yield Case(f"{name} of variable length", variable, "refused")
        wide = edited(_replace(name, data=values[name].astype("S5000")))
        yield Case(f"{name} of 5000 bytes", wide, "refused")
        not_utf8 = np.array([b"\xff\xfe"] * len(texts), values[name].dtype)
        yield Case(f"{name} that is not UTF-8", edited(_replace(name, data=not_utf8)), "refused")
    yield Case(
        "a column more", edited(lambda file: file.create_dataset("cells/other", data=[1, 2, 3])), "accepted", is_right
    )
    yield Case("another group", edited(lambda file: file.create_group("more/inner")), "accepted", is_right)
    yield Case("no cells and no images", edited(_empty), "accepted", lambda content: _is_empty(content))
    yield Case("an opaque column", edited(_replace("cells/class_id", data=np.zeros(3, "V4"))), "refused")
    yield Case("a column of references", edited(_as_references), "refused")


def _as_group(file: h5py.File, name: str) -> None:
    del file[name]
    file.create_group(name)


def _as_references(file: h5py.File) -> None:
    del file["cells/class_id"]
    file.create_dataset("cells/class_id", (3,), h5py.ref_dtype)


def _empty(file: h5py.File) -> None:
    for group in ("cells", "images"):
        for name in list(file[group]):
            file[group][name].resize(0, axis=0)


def _is_empty(content: dict[str, Any]) -> None:
    assert content["n"] == 0 and content["features"].shape == (0, 14, 14, 256) and content["missed"] == []


def _links() -> Iterator[Case]:
    """Links within the file and out of it, and data that lie elsewhere."""
    for name in ("cells", "images", "cells/features", "cells/key", "cells/score", "images/key", "images/num_cells"):
        for kind, link in {
            "soft link": h5py.SoftLink("/kept"),
            "soft link to itself": h5py.SoftLink(f"/{name}"),
            "soft link to the root": h5py.SoftLink("/"),
            "dangling link": h5py.SoftLink("/nowhere"),
            "external link": h5py.ExternalLink("other.h5", name),
            "external link to a system file": h5py.ExternalLink("/etc/hostname", "/"),
            "external link to itself": h5py.ExternalLink("a.h5", name),
        }.items():
            yield Case(f"{kind} for {name}", _linked(name, link), "refused")
    for name in ("cells/features", "cells/crop", "cells/score"):
        yield Case(f"external storage of {name}", edited(_externally_stored(name, "/etc/hostname")), "refused")
        yield Case(f"virtual {name}", edited(_virtual(name)), "refused")
    yield Case(
        "a hard link to a group above", edited(lambda f: f["cells"].__setitem__("up", f["/"])), "accepted", is_right
    )
    yield Case(
        "cells for images", edited(lambda f: (f.move("images", "kept"), f.__setitem__("images", f["cells"]))), "refused"
    )
    yield Case("features for crops", edited(_same("cells/crop", "cells/features")), "refused")
    yield Case("crops for images", edited(_same("cells/image", "cells/crop")), "either", lambda content: None)
    yield Case("a named type for a column", edited(_named_type), "refused")


def _linked(name: str, link: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "other.h5").write_bytes(store_bytes())
        return edited(lambda file: (file.move(name, "kept"), file.__setitem__(name, link)))(folder)

    return make


def _same(name: str, other: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = file[other]

    return change


def _named_type(file: h5py.File) -> None:
    del file["cells/score"]
    file["cells/score"] = np.dtype("float32")


def _externally_stored(name: str, path: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        dtype, shape = file[name].dtype, file[name].shape
        size = int(np.prod(shape)) * dtype.itemsize
        del file[name]
        file.create_dataset(name, shape, dtype, external=[(path, 0, size)])

    return change


def _virtual(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        dtype, shape = file[name].dtype, file[name].shape
        del file[name]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource("/etc/hostname", "x", shape)
        file.create_virtual_dataset(name, layout)

    return change


def _sizes() -> Iterator[Case]:
    """Sizes that the file does not hold, chunks that fill the memory, compression."""
    shapes = {"features": ("float16", (14, 14, 256)), "crop": ("uint8", (128, 128, 3)), "score": ("float32", ())}
    for name, (dtype, shape) in shapes.items():
        for rows in (4, 1000, 10**6, 2**40, 2**55):
            stated = _stated(f"cells/{name}", dtype, (rows, *shape), rows=rows)
            yield Case(f"{name} of {rows} rows that are not there", edited(stated), "refused")
        for options in ({"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {"scaleoffset": 1}):
            if "scaleoffset" in options and dtype == "float16":
                continue
            yield Case(f"{name} with {options}", edited(_replace(f"cells/{name}", **options)), "refused")
    for rows in (3, 10**5, 10**8):
        change = _stated("cells/score", "float32", (rows,), rows=rows, compression="gzip", chunks=(min(rows, 10**6),))
        yield Case(f"compressed nothing of {rows} rows", edited(change), "refused")
    for chunk in (5 * 10**6, 10**7):
        change = _replace("cells/score", chunks=(chunk,), keep=False, maxshape=(None,))
        yield Case(f"chunks of {chunk} rows", edited(change), "refused")
    for name in ("cells", "images"):
        yield Case(f"all of {name} a million rows longer", edited(_longer(name, 10**6)), "refused")
        yield Case(f"all of {name} one row longer", edited(_longer(name, 4 if name == "cells" else 5)), "refused")
        yield Case(f"all of {name} cut to two rows", edited(_longer(name, 2)), "refused")
    yield Case("contiguous columns", edited(_contiguous), "accepted", is_right)
    yield Case("a chunk taken away", edited(_hole), "refused")
    yield Case("a filter left out", edited(_masked_filter), "refused")
    turned = _replace("cells/crop", data=np.zeros((3, 3, 128, 128), "u1"), keep=False)
    yield Case("other dimensions of one size", edited(turned), "refused")


def _stated(name: str, dtype: str, shape: tuple[int, ...], rows: int, **options: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        options.setdefault("chunks", (1, *shape[1:]))
        file.create_dataset(name, shape, dtype, **options)

    return change


def _longer(group: str, rows: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for dataset in file[group].values():
            dataset.resize(rows, axis=0)

    return change


def _contiguous(file: h5py.File) -> None:
    for name in ("features", "crop", "box"):
        values = file["cells"][name][...]
        del file["cells"][name]
        file["cells"].create_dataset(name, data=values)


def _hole(file: h5py.File) -> None:
    values = file["cells/crop"][...]
    del file["cells/crop"]
    dataset = file.create_dataset("cells/crop", values.shape, "u1", chunks=(1, 128, 128, 3), fletcher32=True)
    dataset[0], dataset[2] = values[0], values[2]


def _masked_filter(file: h5py.File) -> None:
    values = file["cells/crop"][...]
    del file["cells/crop"]
    dataset = file.create_dataset("cells/crop", values.shape, "u1", chunks=(1, 128, 128, 3), fletcher32=True)
    for row in range(3):
        dataset.id.write_direct_chunk((row, 0, 0, 0), values[row].tobytes(), filter_mask=1)


def _values() -> Iterator[Case]:
    """Values that no extraction gives."""
    for name, value, expect in (
        ("cells/score", np.nan, "refused"),
        ("cells/score", np.inf, "refused"),
        ("cells/score", -0.1, "refused"),
        ("cells/score", 1.5, "refused"),
        ("cells/class_id", 0, "refused"),
        ("cells/class_id", -(2**31), "refused"),
        ("cells/image_shape", (0, 64), "refused"),
        ("cells/image_shape", (64, -1), "refused"),
        ("cells/box", (np.nan, 0, 1, 1), "refused"),
        ("cells/box", (0, 0, np.inf, 1), "refused"),
        ("cells/box", (0, 0, 500, 1), "refused"),
        ("cells/box", (-9, 0, 5, 5), "refused"),
        ("cells/box", (5, 5, 2, 2), "refused"),
        ("cells/box", (1e38, 0, 1e38, 1), "refused"),
        ("cells/key", b"images/0.png", "refused"),
        ("cells/key", b"", "refused"),
        ("cells/key", b"images/8.png", "refused"),
        ("images/key", b"images/0.png", "refused"),
        ("images/key", b"", "refused"),
        ("images/num_cells", 2, "refused"),
        ("images/num_cells", -1, "refused"),
        ("images/num_cells", 2**31 - 1, "refused"),
        ("images/num_detections", -1, "refused"),
        ("cells/label", b"other", "accepted"),
        ("cells/mask", 255, "accepted"),
    ):
        yield Case(f"{name} {value}", edited(_put(name, value)), expect, lambda content: None)
    swapped = edited(lambda file: (_put("images/num_cells", 0)(file), file["images/num_cells"].__setitem__(0, 2)))
    yield Case("cells of the wrong images", swapped, "refused")
    for name, value in (("NaN", np.nan), ("infinite", np.inf)):
        # The reader hands features on as they are: `check_finite` is the business of what computes with them.
        yield Case(f"{name} features", edited(_put("cells/features", value)), "accepted", _has_odd_features)


def _has_odd_features(content: dict[str, Any]) -> None:
    assert not np.isfinite(content["features"][1]).all() and np.isfinite(content["features"][0]).all()


def _put(name: str, value: Any) -> Callable[[h5py.File], None]:
    """Set row 1."""
    return lambda file: file[name].__setitem__(1, value)


def _shards() -> Iterator[Case]:
    """Stores that are read as one."""
    one, two = store_bytes(0), store_bytes(20)

    def given(**contents: bytes) -> Callable[[Path], list[Path]]:
        def make(folder: Path) -> list[Path]:
            for name, content in contents.items():
                (folder / f"{name}.h5").write_bytes(content)
            return [folder / f"{name}.h5" for name in contents]

        return make

    def is_joined(content: dict[str, Any]) -> None:
        assert content["n"] == 6 and len(set(content["key"].tolist())) == 6
        np.testing.assert_array_equal(content["features"][:3], known()["features"])

    yield Case("two", given(a=one, b=two), "accepted", is_joined)
    yield Case("none", lambda folder: [], "refused", mentions="no shards")
    yield Case("the same twice", given(a=one, b=one), "refused", mentions="b.h5")
    for end in range(0, len(two), len(two) // 12):
        yield Case(f"the second cut after {end} bytes", given(a=one, b=two[:end]), "refused", mentions="b.h5")
    for name, shards in {
        "one of two": ("1/2",),
        "three of two": ("1/2", "2/2", "2/2"),
        "of different numbers": ("1/2", "2/3"),
        "of no number": ("a", "b"),
        "of other images": ("1/2", "2/2"),
        "shard and no shard": ("1/2", ""),
    }.items():
        contents = {f"s{i}": store_bytes(20 * i, shard) for i, shard in enumerate(shards)}
        yield Case(name, given(**contents), "refused", mentions=".h5")
    for attribute, value in (("centre", "bert"), ("detector", '{"hash": "other"}'), ("settings", '{"min_score": 0.5}')):

        def make(folder: Path, attribute: str = attribute, value: str = value) -> list[Path]:
            (folder / "a").mkdir()
            (folder / "b").mkdir()
            (folder / "a" / "a.h5").write_bytes(one)
            return [folder / "a" / "a.h5", edited(_set_text(attribute, value), lambda: two)(folder / "b")]

        yield Case(f"of another {attribute}", make, "refused", mentions="b/a.h5")


def _sorted() -> Iterator[Case]:
    data = store_bytes()

    def twice(folder: Path) -> list[Path]:
        for name in "ab":
            (folder / f"{name}.h5").write_bytes(data)
        return [folder / "a.h5", folder / "b.h5"]

    yield Case("one", lambda folder: [file_of("a.h5", data)(folder)], "accepted", _is_anna)
    yield Case("a centre twice", twice, "refused", mentions="b.h5")
    yield Case("none", lambda folder: [], "accepted", lambda found: None)
    for end in range(0, len(data), len(data) // 12):
        make = file_of("a.h5", data[:end])
        yield Case(f"cut after {end}", lambda folder, make=make: [make(folder)], "refused", mentions="a.h5")


def _is_anna(found: dict[str, Any]) -> None:
    assert list(found) == ["anna"]


def WARM_UP() -> None:  # noqa: N802
    """Read once, so that imports are no part of a case."""
    known()
