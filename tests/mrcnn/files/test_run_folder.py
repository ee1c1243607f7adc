"""Results that are reused, refused or made again."""

import json

import pytest

from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.run_folder import RUN, RunFolder, check_same, differences

IDENTITY = {"config": {"steps": 10, "sizes": (3, 6)}, "stores": "ab" * 40}


def test_differences_names_nested_settings_and_shortens_long_values():
    there = {"config": {"steps": 20, "sizes": [3, 6], "old": 1}, "stores": "cd" * 40}
    found = differences(there, json.loads(json.dumps(IDENTITY)))
    assert found == ["config.steps 20, not 10", "config.old 1, not null", "another stores"]
    assert differences(1, 1) == []


def test_check_same_takes_tuples_for_lists():
    check_same("x", json.loads(json.dumps(IDENTITY)), IDENTITY)
    with pytest.raises(InputError, match=r"x: .*config\.steps 11"):
        check_same("x", {"config": {"steps": 11, "sizes": [3, 6]}, "stores": "ab" * 40}, IDENTITY)


def test_run_folder_is_trained_once(tmp_path):
    run = RunFolder(tmp_path / "model", "detector", IDENTITY)
    with run.writing() as is_needed:
        assert is_needed and not run.is_complete()
        run.write(False, {})
        with pytest.raises(InputError, match="model"), run.writing():
            pytest.fail("two runs write one folder")
        run.write(True, {"steps": 10})
    with run.writing() as is_needed:
        assert not is_needed
    assert run.record["steps"] == 10
    with run.writing(overwrite=True) as is_needed:
        assert is_needed
    assert sorted(path.name for path in run.path.iterdir()) == [RUN]


def test_run_folder_refuses_another_identity_and_a_damaged_record(tmp_path):
    RunFolder(tmp_path, "detector", IDENTITY).write(True, {})
    other = RunFolder(tmp_path, "detector", {**IDENTITY, "stores": "none"})
    with pytest.raises(InputError, match="another stores"), other.writing():
        pytest.fail("another model is trained over this one")
    with OutputLock(tmp_path, inside=True):
        assert RunFolder(tmp_path, "detector", IDENTITY).is_complete()
    for text in ("{", "[]", '{"complete": 1}'):
        (tmp_path / RUN).write_text(text)
        with pytest.raises(InputError, match=RUN):
            other.is_complete()
