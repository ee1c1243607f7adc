"""Files of the same content, told by their bytes."""

import hashlib
import logging

import pytest

from experiments.centres import duplicates
from experiments.centres.duplicates import content_hashes, duplicate_sets, remembered_hashes
from mrcnn.data.records import ImageRecord


def records_of(root, **contents):
    records = []
    for name, content in contents.items():
        path = root / f"{name}.png"
        if content is not None:
            path.write_bytes(content)
        records.append(ImageRecord(path.name, path))
    return records


def test_content_hashes_are_those_of_the_bytes(tmp_path):
    large = bytes(range(256)) * 10_000
    records = records_of(tmp_path, b=b"", a=b"x", large=large)
    hashes = content_hashes(records)
    assert list(hashes) == ["b.png", "a.png", "large.png"]
    assert hashes["large.png"] == hashlib.sha256(large).hexdigest()
    assert hashes["b.png"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert content_hashes([]) == {}


def test_content_hashes_list_what_cannot_be_read(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("experiments"), "propagate", True)
    records = records_of(tmp_path, good=b"x", **{f"gone{i:02d}": None for i in range(12)})
    (tmp_path / "folder.png").mkdir()
    records.append(ImageRecord("folder.png", tmp_path / "folder.png"))
    assert list(content_hashes(records)) == ["good.png"]
    assert "13 faults: gone00.png (No such file or directory); gone01.png" in caplog.text
    assert "and 3 more" in caplog.text


def test_duplicate_sets_are_sorted_and_hold_two_or_more():
    hashes = {"d": "1", "b": "2", "a": "1", "c": "3", "f": "2", "e": "1"}
    assert duplicate_sets(hashes) == [("a", "d", "e"), ("b", "f")]
    assert duplicate_sets({("x", "1"): "0", ("y", "1"): "0"}) == [(("x", "1"), ("y", "1"))]
    assert duplicate_sets({}) == []


def test_remembered_hashes_reads_only_files_that_changed(tmp_path, monkeypatch):
    records = []
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"x" if name != "c" else b"y")
        records.append(ImageRecord(name, tmp_path / f"{name}.png"))
    noted = tmp_path / "noted.json"
    first = remembered_hashes(records, noted)
    assert first == content_hashes(records)
    read = []

    def note(changed, *options):
        read.extend(record.image_id for record in changed)
        return content_hashes(changed)

    monkeypatch.setattr(duplicates, "content_hashes", note)
    assert remembered_hashes(records, noted) == first and not read
    (tmp_path / "b.png").write_bytes(b"yy")
    second = remembered_hashes(records, noted)
    assert read == ["b"] and second["b"] != first["b"] and second["a"] == first["a"]
    # A file that is gone has no hash, and a damaged note only costs time.
    (tmp_path / "a.png").unlink()
    noted.write_text("no JSON")
    assert set(remembered_hashes(records, noted)) == {"b", "c"}


@pytest.mark.parametrize(
    "noted", ["[]", '{"a.png": 3}', '{"a.png": []}', '{"a.png": [1, "b", 3]}', '{"a.png": [1, [], ""]}', "\ud800"]
)
def test_a_note_of_another_form_only_costs_time(tmp_path, noted):
    (tmp_path / "a.png").write_bytes(b"content")
    path = tmp_path / "noted.json"
    path.write_bytes(noted.encode("utf-8", "surrogatepass"))
    hashes = remembered_hashes([ImageRecord("a.png", tmp_path / "a.png")], path)
    assert list(hashes) == ["a.png"] and len(hashes["a.png"]) == 64
