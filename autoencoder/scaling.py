"""Scaling of stored features to the range that the autoencoder works in.

`minmax` scales each sample to [-1, 1] by itself, as the reference implementation does. Most values of a sample then lie
in a narrow band, since a few channels are far larger than the rest. `channel` standardises each channel over all
centres, and `centre` within each centre, which also takes away a centre's own offset (its batch effect in the mean).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
import tensorflow as tf

from mrcnn.feature_store import StorePath, open_store
from mrcnn.feature_store.reader import check_finite
from mrcnn.files.arrays import read_arrays
from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar

# A channel that never changes, such as one that a ReLU has silenced, is only centred, not blown up.
_LEAST_DEVIATION = 1e-6
FEATURE_CHANNELS = 256
KINDS = ("minmax", "channel", "centre")
_READ_ROWS = 64  # about 26 MB as float64

Moments = tuple[int, np.ndarray, np.ndarray]  # of each channel: count, mean, sum of squared deviations


@dataclass(frozen=True)
class FeatureScaling:
    """A scaling and its statistics.

    Attributes:
        kind: one of `KINDS`.
        centres: names of the centres that it was fitted on; their order gives the centre ids.
        mean, deviation: float32 arrays of shape (len(centres), channels); the rows are equal for "channel", and there
            are no columns for "minmax".
    """

    kind: str
    centres: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, kind: str, stores: Mapping[str, StorePath]) -> "FeatureScaling":
        """Read the stores once for the statistics that `kind` needs; "minmax" needs none and reads nothing."""
        centres = tuple(stores)
        if kind == "minmax":
            nothing = np.zeros(cls.shape(kind, len(centres)), np.float32)
            return cls(kind, centres, nothing, nothing)
        moments = [_channel_moments(stores[centre]) for centre in centres]
        if kind == "channel":
            moments = [reduce(_pool, moments)] * len(centres)
        mean = np.stack([m for _, m, _ in moments]).astype(np.float32)
        deviation = np.stack([np.sqrt(squares / count) for count, _, squares in moments])
        deviation = np.where(deviation < _LEAST_DEVIATION, 1.0, deviation).astype(np.float32)
        return cls(kind, centres, mean, deviation)

    @staticmethod
    def shape(kind: str, num_centres: int) -> tuple[int, int]:
        """Shape of the statistics of a scaling of this kind."""
        return num_centres, 0 if kind == "minmax" else FEATURE_CHANNELS

    def centre_id(self, centre: str) -> int:
        """Row of the statistics that belongs to a centre; 0 for an unknown one where the rows do not differ.

        An `InputError` says that there are statistics per centre, and none for this one.
        """
        if centre in self.centres:
            return self.centres.index(centre)
        if self.kind == "centre":
            known = ", ".join(self.centres)
            advice = "train with it, or with another feature scaling"
            raise InputError(f"centre {centre!r} has no feature statistics (known: {known}); {advice}")
        return 0

    def apply(self, features: np.ndarray, centre: str) -> np.ndarray:
        """Scale features `(n, height, width, channels)` of one centre to float32; raises as `centre_id` does."""
        return self.apply_tensor(features, np.full(len(features), self.centre_id(centre))).numpy()

    def apply_tensor(self, features: tf.Tensor, centre_ids: tf.Tensor) -> tf.Tensor:
        """Scale features `(batch, height, width, channels)` to float32; int centre ids `(batch,)` index `centres`."""
        features = tf.cast(features, tf.float32)
        if self.kind == "minmax":
            low = tf.reduce_min(features, axis=(1, 2, 3), keepdims=True)
            high = tf.reduce_max(features, axis=(1, 2, 3), keepdims=True)
            # 0 for a constant sample. All else is done once for a sample; its values are gone over only twice.
            factor = tf.math.divide_no_nan(2.0, high - low)
            return (features - (low + high) / 2.0) * factor
        mean, deviation = (
            tf.gather(tf.constant(each), centre_ids)[:, tf.newaxis, tf.newaxis, :]
            for each in (self.mean, self.deviation)
        )
        return (features - mean) / deviation

    def save(self, path: str | os.PathLike) -> None:
        """Write kind, centres and statistics to an .npz file, atomically."""
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            centres = np.array(self.centres, np.str_)
            np.savez(handle, kind=self.kind, centres=centres, mean=self.mean, deviation=self.deviation)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "FeatureScaling":
        """Read what `save` wrote; an `InputError` says that the file is missing, damaged or another one."""
        missing = "is this the folder of a trained autoencoder?"
        arrays = read_arrays(path, missing=missing, advice="not a feature scaling, so train again")
        statistics = [arrays.get(name, np.zeros(0)) for name in ("mean", "deviation")]
        kind, centres = str(arrays.get("kind")), tuple(np.atleast_1d(arrays.get("centres", "")).astype(str).tolist())
        shape = cls.shape(kind, len(centres))
        if kind not in KINDS or any(a.dtype != np.float32 or a.shape != shape for a in statistics):
            raise InputError(f"{path}: not a feature scaling of this version; train again")
        return cls(kind, centres, *statistics)


def _channel_moments(path: StorePath) -> Moments:
    """Moments of a store, read a few rows at a time."""

    def of_part(start: int) -> Moments:
        stop = min(start + _READ_ROWS, len(store))
        features = store.read("features", start, stop)
        check_finite(store, range(start, stop), features)
        values = features.astype(np.float64).reshape(-1, features.shape[-1])
        mean = values.mean(axis=0)
        return len(values), mean, np.square(values - mean).sum(axis=0)

    with open_store(path) as store:
        return reduce(_pool, map(of_part, Bar(range(0, len(store), _READ_ROWS), desc=f"scaling {store.centre}")))


def _pool(first: Moments, second: Moments) -> Moments:
    """Moments of two sets of values together (Chan et al. 1979), which loses no digits to large means."""
    (count, mean, squares), (other_count, other_mean, other_squares) = first, second
    total, shift = count + other_count, other_mean - mean
    mean = mean + shift * (other_count / total)
    return total, mean, squares + other_squares + np.square(shift) * (count * other_count / total)
