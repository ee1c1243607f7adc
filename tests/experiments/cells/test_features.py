"""`aecfe features`: with a tiny detector against extraction and embedding, else with detections that are made up."""

import csv
import json

import anndata
import numpy as np
import pytest
from PIL import Image

import mrcnn.model
from autoencoder.folder import WEIGHTS
from autoencoder.scaling import FeatureScaling
from experiments.cells import features as module
from experiments.cells.contact_sheet import choose_images, contact_sheet
from experiments.cells.detect import find_images
from experiments.cells.features import centre_name
from experiments.evaluation.vectors import read_vectors
from mrcnn.feature_store import FeatureStore
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.atomic import OutputLock
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import file_hash
from mrcnn.model import detector_config, detector_hash, load_detector

LATENT_SIZE = 6
CENTRE = "Köln 2"


class MadeUpDetector:
    """Finds as many cells as the first pixel's red says, with features that tell the image, its green, and the cell."""

    seen: list[int] = []
    stop_at = -1

    def __init__(self, folder, overrides=None, max_detections=None):
        self.model_dir = folder
        self.config = detector_config(folder, overrides, max_detections)

    def detect(self, images, masks, paste):
        self.seen.extend(int(image[0, 0, 1]) for image in images)
        if self.stop_at in self.seen:
            raise KeyboardInterrupt
        return [self.result(image) for image in images]

    def result(self, image):
        count = min(int(image[0, 0, 0]), self.config.DETECTION_MAX_INSTANCES)
        levels = np.arange(count) + int(image[0, 0, 1])
        return {
            "rois": np.array([[2, 2 + 8 * i, 20, 10 + 8 * i] for i in range(count)], np.int32).reshape(-1, 4),
            "class_ids": np.ones(count, np.int32),
            "scores": np.linspace(0.9, 0.8, count).astype(np.float32),
            "small_masks": np.ones((count, 28, 28), np.float32),
            "feats": np.ones((count, 14, 14, 256), np.float32) * levels[:, None, None, None],
        }


@pytest.fixture(scope="module")
def run(untrained_run, write_autoencoder):
    """A folder as of `aecfe run`, with a detector that has learned nothing, and two autoencoders."""
    for kind in ("minmax", "centre"):
        shape = FeatureScaling.shape(kind, 1)
        scaling = FeatureScaling(kind, ("there",), np.zeros(shape, np.float32), np.ones(shape, np.float32))
        write_autoencoder(untrained_run / kind, untrained_run / "detector", scaling, LATENT_SIZE)
    return untrained_run


@pytest.fixture
def made_up(run, monkeypatch):
    """Lets every command find made-up cells; gives the list of the images that the detector was given."""
    monkeypatch.setattr(module, "load_detector", MadeUpDetector)
    monkeypatch.setattr(mrcnn.model, "load_detector", MadeUpDetector)
    MadeUpDetector.seen.clear()
    return MadeUpDetector.seen


