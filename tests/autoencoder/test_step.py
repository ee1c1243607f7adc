import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from autoencoder import network
from autoencoder.adaptation import adaptation_loss, adversarial_loss, in_deviations
from autoencoder.config import AutoencoderConfig
from autoencoder.step import AutoencoderModel

SETTINGS = {"latent_size": 6, "image_size": 32, "seed": 1}


def make_narrow(patch):
    """Build decoders of few channels, which compute faster; float16 is slow on a CPU."""
    patch.setattr(network, "FEATURE_DECODER_LAYERS", ((16, 5, 1), (16, 4, 2), (256, 3, 1)))
    patch.setattr(network, "IMAGE_DECODER_LAYERS", {32: ((16, 5, 2), (16, 2, 1), (3, 1, 1))})


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    make_narrow(monkeypatch)


def make_batch(size=12, centre_ids=(0, 1, 2)):
    random = np.random.default_rng(0)
    ids = np.resize(centre_ids, size).astype(np.int32)
    features = random.uniform(-1, 1, (size, 14, 14, 256)) + ids[:, None, None, None] / 2
    return {
        "features": tf.constant(features, tf.float32),
        "images": tf.constant(random.uniform(size=(size, 32, 32, 3)), tf.float32),
        "centre_id": tf.constant(ids),
    }


def build(config, num_centres=3):
    model = AutoencoderModel(config, num_centres)
    model.compile_for_training()
    return model


def train(config, steps=1):
    """The model, and the measures of each step, after some steps over the same batch of three centres."""
    model = build(config)
    step = tf.function(model.train_step)
    rows = [step(make_batch()) for _ in range(steps)]
    return model, [{name: float(value) for name, value in row.items()} for row in rows]


def test_model_follows_the_seed_and_opens_again_from_a_keras_file(tmp_path):
    config = AutoencoderConfig(**SETTINGS, adaptation="adversarial", group_norm="reference")
    model, _ = train(config)
    first, again, other = (build(c).state for c in (config, config, config.replace(seed=2)))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    sides = (model.network, model.discriminator, model.optimizer, model.discriminator_optimizer)
    assert len(model.state) == sum(len(side.variables) for side in sides) + 1
    model.save(tmp_path / "autoencoder.keras")
    reopened = keras.saving.load_model(tmp_path / "autoencoder.keras")
    for value, expected in zip(reopened.state, model.state, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_weight_of_the_adaptation_ramps_to_beta():
    model, rows = train(AutoencoderConfig(**SETTINGS, beta=4.0, adaptation_warmup_steps=4), 6)
    terms = [(row["loss"] - row["feature_loss"] - row["image_loss"]) / row["adaptation_loss"] for row in rows]
    np.testing.assert_allclose(terms, [1.0, 2.0, 3.0, 4.0, 4.0, 4.0], rtol=2e-3)
    assert model.steps_done == 6 and float(build(AutoencoderConfig(**SETTINGS)).adaptation_weight()) == 5.0


def test_step_aligns_latents_in_units_of_their_deviation_where_asked():
    config, batch = AutoencoderConfig(**SETTINGS, adaptation_units="deviation"), make_batch()
    latents = build(config)(batch["features"])["latents"]
    _, (measured,) = train(config)
    expected = adaptation_loss(in_deviations(latents), batch["centre_id"], 0, 3)
    assert measured["adaptation_loss"] == pytest.approx(float(expected), rel=1e-3)
    as_they_are = adaptation_loss(latents, batch["centre_id"], 0, 3)
    assert measured["adaptation_loss"] != pytest.approx(float(as_they_are), rel=0.1)


def test_step_with_adversary_trains_both_sides():
    config = AutoencoderConfig(**SETTINGS, adaptation="adversarial", discriminator_learning_rate=1e-2)

    def discriminator_losses(beta):
        model, rows = train(config.replace(beta=beta), 20)
        assert model.discriminator_optimizer.iterations == 20
        return [row["discriminator_loss"] for row in rows]

    free, pressed = discriminator_losses(0.0), discriminator_losses(5.0)
    # Without a say in the autoencoder the discriminator learns; with one, targets come to look like the source.
    assert free[-1] < 0.6 * free[0]
    assert np.mean(free) + 0.2 < np.mean(pressed)


def test_step_of_the_discriminator_comes_before_that_of_the_autoencoder():
    config = AutoencoderConfig(**SETTINGS, adaptation="adversarial", discriminator_learning_rate=0.1)
    batch = make_batch()
    latents = build(config)(batch["features"])["latents"]
    model, (measured,) = train(config)
    # Seen by the discriminator that has learnt, the old latents cost what the step has charged.
    charged = adversarial_loss(model.discriminator(latents), batch["centre_id"], 0)
    assert measured["adaptation_loss"] == pytest.approx(float(charged), rel=1e-4)


def test_step_with_loss_scaling_passes_over_gradients_that_overflow():
    config = AutoencoderConfig(**SETTINGS, adaptation="mmd", precision="mixed_float16")
    model = build(config)
    model.optimizer.dynamic_scale.assign(2.0**40)
    before = model.network.get_weights()
    tf.function(model.train_step)(make_batch(3))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.network.get_weights(), strict=True))
    assert float(model.optimizer.dynamic_scale) == 2.0**39 and model.steps_done == 1


