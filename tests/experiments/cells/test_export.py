"""The exported pipeline, in a process that has TensorFlow and none of our packages, against extraction and embedding;
and the code of docs/deploy.md that uses it."""

import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from autoencoder.embedding import embed
from autoencoder.export import export_autoencoder
from autoencoder.folder import WEIGHTS, load_autoencoder
from autoencoder.scaling import FeatureScaling
from experiments.cells.export import choose_cells, export_pipeline
from mrcnn.data.images import read_image
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import FeatureStore
from mrcnn.features import choose_cell, extract_features
from mrcnn.files.provenance import file_hash
from mrcnn.model import detector_hash, load_detector

ROOT = Path(__file__).parents[3]
MAX_DETECTIONS, LATENT_SIZE, NUM_IMAGES = 6, 8, 5
SIGNATURES = ("serving_default", "latents", "features", "single_cell")


@pytest.fixture(scope="module")
def records(draw_cell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    paths = [folder / f"{number}.png" for number in range(NUM_IMAGES)]
    for number, path in enumerate(paths):
        image = draw_cell(number)[0]
        # Ever less contrast, so that scores differ from image to image.
        cv2.imwrite(str(path), (200 + (image - 200.0) / (1 + number)).astype(np.uint8))
    return [ImageRecord(path.name, path, label="", cell_type="") for path in paths]


@pytest.fixture(scope="module")
def images(records):
    return np.stack([read_image(record.path) for record in records])


@pytest.fixture(scope="module")
def found(untrained_run, images):
    """What the detector finds on each image, whatever its score."""
    return load_detector(untrained_run / "detector").detect(list(images), masks=False)


@pytest.fixture(scope="module")
def min_score(found):
    """A score that one image does not reach, and no detection has."""
    return float(np.sort([result["scores"].max() for result in found])[:2].mean())


@pytest.fixture(scope="module")
def expected(found, min_score):
    """What `detect` finds on each image from that score on."""
    return [{name: value[result["scores"] >= min_score] for name, value in result.items()} for result in found]


@pytest.fixture(scope="module")
def stores(untrained_run, records, min_score, tmp_path_factory):
    """The store of all cells, and that of one for each image, by the name of the signature that gives its cells."""
    folder = tmp_path_factory.mktemp("stores")
    detector = load_detector(untrained_run / "detector", {"DETECTION_MIN_CONFIDENCE": min_score})
    paths = {"latents": folder / "all.h5", "single_cell": folder / "single.h5"}
    for name, path in paths.items():
        extract_features(detector, records, path, centre="here", all_cells=name == "latents", batch_size=NUM_IMAGES)
    return paths


@pytest.fixture(scope="module")
def autoencoders(untrained_run, stores, write_autoencoder):
    """Folders of two autoencoders of the run as after a training, by the scaling of the features."""
    with FeatureStore(stores["latents"]) as store:
        features = store.read("features", 0, len(store)).astype(np.float32)
    mean, deviation = features.mean(axis=(0, 1, 2)), features.std(axis=(0, 1, 2)) + 0.1
    nothing = np.zeros((2, 0), np.float32)
    statistics = {
        "minmax": (nothing, nothing),
        "centre": (np.stack([mean + 1.0, mean]), np.stack([2.0 * deviation, deviation])),
    }
    for kind, values in statistics.items():
        scaling = FeatureScaling(kind, ("there", "here"), *values)
        write_autoencoder(untrained_run / kind, untrained_run / "detector", scaling, LATENT_SIZE)
    return {kind: untrained_run / kind for kind in statistics}


@pytest.fixture(scope="module")
def embedded(autoencoders, stores, tmp_path_factory):
    """Scaling -> "latents" and "single_cell" -> the embedding of that store."""
    output = tmp_path_factory.mktemp("embedded") / "embedding.h5ad"
    return {
        kind: {name: embed(folder, {"here": path}, output) for name, path in stores.items()}
        for kind, folder in autoencoders.items()
    }


@pytest.fixture(scope="module")
def exported(untrained_run, autoencoders, min_score, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        kind: export_pipeline(untrained_run / "detector", autoencoder, folder / kind / "1", min_score=min_score)
        for kind, autoencoder in autoencoders.items()
    }


@pytest.fixture(scope="module")
def results(exported, images, call_saved_models):
    """Scaling -> arrays by "case/signature/output"."""
    inputs_of = {}
    for kind in exported:
        inputs = {f"all/{name}/images": images for name in SIGNATURES}
        inputs |= {f"grey/{name}/images": images[:2, :50, :, :1] for name in ("single_cell", "features")}
        if kind == "centre":
            inputs |= {key.replace("images", "centre"): np.array(["here"]) for key in inputs}
            inputs |= {"there/latents/images": images, "there/latents/centre": ["there"] * NUM_IMAGES}
            inputs |= {"unknown/latents/images": images, "unknown/latents/centre": ["nowhere"]}
        inputs_of[kind] = inputs
    return call_saved_models(exported, inputs_of)


def real_rows(results: dict, place: str, name: str) -> np.ndarray:
    """The rows of an output that are cells, image by image."""
    counts = results[f"{place}/num_detections"]
    return np.concatenate([rows[:count] for rows, count in zip(results[f"{place}/{name}"], counts, strict=True)])


@pytest.mark.parametrize("kind", ["minmax", "centre"])
def test_pipeline_finds_what_detect_finds(kind, results, expected):
    counts = [len(result["scores"]) for result in expected]
    assert min(counts) == 0 and max(counts) > 1
    for signature in ("serving_default", "latents", "features"):
        place = f"all/{signature}"
        assert results[kind][f"{place}/num_detections"].tolist() == counts
        boxes, scores, class_ids = (real_rows(results[kind], place, n) for n in ("boxes", "scores", "class_ids"))
        assert np.abs(boxes - np.concatenate([r["rois"] for r in expected])).max() <= 0.5 + 1e-3
        np.testing.assert_allclose(scores, np.concatenate([r["scores"] for r in expected]), atol=1e-5)
        np.testing.assert_array_equal(class_ids, np.concatenate([r["class_ids"] for r in expected]))


@pytest.mark.parametrize("kind", ["minmax", "centre"])
def test_pipeline_latents_are_those_of_extraction_and_embedding(kind, results, embedded):
    for signature in SIGNATURES:
        latents = real_rows(results[kind], f"all/{signature}", "latents")
        assert len(latents) > 1 and np.ptp(latents) > 0.1
        wanted = embedded[kind]["single_cell" if signature == "single_cell" else "latents"].X
        np.testing.assert_allclose(latents, wanted, atol=1e-5, err_msg=signature)


def test_pipeline_features_are_those_of_the_store(results, stores):
    features = real_rows(results["minmax"], "all/features", "features")
    np.testing.assert_array_equal(features, features.astype(np.float16))
    with FeatureStore(stores["latents"]) as store:
        # A value between two steps of float16 may fall to either side.
        np.testing.assert_allclose(features, store.read("features", 0, len(store)), rtol=2e-3, atol=1e-4)


def test_choose_cells_takes_what_extraction_takes():
    random = np.random.default_rng(0)
    batch, rows, shape = 200, 4, (40, 60)
    corners = np.sort(random.uniform(0.0, shape, (batch, rows, 2, 2)).astype(np.float32), axis=2)
    boxes = corners.reshape(batch, rows, 4)
    scores = -np.sort(-random.uniform(0.5, 1.0, (batch, rows)).astype(np.float32))
    counts = random.integers(0, rows + 1, batch).astype(np.int32)
    scores[np.arange(rows) >= counts[:, np.newaxis]] = 0.0
    numbers = np.tile(np.arange(rows, dtype=np.int32), (batch, 1))
    found = {"boxes": boxes, "scores": scores, "num_detections": counts, "rows": numbers}
    chosen = choose_cells({k: tf.constant(v) for k, v in found.items()}, tf.constant(shape))
    assert chosen["boxes"].shape == (batch, 1, 4)
    np.testing.assert_array_equal(chosen["num_detections"], np.minimum(counts, 1))
    cells = zip(boxes, scores, counts, strict=True)
    best = [choose_cell(np.round(b[:n]), s[:n], shape) if n else 0 for b, s, n in cells]
    assert len(set(best)) > 2
    np.testing.assert_array_equal(chosen["rows"][:, 0], best)


@pytest.mark.parametrize(
    ("kind", "case", "count"), [("minmax", "all", NUM_IMAGES), ("minmax", "grey", 2), ("centre", "grey", 2)]
)
@pytest.mark.parametrize(("signature", "rows"), [("features", MAX_DETECTIONS), ("single_cell", 1)])
def test_pipeline_takes_other_sizes_and_pads_with_zeros(results, kind, case, count, signature, rows):
    place = f"{case}/{signature}/"
    outputs = {name.removeprefix(place): v for name, v in results[kind].items() if name.startswith(place)}
    counts = outputs.pop("num_detections")
    shapes = {"boxes": (4,), "scores": (), "class_ids": (), "latents": (LATENT_SIZE,)}
    shapes |= {"features": (14, 14, 256)} if signature == "features" else {}
    assert counts.shape == (count,) and {counts.dtype, outputs["class_ids"].dtype} == {np.dtype(np.int32)}
    assert {name: value.shape for name, value in outputs.items()} == {n: (count, rows, *s) for n, s in shapes.items()}
    for values in outputs.values():
        for row, number in zip(values, counts, strict=True):
            assert not row[number:].any() and (row[:number].any() or not number)


def test_pipeline_scales_by_the_named_centre(results, autoencoders, stores):
    trained = load_autoencoder(autoencoders["centre"])
    with FeatureStore(stores["latents"]) as store:
        scaled = trained.scaling.apply(store.read("features", 0, len(store)), "there")
    latents = real_rows(results["centre"], "there/latents", "latents")
    np.testing.assert_allclose(latents, tf.function(trained.encoder)(scaled, training=False), atol=1e-4)
    assert np.abs(latents - real_rows(results["centre"], "all/latents", "latents")).max() > 0.01
    message = str(results["centre"]["unknown/latents/error"])
    assert "known: there, here" in message and "nowhere" in message


def test_exported_folder_says_what_it_is(exported, untrained_run, autoencoders, min_score):
    extra = exported["centre"] / "assets.extra"
    assert json.loads((extra / "detector.json").read_text())["DETECTION_MIN_CONFIDENCE"] == min_score
    assert json.loads((extra / "autoencoder.json").read_text())["latent_size"] == LATENT_SIZE
    description = json.loads((extra / "export.json").read_text())
    assert description["detector"] == detector_hash(untrained_run / "detector")
    assert description["autoencoder"] == file_hash(autoencoders["centre"] / WEIGHTS)
    assert description["centres"] == ["there", "here"] and description["centre"] is None


def test_export_command_builds_a_centre_in(
    untrained_run, autoencoders, results, images, tmp_path, monkeypatch, capsys, aecfe
):
    written = {}

    def write(out, functions, variables, files, **options):
        written.update(functions=functions, files=files)
        return out

    monkeypatch.setattr("experiments.cells.export.write_saved_model", write)  # that takes long, and others test it
    output = tmp_path / "models" / "1"
    command = ["export", "pipeline", untrained_run, autoencoders["centre"], output]
    assert aecfe(*command, "--centre", "here", "--max-detections", 2) == 0
    assert capsys.readouterr().out.strip() == str(output)
    found = written["functions"]["single_cell"](tf.constant(images))
    boxes = found["boxes"]
    assert boxes.shape == (NUM_IMAGES, 1, 4) and written["files"]["detector.json"]["DETECTION_MAX_INSTANCES"] == 2
    assert written["files"]["export.json"]["centre"] == "here"
    # Where the same cell is kept although only two are found, its latent is the same.
    same = np.flatnonzero(np.abs(boxes - results["centre"]["all/single_cell/boxes"]).max(axis=(1, 2)) < 1e-3)
    assert len(same)
    expected = results["centre"]["all/single_cell/latents"][same]
    np.testing.assert_allclose(found["latents"].numpy()[same], expected, atol=1e-4)


def test_export_refuses_what_does_not_belong_together(untrained_run, autoencoders, other_detector, tmp_path, refused):
    detector, out = untrained_run / "detector", tmp_path / "out"
    for arguments, message in (
        ((other_detector, autoencoders["minmax"], out), "was trained on features of"),
        ((tmp_path, autoencoders["minmax"], out), "no trained detector there"),
        ((detector, autoencoders["minmax"], out, "--centre", "here"), "all centres alike (minmax); leave it out"),
        ((detector, autoencoders["centre"], out, "--centre", "nowhere"), "'nowhere' has no feature statistics"),
        ((detector, tmp_path, out), "no trained autoencoder there"),
        ((detector, untrained_run, out), "name one of them: "),
        ((detector, autoencoders["minmax"], tmp_path, "--overwrite"), "holds something else"),
        ((detector, autoencoders["minmax"], other_detector / "config.json"), "is a file"),
    ):
        assert message in refused("export", "pipeline", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def answer(request):
    """Answer as TensorFlow Serving's REST interface is documented to, with the SavedModels below `models/`."""
    name = re.fullmatch(r"http://localhost:8501/v1/models/(\w+):predict", request.full_url)[1]
    body = json.loads(request.data)
    function = tf.saved_model.load(f"models/{name}/1").signatures[body["signature_name"]]
    specs = function.structured_input_signature[1]
    outputs = function(**{name: tf.constant(value, specs[name].dtype) for name, value in body["inputs"].items()})
    return io.StringIO(json.dumps({"outputs": {name: value.numpy().tolist() for name, value in outputs.items()}}))


def code_of_guide(heading: str) -> str:
    """The Python code of a section of the guide."""
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    level, _, _ = heading.partition(" ")
    section = re.split(rf"^#{{1,{len(level)}}} ", text.split(f"\n{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert blocks
    return "\n".join(blocks)


@pytest.fixture
def guide_folder(exported, autoencoders, records, expected, stores, tmp_path, monkeypatch):
    """The present folder, with what the guide reads: models, two smears with cells, and a feature store."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    for folder in ("models/pipeline", "smears", "features"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models" / "pipeline" / "1").symlink_to(exported["minmax"])
    export_autoencoder(load_autoencoder(autoencoders["minmax"]), "models/autoencoder/1")
    with_cells = [record for record, result in zip(records, expected, strict=True) if len(result["scores"])]
    for name, record in zip("ab", with_cells, strict=False):
        (tmp_path / "smears" / f"{name}.png").symlink_to(record.path)
    (tmp_path / "features" / "north.h5").symlink_to(stores["latents"])
    return tmp_path


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_guide_works(guide_folder, monkeypatch, embedded):
    notebook, plain, rest, alone = {}, {}, {}, {}
    exec(code_of_guide("### In a notebook"), notebook)
    boxes = notebook["find_cells"]("smears/a.png")[1]["boxes"]
    assert len(notebook["plt"].gca().patches) == len(boxes) > 0
    exec(code_of_guide("### In plain TensorFlow"), plain)
    monkeypatch.setattr("urllib.request.urlopen", answer)
    exec(code_of_guide("### From TensorFlow Serving, over REST"), rest)
    exec(code_of_guide("## The autoencoder alone"), alone)

    table = notebook["table"]
    assert (guide_folder / "latents.csv").is_file() and set(table["image"]) == {"smears/a.png", "smears/b.png"}
    assert table.shape == (len(table), 2 + LATENT_SIZE)
    assert plain["keys"] == [b"smears/a.png", b"smears/b.png"] and plain["latents"].shape == (2, LATENT_SIZE)
    image = tf.constant(read_image(guide_folder / "smears" / "a.png")[np.newaxis])
    direct = plain["find"](images=image)
    np.testing.assert_allclose(rest["latent"], direct["latents"][0, 0], atol=1e-6)
    np.testing.assert_allclose(rest["found"]["boxes"], direct["boxes"], atol=1e-4)
    np.testing.assert_allclose(alone["latents"], embedded["minmax"]["latents"].X[:16], atol=1e-5)
    assert alone["images"].shape == (len(alone["latents"]), 32, 32, 3)
