import base64
import csv
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from experiments.reports import report_pictures
from experiments.reports.report import SECTIONS, write_report
from experiments.reports.run_folder import Run
from mrcnn.files.errors import InputError
from tests.experiments.reports.report_runs import make_settings, write_full_run


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


def scripts_of(text):
    """Attributes and content of each script."""
    return re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)


def without_scripts(text):
    return re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.DOTALL)


@pytest.fixture
def empty_run(tmp_path):
    return tmp_path / "run", make_settings(tmp_path / "run")


@pytest.fixture(scope="module")
def full_run(tmp_path_factory, draw_cell):
    return write_full_run(tmp_path_factory.mktemp("report"), draw_cell)


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
    assert "link" not in page.tags
    shown = without_scripts(without_images(full_page))
    assert "http://" not in shown and "https://" not in shown
    assert page.images and all(image["alt"] for image in page.images)
    assert len(full_page) < 15e6


def test_write_report_lets_the_browser_run_its_own_scripts_alone(full_page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', full_page)[1]
    allowed = re.findall(r"'sha256-([^']*)'", policy)
    data, programs = [], []
    for attributes, text in scripts_of(full_page):
        (data if "application/json" in attributes else programs).append(text)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in programs]
    assert digests == allowed and len(data) == 1
    assert "default-src 'none'" in policy and "unsafe-inline'; script" in policy and "unsafe-eval" not in policy


def test_write_report_without_cells_has_no_scripts(empty_run):
    text = text_of(write_report(*empty_run))
    assert not scripts_of(text) and "script-src" not in text


def test_write_report_escapes_names_from_folders(full_page):
    shown = without_images(without_scripts(full_page))
    assert "<script" not in shown and "alert(1)</script>" not in full_page
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
    with pytest.raises(InputError, match="cross_centre.json: not valid JSON"):
        write_report(run, settings)


def test_a_run_given_by_a_relative_path_finds_its_autoencoders(full_run):
    run, settings, _ = full_run
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        relative = Run(Path(run.name), settings, {}, seed=0)

        assert relative.autoencoders == {"AE-CFE": Path(run.name) / "autoencoder"}
