"""The reconstruction losses of eq. 2.18: features by their squared error, images by SSIM or squared error."""

import tensorflow as tf
from keras import ops


def feature_loss(reconstruction: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Mean squared error of the features, over all entries of the batch.

    Args:
        reconstruction: float tensor `(batch, 14, 14, 256)`.
        features: float tensor of the same shape, scaled as the decoder's last activation expects.

    Returns:
        Scalar, 0 or more.
    """
    return ops.mean(ops.square(reconstruction - features))


def image_mse_loss(reconstruction: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Mean squared error of the images, over all pixels and channels of the batch.

    Args:
        reconstruction: float tensor `(batch, side, side, 3)` in [0, 1].
        images: float tensor of the same shape, in [0, 1].

    Returns:
        Scalar between 0 and 1.
    """
    return ops.mean(ops.square(reconstruction - images))


def ssim_loss(reconstruction: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """One minus the structural similarity (eq. 2.19), with an 11 x 11 Gaussian window of sigma 1.5.

    Args:
        reconstruction: float tensor `(batch, side, side, 3)` in [0, 1], with a side of at least 11 pixels.
        images: float tensor of the same shape, in [0, 1].

    Returns:
        Scalar between 0 (equal) and 2, the mean over the batch.

    Reference:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    return 1.0 - ops.mean(tf.image.ssim(reconstruction, images, max_val=1.0))


IMAGE_LOSSES = {"ssim": ssim_loss, "mse": image_mse_loss}
