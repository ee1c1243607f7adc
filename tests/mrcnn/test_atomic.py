import json

import pytest

from mrcnn.atomic import atomic_path, write_json, write_text


def test_atomic_path_appears_only_when_the_block_ends(tmp_path):
    final = tmp_path / "new" / "model.weights.h5"
    with atomic_path(final) as temporary:
        assert temporary.parent == final.parent and temporary.name.endswith(".weights.h5")
        temporary.write_bytes(b"whole")
        assert not final.exists()
    assert final.read_bytes() == b"whole"
    assert [p.name for p in final.parent.iterdir()] == ["model.weights.h5"]


def test_atomic_path_keeps_the_old_file_on_an_error(tmp_path):
    final = tmp_path / "log.csv"
    final.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(final) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_atomic_path_complains_when_nothing_was_written(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert not list(tmp_path.iterdir())


def test_write_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Zellgröße µm\n")
    assert (tmp_path / "a.txt").read_bytes() == "Zellgröße µm\n".encode()


def test_write_json_round_trip_keeps_the_order(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"c": "ä"}}
    write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert read == value and list(read) == ["b", "a"]


def test_write_json_leaves_nothing_behind_when_a_value_has_no_json_form(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert not list(tmp_path.iterdir())