def save_image(path, num_cells, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((30, 40, 3), 220, np.uint8)
    pixels[0, 0, :2] = num_cells, number
    Image.fromarray(pixels).save(path)


@pytest.fixture
def images(tmp_path):
    """Images with 1, 0, 2 and 3 cells, and one that cannot be read; names as people give them."""
    folder = tmp_path / CENTRE / "images"
    for number, (name, count) in enumerate({"a b.png": 1, "leer.png": 0, "zwölf #2.png": 2, "細胞.png": 3}.items()):
        save_image(folder / name, count, 10 * number)
    (folder / "kaputt.png").write_bytes((folder / "a b.png").read_bytes()[:60])
    return folder


@pytest.fixture
def command(run):
    """Function of images, the output and options that gives the words of a command."""

    def words(images, output, *options):
        images = images if isinstance(images, list) else [images]
        return ["features", *images, "--detector", run, "-o", output, "--min-score", 0.5, *options]

    return words


@pytest.fixture
def features(command, made_up, aecfe):
    return lambda *arguments: aecfe(*command(*arguments))


@pytest.fixture
def error_of(command, made_up, refused):
    return lambda *arguments: refused(*command(*arguments))


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_features_are_those_of_extraction_and_embedding(run, draw_cell, tmp_path, monkeypatch, aecfe):
    folder = tmp_path / "here"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(draw_cell(number)[0]).save(folder / f"{number}.png")
    opened = load_detector(run / "detector")  # once, since it is compiled with each opening
    for place in (mrcnn.model, module):
        monkeypatch.setattr(place, "load_detector", lambda *arguments: opened)
    latents, store = tmp_path / "latents.h5ad", tmp_path / "extracted.h5"
    assert aecfe("features", folder, "--detector", run, "--autoencoder", run / "minmax", "-o", latents) == 0
    assert aecfe("extract", folder, "--detector", run / "detector", "-o", store) == 0
    assert aecfe("embed", run / "minmax", store, "-o", tmp_path / "embedded.h5ad") == 0

    made, expected = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("latents", "embedded"))
    assert made.X.dtype == np.float32 and made.X.shape == (3, LATENT_SIZE) and np.ptp(made.X) > 0.01
    np.testing.assert_array_equal(made.X, expected.X)
    assert made.obs_names.tolist() == expected.obs_names.tolist() == [f"here/{n}.png" for n in range(3)]
    for column in expected.obs:
        assert made.obs[column].tolist() == expected.obs[column].tolist(), column
    assert {name: made.uns[name] for name in ("run", "config")} == dict(expected.uns)
    with FeatureStore(store) as extracted:
        boxes = extracted.read("box", 0, 3)
    np.testing.assert_array_equal(made.obs[["y1", "x1", "y2", "x2"]], boxes)
    provenance = json.loads(made.uns["provenance"])
    assert provenance["identity"]["detector"] == detector_hash(run / "detector")
    assert provenance["identity"]["autoencoder"] == file_hash(run / "minmax" / WEIGHTS)
    assert provenance["versions"]["tensorflow"] and provenance["command"]


def test_every_image_is_accounted_for(images, made_up, tmp_path, capsys, features):
    output = tmp_path / "out put" / "mein.v1.h5ad"
    assert features(images, output) == 0

    printed = capsys.readouterr()
    names = [output.with_name(f"mein.v1.{ending}") for ending in ("h5ad", "csv", "overlay.png", "h5")]
    assert printed.out == (
        f"3 cells, 1 images without a cell, 1 unreadable images; written: {', '.join(map(str, names))}\n"
    )
    assert "2 images show several cells" in printed.err and "kaputt.png" in printed.err
    assert sorted(path.name for path in output.parent.iterdir()) == sorted(path.name for path in names)
    rows = rows_of(names[1])
    assert [row["image_id"] for row in rows] == ["a b.png", "kaputt.png", "leer.png", "zwölf #2.png", "細胞.png"]
    assert [row["status"] for row in rows] == ["found", "unreadable", "missed", "found", "found"]
    assert [row["detections"] for row in rows] == ["1", "0", "0", "2", "3"]
    assert rows[0] == {
        "cell": f"{CENTRE}/a b.png", "image_id": "a b.png", "centre": CENTRE, "image": str(images / "a b.png"),
        "status": "found", "reason": "", "score": "0.9000", "y1": "2", "x1": "2", "y2": "20", "x2": "10",
        "detections": "1",
    }  # fmt: skip
    assert "cannot be read" in rows[1]["reason"] and rows[1]["cell"] == rows[1]["y1"] == rows[1]["score"] == ""
    assert rows[2]["reason"] == "no detection above score 0.5" and rows[2]["image"] == str(images / "leer.png")
    vectors, columns = read_vectors(output)[CENTRE]
    assert columns["image_id"].tolist() == ["a b.png", "zwölf #2.png", "細胞.png"]
    # The only cell; the first of two that lie beside the middle, since it has the better score; the one in the middle.
    np.testing.assert_array_equal(vectors[:, 0], [0, 20, 32])
    with FeatureStore(names[3]) as store:
        np.testing.assert_array_equal(vectors, roi_vectors(store))
    with Image.open(names[2]) as picture:
        assert picture.size[0] > 1000 and np.ptp(np.asarray(picture)) > 0


