import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn.network.normalization import GroupNorm
from mrcnn.parallel_model import ParallelModel


def small_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3), name="images")
    x = GroupNorm(2, epsilon=1e-5)(keras.layers.Conv2D(4, 3, name="conv")(images))
    return keras.Model(images, keras.layers.Dense(2, name="dense")(keras.layers.Flatten()(x)))


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def test_parallel_model_is_a_copy_with_the_same_outputs(images):
    model = small_model()
    parallel = ParallelModel(model, 1)
    expected = model(images)
    assert isinstance(parallel, keras.Model) and [layer.name for layer in parallel.layers][1] == "conv"
    np.testing.assert_allclose(parallel(images), expected, atol=1e-6)
    model.get_layer("dense").bias.assign([9.0, 9.0])
    np.testing.assert_allclose(parallel(images), expected, atol=1e-6)


def test_parallel_model_takes_the_network_of_a_detector(tiny_detector, draw_cell):
    parallel = ParallelModel(tiny_detector.keras_model, 1)
    molded, metas, _ = tiny_detector.mold_inputs([draw_cell(0)[0]])
    inputs = [molded, metas.astype(np.float32), tiny_detector.get_anchors((64, 64))[np.newaxis]]
    for output, expected in zip(parallel(inputs), tiny_detector.keras_model(inputs), strict=True):
        np.testing.assert_allclose(output, expected, atol=1e-4)


TWO_DEVICES = """
import json
import sys
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path[:0] = [sys.argv[1]]
from mrcnn.parallel_model import ParallelModel
from test_parallel_model import small_model

images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
targets = images[:, 0, 0, :2]
model = small_model()
parallel = ParallelModel(model, 2, ["CPU:0", "CPU:1"])
outputs = np.array(parallel(images)).tolist()
replicas = parallel.distribute_strategy.num_replicas_in_sync
losses = []
for trained in (model, parallel):
    with trained.distribute_strategy.scope():
        trained.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    losses.append(trained.fit(images, targets, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"])
print(json.dumps({"outputs": outputs, "replicas": replicas, "losses": losses}))
"""


def test_parallel_model_on_two_devices_is_the_model_and_trains_as_it(images):
    # In a process of its own, since the number of devices is fixed once TensorFlow has started.
    folder = Path(__file__).parent
    command = [sys.executable, "-c", TWO_DEVICES, str(folder)]
    done = subprocess.run(command, cwd=folder.parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["replicas"] == 2
    np.testing.assert_allclose(found["outputs"], small_model()(images), atol=1e-5)
    np.testing.assert_allclose(*found["losses"], rtol=1e-4)
