"""The reconstruction losses of eq. 2.18: features by their squared error, images by SSIM or squared error.

All are computed in float32, whatever the type of their arguments.
"""

import numpy as np
import tensorflow as tf
from keras import ops

VARIANTS = ("tf", "reference")
SIGMA = 1.5  # of the window, in pixels (Wang et al. 2004)
# Stabilise the quotient for images in [0, 1] (Wang et al. 2004: K1 = 0.01, K2 = 0.03).
C1, C2 = 0.01**2, 0.03**2
TAPS = 11
# Of the reference implementation: an even window, hence half a pixel off the middle, over images padded with zeros.
REFERENCE_TAPS = 10


def structural_similarity(first: tf.Tensor, second: tf.Tensor, variant: str = "tf") -> tf.Tensor:
    """Mean structural similarity (eq. 2.19) of each pair of images.

    Args:
        first: float tensor `(batch, height, width, channels)` in [0, 1]; sides of at least 11 pixels for "tf".
        second: float tensor of the same shape.
        variant: "tf" takes an 11 x 11 window wherever it fits whole, as `tf.image.ssim` does; "reference" a 10 x 10 one
            over images padded with five zeros on every side.

    Returns:
        float32 tensor `(batch,)` between -1 and 1.

    Raises:
        ValueError: for another variant, or images smaller than the window.

    Reference:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
    height, width = first.shape[1:3]
    if variant == "tf" and min(height, width) < TAPS:
        raise ValueError(f"images need sides of at least {TAPS} pixels, got {height} x {width}")
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    stack = tf.concat([first, second, first * second, first**2 + second**2], axis=-1)
    # A GPU would round the factors of a float32 product to ten bits (TensorFloat-32), too few for small variances.
    blur = _blur_by_convolutions if tf.config.list_logical_devices("GPU") else _blur_by_products
    mean_first, mean_second, product, squares = tf.split(blur(stack, variant), 4, axis=-1)
    means = mean_first**2 + mean_second**2
    luminance = (2.0 * mean_first * mean_second + C1) / (means + C1)
    contrast = (2.0 * (product - mean_first * mean_second) + C2) / (squares - means + C2)
    return tf.reduce_mean(luminance * contrast, axis=(1, 2, 3))


def band_matrix(side: int, variant: str) -> np.ndarray:
    """The window along one axis as a matrix: row i holds the weights of the pixels under its i-th place.

    Args:
        side: number of pixels along the axis.
        variant: "tf" or "reference".

    Returns:
        float32 array `(side - 10, side)` for "tf", `(side + 1, side)` for "reference".
    """
    weights, padding = _window(variant)
    places = side + 2 * padding - len(weights) + 1
    matrix = np.zeros((places, side + 2 * padding), np.float32)
    for place in range(places):
        matrix[place, place : place + len(weights)] = weights
    return matrix[:, padding : padding + side]


def _window(variant: str) -> tuple[np.ndarray, int]:
    """Weights `(taps,)` that sum to 1, largest at `taps // 2`, and the zeros to add at each end of an axis."""
    taps, padding = (TAPS, 0) if variant == "tf" else (REFERENCE_TAPS, REFERENCE_TAPS // 2)
    weights = np.exp(-((np.arange(taps) - taps // 2) ** 2) / (2.0 * SIGMA**2))
    return (weights / weights.sum()).astype(np.float32), padding


def _blur_by_products(images: tf.Tensor, variant: str) -> tf.Tensor:
    """Weighted means of `(batch, height, width, channels)` under the window, with columns and rows exchanged."""
    _, height, width, channels = images.shape
    rows, columns = band_matrix(height, variant), band_matrix(width, variant)
    blurred = tf.matmul(rows, tf.reshape(images, (-1, height, width * channels)))
    blurred = tf.transpose(tf.reshape(blurred, (-1, len(rows), width, channels)), (0, 2, 1, 3))
    blurred = tf.matmul(columns, tf.reshape(blurred, (-1, width, len(rows) * channels)))
    return tf.reshape(blurred, (-1, len(columns), len(rows), channels))


def _blur_by_convolutions(images: tf.Tensor, variant: str) -> tf.Tensor:
    """The same without exchanging the axes."""
    weights, padding = _window(variant)
    around = [padding, padding]
    images = tf.pad(images, [[0, 0], around, around, [0, 0]])
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        kernel = tf.tile(tf.reshape(weights, shape), (1, 1, images.shape[-1], 1))
        images = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "VALID")
    return images


def feature_loss(reconstruction: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Mean squared error of the features, over all entries of the batch.

    Args:
        reconstruction: float tensor `(batch, 14, 14, 256)`.
        features: float tensor of the same shape, scaled as the decoder's last activation expects.

    Returns:
        float32 scalar, 0 or more.
    """
    return _mean_square(reconstruction, features)


def image_mse_loss(reconstruction: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Mean squared error of the images, over all pixels and channels of the batch.

    Args:
        reconstruction: float tensor `(batch, side, side, 3)` in [0, 1].
        images: float tensor of the same shape, in [0, 1].

    Returns:
        float32 scalar between 0 and 1.
    """
    return _mean_square(reconstruction, images)


def ssim_loss(reconstruction: tf.Tensor, images: tf.Tensor, variant: str = "tf") -> tf.Tensor:
    """One minus the structural similarity (eq. 2.19) under a Gaussian window of sigma 1.5.

    Args:
        reconstruction: float tensor `(batch, height, width, 3)` in [0, 1].
        images: float tensor of the same shape, in [0, 1].
        variant: "tf" gives what `tf.image.ssim` does, "reference" what the reference implementation does; see
            `autoencoder.losses.structural_similarity`.

    Returns:
        float32 scalar between 0 (equal) and 2, the mean over the batch.

    Raises:
        ValueError: for another variant, or images smaller than the window.

    Reference:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    return 1.0 - ops.mean(structural_similarity(reconstruction, images, variant))


def image_loss(reconstruction: tf.Tensor, images: tf.Tensor, kind: str, variant: str = "tf") -> tf.Tensor:
    """The image loss that a configuration names.

    Args:
        reconstruction: float tensor `(batch, side, side, 3)` in [0, 1].
        images: float tensor of the same shape, in [0, 1].
        kind: "ssim" or "mse".
        variant: of "ssim".

    Returns:
        float32 scalar.
    """
    if kind == "mse":
        return image_mse_loss(reconstruction, images)
    return ssim_loss(reconstruction, images, variant)


def _mean_square(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return ops.mean(ops.square(ops.cast(first, "float32") - ops.cast(second, "float32")))
