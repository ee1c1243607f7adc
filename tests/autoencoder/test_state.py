import numpy as np
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.state import TrainingState, list_checkpoints, load_newest_checkpoint, save_checkpoint
from mrcnn.files.errors import InputError

VALUES = [np.arange(6.0, dtype=np.float32).reshape(2, 3), np.int64(7), np.zeros((0,), np.float32)]
METRICS = np.array([0.5, 0.25], np.float32)


def test_checkpoints_come_back_as_they_were_and_the_newest_two_stay(tmp_path):
    assert load_newest_checkpoint(tmp_path / "none") is None
    for step in (1, 5, 12):
        save_checkpoint(tmp_path, step, [VALUES[0] + step, *VALUES[1:]], METRICS)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000012.npz", "step-00000005.npz"]
    step, metrics, values = load_newest_checkpoint(tmp_path)
    assert step == 12
    np.testing.assert_array_equal(metrics, METRICS)
    np.testing.assert_array_equal(values[0], VALUES[0] + 12)
    assert [value.dtype for value in values] == [np.float32, np.int64, np.float32]


@pytest.mark.parametrize("damage", ["cut", "flip", "object"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage, caplog):
    for step in (3, 6):
        save_checkpoint(tmp_path, step, VALUES, METRICS)
    path = tmp_path / "step-00000006.npz"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[content.find(VALUES[0].tobytes()) + 5] ^= 0xFF
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "object":
        np.savez(path, **{"step": np.int64(6), "metrics": METRICS, "0000": np.array([{}], object)})
    assert load_newest_checkpoint(tmp_path)[0] == 3
    assert "step-00000006.npz: damaged checkpoint" in caplog.text
    (tmp_path / "step-00000003.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="every checkpoint is damaged; train again with --overwrite"):
        load_newest_checkpoint(tmp_path)


def test_state_follows_the_seed_and_takes_back_its_own_values():
    config = AutoencoderConfig(latent_size=4, image_size=32, adaptation="adversarial", seed=1)
    first, again, other = (TrainingState.build(c, 3) for c in (config, config, config.replace(seed=2)))
    assert all(np.array_equal(a, b) for a, b in zip(first.get_values(), again.get_values(), strict=True))
    sides = (first.model, first.optimizer, first.discriminator, first.discriminator_optimizer)
    assert len(first.get_values()) == sum(len(side.variables) for side in sides)
    values = [value + 1 for value in first.get_values()]
    other.set_values(values)
    assert all(np.array_equal(a, b) for a, b in zip(other.get_values(), values, strict=True))
    with pytest.raises(ValueError, match="shape"):
        other.set_values([np.zeros(3), *values[1:]])
