"""Files that attack whoever opens them: each is refused in one line, and what it carries does not happen.

The samples are real. Where a library can be made to fall for one, the test shows that too, so that a sample which has
become harmless does not pass for a defence.
"""

import base64
import io
import json
import marshal
import pickle
import stat
import zipfile
from pathlib import Path

import anndata
import h5py
import keras
import numpy as np
import pandas as pd
import pytest

from autoencoder.config import AutoencoderConfig
from autoencoder.embedding import is_embedding_of
from autoencoder.folder import load_autoencoder
from autoencoder.network import build_autoencoder
from autoencoder.scaling import FeatureScaling
from autoencoder.state import load_newest_checkpoint
from experiments.cache import Cache, software
from experiments.cells.export import export_pipeline
from experiments.evaluation.vectors import read_vectors
from experiments.thesis.oracles import OracleConfig, load_oracle
from experiments.thesis.published_classifier import load_model_safely
from mrcnn.config import SmearConfig
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import file_hash, hash_json
from mrcnn.model import load_detector
from mrcnn.training.folder import load_parts
from mrcnn.training.weights import load_by_name

SECRET = "/etc/hostname"
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def refused(read, path, *parts: str) -> str:
    """Check that `read(path)` refuses in one line that names the file."""
    with pytest.raises(InputError) as caught:
        read(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and len(text) <= 1000
    assert all(part in text for part in (Path(path).name, *parts)), text
    return text


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.fixture
def mark(tmp_path) -> Path:
    """A file that no test may find: whoever makes it has run what a file brought along."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists()


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv", activation="relu")(images)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, keras.layers.Dense(3, name="dense")(x))


@pytest.fixture(scope="module")
def sound(classifier, tmp_path_factory) -> dict[str, bytes]:
    """The classifier as .keras, .h5 and .weights.h5."""
    folder = tmp_path_factory.mktemp("sound")
    for suffix in (".keras", ".h5"):
        classifier.save(folder / f"model{suffix}")
    classifier.save_weights(folder / "model.weights.h5")
    return {suffix: (folder / f"model{suffix}").read_bytes() for suffix in (".keras", ".h5", ".weights.h5")}


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_described(path: Path, sound: dict[str, bytes], change) -> Path:
    """The sound model with a changed description."""
    if path.suffix == ".keras":
        members = members_of(sound[".keras"])
        config = json.loads(members["config.json"])
        change(config["config"]["layers"])
        return write_archive(path, {**members, "config.json": json.dumps(config).encode()})
    path.write_bytes(sound[".h5"])
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"]["layers"])
        file.attrs["model_config"] = json.dumps(config)
    return path


def lambda_code(mark: Path) -> dict:
    """A function as Keras keeps it: marshalled code that makes the mark."""
    function = eval(f"lambda x: (open({str(mark)!r}, 'w'), x)[1]")
    code = base64.b64encode(marshal.dumps(function.__code__)).decode()
    return {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}


def as_lambda_layer(layers, mark):
    config = {"name": "conv", "function": lambda_code(mark)}
    layers[1] |= {"class_name": "Lambda", "module": "keras.layers", "config": config}


def as_activation(layers, mark):
    layers[1]["config"]["activation"] = lambda_code(mark)


def as_initializer(layers, mark):
    layers[1]["config"]["kernel_initializer"] = {"wrapped": [lambda_code(mark)]}


def as_wrapped_layer(layers, mark):
    inner = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "a", "function": lambda_code(mark)}}
    layers[1] |= {"class_name": "TimeDistributed", "module": "keras.layers", "config": {"name": "conv", "layer": inner}}


def as_system_call(layers, mark):
    layers[1] |= {
        "class_name": "system",
        "module": "os",
        "registered_name": None,
        "config": {"command": f"touch {mark}"},
    }


def as_system_function(layers, mark):
    function = {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}
    layers[1]["config"]["activation"] = function


def as_download(layers, mark):
    function = {"class_name": "function", "module": "keras.utils", "config": "get_file", "registered_name": "get_file"}
    layers[1]["config"]["activation"] = function


def as_known_name_of_another_module(layers, mark):
    # A plain name, but Keras would import the module that it is said to come from.
    layers[1] |= {"module": "antigravity"}


def as_module_below_keras(layers, mark):
    layers[1] |= {"module": "keras.../../os"}


def as_graph_in_another_file(layers, mark):
    layers[1] |= {"class_name": "TFSMLayer", "config": {"filepath": str(mark.parent), "name": "conv"}}


def as_vocabulary_file(layers, mark):
    layers[1] |= {"class_name": "StringLookup", "config": {"vocabulary": SECRET, "name": "conv"}}


def as_custom_object(layers, mark):
    layers[1] |= {"class_name": "Mine", "module": None, "registered_name": "pack>Mine"}


def as_stored_object(layers, mark):
    layers[1]["config"]["kernel_regularizer"] = {"class_name": "__typespec__", "spec_name": "RaggedTensorSpec"}


def as_endless_loop(layers, mark):
    layers[1] |= {"class_name": "RandAugment", "config": {"value_range": [0, 1], "num_ops": 10**6, "name": "conv"}}


def as_giant(layers, mark):
    # Two dense matrices of 40 GB, in a few bytes.
    layers[1]["config"]["filters"] = layers[3]["config"]["units"] = 100_000


def as_absurd_number(layers, mark):
    layers[1]["config"]["filters"] = 10**18


def as_unrolled(layers, mark):
    layers[1] |= {"class_name": "LSTM", "config": {"units": 3, "unroll": True, "name": "conv"}}


ATTACKS = (
    (as_lambda_layer, "holds code (Lambda)"),
    (as_activation, "holds code (lambda)"),
    (as_initializer, "holds code (lambda)"),
    (as_wrapped_layer, "holds code"),
    (as_system_call, "'system', which is no layer"),
    (as_system_function, "calls the function 'system'"),
    (as_download, "calls the function 'get_file'"),
    (as_known_name_of_another_module, "names the module 'antigravity'"),
    (as_module_below_keras, "names the module"),
    (as_graph_in_another_file, "holds code (TFSMLayer)"),
    (as_vocabulary_file, "StringLookup layer, which reads text or files"),
    (as_custom_object, "'Mine', which is no layer"),
    (as_stored_object, "'__typespec__', which is no layer"),
    (as_endless_loop, "RandAugment layer, which no classifier needs"),
    (as_giant, "cannot be loaded"),
    (as_absurd_number, "beyond what a layer has"),
    (as_unrolled, "unrolls"),
)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(("attack", "reason"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_a_description_that_attacks_is_refused(attack, reason, suffix, sound, mark, tmp_path):
    path = write_described(tmp_path / f"model{suffix}", sound, lambda layers: attack(layers, mark))
    refused(load_model_safely, path, reason)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_giant_that_was_refused_takes_no_memory_later(suffix, sound, mark, tmp_path):
    path = write_described(tmp_path / f"model{suffix}", sound, lambda layers: as_giant(layers, mark))
    refused(load_model_safely, path, "cannot be loaded")
    # Keras would give values to whatever it has not yet given any, 40 GB of them.
    images = keras.Input((8, 8, 3))
    assert keras.layers.Lambda(lambda x: x + 1)(images).shape == (None, 8, 8, 3)


def test_the_marshalled_code_is_a_true_attack(sound, tmp_path):
    mark = tmp_path / "sprung"
    path = write_described(tmp_path / "model.keras", sound, lambda layers: as_lambda_layer(layers, mark))
    # The layer after it does not fit; by then the code has run.
    with pytest.raises(Exception, match=r".+"):
        keras.saving.load_model(path, compile=False, safe_mode=False)
    assert mark.exists()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"../out.txt": b"a"}, "no part of a network"),
        ({"/tmp/out.txt": b"a"}, "no part of a network"),
        ({"assets/../../out.txt": b"a"}, "no part of a network"),
        ({"assets/a.txt": b"a"}, "no part of a network"),
        ({"model.weights.npz": b"a"}, "no part of a network"),
    ],
)
def test_an_archive_that_writes_elsewhere_is_refused(members, reason, sound, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    path = write_archive(folder / "model.keras", {**members_of(sound[".keras"]), **members})
    refused(load_model_safely, path, reason)
    assert [p.name for p in tmp_path.iterdir()] == ["inner"] and [p.name for p in folder.iterdir()] == ["model.keras"]


def test_an_archive_with_a_link_is_refused(sound, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members_of(sound[".keras"]).items():
            info = zipfile.ZipInfo(name)
            if name == "model.weights.h5":
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                content = SECRET.encode()
            archive.writestr(info, content)
    refused(load_model_safely, path, "model.weights.h5 is a link")


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_an_archive_that_grows_a_thousandfold_is_refused(name, sound, tmp_path):
    path = write_archive(tmp_path / "model.keras", {k: v for k, v in members_of(sound[".keras"]).items() if k != name})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(name, "w", force_zip64=True) as member:
            for _ in range(20):
                member.write(bytes(2**20))
    refused(load_model_safely, path, "grows from")


def test_an_archive_with_two_descriptions_is_refused(sound, mark, tmp_path):
    members = members_of(sound[".keras"])
    path = write_archive(tmp_path / "model.keras", members)
    config = json.loads(members["config.json"])
    as_lambda_layer(config["config"]["layers"], mark)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", json.dumps(config))
    refused(load_model_safely, path, "holds a part twice")


def external_link(file, name):
    del file[name]
    file[name] = h5py.ExternalLink(SECRET, "/")


def external_link_to_a_sound_file(file, name):
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as there:
        there["x"] = file[name][...]
    del file[name]
    file[name] = h5py.ExternalLink(str(other), "x")


def soft_link(file, name):
    file.move(name, "kept")
    file[name] = h5py.SoftLink("/kept")


def external_storage(file, name):
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, "float32", external=[(SECRET, 0, int(np.prod(shape)) * 4)])


def virtual(file, name):
    other = Path(file.filename).with_name("other.h5")
    shape, values = file[name].shape, file[name][...]
    with h5py.File(other, "w") as there:
        there["x"] = values
    del file[name]
    layout = h5py.VirtualLayout(shape, "float32")
    layout[...] = h5py.VirtualSource(str(other), "x", shape)
    file.create_virtual_dataset(name, layout)


def absurd(file, name):
    del file[name]
    file.create_dataset(name, (2**40, 3), "float32", chunks=(2**10, 3))


def compressed_absurd(file, name):
    del file[name]
    dataset = file.create_dataset(name, (2**30, 3), "float32", chunks=(2**18, 3), compression="gzip")
    dataset[:10] = 0


def circle(file, name):
    del file[name]
    file[name] = file["/"]


def references(file, name):
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, h5py.ref_dtype)


HDF5_ATTACKS = (
    external_link,
    external_link_to_a_sound_file,
    soft_link,
    external_storage,
    virtual,
    absurd,
    compressed_absurd,
    circle,
    references,
)


def names_of(path: Path, part: str) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        return [name for name in names if part in name and file[name].ndim == 2]


@pytest.mark.parametrize("attack", HDF5_ATTACKS)
@pytest.mark.parametrize("kind", [".h5", ".keras", ".weights.h5", "by name"])
def test_weights_that_lead_elsewhere_are_refused(attack, kind, classifier, sound, tmp_path):
    inner = tmp_path / ("model.h5" if kind in (".h5", "by name") else "model.weights.h5")
    if kind == ".keras":
        inner.write_bytes(members_of(sound[".keras"])["model.weights.h5"])
    else:
        inner.write_bytes(sound[".weights.h5" if kind == ".weights.h5" else ".h5"])
    (name,) = names_of(inner, "dense")
    with h5py.File(inner, "r+") as file:
        attack(file, name)
    if kind == ".keras":
        path = tmp_path / "model.keras"
        write_archive(path, {**members_of(sound[".keras"]), "model.weights.h5": inner.read_bytes()})
        refused(load_model_safely, path)
    elif kind == ".h5":
        refused(load_model_safely, inner)
    elif kind == ".weights.h5":
        refused(lambda path: load_parts(classifier, path), inner)
    else:
        refused(lambda path: load_by_name(classifier.layers, path), inner)


def write_detector(folder: Path, weights: bytes, **changes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**SmearConfig().to_dict(), **changes}))
    (folder / "weights.weights.h5").write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"BACKBONE": "os:system"}, "BACKBONE"),
        ({"BACKBONE": "/tmp/evil.py"}, "BACKBONE"),
        ({"NAME": {"class_name": "Lambda"}}, "NAME"),
        ({"class_name": "Lambda"}, "class_name"),
        ({"__reduce__": ["os.system", "true"]}, "__reduce__"),
        ({"FPN_CLASSIF_FC_LAYERS_SIZE": 2**40}, "FPN_CLASSIF_FC_LAYERS_SIZE"),
        ({"FPN_CLASSIF_FC_LAYERS_SIZE": 2**15}, "weights.weights.h5"),
        ({"NUM_CLASSES": 10**9}, "NUM_CLASSES"),
        ({"IMAGE_MAX_DIM": 2**30}, "IMAGE_MAX_DIM"),
        ({"POST_NMS_ROIS_INFERENCE": 10**9}, "POST_NMS_ROIS_INFERENCE"),
    ],
)
def test_a_detector_whose_settings_attack_is_refused(changes, reason, sound, tmp_path):
    folder = write_detector(tmp_path / "detector", sound[".weights.h5"], **changes)
    with pytest.raises(InputError, match=reason) as caught:
        load_detector(folder)
    assert "detector" in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_weights_that_are_a_link_out_of_the_folder_are_refused(classifier, sound, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.weights.h5").write_bytes(sound[".weights.h5"])
    (tmp_path / "detector").mkdir()
    path = tmp_path / "detector" / "weights.weights.h5"
    path.symlink_to(tmp_path / "elsewhere" / "a.weights.h5")
    refused(lambda path: load_parts(classifier, path), path, "link to a file of another folder")
    path.unlink()
    (path.parent / "real.weights.h5").write_bytes(sound[".weights.h5"])
    path.symlink_to("real.weights.h5")
    load_parts(classifier, path)  # a link beside it is nobody's secret


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of an autoencoder."""
    folder = tmp_path_factory.mktemp("trained")
    config = AutoencoderConfig(latent_size=2, image_size=32)
    config.save(folder / "config.json")
    nothing = np.zeros((1, 0), np.float32)
    FeatureScaling("minmax", ("anna",), nothing, nothing).save(folder / "scaling.npz")
    build_autoencoder(config).save_weights(folder / "weights.weights.h5")
    run = {"complete": True, "steps": 1, "stores": {"anna": {"detector_hash": "abc"}}}
    run["weights_sha256"] = file_hash(folder / "weights.weights.h5")
    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    folder = tmp_path / "autoencoder"
    folder.mkdir()
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_autoencoder_whose_settings_attack_is_refused(copied):
    text = (copied / "config.json").read_text()
    for changes, reason in (
        ({"class_name": "Lambda"}, "class_name"),
        ({"ssim": "os:system"}, "ssim"),
        ({"precision": "/tmp/evil"}, "precision"),
        ({"latent_size": 10**12}, "latent_size"),
        ({"latent_size": 20_000}, "latent_size"),
    ):
        (copied / "config.json").write_text(text)
        edit_json(copied / "config.json", **changes)
        with pytest.raises(InputError, match=reason):
            load_autoencoder(copied)


def test_the_loss_that_an_autoencoder_names_is_not_imported(copied, mark, tmp_path, monkeypatch):
    (tmp_path / "evil_loss.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    edit_json(copied / "config.json", adaptation="evil_loss:loss")
    assert load_autoencoder(copied).config.adaptation == "evil_loss:loss"
    with pytest.raises(InputError):
        export_pipeline(tmp_path / "no-detector", copied, tmp_path / "out")


@pytest.mark.parametrize("attack", [external_link, external_storage, virtual, absurd])
def test_an_autoencoder_whose_weights_lead_elsewhere_is_refused(attack, copied):
    path = copied / "weights.weights.h5"
    name = min(names_with_values(path))
    with h5py.File(path, "r+") as file:
        attack(file, name)
    # Whoever changes the weights changes their hash in the record too.
    edit_json(copied / "run.json", weights_sha256=file_hash(path))
    with pytest.raises(InputError, match=r"weights\.weights\.h5: damaged or refused"):
        load_autoencoder(copied)


def names_with_values(path: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def test_weights_that_somebody_exchanged_are_refused(copied):
    model = build_autoencoder(AutoencoderConfig(latent_size=2, image_size=32, seed=9))
    model.save_weights(copied / "weights.weights.h5")
    with pytest.raises(InputError, match=r"not the weights that run\.json tells of"):
        load_autoencoder(copied)


def npz_with(member: bytes, name: str, *, compressed: bool = False, **arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "a", kind) as archive:
        archive.writestr(f"{name}.npy", member)
    return buffer.getvalue()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_stating(shape: str, size: int = 0) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(size)


def npz_attacks(mark: Path, name: str, **arrays) -> dict[str, bytes]:
    """Files of arrays of which one attacks."""
    objects = np.empty((4, 3), object)
    objects[:] = Trap(mark)
    return {
        "pickle": npz_with(npy(objects), name, **arrays),
        "absurd": npz_with(npy_stating("(4, 1099511627776)"), name, **arrays),
        "bomb": npz_with(npy_stating("(4, 1310720)", 20 * 2**20), name, compressed=True, **arrays),
        "bare pickle": pickle.dumps(Trap(mark)),
    }


def test_vectors_that_attack_are_refused(mark, tmp_path):
    keys = np.array([f"{n}.png" for n in range(4)])
    for kind, content in npz_attacks(mark, "X", key=keys, centre=np.array(["a"] * 4)).items():
        (tmp_path / f"{kind}.npz").write_bytes(content)
        refused(read_vectors, tmp_path / f"{kind}.npz")


def test_scalings_that_attack_are_refused(mark, tmp_path):
    arrays = {"kind": np.array("centre"), "centres": np.array(["a"]), "deviation": np.ones((1, 256), np.float32)}
    for content in npz_attacks(mark, "mean", **arrays).values():
        (tmp_path / "scaling.npz").write_bytes(content)
        refused(FeatureScaling.load, tmp_path / "scaling.npz")


def test_checkpoints_that_attack_are_passed_over(mark, tmp_path, caplog):
    for content in npz_attacks(mark, "0000", step=np.int64(3)).values():
        (tmp_path / "step-00000003.npz").write_bytes(content)
        with pytest.raises(InputError, match="every checkpoint is damaged"):
            load_newest_checkpoint(tmp_path)
    assert caplog.text.count("damaged checkpoint") == 4


def test_cached_results_that_attack_are_refused(mark, tmp_path):
    path = tmp_path / "kind" / f"{hash_json({'software': software()})[:32]}.npz"
    path.parent.mkdir()
    for kind, content in npz_attacks(mark, "a").items():
        path.write_bytes(content)
        if kind != "bomb":  # results that compress a thousandfold are common among these
            refused(lambda _: Cache(tmp_path).arrays("kind", {}, dict), path)


def test_the_pickle_is_a_true_attack(tmp_path):
    mark = tmp_path / "sprung"
    (tmp_path / "a.npy").write_bytes(npy(np.array([Trap(mark)], object)))
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert mark.exists()


@pytest.fixture
def embedding(tmp_path) -> Path:
    path = tmp_path / "a.h5ad"
    cells = pd.DataFrame({"centre": ["a"] * 4, "key": list("abcd"), "cell_type": [""] * 4}, index=list("abcd"))
    data = anndata.AnnData(X, obs=cells)
    data.uns["run"] = "{}"
    data.write_h5ad(path)
    return path


@pytest.mark.parametrize("attack", [a for a in HDF5_ATTACKS if a is not soft_link])
@pytest.mark.parametrize("name", ["X", "obs/key"])
def test_embeddings_that_lead_elsewhere_are_refused(attack, name, embedding):
    with h5py.File(embedding, "r+") as file:
        if name == "obs/key":
            del file[name]
            file.create_dataset(name, data=X)
        kept = {"encoding-type": "array", "encoding-version": "0.2.0"}
        attack(file, name)
        link = file.get(name, getlink=True)
        if isinstance(link, h5py.HardLink) and isinstance(file[name], h5py.Dataset):
            file[name].attrs.update(kept)
    refused(read_vectors, embedding)


def test_an_embedding_of_pickled_objects_is_refused(embedding, mark):
    # HDF5 keeps no Python objects; somebody may put pickles into it, which nothing here takes out.
    with h5py.File(embedding, "r+") as file:
        del file["X"]
        file.create_dataset("X", data=np.void(pickle.dumps(Trap(mark))))
        file["X"].attrs.update({"encoding-type": "pickle", "encoding-version": "0.1.0"})
    refused(read_vectors, embedding)


def test_an_embedding_whose_texts_share_their_memory_is_refused(embedding):
    with h5py.File(embedding, "r+") as file:
        kept = dict(file["obs/key"].attrs)
        del file["obs/key"]
        column = file.create_dataset("obs/key", (4000,), h5py.string_dtype())
        column[0] = "a" * 2**20
        column.attrs.update(kept)
        file.flush()
        place = column.id.get_offset()
    data = bytearray(embedding.read_bytes())
    data[place : place + 64_000] = bytes(data[place : place + 16]) * 4000
    embedding.write_bytes(data)
    refused(read_vectors, embedding, "longer texts than there is room for")


def test_an_embedding_that_is_compared_is_not_opened_by_anndata(embedding, trained, monkeypatch):
    monkeypatch.setattr(anndata, "read_h5ad", None)
    assert not is_embedding_of(embedding, trained)
    with h5py.File(embedding, "r+") as file:
        del file["uns/run"]
        file["uns/run"] = h5py.ExternalLink(SECRET, "/")
    assert not is_embedding_of(embedding, trained)


def test_an_oracle_that_attacks_is_refused(sound, tmp_path):
    config = {**OracleConfig().to_dict(), "image_size": 32, "blocks": [1, 1, 1, 1]}
    (tmp_path / "run.json").write_text(json.dumps({"kind": "oracle", "classes": ["a", "b"], "complete": True}))
    path = tmp_path / "weights.weights.h5"
    for attack in (external_link, virtual, absurd):
        (tmp_path / "config.json").write_text(json.dumps(config))
        path.write_bytes(sound[".weights.h5"])
        (name,) = names_of(path, "dense")
        with h5py.File(path, "r+") as file:
            attack(file, name)
        with pytest.raises(InputError, match=r"weights\.weights\.h5: damaged or refused"):
            load_oracle(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "base_filters": 10**9}))
    with pytest.raises(InputError, match="base_filters must be at most"):
        load_oracle(tmp_path)


def test_nothing_reads_what_lies_beside_a_saved_model():
    """Exports are written and never opened: their graphs are code, and so nothing here may load one."""
    root = Path(__file__).parents[3]
    for package in ("mrcnn", "autoencoder", "experiments"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text()
            assert "saved_model.load" not in text and "TFSMLayer(" not in text, path
