"""A published classifier names cells as its authors meant it to, and its file cannot run anything here."""

import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from experiments.centres.class_maps import make_class_map
from experiments.thesis import published_classifier
from experiments.thesis.published_classifier import load_published, map_classes, read_class_names
from mrcnn.files.errors import InputError

NAMES = ("LYT", "EOS", "BAS")


def colour_model(size: int | None = 16, sharpness: float = 50.0) -> keras.Model:
    """A network of which output k is the mean of colour k, as its last layer's softmax has it."""
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(3, 1, use_bias=False, name="colours")(images)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Softmax()(x))
    model.get_layer("colours").kernel.assign(sharpness * np.eye(3).reshape(1, 1, 3, 3))
    return model


@pytest.fixture
def names_file(tmp_path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


@pytest.fixture
def coloured() -> np.ndarray:
    """Images whose brightest colours are 2, 0, 1, 0 and 2."""
    images = np.random.default_rng(0).integers(0, 100, (5, 128, 128, 3), dtype=np.uint8)
    for image, colour in zip(images, (2, 0, 1, 0, 2), strict=True):
        image[..., colour] += 80
    return images


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_published_classifier_names_cells(suffix, tmp_path, names_file, coloured):
    model = colour_model()
    model.compile("adam", "categorical_crossentropy")  # published files come with their training's settings
    model.save(tmp_path / f"model{suffix}")
    classifier = load_published(tmp_path / f"model{suffix}", names_file)
    assert classifier.classes == NAMES and classifier.image_size == (16, 16)
    named = classifier.predict(coloured, batch_size=2)
    assert named.tolist() == ["BAS", "LYT", "EOS", "LYT", "BAS"]
    assert classifier.predict(coloured[:0]).shape == (0,)
    with pytest.raises(ValueError, match="uint8"):
        classifier.predict(coloured / 255)


@pytest.mark.parametrize(("pixels", "low", "high"), [("0..1", 0, 1), ("0..255", 0, 255), ("-1..1", -1, 1)])
def test_published_classifier_sees_pixels_in_the_range_asked_for(pixels, low, high, tmp_path, names_file):
    colour_model(None, sharpness=1.0).save(tmp_path / "model.keras")
    classifier = load_published(tmp_path / "model.keras", names_file, image_size=8, pixels=pixels)
    image = np.zeros((1, 128, 128, 3), np.uint8)
    image[..., 1] = 255
    scores = np.exp([low, high, low], dtype=np.float64)
    np.testing.assert_allclose(classifier._score(image)[0], scores / scores.sum(), atol=1e-6)


def test_image_size_is_the_models_or_the_one_given(tmp_path, names_file, coloured):
    colour_model(None).save(tmp_path / "any.keras")
    colour_model(16).save(tmp_path / "fixed.keras")
    with pytest.raises(InputError, match="any size; say by image_size"):
        load_published(tmp_path / "any.keras", names_file)
    classifier = load_published(tmp_path / "any.keras", names_file, image_size=20)
    assert classifier.predict(coloured)[0] == "BAS" and classifier.image_size == (20, 20)
    assert load_published(tmp_path / "fixed.keras", names_file, image_size=16).image_size == (16, 16)
    with pytest.raises(InputError, match="16 x 16 px, not 20"):
        load_published(tmp_path / "fixed.keras", names_file, image_size=20)
    with pytest.raises(InputError, match="pixels must be one of"):
        load_published(tmp_path / "fixed.keras", names_file, pixels="0..2")


def unfit_models():
    grey = keras.Input((8, 8, 1))
    rgb = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(rgb)
    return {
        "not RGB images": keras.Model(grey, keras.layers.Flatten()(grey)),
        "several inputs or outputs": keras.Model(rgb, [pooled, pooled]),
        "its output is of shape": keras.Model(rgb, keras.layers.Conv2D(2, 1)(rgb)),
        "has 3 names, but": keras.Model(rgb, keras.layers.Dense(4)(pooled)),
    }


def test_models_that_are_no_such_classifiers_are_refused(tmp_path, names_file):
    for message, model in unfit_models().items():
        model.save(tmp_path / "model.keras")
        with pytest.raises(InputError, match=message):
            load_published(tmp_path / "model.keras", names_file)


def test_scores_that_are_not_finite_are_refused(tmp_path, names_file, coloured):
    colour_model(sharpness=np.nan).save(tmp_path / "model.keras")
    with pytest.raises(InputError, match="not finite"):
        load_published(tmp_path / "model.keras", names_file).predict(coloured)


def lambda_model(mark: Path) -> keras.Model:
    """A network that makes a file when it is called."""
    # The path stands in the code, since what a function takes from outside is not saved with it.
    code = f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]"
    images = keras.Input((8, 8, 3))
    marked = keras.layers.Lambda(eval(code))(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(marked))


