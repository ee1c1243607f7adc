import errno

import numpy as np
import pytest

from autoencoder import state as state_module
from autoencoder.config import AutoencoderConfig
from autoencoder.state import TrainingState, list_checkpoints, load_newest_checkpoint, save_checkpoint
from mrcnn.files.errors import InputError

VALUES = [np.arange(6.0, dtype=np.float32).reshape(2, 3), np.int64(7), np.zeros((0,), np.float32)]


def test_checkpoints_come_back_as_they_were_and_the_newest_two_stay(tmp_path):
    for step in (1, 5, 12):
        save_checkpoint(tmp_path, step, [VALUES[0] + step, *VALUES[1:]])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000012.npz", "step-00000005.npz"]
    step, values = load_newest_checkpoint(tmp_path)
    assert step == 12
    np.testing.assert_array_equal(values[0], VALUES[0] + 12)
    assert [value.dtype for value in values] == [np.float32, np.int64, np.float32]


def test_checkpoints_of_an_empty_or_missing_folder(tmp_path):
    assert load_newest_checkpoint(tmp_path) is None
    assert load_newest_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage, caplog):
    for step in (3, 6):
        save_checkpoint(tmp_path, step, VALUES)
    path = tmp_path / "step-00000006.npz"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[content.find(VALUES[0].tobytes()) + 5] ^= 0xFF
    path.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    assert load_newest_checkpoint(tmp_path)[0] == 3
    assert "step-00000006.npz: damaged checkpoint" in caplog.text
    (tmp_path / "step-00000003.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="every checkpoint is damaged; train again with --overwrite"):
        load_newest_checkpoint(tmp_path)


def test_full_disk_leaves_the_last_checkpoint_and_no_half_written_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 3, VALUES)

    def fill_up(handle, **arrays):
        handle.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_module.np, "savez", fill_up)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 6, VALUES)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003.npz"]
    assert load_newest_checkpoint(tmp_path)[0] == 3


@pytest.mark.parametrize("adaptation", ["mmd", "adversarial"])
def test_state_takes_back_its_own_values(adaptation):
    config = AutoencoderConfig(latent_size=4, image_size=32, adaptation=adaptation, seed=1)
    first, second = (
        TrainingState.build(config, 2),
        TrainingState.build(AutoencoderConfig(**{**vars(config), "seed": 2}), 2),
    )
    assert (first.discriminator is not None) == (adaptation == "adversarial")
    values = [value + 1 for value in first.get_values()]
    second.set_values(values)
    assert all(np.array_equal(a, b) for a, b in zip(second.get_values(), values, strict=True))
    with pytest.raises(ValueError, match="shape"):
        second.set_values([np.zeros(3), *values[1:]])


def test_state_follows_the_seed():
    config = AutoencoderConfig(latent_size=4, image_size=32, adaptation="adversarial", seed=1)
    first, again = TrainingState.build(config, 3), TrainingState.build(config, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first.get_values(), again.get_values(), strict=True))


@pytest.mark.parametrize(
    "arrays",
    [
        {"0000": np.ones(2)},
        {"step": np.array([3]), "0000": np.ones(2)},
        {"step": np.int64(4), "0000": np.ones(2)},
        {"step": np.int64(3), "0001": np.ones(2)},
        {"step": np.int64(3), "0000": np.array("text")},
        {"step": np.int64(3), "0000": np.array([{}], object)},
    ],
)
def test_checkpoint_of_anything_else_is_passed_over(tmp_path, arrays, caplog):
    np.savez(tmp_path / "step-00000003.npz", **arrays)
    with pytest.raises(InputError, match="every checkpoint is damaged"):
        load_newest_checkpoint(tmp_path)
    assert "step-00000003.npz: damaged checkpoint" in caplog.text
