"""ResNet-RF of thesis section 3.4: features of a ResNet-101 trained on ImageNet, for the random forest."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mrcnn.feature_store import FeatureStore
from mrcnn.files.hdf5 import load_weights
from mrcnn.files.progress import Bar
from mrcnn.training.imagenet import imagenet_weights_path

NUM_FEATURES = 2048
_ADVICE = "give imagenet, random or resnet101_weights_tf_dim_ordering_tf_kernels_notop.h5 of keras.applications"


def resnet_vectors(
    store: FeatureStore, weights: str | Path, *, image_size: int = 224, batch_size: int = 32, seed: int = 0
) -> np.ndarray:
    """Compute the features of each cell: the last maps of ResNet-101 (He et al. 2016), averaged over their pixels.

    Args:
        store: opened; the network sees its crops.
        weights: "imagenet", which fetches the file of `keras.applications` unless it is there; the path of that file;
            or "random" for an untrained network.
        image_size: side in pixels to which crops are brought, 32 or more.
        batch_size: crops at a time.
        seed: of the initial weights, for "random".

    Returns:
        float32 array of shape (n, 2048); rows as in the store.

    Raises:
        InputError: if the file of weights cannot be fetched or read, or holds another network.
    """
    model = _build(weights, (image_size, image_size, 3), seed)

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


def _build(weights: str | Path, shape: tuple[int, int, int], seed: int) -> keras.Model:
    model = keras.applications.ResNet101(weights=None, include_top=False, pooling="avg", input_shape=shape)
    if weights == "random":
        # By a seed of their own, whatever the global random state.
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        seeds = np.random.SeedSequence(seed).generate_state(len(layers))
        for layer, number in zip(layers, seeds.tolist(), strict=True):
            initializer = type(layer.kernel_initializer)(**{**layer.kernel_initializer.get_config(), "seed": number})
            layer.kernel.assign(initializer(layer.kernel.shape))
        return model
    path = Path(imagenet_weights_path("resnet101") if weights == "imagenet" else weights).resolve()
    load_weights(model, path, advice=_ADVICE)
    return model
