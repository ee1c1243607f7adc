"""The reconstruction losses of eq. 2.18: features by their squared error, images by SSIM or squared error.

All are computed in float32, whatever the type of their arguments.
"""

import numpy as np
import tensorflow as tf
from keras import ops

SIGMA = 1.5  # of the window, in pixels (Wang et al. 2004)
# Stabilise the quotient for images in [0, 1] (Wang et al. 2004: K1 = 0.01, K2 = 0.03).
C1, C2 = 0.01**2, 0.03**2
# Of the reference implementation: an even window, hence half a pixel off the middle, over images padded with zeros.
REFERENCE_TAPS = 10


def reference_ssim(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Structural similarity (eq. 2.19) as the reference implementation has it.

    It takes a 10 x 10 window over images padded with five zeros on every side, where `tf.image.ssim` takes an 11 x 11
    window wherever it fits whole. Images are float32 `(batch, height, width, channels)` in [0, 1], the result is
    float32 `(batch,)` between -1 and 1.

    Reference:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    stack = tf.concat([first, second, first * second, first**2 + second**2], axis=-1)
    mean_first, mean_second, product, squares = tf.split(_reference_blur(stack), 4, axis=-1)
    means = mean_first**2 + mean_second**2
    luminance = (2.0 * mean_first * mean_second + C1) / (means + C1)
    contrast = (2.0 * (product - mean_first * mean_second) + C2) / (squares - means + C2)
    return tf.reduce_mean(luminance * contrast, axis=(1, 2, 3))


def _reference_blur(images: tf.Tensor) -> tf.Tensor:
    """Weighted means of `(batch, height, width, channels)` under the window, one more than pixels along each axis."""
    weights = np.exp(-((np.arange(REFERENCE_TAPS) - REFERENCE_TAPS // 2) ** 2) / (2.0 * SIGMA**2))
    weights = (weights / weights.sum()).astype(np.float32)
    rim = [REFERENCE_TAPS // 2] * 2
    images = tf.pad(images, [[0, 0], rim, rim, [0, 0]])
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        kernel = tf.tile(weights.reshape(shape), (1, 1, images.shape[-1], 1))
        images = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "VALID")
    return images


def mean_squared_error(reconstruction: tf.Tensor, original: tf.Tensor) -> tf.Tensor:
    """Mean squared error over all entries of two float tensors of one shape: a float32 scalar."""
    return ops.mean(ops.square(ops.cast(reconstruction, "float32") - ops.cast(original, "float32")))


def image_loss(reconstruction: tf.Tensor, images: tf.Tensor, kind: str, variant: str = "tf") -> tf.Tensor:
    """The image loss that a configuration names: "mse", or "ssim", one minus the structural similarity (eq. 2.19).

    Both images are float `(batch, height, width, 3)` in [0, 1], with sides of at least 11 pixels. The variant of SSIM
    is "tf" for `tf.image.ssim` or "reference" for `reference_ssim`.

    Returns:
        float32 scalar, the mean over the batch; 1 - SSIM lies between 0 (equal) and 2.
    """
    if kind == "mse":
        return mean_squared_error(reconstruction, images)
    first, second = tf.cast(reconstruction, tf.float32), tf.cast(images, tf.float32)
    similarity = reference_ssim(first, second) if variant == "reference" else tf.image.ssim(first, second, max_val=1.0)
    return 1.0 - ops.mean(similarity)
