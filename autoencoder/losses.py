"""The reconstruction losses of eq. 2.18: features by their squared error, images by SSIM or squared error.

All are computed in float32, whatever the type of their arguments.
"""

import tensorflow as tf
from keras import ops

from autoencoder.ssim import structural_similarity


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
            `autoencoder.ssim.structural_similarity`.

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