@pytest.mark.parametrize("own_check", [True, False], ids=["our check", "Keras' check alone"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_lambda_layer_is_not_run(suffix, own_check, tmp_path, names_file, monkeypatch):
    mark, path = tmp_path / "mark", tmp_path / f"model{suffix}"
    lambda_model(mark).save(path)
    mark.unlink()  # building it has run it once
    if not own_check:
        monkeypatch.setattr(published_classifier, "_check_is_plain", lambda *_: None)
    with pytest.raises(
        InputError, match=r"holds code \(Lambda\)" if own_check else "cannot be loaded.*Lambda"
    ) as caught:
        load_published(path, names_file)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not mark.exists()
    # The file is a true attack: loaded without care it does run.
    model = keras.saving.load_model(path, compile=False, safe_mode=False)
    model(np.zeros((1, 8, 8, 3), np.float32))
    assert mark.exists()


def write_changed(path: Path, change) -> None:
    """Save a sound model with a changed description."""
    model = colour_model()
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, content)


def make_tf_layer(config):
    config["config"]["layers"][1] |= {
        "class_name": "TFSMLayer",
        "config": {"filepath": "/elsewhere", "name": "colours"},
    }


def call_function(config):
    function = {"class_name": "function", "module": "keras.utils", "config": "get_file", "registered_name": "get_file"}
    config["config"]["layers"][1]["config"]["activation"] = function


def make_foreign_class(config):
    config["config"]["layers"][1] |= {"class_name": "Popen", "module": "subprocess", "registered_name": "Popen"}


def make_lookup(config):
    config["config"]["layers"][1] |= {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}


def hide_lambda(config):
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAAA=", "defaults": None, "closure": None}}
    config["config"]["layers"][1]["config"]["kernel_regularizer"] = [{"deep": code}]


def name_by_list(config):
    config["config"]["layers"][1]["class_name"] = ["Lambda"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (make_tf_layer, r"holds code \(TFSMLayer\)"),
        (call_function, "calls the function 'get_file'"),
        (make_foreign_class, "holds 'Popen', which is no layer"),
        (make_lookup, "StringLookup layer, which reads text or files"),
        (hide_lambda, r"holds code \(lambda\)"),
        (name_by_list, "no layer of Keras' own"),
    ],
)
def test_anything_but_plain_layers_is_refused(change, message, suffix, tmp_path, names_file):
    path = tmp_path / f"model{suffix}"
    write_changed(path, change)
    with pytest.raises(InputError, match=message) as caught:
        load_published(path, names_file)
    assert "\n" not in str(caught.value)


def test_plain_operations_and_functions_are_no_code(tmp_path, names_file, coloured):
    images = keras.Input((16, 16, 3))
    x = keras.layers.Activation(keras.activations.relu6)(images * 2.0)
    x = keras.layers.Conv2D(3, 1, kernel_regularizer="l2")(x)
    keras.Model(images, keras.ops.mean(x, axis=(1, 2))).save(tmp_path / "model.keras")
    assert load_published(tmp_path / "model.keras", names_file).model.output.shape == (None, 3)


def damaged_files(folder: Path):
    """Files that are no whole models, by what is said of them."""
    colour_model().save(folder / "whole.keras")
    colour_model().save(folder / "whole.h5")
    zipped, hdf5 = ((folder / f"whole.{kind}").read_bytes() for kind in ("keras", "h5"))
    with zipfile.ZipFile(folder / "whole.keras") as archive:
        config = archive.read("config.json")
    files = {
        "cut.keras": (zipped[: len(zipped) // 2], "damaged, or not a Keras model"),
        "cut.h5": (hdf5[: len(hdf5) // 2], "damaged, or not a Keras model"),
        "text.keras": (b"a model", "damaged, or not a Keras model"),
        "text.h5": (b"a model", "damaged, or not a Keras model"),
        "model.pkl": (b"a model", "must end in .keras or .h5"),
    }
    for name, (content, message) in files.items():
        (folder / name).write_bytes(content)
        yield folder / name, message
    for name, members, message in [
        ("empty.keras", {}, "damaged, or not a Keras model"),
        ("strange.keras", {"a.txt": b""}, "'a.txt', which is no part of a network"),
        ("broken.keras", {"config.json": b"{"}, "damaged, or not a Keras model"),
        ("deep.keras", {"config.json": b"[" * 100_000}, "nested too deep"),
        ("list.keras", {"config.json": b"[]"}, "describes no network"),
        ("no-weights.keras", {"config.json": config}, "no item named 'model.weights.h5'"),
    ]:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        yield folder / name, message
    colour_model().save_weights(folder / "only.weights.h5")
    yield folder / "only.weights.h5", "weights alone"
    yield folder / "absent.keras", "no such file"
    yield folder, "no such file"


def test_damaged_files_are_refused_in_one_line(tmp_path, names_file):
    for path, message in damaged_files(tmp_path):
        with pytest.raises(InputError, match=message) as caught:
            load_published(path, names_file)
        text = str(caught.value)
        assert text.startswith(str(path)) and "\n" not in text and len(text) < 600


def test_links_to_other_files_are_refused(tmp_path, names_file):
    colour_model().save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kernel"] = np.ones((1, 1, 3, 3), np.float32)
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        del file["model_weights/colours/colours/kernel"]
        file["model_weights/colours/colours/kernel"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/kernel")
    with pytest.raises(InputError, match="lies elsewhere"):
        load_published(tmp_path / "model.h5", names_file)


def test_class_names_are_lines_or_a_json_list(tmp_path):
    path = tmp_path / "classes"
    for text in ("a\nb c\n", " a \r\nb c\r\n\r\n", '["a", "b c"]', "\ufeffa\nb c"):
        path.write_bytes(text.encode())
        assert read_class_names(path) == ("a", "b c")
    for content, message in [
        (b"a\n\nb\n", "none of them empty"),
        (b"", "none of them empty"),
        (b"[1, 2]", "none of them empty"),
        (b'["a"', "not valid JSON"),
        (b"a\nb\na\n", "names a twice"),
        (b"\xff\xfe", "not a text file"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_class_names(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_class_names(tmp_path / "absent")


def test_map_classes_gives_cell_types():
    class_map = make_class_map("five", "matek19")
    assert map_classes(("LYT", "NGS", "MYO"), class_map) == {"LYT": "lymphocyte", "NGS": "neutrophil", "MYO": ""}
    with pytest.raises(InputError, match=r"five: has no cell type for any class .*\(cat, dog\)"):
        map_classes(["cat", "dog"], class_map)