def test_all_cells_of_an_image_have_rows_of_their_own(images, made_up, tmp_path, features):
    assert features(images, tmp_path / "all.h5ad", "--all-cells", "--no-overlay", "--centre", "mine") == 0
    data = anndata.read_h5ad(tmp_path / "all.h5ad")
    assert data.obs_names.tolist()[1:3] == ["mine/zwölf #2.png", "mine/zwölf #2.png#2"]
    assert data.obs["x1"].tolist() == [2, 2, 10, 2, 10, 18] and data.X[:, 0].tolist() == [0, 20, 21, 30, 31, 32]
    assert [row["cell"] for row in rows_of(tmp_path / "all.csv") if row["cell"]] == data.obs_names.tolist()
    assert not (tmp_path / "all.overlay.png").exists()


def test_a_second_call_uses_what_is_there(images, made_up, tmp_path, capsys, features):
    output = tmp_path / "out.h5ad"
    assert features(images, output) == 0
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out.*")}
    count = len(made_up)
    capsys.readouterr()
    assert features(images, output) == 0
    assert "is there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out.*")} == written and len(written) == 4
    # What was removed by hand is written again; the store, which is large, is not missed.
    (tmp_path / "out.csv").unlink()
    assert features(images, output) == 0
    assert len(made_up) == count and (tmp_path / "out.csv").exists()
    (tmp_path / "out.h5").unlink()
    assert features(images, output) == 0 and len(made_up) == count
    assert "out.h5\n" not in capsys.readouterr().out.splitlines()[-1]


def test_other_inputs_are_refused_and_replaced_if_wanted(run, images, tmp_path, features, error_of, other_detector):
    output = tmp_path / "out.h5ad"
    assert features(images, output) == 0
    for arguments, reason in (
        ([images, output, "--centre", "mine"], 'centre "K\\u00f6ln 2", not "mine"'),
        ([images, output, "--all-cells"], "all_cells false, not true"),
        ([images, output, "--max-detections", "2"], "max_detections 6, not 2"),
        ([images, output, "--min-score", "0.25"], "min_score 0.5, not 0.25"),
        ([images, output, "--autoencoder", run / "minmax"], "another autoencoder"),
        ([images, output, "--detector", other_detector], "another detector"),
        ([[images / "a b.png"], output], "another images"),
    ):
        error = error_of(*arguments)
        assert reason in error and "--overwrite" in error and str(output) in error
    before = output.read_bytes()
    # Another picture under the same name, and so in the store that is left without its .h5ad file.
    save_image(images / "a b.png", 2, 7)
    assert "another images" in error_of(images, output) and output.read_bytes() == before
    output.unlink()
    assert "out.h5: is there already, made with another image files" in error_of(images, output)
    assert features(images, output, "--overwrite") == 0
    assert anndata.read_h5ad(output).X[0, 0] == 7
    output.write_bytes(b"something else")
    assert "was not written by aecfe features" in error_of(images, output)


def test_an_interrupted_call_goes_on(images, made_up, tmp_path, monkeypatch, capsys, features, error_of):
    assert features(images, tmp_path / "whole.h5ad", "--batch-size", 1) == 0
    made_up.clear()
    monkeypatch.setattr(MadeUpDetector, "stop_at", 20)
    assert features(images, tmp_path / "out.h5ad", "--batch-size", 1) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.h5.parts"] and made_up == [0, 10, 20]
    monkeypatch.setattr(MadeUpDetector, "stop_at", -1)
    made_up.clear()
    # Other images meanwhile: the half store is theirs no more.
    save_image(images / "neu.png", 1, 50)
    assert "another image files" in error_of(images, tmp_path / "out.h5ad", "--batch-size", 1)
    (images / "neu.png").unlink()
    assert features(images, tmp_path / "out.h5ad", "--batch-size", 1) == 0
    assert made_up == [20, 30]
    whole, resumed = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("whole", "out"))
    np.testing.assert_array_equal(resumed.X, whole.X)
    assert resumed.obs.equals(whole.obs)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_one_call_at_a_time_writes_the_files(images, made_up, tmp_path, features, error_of):
    leftover = tmp_path / ".999999.tmp.out.csv"
    leftover.write_text("of a killed call")
    with OutputLock(tmp_path / "out.h5ad"):
        assert "out.h5ad" in error_of(images, tmp_path / "out.h5ad") and not made_up and leftover.exists()
    assert features(images, tmp_path / "out.h5ad") == 0
    assert not leftover.exists()