# Replicas need devices, whose number is fixed once TensorFlow has started: a process of its own. Plain gradient
# descent, since Adam turns the sign of a gradient near 0 into a whole step and hides a wrong scale of all others.
REPLICAS = """
import sys
import numpy as np
import keras
import pytest
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, sys.argv[1])
from autoencoder.config import AutoencoderConfig
from autoencoder.step import metric_names
from test_step import SETTINGS, build, make_batch, make_narrow

make_narrow(pytest.MonkeyPatch())
keras.optimizers.Adam = lambda rate: keras.optimizers.SGD(0.005)

# Dealt out in turns: each of the two replicas lacks a centre, and of the fourth there is one sample in all.
CENTRES = [0, 1, 0, 2, 0, 2, 0, 1, 0, 2, 0, 3]

def three_steps(strategy, method):
    config = AutoencoderConfig(**SETTINGS, adaptation=method, beta=0.05)
    with strategy.scope():
        model = build(config, 4)
    before = model.network.get_weights()
    batch, n = make_batch(12, CENTRES), strategy.num_replicas_in_sync
    parts = [{name: values[i::n] for name, values in batch.items()} for i in range(n)]
    share = parts[0] if n == 1 else {
        name: strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group][name]) for name in batch
    }
    model.reset_metrics()
    model.make_train_function()
    steps = [model.train_function(iter([share])) for _ in range(3)]
    rows = [[row[name] for name in metric_names(config)] for row in steps]
    weights = [w for part in (model.network, model.discriminator) if part for w in part.get_weights()]
    moved = max(np.abs(a - b).max() for a, b in zip(before, weights))
    return np.array(rows), weights, moved

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for method in sys.argv[2:]:
    rows, weights, moved = three_steps(tf.distribute.get_strategy(), method)
    total, features, images, adaptation = rows.T[:4]
    np.testing.assert_allclose(total, features + images + 0.05 * adaptation, rtol=1e-5)
    assert adaptation[0] > 0 and np.isfinite(rows).all()
    other_rows, others, _ = three_steps(mirrored, method)
    np.testing.assert_allclose(other_rows, rows, rtol=1e-4, atol=1e-6, err_msg=method)
    worst = max(np.abs(a - b).max() for a, b in zip(weights, others, strict=True))
    print(f"{method:12s}: weights moved {moved:.1e}, differ {worst:.1e}")
    # A gradient that is scaled by the number of replicas would differ by as much as it moves.
    assert worst < min(1e-5, moved / 50), (method, worst, moved)
"""


def test_replicas_take_the_steps_of_one_and_their_losses_add_up():
    # Those of the package are computed in one way, and without gathering there is nothing to go wrong.
    methods = ("mmd", "adversarial", "autoencoder.adaptation:coral_loss")
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS, str(Path(__file__).parent), *methods],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("differ") == len(methods)
