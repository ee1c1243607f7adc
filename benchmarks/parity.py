"""Our losses and normalisation beside the numbers that the reference implementation computed.

Usage: python benchmarks/parity.py reference_vectors.npz

Prints a Markdown table: of each scalar both values, of each array the largest absolute value of both, and the largest
difference.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from autoencoder.adaptation import adaptation_loss, moment_matching_loss  # noqa: E402
from autoencoder.losses import image_loss, reference_ssim  # noqa: E402
from autoencoder.network import FlattenedGroupNormalization  # noqa: E402

Row = tuple[str, np.ndarray]


def with_gradients(function: Callable[..., tf.Tensor], *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """A loss and its gradients."""
    variables = [tf.Variable(array) for array in arrays]
    with tf.GradientTape() as tape:
        loss = function(*variables)
    return loss.numpy(), [gradient.numpy() for gradient in tape.gradient(loss, variables)]


def adaptation(vectors: dict[str, np.ndarray]) -> Iterator[Row]:
    """Moment matching (eq. 2.14)."""
    source, target = vectors["z_source"], vectors["z_target"]
    loss, (of_source, of_target) = with_gradients(moment_matching_loss, source, target)
    yield "mmd", loss
    yield "mmd_grad_source", of_source
    yield "mmd_grad_target", of_target
    # Equal covariances leave the means alone, and equal means the covariances.
    yield "mmd_mu_term", moment_matching_loss(source, source - source.mean(axis=0) + target.mean(axis=0)).numpy()
    centred = moment_matching_loss(source - source.mean(axis=0), target - target.mean(axis=0))
    yield "mmd_cov_term", centred.numpy()
    yield "mmd_tanh", moment_matching_loss(np.tanh(source), np.tanh(target)).numpy()
    latents, centre_ids = vectors["cm_z"][:, :, 0, 0], vectors["cm_ds"].argmax(axis=1)
    for k in (1, 2):
        kept = np.isin(centre_ids, (0, k))
        yield f"cm_loss{k}", adaptation_loss(latents[kept], centre_ids[kept], 0, 3).numpy()


def similarity(vectors: dict[str, np.ndarray]) -> Iterator[Row]:
    """SSIM over images padded with zeros."""
    first, second = (vectors[name].transpose(0, 2, 3, 1) for name in ("img_a", "img_b"))
    loss, (gradient, _) = with_gradients(lambda a, b: image_loss(a, b, "ssim", "reference"), first, second)
    yield "ssim_w10", 1 - loss
    yield "ssim_w10_per_image", reference_ssim(first, second).numpy()
    yield "ssim_w10_grad_1minus_a", gradient.transpose(0, 3, 1, 2)


def normalisation(vectors: dict[str, np.ndarray]) -> Iterator[Row]:
    """GroupNorm over flattened memory."""
    for name in ("gn0", "gn1", "gn2"):
        layer = FlattenedGroupNormalization(int(vectors[f"{name}_num_groups"]))
        inputs = vectors[f"{name}_x"].transpose(0, 2, 3, 1)
        yield f"{name}_y_default", layer(inputs).numpy().transpose(0, 3, 1, 2)
        layer.set_weights([vectors[f"{name}_gamma"].ravel(), vectors[f"{name}_beta"].ravel()])
        yield f"{name}_y_affine", layer(inputs).numpy().transpose(0, 3, 1, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", help=".npz file of the reference implementation's inputs and outputs")
    with np.load(parser.parse_args(arguments).vectors) as file:
        vectors = {name: file[name] for name in file.files}
    print("| vector | ours | reference | largest difference |\n| --- | --- | --- | --- |")
    for group in (adaptation, similarity, normalisation):
        for name, ours in group(vectors):
            theirs = vectors[name]
            shown = [f"{np.abs(values).max():.7g}" for values in (ours, theirs)]
            print(f"| `{name}` | {shown[0]} | {shown[1]} | {np.abs(ours - theirs).max():.1e} |")


if __name__ == "__main__":
    main()
