"""ResNet-RF of thesis section 3.4: features of a ResNet-101 trained on ImageNet, for the random forest."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mrcnn.feature_store import StoreReader
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar
from mrcnn.training.imagenet import imagenet_weights_path
from mrcnn.training.keras_h5 import open_weights

NUM_FEATURES = 2048
TOP_LAYER = "predictions"  # a file with the classifier has this layer too


def resnet_vectors(
    store: StoreReader, weights: str | Path, *, image_size: int = 224, batch_size: int = 32, seed: int = 0
) -> np.ndarray:
    """Compute the features of each cell: the last maps of ResNet-101 (He et al. 2016), averaged over their pixels.

    Args:
        store: opened; the network sees its crops.
        weights, image_size, seed: as in `build_resnet101`.
        batch_size: crops at a time.

    Returns:
        float32 array of shape (n, 2048); rows as in the store.

    Raises:
        InputError: if the file of weights cannot be fetched or read, or holds another network.
    """
    model = build_resnet101(weights, image_size=image_size, seed=seed)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    def compute(images: tf.Tensor) -> tf.Tensor:
        resized = tf.image.resize(images, (image_size, image_size), antialias=True)
        return model(keras.applications.resnet.preprocess_input(resized), training=False)

    vectors = np.empty((len(store), NUM_FEATURES), np.float32)
    with Bar(total=len(store), desc=f"ResNet-101 {store.centre}", unit="cell") as bar:
        for start in range(0, len(store), batch_size):
            stop = min(start + batch_size, len(store))
            vectors[start:stop] = compute(store.read("crop", start, stop)).numpy()
            bar.update(stop - start)
    return vectors


def build_resnet101(weights: str | Path, *, image_size: int = 224, seed: int = 0) -> keras.Model:
    """Build the network of `keras.applications` with the given weights.

    Args:
        weights: "imagenet", which fetches the file of `keras.applications` unless it is there; the path of that file,
            `resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5`; or "random" for an untrained network.
        image_size: side in pixels to which crops are brought, 32 or more.
        seed: of the initial weights, for "random".

    Returns:
        Model from images `(batch, image_size, image_size, 3)` as `keras.applications.resnet.preprocess_input` gives
        them to features `(batch, 2048)`.

    Raises:
        InputError: as in `resnet_vectors`.
    """
    if image_size < 32:
        raise InputError(f"image_size must be 32 or more, got {image_size}")
    if weights == "imagenet":
        weights = imagenet_weights_path("resnet101")
    elif weights != "random" and not Path(weights).is_file():
        raise InputError(f'ResNet weights {weights}: no such file; give "imagenet", "random" or an .h5 file')
    shape = (image_size, image_size, 3)
    model = keras.applications.ResNet101(weights=None, include_top=False, pooling="avg", input_shape=shape)
    if weights == "random":
        _initialise(model, seed)
    else:
        _load(model, Path(weights))
    return model


def _initialise(model: keras.Model, seed: int) -> None:
    """Initialise kernels by a seed of their own, whatever the global random state."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    seeds = np.random.SeedSequence(seed).generate_state(len(layers))
    for layer, number in zip(layers, seeds.tolist(), strict=True):
        initializer = type(layer.kernel_initializer)(**{**layer.kernel_initializer.get_config(), "seed": number})
        layer.kernel.assign(initializer(layer.kernel.shape))


def _load(model: keras.Model, path: Path) -> None:
    """Set every weight from a file of `keras.applications`, which must hold this very network."""
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    with open_weights(path, lambda name: name in layers) as stored:
        ours = {name: {v.name: tuple(v.shape) for v in layer.weights} for name, layer in layers.items()}
        others = [name for name in ours if stored.shapes.get(name) != ours[name]]
        # ResNet-152 has every layer of ResNet-101, and further ones.
        others += sorted(set(stored.shapes) - set(ours) - {TOP_LAYER})
        if others:
            raise InputError(
                f"{path}: {len(others)} layers are not those of ResNet-101, as {others[0]}; give the file of ResNet101 "
                "in keras.applications"
            )
        for name, layer in layers.items():
            for variable in layer.weights:
                variable.assign(stored.read(name, variable.name))