def test_no_cell_at_all_is_an_error_with_a_table(images, made_up, tmp_path, error_of):
    error = error_of([images / "leer.png", images / "kaputt.png"], tmp_path / "a.h5ad")
    assert "no cell on any of 2 images (1 unreadable)" in error and "a.csv" in error and "--min-score" in error
    assert [row["status"] for row in rows_of(tmp_path / "a.csv")] == ["missed", "unreadable"]
    assert not (tmp_path / "a.h5ad").exists() and (tmp_path / "a.overlay.png").exists()


def test_mistakes_are_named_before_the_detection(run, images, made_up, tmp_path, error_of, other_detector):
    out = tmp_path / "out.h5ad"
    for arguments, message in (
        ([tmp_path / "out.h5"], "the name must end in .h5ad"),
        ([images / "out.h5ad"], "would lie among the images"),
        ([out, "--centre", "a/b"], "--centre 'a/b': gives no name"),
        ([out, "--detector", tmp_path], "no trained detector there"),
        ([out, "--autoencoder", tmp_path], "no trained autoencoder there"),
        ([out, "--autoencoder", run / "centre"], "'Köln 2' has no feature statistics (known: there)"),
        ([out, "--autoencoder", run / "minmax", "--detector", other_detector], "was trained on features of"),
    ):
        assert message in error_of(images, *arguments)
    assert not made_up and not list(tmp_path.rglob("out*"))


def test_centre_is_named_after_the_folder(tmp_path, monkeypatch):
    for name in ("north/images/a.png", "south/b.png"):
        save_image(tmp_path / "lab" / name, 1, 0)
    lab = tmp_path / "lab"
    assert centre_name(find_images([lab / "north" / "images"])) == "north"
    assert centre_name(find_images([lab / "south"])) == "south"
    assert centre_name(find_images([lab / "south", lab / "north" / "images"])) == "lab"
    assert centre_name(find_images([lab / "south" / "b.png"]), "mine") == "mine"
    monkeypatch.chdir(lab / "south")
    assert centre_name(find_images(["."])) == "south"
    save_image(tmp_path / ".hidden" / "a.png", 1, 0)
    with pytest.raises(InputError, match="gives no name that a centre can have; give --centre"):
        centre_name(find_images([tmp_path / ".hidden"]))


def test_choose_images_is_even_and_leaves_room_for_misses():
    found = np.ones(1000, bool)
    found[::10] = False
    chosen = choose_images(found, 48)
    assert len(set(chosen.tolist())) == 48
    assert found[chosen].sum() == 32 and found[chosen[:32]].all()
    assert chosen[[0, 31, 32, 47]].tolist() == [1, 999, 0, 990] and np.ptp(np.diff(chosen[:32])) <= 3
    assert choose_images(np.array([True, False, True]), 48).tolist() == [0, 2, 1]
    assert choose_images(np.array([True] * 5 + [False] * 60), 12).tolist()[:5] == [0, 1, 2, 3, 4]


def test_contact_sheet_outlines_cells_and_shows_misses(images, made_up, tmp_path, features):
    assert features(images, tmp_path / "out.h5ad", "--all-cells") == 0
    records = {record.image_id: record for record in find_images([images])}
    with FeatureStore(tmp_path / "out.h5") as store:
        one = contact_sheet(store, {**records, "a b.png": records["leer.png"]}, max_tiles=1)
        whole = contact_sheet(store, records, max_tiles=48)
        (images / "a b.png").unlink()
        gone = contact_sheet(store, records, max_tiles=48)
    side = one.shape[1] - 12
    picture = one[6 : 6 + side, 6 : 6 + side].astype(int)  # without the gaps and the caption
    # The box of the only cell, from (2, 2) to (20, 10) in an image of 30 x 40 px, is green.
    rows, columns = np.nonzero(picture[..., 1] - picture[..., 0] > 60)
    top = (side - 30 * side // 40) // 2  # the tile is higher than the picture
    unit = side / 40
    assert abs(columns.min() - 2 * unit) <= 4 and abs(rows.max() - (top + 20 * unit)) <= 4
    assert whole.shape == gone.shape and (whole != gone).any()
