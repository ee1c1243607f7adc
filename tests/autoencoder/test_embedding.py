import json
import os
import signal

import anndata
import numpy as np
import pytest
import tensorflow as tf

from autoencoder import embedding
from autoencoder.embedding import embed, is_embedding_of, reconstruct
from mrcnn.feature_store import Cell, FeatureStore, FeatureStoreWriter
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.interruption import Interruption, handle_signals


def test_embed_writes_latents_with_their_cells(trained, stores, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "BATCH_SIZE", 5)
    output = tmp_path / "embedding.h5ad"
    splits = {"anna": {"images/000.png": "train", "images/001.png": "test"}}
    embed(trained.folder, stores, output, splits=splits)
    assert [p.name for p in tmp_path.iterdir()] == ["embedding.h5ad"]
    data = anndata.read_h5ad(output)

    assert data.X.shape == (28, 8) and data.X.dtype == np.float32
    assert data.obs["centre"].tolist() == ["anna"] * 12 + ["bert"] * 9 + ["cleo"] * 7
    assert data.obs["split"].tolist() == ["train", "test"] + [""] * 26
    assert data.obs_names.is_unique and data.obs_names[12] == "bert/images/000.png"
    with FeatureStore(stores["bert"]) as store:
        rows = data.obs["centre"] == "bert"
        for column, values in (("image_id", store.image_ids), ("label", store.labels), ("cell_type", store.cell_types)):
            assert data.obs.loc[rows, column].tolist() == values.tolist()
        np.testing.assert_allclose(data.obs.loc[rows, "score"], store.read("score", 0, 9))
        features = trained.scaling.apply(store.read("features", 0, 9), "bert")
        np.testing.assert_allclose(data.X[rows], trained.encoder(features), atol=1e-4)
    assert json.loads(data.uns["config"]) == trained.config.to_dict()
    assert json.loads(data.uns["run"])["weights_sha256"] == trained.run["weights_sha256"]


def test_embed_names_further_cells_of_an_image(trained, tmp_path):
    blank = np.zeros((128, 128, 3), np.uint8)
    cell = Cell(np.ones((14, 14, 256)), blank, blank, np.zeros(4), 0.9, 1, (9, 9))
    with FeatureStoreWriter(tmp_path / "anna.h5", centre="anna", detector={"hash": "detector-a"}) as writer:
        writer.add("a.png", [cell, cell])
    data = embed(trained.folder, {"anna": tmp_path / "anna.h5"}, tmp_path / "e.h5ad")
    assert data.obs_names.tolist() == ["anna/a.png", "anna/a.png#2"]


def test_embed_takes_a_new_centre_and_refuses_another_detector_or_name(trained, store_maker, tmp_path):
    dora = store_maker(tmp_path / "dora.h5", "dora", 2)
    assert embed(trained.folder, {"dora": dora}, tmp_path / "dora.h5ad").n_obs == 2
    with pytest.raises(InputError, match="holds centre 'dora', not 'anna'"):
        embed(trained.folder, {"anna": dora}, tmp_path / "e.h5ad")
    other = store_maker(tmp_path / "anna.h5", "anna", 2, detector="detector-b")
    with pytest.raises(InputError, match="anna.h5: made by detector detector-b"):
        embed(trained.folder, {"anna": other}, tmp_path / "e.h5ad")
    assert not (tmp_path / "e.h5ad").exists()


def test_reconstruct_follows_the_rows_asked_for(trained, stores):
    originals, reconstructions = reconstruct(trained.folder, stores["cleo"], [5, 0, 5])
    assert originals.shape == reconstructions.shape == (3, 32, 32, 3)
    assert originals.dtype == reconstructions.dtype == np.float32
    with FeatureStore(stores["cleo"]) as store:
        crops = store.read_rows("crop", [0, 5]).astype(np.float64)
    expected = crops.reshape(2, 32, 4, 32, 4, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(originals, expected[[1, 0, 1]], atol=1e-6)
    assert reconstructions.min() >= 0 and reconstructions.max() <= 1
    np.testing.assert_array_equal(reconstructions[0], reconstructions[2])


def test_is_embedding_of_tells_whether_the_autoencoder_has_changed_since(trained, stores, tmp_path):
    output = tmp_path / "embedding.h5ad"
    assert not is_embedding_of(output, trained.folder)

    embed(trained.folder, stores, output)
    assert is_embedding_of(output, trained.folder)

    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps({**trained.run, "weights_sha256": "0"}))
    assert not is_embedding_of(output, other)

    output.write_bytes(output.read_bytes()[:100])
    assert not is_embedding_of(output, trained.folder)


def test_interrupted_embedding_writes_nothing(trained, stores, tmp_path, monkeypatch):
    output, calls = tmp_path / "new" / "embedding.h5ad", []

    def encode_and_signal(features, centre_id):
        os.kill(os.getpid(), signal.SIGINT)
        calls.append(1)
        return tf.zeros((len(features), 8))

    monkeypatch.setattr(embedding, "BATCH_SIZE", 4)
    monkeypatch.setattr(embedding, "compiled_encoder", lambda trained: encode_and_signal)
    with pytest.raises(Interruption), handle_signals():
        embed(trained.folder, stores, output)
    assert len(calls) == 1 and not [path for path in tmp_path.rglob("*") if path.is_file()]
    with OutputLock(output), pytest.raises(InputError, match="is writing it"):
        embed(trained.folder, stores, output)
