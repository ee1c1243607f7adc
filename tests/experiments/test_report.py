import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import anndata
import cv2
import numpy as np
import pandas as pd
import pytest

from experiments import report_pictures
from experiments.classify import evaluate_methods
from experiments.report import SECTIONS, write_report
from experiments.report_run import Run
from experiments.score_tables import save_tables
from experiments.settings import CentreSettings, DetectorSettings, RunSettings
from mrcnn.atomic import write_json
from mrcnn.data.records import ImageRecord
from mrcnn.errors import InputError
from mrcnn.feature_store import Cell, FeatureStoreWriter

HOSTILE = "<script>alert(1)</script>.png"
TYPES = ("monocyte", "eosinophil")


class Page(HTMLParser):
    """Elements and addresses of a page; closing tags must match the open ones."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.images = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.addresses += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "img":
            self.images.append(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def text_of(path):
    return path.read_text(encoding="utf-8")


def without_images(text):
    return re.sub(r"data:image/[^\"]*", "", text)


def make_settings(run):
    centres = {n: CentreSettings(root=n, layout="csv", mask_semantics="instances") for n in ("lab & co", "south")}
    return RunSettings(
        "tiny", str(run), str(run / "data"), centres=centres, detector=DetectorSettings(train_on=["lab & co"])
    )


def write_images(run, centre, count, draw_cell):
    """Images and masks of a centre; one file name is hostile."""
    records = []
    for i in range(count):
        # No "/" can be in a file name, so the closing tag of the hostile one makes a folder.
        key = f"images/{HOSTILE}" if i == 0 and centre == "south" else f"images/{i}.png"
        path = run / "data" / centre / key
        path.parent.mkdir(parents=True, exist_ok=True)
        image, mask = draw_cell(i, 48)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        mask_path = run / "data" / centre / "masks" / f"{path.stem}.png"
        mask_path.parent.mkdir(exist_ok=True)
        mask_path.write_bytes(cv2.imencode(".png", mask[..., 0].astype(np.uint8))[1].tobytes())
        records.append(ImageRecord(key, path, f"L{i % 2}", TYPES[i % 2]))
    return records


def write_store(run, centre, records, rng):
    """The first image is missed, the second unreadable, the others have a cell."""
    with FeatureStoreWriter(
        run / "features" / f"{centre}.h5", centre=centre, detector={"hash": "d" * 64}, with_masks=True
    ) as writer:
        for i, record in enumerate(records):
            names = {"label": record.label, "cell_type": record.cell_type}
            if i == 0:
                writer.missed(record.key, "no detection above score 0.7", **names)
            elif i == 1:
                writer.missed(record.key, f"unreadable: {record.path}: cannot be read (cut short)", **names)
            else:
                pixels = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
                cell = Cell(
                    rng.normal(size=(14, 14, 256)).astype(np.float16),
                    pixels,
                    pixels,
                    np.array([8, 8, 40, 40], np.float32),
                    0.93,
                    1,
                    (48, 48),
                    np.full((28, 28), 255, np.uint8),
                )
                writer.add(record.key, [cell], **names)


def write_csv(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns, *rows])


@pytest.fixture
def empty_run(tmp_path):
    return tmp_path / "run", make_settings(tmp_path / "run")


@pytest.fixture(scope="module")
def full_run(tmp_path_factory, draw_cell):
    """A run with every stage but the autoencoders' weights; 6 images a centre."""
    run = tmp_path_factory.mktemp("report") / "run"
    settings, rng = make_settings(run), np.random.default_rng(0)
    records = {centre: write_images(run, centre, 6, draw_cell) for centre in settings.centres}
    for centre, rows in records.items():
        write_store(run, centre, rows, rng)
    found = {centre: rows[2:] for centre, rows in records.items()}
    vectors = {centre: rng.normal(size=(4, 3)) for centre in found}
    evaluation = evaluate_methods(
        {"R-CNN-RF": vectors, "AE-CFE": {c: v[::-1] for c, v in vectors.items()}},
        {centre: [r.cell_type for r in rows] for centre, rows in found.items()},
        {centre: ["train", "train", "test", "test"] for centre in found},
        runs=1,
        progress=False,
    )
    save_tables(evaluation, run / "tables")
    detector = run / "detector"
    measured = {
        "box_ap50": 0.876,
        "mask_ap50": None,
        "num_images": 1234,
        "odd_measure": 0.5,
        "held_out": True,
    }
    write_json(detector / "metrics.json", {"detector": "d" * 64, "centres": {"lab & co": measured}})
    write_csv(detector / "log.csv", ["epoch", "step", "loss", "val_loss"], [[1, 5, 2.0, 2.1], [2, 10, 1.0, 1.2]])
    versions = {"python": "3.99.1"}
    write_json(
        detector / "run.json",
        {"complete": True, "seed": 7, "versions": versions, "command": ["aecfe", "run", "my config.yaml"]},
    )
    write_json(detector / "config.json", {"NAME": "tiny", "NUM_CLASSES": 2, "AUGMENTATION": "strong"})
    keys = [record.key for record in records["lab & co"]]
    write_json(detector / "split.json", {"lab & co": {"train": keys[:4], "test": keys[4:]}})
    obs = pd.DataFrame(
        [(r.key, c, r.label, r.cell_type) for c, rows in found.items() for r in rows],
        columns=["key", "centre", "label", "cell_type"],
        index=[f"{c}/{r.key}" for c, rows in found.items() for r in rows],
    )
    folder = run / "autoencoder"
    write_json(folder / "run.json", {"complete": True, "steps": 4321, "stores": {"south": {"detector_hash": "d"}}})
    anndata.AnnData(np.concatenate(list(vectors.values())).astype(np.float32), obs=obs).write_h5ad(
        folder / "embedding.h5ad"
    )
    columns = ["step", "loss", "feature_loss", "image_loss", "adaptation_loss", "seconds"]
    write_csv(folder / "log.csv", columns, [[10, 2, 1, 0.5, 0.1, 3], [20, 1, 0.5, 0.4, 0.01, 6]])
    return run, settings, records


