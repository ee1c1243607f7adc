"""Embedding of stored cells by a trained autoencoder: latents as an .h5ad file, and reconstructed images."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import anndata
import numpy as np
import pandas as pd
import tensorflow as tf

from autoencoder.batches import prepare_images
from autoencoder.folder import TrainedAutoencoder, check_centre, load_autoencoder, read_run
from autoencoder.network import FEATURE_SHAPE
from mrcnn.feature_store import FeatureStore, StorePath, open_store
from mrcnn.feature_store.reader import check_finite
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import atomic_hdf5, read_note
from mrcnn.files.interruption import held_back
from mrcnn.files.json_io import parse_json
from mrcnn.files.progress import Bar
from mrcnn.files.read_ahead import read_ahead

BATCH_SIZE = 256  # cells: smaller batches take the encoder up to a fifth longer

Encode = Callable[[np.ndarray | tf.Tensor, int], tf.Tensor]


def embed(
    folder: str | os.PathLike,
    stores: Mapping[str, StorePath],
    output: str | os.PathLike,
    *,
    splits: Mapping[str, Mapping[str, str]] | None = None,
) -> anndata.AnnData:
    """Encode every cell of some stores and write the latents as AnnData.

    Centres that were not trained on can be embedded too, unless the features are scaled per centre.

    Args:
        folder: of a trained autoencoder.
        stores: feature store by centre, or the shards of one.
        output: the .h5ad file.
        splits: by centre and image_id, the name of the split; "" where it has no entry.

    Returns:
        AnnData with X float32 of shape (cells, latent_size); obs as of `describe_cells`; and uns with the JSON strings
        `config` and `run` of the autoencoder.

    Raises:
        InputError: if the autoencoder or a store cannot be used, they belong to different detectors, or another run is
            writing `output`.
    """
    with OutputLock(output):
        trained = load_autoencoder(folder)
        encode = compiled_encoder(trained)
        latents, tables = [], []
        for centre, path in stores.items():
            with open_store(path) as store:
                check_centre(store, centre)
                _check_detector(trained, store)
                latents.append(encode_store(trained, encode, store))
                tables.append(describe_cells(store, (splits or {}).get(centre, {})))
        notes = {"config": trained.config.to_dict(), "run": trained.run}
        return write_h5ad(output, np.concatenate(latents), pd.concat(tables), notes)


def write_h5ad(
    path: str | os.PathLike,
    vectors: np.ndarray,
    cells: pd.DataFrame,
    notes: Mapping[str, Any],
    names: Sequence[str] | None = None,
) -> anndata.AnnData:
    """Write vectors of cells, float32 (cells, length), as an .h5ad file, atomically, and return what was written.

    `cells` has a row for each, with unique names; text becomes categories. `notes` are JSON values by name, which uns
    gets as strings; `names` are those of the numbers of a vector, which else are counted.
    """
    texts = cells.select_dtypes(exclude=["number", "bool"]).columns
    data = anndata.AnnData(vectors, obs=cells.astype({name: "category" for name in texts}))
    if names is not None:
        data.var_names = list(names)
    data.uns.update({name: json.dumps(value) for name, value in notes.items()})
    with atomic_hdf5(path) as file:
        anndata.io.write_elem(file, "/", data)
    return data


def is_embedding_of(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Say whether `path` is an embedding that the autoencoder in `folder`, as it is now, has made."""
    try:
        noted = parse_json(read_note(path, "uns/run"))
    except ValueError:  # InputError is one, also where there is no such file
        return False
    return noted == read_run(folder)


def reconstruct(
    folder: str | os.PathLike, store: StorePath, rows: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pass some stored cells, by their rows in any order, up to a few hundred, through the autoencoder in `folder`.

    Returns:
        Originals and reconstructions, float32 arrays of shape (len(rows), image_size, image_size, 3) in [0, 1].
    """
    trained = load_autoencoder(folder)
    ordered, inverse = np.unique(np.asarray(rows, np.int64), return_inverse=True)
    with open_store(store) as opened:
        _check_detector(trained, opened)
        features = trained.scaling.apply(opened.read_rows("features", ordered), opened.centre)
        images = opened.read_rows(trained.config.image_source, ordered)
    originals = prepare_images(images, trained.config.image_size, trained.config.image_colours).numpy()
    reconstructions = trained.model(features, training=False)["images"].numpy()
    return originals[inverse], reconstructions[inverse]


def _check_detector(trained: TrainedAutoencoder, store: FeatureStore) -> None:
    if store.detector_hash != trained.detector_hash:
        raise InputError(
            f"{store.path}: made by detector {store.detector_hash[:12]}, but {trained.folder} was trained on "
            f"features of {trained.detector_hash[:12]}; extract this centre with that detector"
        )


def compiled_encoder(trained: TrainedAutoencoder) -> Encode:
    """Compile scaling and encoder into one graph.

    It takes features as stored, float16 `(batch, 14, 14, 256)`, and the id that `FeatureScaling.centre_id` gives their
    centre, and returns latents float32 `(batch, latent_size)`.
    """

    @tf.function(input_signature=[tf.TensorSpec((None, *FEATURE_SHAPE), tf.float16), tf.TensorSpec((), tf.int32)])
    def encode(features, centre_id):
        scaled = trained.scaling.apply_tensor(features, tf.fill(tf.shape(features)[:1], centre_id))
        return trained.encoder(scaled, training=False)

    return encode


def encode_store(trained: TrainedAutoencoder, encode: Encode, store: FeatureStore) -> np.ndarray:
    """Encode all cells of an opened store by `compiled_encoder`, in its order: float32 (cells, latent_size).

    An `InputError` says that the store is damaged, a feature is not finite, or its centre has no statistics.
    """
    latents = np.zeros((len(store), trained.config.latent_size), np.float32)
    centre_id = trained.scaling.centre_id(store.centre)

    def read(start: int) -> np.ndarray:
        rows = range(start, min(start + BATCH_SIZE, len(store)))
        features = store.read("features", start, rows.stop)
        check_finite(store, rows, features)
        return features

    starts = range(0, len(store), BATCH_SIZE)
    batches = read_ahead(read, starts, num_ahead=2, num_threads=1)
    bar = Bar(total=len(store), desc=f"embedding {store.centre}", unit="cell")
    with held_back() as interruption, closing(batches), bar:
        for start, features in zip(starts, batches, strict=True):
            latents[start : start + len(features)] = encode(features, centre_id).numpy()
            bar.update(len(features))
            interruption.check()
    return latents


def describe_cells(store: FeatureStore, split: Mapping[str, str]) -> pd.DataFrame:
    """What is known of the cells of an opened store, and by `split` in which split each image_id is.

    Rows are named "centre/image_id", with "#2" and so on for further cells of an image.
    """
    image_ids = pd.Series(store.image_ids.tolist(), dtype=object)
    numbers = image_ids.groupby(image_ids).cumcount() + 1
    names = [f"{store.centre}/{k}" + (f"#{n}" if n > 1 else "") for k, n in zip(image_ids, numbers, strict=True)]
    return pd.DataFrame(
        {
            "image_id": image_ids.tolist(),
            "centre": store.centre,
            "label": store.labels.tolist(),
            "cell_type": store.cell_types.tolist(),
            "split": [split.get(image_id, "") for image_id in image_ids],
            "score": store.read("score", 0, len(store)),
        },
        index=names,
    )
