"""Files of the same content, told by their bytes."""

import hashlib

import pytest

from experiments.centres import duplicates
from experiments.centres.duplicates import content_hashes, duplicate_sets, remembered_hashes
from mrcnn.data.records import ImageRecord


def records_of(root, **contents):
    for name, content in contents.items():
        (root / name).write_bytes(content)
    return [ImageRecord(name, root / name) for name in contents]


def test_content_hashes_are_those_of_the_bytes(tmp_path, logged):
    large = bytes(range(256)) * 10_000
    records = records_of(tmp_path, b=b"", a=b"x", large=large)
    records += [ImageRecord(name, tmp_path / name) for name in ("folder", *(f"gone{i:02d}" for i in range(12)))]
    (tmp_path / "folder").mkdir()
    hashes = content_hashes(records)
    assert list(hashes) == ["b", "a", "large"]
    assert hashes["large"] == hashlib.sha256(large).hexdigest()
    assert hashes["b"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert "13 faults: folder (" in logged.text and "gone00 (No such file or directory); gone01 (" in logged.text
    assert "and 3 more" in logged.text


def test_duplicate_sets_are_sorted_and_hold_two_or_more():
    hashes = {"d": "1", "b": "2", "a": "1", "c": "3", "f": "2", "e": "1"}
    assert duplicate_sets(hashes) == [("a", "d", "e"), ("b", "f")]
    assert duplicate_sets({("x", "1"): "0", ("y", "1"): "0"}) == [(("x", "1"), ("y", "1"))]


def test_remembered_hashes_reads_only_files_that_changed(tmp_path, monkeypatch):
    records, noted, read = records_of(tmp_path, a=b"x", b=b"x", c=b"y"), tmp_path / "noted.json", []
    first = remembered_hashes(records, noted)
    assert first == content_hashes(records)

    def note(changed, *options):
        read.extend(record.image_id for record in changed)
        return content_hashes(changed)

    monkeypatch.setattr(duplicates, "content_hashes", note)
    assert remembered_hashes(records, noted) == first and not read
    (tmp_path / "b").write_bytes(b"yy")
    second = remembered_hashes(records, noted)
    assert read == ["b"] and second["b"] != first["b"] and second["a"] == first["a"]
    (tmp_path / "a").unlink()
    assert set(remembered_hashes(records, noted)) == {"b", "c"}


@pytest.mark.parametrize("noted", ["no JSON", "[]", '{"a": 3}', '{"a": []}', '{"a": [1, "b", 3]}'])
def test_a_note_of_another_form_only_costs_time(tmp_path, noted):
    records = records_of(tmp_path, a=b"content")
    (tmp_path / "noted.json").write_text(noted)
    assert remembered_hashes(records, tmp_path / "noted.json") == content_hashes(records)