@pytest.fixture(scope="module")
def full_page(full_run):
    run, settings, records = full_run
    with pytest.MonkeyPatch.context() as patch:
        fault = {"AE-CFE": "the weights are <gone>"}
        strip = np.zeros((16, 40, 3), np.uint8)
        patch.setattr(
            report_pictures,
            "reconstruction_strips",
            lambda run, centre: ({"original": strip, "AE-CFE": strip}, {}) if centre == "south" else ({}, fault),
        )
        path = write_report(run, settings, records=records, seed=1)
        first = path.read_bytes()
        assert write_report(run, settings, records=records, seed=1).read_bytes() == first
    return text_of(path)


def test_write_report_of_an_empty_run_names_every_missing_stage(empty_run):
    run, settings = empty_run
    path = write_report(run, settings)
    assert path == run / "report.html"
    text = text_of(path)
    Page(text)
    assert text.count('class="missing"') >= 9
    for missing in ("tables/cross_centre.json", "detector/metrics.json", "features/south.h5", "autoencoder"):
        assert missing in text
    assert not (run / "figures").exists()


def test_write_report_has_every_section_in_order(full_page):
    positions = [full_page.index(f'id="{anchor}"') for anchor in SECTIONS]
    assert positions == sorted(positions)


def test_write_report_is_self_contained_and_well_formed(full_page):
    page = Page(full_page)
    assert page.addresses and all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert "script" not in page.tags and "link" not in page.tags
    assert "http://" not in without_images(full_page) and "https://" not in without_images(full_page)
    assert page.images and all(image["alt"] for image in page.images)
    assert len(full_page) < 15e6


def test_write_report_escapes_names_from_folders(full_page):
    shown = without_images(full_page)
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in shown
    assert "lab &amp; co" in shown and "lab & co" not in shown


def test_write_report_shows_numbers_of_the_table(full_run, full_page):
    run, _, _ = full_run
    with open(run / "tables" / "cross_centre.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["trained_on"] for row in rows} == {"lab & co", "south"}
    for row in rows:
        for name in ("accuracy", "balanced_accuracy"):
            mean, deviation = 100 * float(row[f"{name}_mean"]), 100 * float(row[f"{name}_std"])
            assert f'{mean:.1f}<span class="spread"> ± {deviation:.1f}</span>' in full_page
    assert "random forest of 100 trees of depth 16" in full_page
    assert "largest class" in full_page


def test_write_report_marks_the_best_of_a_row(full_page):
    table = full_page[full_page.index("Share of test cells named rightly") :]
    first_rows = table[: table.index("</tbody>")].split("<tr")[3:]
    for row in first_rows:
        assert 'class="number best"' in row


def test_write_report_shows_detector_measures_known_or_not(full_page):
    for text in (
        "Box AP at IoU 0.5",
        "0.876",
        "1,234",
        "odd measure",
        "3.99.1",
        "aecfe run &#x27;my",
    ):
        assert text in full_page
    assert re.search(r"Mask AP at IoU 0.5</th><td class=\"number\">–</td>", full_page)


def test_write_report_counts_and_lists_what_was_missed(full_page):
    shown = without_images(full_page)
    assert "no detection above score 0.7" in shown
    assert "lab &amp; co: missed images (1 of 1)" in shown
    assert "south: unreadable files (1)" in shown
    # The key names the file, so the path is cut from the reason.
    assert "<code>images/1.png</code> cannot be read (cut short)" in shown
    assert "66.7 %" in shown  # 4 of 6 images with a cell


def test_write_report_states_an_autoencoder_that_cannot_be_used(full_page):
    assert "the weights are &lt;gone&gt;" in full_page
    assert "4,321" in full_page


def test_write_report_leaves_figures_as_png(full_run, full_page):
    run, _, _ = full_run
    names = {path.stem for path in (run / "figures").iterdir()}
    for name in ("cross_centre", "detector_training", "autoencoder_training", "augmentation", "map_features"):
        assert name in names
    for centre in ("lab & co", "south"):
        assert {f"detections_{centre}", f"crops_{centre}", f"missed_{centre}"} <= names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (run / "figures").iterdir())


def test_write_report_without_the_original_images_says_so(full_run):
    run, settings, _ = full_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_pictures, "reconstruction_strips", lambda run, centre: ({}, {}))
        text = text_of(write_report(run, settings))
    assert "4 of the images chosen here could not be opened" in text
    assert "missed images, files not found (1)" in text


def test_write_report_refuses_a_damaged_file(empty_run):
    run, settings = empty_run
    (run / "tables").mkdir(parents=True)
    (run / "tables" / "cross_centre.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cross_centre.json: not JSON"):
        write_report(run, settings)


def test_a_run_given_by_a_relative_path_finds_its_autoencoders(full_run):
    run, settings, _ = full_run
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        relative = Run(Path(run.name), settings, {}, seed=0)

        assert relative.autoencoders == {"AE-CFE": Path(run.name) / "autoencoder"}
