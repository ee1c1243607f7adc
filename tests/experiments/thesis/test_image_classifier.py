"""A published classifier predicts what its authors meant it to; `test_untrusted_models.py` has code in its file."""

import zipfile

import keras
import numpy as np
import pytest

from experiments.thesis.image_classifier import load_published, read_class_names
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
def load(tmp_path):
    """Function that saves a model and loads it as a published one."""

    def load(model, suffix=".keras", **options):
        (tmp_path / "classes.txt").write_text("\n".join(NAMES))
        model.save(tmp_path / f"model{suffix}")
        return load_published(tmp_path / f"model{suffix}", tmp_path / "classes.txt", **options)

    return load


@pytest.fixture
def coloured() -> list[np.ndarray]:
    """Images of two sizes whose brightest colours are 2, 0, 1, 0 and 2."""
    sides = (128, 128, 40, 128, 128)
    images = [np.random.default_rng(side).integers(0, 100, (side, side, 3), dtype=np.uint8) for side in sides]
    for image, colour in zip(images, (2, 0, 1, 0, 2), strict=True):
        image[..., colour] += 80
    return images


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_published_classifier_predicts_classes(suffix, load, coloured):
    model = colour_model()
    model.compile("adam", "categorical_crossentropy")  # published files come with their training's settings
    classifier = load(model, suffix)
    assert classifier.classes == NAMES and classifier.image_size == (16, 16)
    assert classifier.predict(iter(coloured), batch_size=2).tolist() == ["BAS", "LYT", "EOS", "LYT", "BAS"]
    assert classifier.predict([]).shape == (0,)


def test_published_classifier_sees_pixels_in_the_range_asked_for(load):
    image = np.zeros((1, 128, 128, 3), np.uint8)
    image[..., 1] = 255
    for pixels, low, high in (("0..1", 0, 1), ("0..255", 0, 255), ("-1..1", -1, 1)):
        classifier = load(colour_model(None, sharpness=1.0), image_size=8, pixels=pixels)
        scores = np.exp([low, high, low], dtype=np.float64)
        np.testing.assert_allclose(classifier._score(image)[0], scores / scores.sum(), atol=1e-6)


def test_image_size_is_the_models_or_the_one_given(load, coloured):
    classifier = load(colour_model(None), image_size=20)
    assert classifier.predict(coloured)[0] == "BAS" and classifier.image_size == (20, 20)
    with pytest.raises(InputError, match="any size; say by image_size"):
        load(colour_model(None))
    with pytest.raises(InputError, match="16 x 16 px, not 20"):
        load(colour_model(), image_size=20)


def test_models_that_are_no_such_classifiers_are_refused(load, coloured):
    rgb, grey = keras.Input((8, 8, 3)), keras.Input((8, 8, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(rgb)
    for message, model in [
        ("not .None, height, width, 3.", keras.Model(grey, keras.layers.Flatten()(grey))),
        ("give a classifier", keras.Model(rgb, [pooled, pooled])),
        ("give a classifier", keras.Model(rgb, keras.layers.Conv2D(2, 1)(rgb))),
        ("has 3 names, but", keras.Model(rgb, keras.layers.Dense(4)(pooled))),
        ("not finite", colour_model(sharpness=np.nan)),
    ]:
        with pytest.raises(InputError, match=message):
            load(model).predict(coloured)


def test_plain_operations_and_functions_are_no_code(load):
    images = keras.Input((16, 16, 3))
    x = keras.layers.Activation(keras.activations.relu6)(images * 2.0)
    x = keras.layers.Conv2D(3, 1, kernel_regularizer="l2")(x)
    assert load(keras.Model(images, keras.ops.mean(x, axis=(1, 2)))).model.output.shape == (None, 3)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    colour_model().save_weights(tmp_path / "only.weights.h5")
    for suffix in ("keras", "h5"):
        colour_model().save(tmp_path / f"cut.{suffix}")
        content = (tmp_path / f"cut.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    with zipfile.ZipFile(tmp_path / "deep.keras", "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
    for name in ("cut.keras", "cut.h5", "deep.keras", "only.weights.h5", "absent.keras", "."):
        with pytest.raises(InputError) as caught:
            load_published(tmp_path / name, tmp_path)
        text = str(caught.value)
        assert text.startswith(str(tmp_path / name)) and "\n" not in text and len(text) < 600


def test_class_names_are_lines_or_a_json_list(tmp_path):
    path = tmp_path / "classes"
    for text in (" a \r\nb c\r\n\r\n", '["a", "b c"]', "\ufeffa\nb c"):
        path.write_bytes(text.encode())
        assert read_class_names(path) == ("a", "b c")
    for content in (b"a\n\nb\n", b"", b"[1, 2]", b'["a"', b"a\nb\na\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="classes: (must hold|cannot be read)"):
            read_class_names(path)
