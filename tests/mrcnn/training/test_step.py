import keras
import numpy as np
import pytest
import tensorflow as tf

from mrcnn.config import Config, make_config
from mrcnn.data.batches import TrainingImages
from mrcnn.network.assembly import DetectorParts
from mrcnn.training.step import LOSS_NAMES, DetectorModel, FusedAdam, WarmupDrop, make_optimizer


@pytest.mark.parametrize(("drop_after", "last"), [(1.0, 0.1), (0.5, 0.02)])
def test_make_optimizer_drops_the_rate_only_when_asked(drop_after, last):
    config = make_config({"LEARNING_RATE_DROP_AFTER": drop_after}, Config)
    optimizer = make_optimizer(config, 0.1, 100)
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum == 0.9
    optimizer.build([keras.Variable(1.0)])
    optimizer.iterations.assign(99)
    assert float(optimizer.learning_rate) == pytest.approx(last)


@pytest.fixture(scope="module")
def parts(tiny_config_class, small_resnet):
    keras.utils.set_random_seed(0)
    with small_resnet():
        return DetectorParts(tiny_config_class())


@pytest.fixture(scope="module")
def step(parts, tiny_config_class, cell_dataset):
    """Function: settings -> what a step of plain gradient descent at rate 1 changes, by path, and its logs."""

    def take(**settings):
        config = make_config({"WEIGHT_DECAY": 0.0, "GRADIENT_CLIP_NORM": 0.0, **settings}, tiny_config_class)
        batch = TrainingImages([cell_dataset(3)], config, 2)[0]
        trainer = DetectorModel.of_parts(parts, config)
        trainer.compile(optimizer=keras.optimizers.SGD(1.0))
        before = [v.numpy() for v in parts.trainable_variables]
        logs = trainer.train_step(batch)
        changes = {v.path: v.numpy() - old for v, old in zip(parts.trainable_variables, before, strict=True)}
        for variable, old in zip(parts.trainable_variables, before, strict=True):
            variable.assign(old)
        return changes, {name: float(value) for name, value in logs.items()}

    return take


@pytest.fixture(scope="module")
def plain_changes(step):
    return step()[0]


def norms(changes) -> np.ndarray:
    return np.array([np.linalg.norm(change) for change in changes.values()])


def test_train_step_clips_the_joint_norm(step, plain_changes):
    total = float(np.linalg.norm(norms(plain_changes)))
    changes, _ = step(GRADIENT_CLIP_NORM=total / 4)
    np.testing.assert_allclose(norms(changes), norms(plain_changes) / 4, rtol=0.02, atol=1e-4 * total)
    changes, _ = step(GRADIENT_CLIP_NORM=total * 4)
    np.testing.assert_allclose(norms(changes), norms(plain_changes), rtol=0.02, atol=1e-4 * total)


def test_train_step_weighs_the_terms(step):
    weights = dict(zip(LOSS_NAMES, (1.0, 0.0, 2.5, 0.0, 3.0), strict=True))
    changes, logs = step(LOSS_WEIGHTS=weights)
    assert all(logs[name] > 0 for name in LOSS_NAMES)
    assert logs["loss"] == pytest.approx(sum(weights[name] * logs[name] for name in LOSS_NAMES), rel=1e-4)
    still = {path for path, change in changes.items() if not change.any()}
    assert {path.split("/")[-2] for path in still} == {"rpn_bbox_pred", "mrcnn_bbox_fc"}


def test_train_step_decays_kernels_and_biases_by_their_mean_square(step, parts):
    changes, _ = step(LOSS_WEIGHTS=dict.fromkeys(LOSS_NAMES, 0.0), WEIGHT_DECAY=10.0)
    for variable in parts.trainable_variables:
        has_none = variable.path.endswith(("gamma", "beta"))
        expected = 0.0 * variable.numpy() if has_none else -20.0 * variable.numpy() / np.prod(variable.shape)
        np.testing.assert_allclose(changes[variable.path], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_adam_takes_the_steps_of_keras_adam(dtype):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(4, 3, 4))
    results = []
    for kind in (keras.optimizers.Adam, FusedAdam):
        variable, optimizer = keras.Variable(start, dtype=dtype), kind(WarmupDrop(0.1, 2, 3, 0.5))
        optimizer.build([variable])
        _take_steps(optimizer, variable, gradients)
        results.append([v.numpy() for v in (variable, *optimizer.variables)])
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=3e-6)


def _take_steps(optimizer, variable, gradients):
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    for gradient in gradients:
        step(tf.constant(gradient, variable.dtype))
