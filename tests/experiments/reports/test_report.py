import base64
import csv
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from experiments.reports import report_maps, report_pictures
from experiments.reports.report import SECTIONS, write_report
from experiments.reports.run_folder import Run
from mrcnn.files.errors import InputError
from tests.experiments.reports.sample_runs import make_settings, write_full_run
from tests.experiments.reports.sample_stores import first_plane


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
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(full_page):
    """The page without pictures and scripts."""
    text = re.sub(r"data:image/[^\"]*", "", full_page)
    return re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.DOTALL)


def test_write_report_of_an_empty_run_names_every_missing_stage(empty_run):
    run, settings = empty_run
    path = write_report(run, settings)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    Page(text)
    assert text.count('class="missing"') >= 9
    for missing in ("tables/cross_centre.json", "detector/metrics.json", "features/south.h5", "autoencoder"):
        assert missing in text
    assert "<script" not in text and "script-src" not in text
    assert not (run / "figures").exists()


def test_write_report_is_self_contained_and_well_formed(full_page, shown):
    page = Page(full_page)
    assert page.addresses and all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert "link" not in page.tags and "http://" not in shown and "https://" not in shown
    assert page.images and all(image["alt"] for image in page.images)
    assert len(full_page) < 15e6
    positions = [full_page.index(f'id="{anchor}"') for anchor in SECTIONS]
    assert positions == sorted(positions)


def test_write_report_lets_the_browser_run_its_own_scripts_alone(full_page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', full_page)[1]
    allowed = re.findall(r"'sha256-([^']*)'", policy)
    data, programs = [], []
    for attributes, text in re.findall(r"<script([^>]*)>(.*?)</script>", full_page, re.DOTALL):
        (data if "application/json" in attributes else programs).append(text)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in programs]
    assert digests == allowed and len(data) == 1
    assert "default-src 'none'" in policy and "unsafe-inline'; script" in policy and "unsafe-eval" not in policy


def test_write_report_escapes_names_from_folders(full_page, shown):
    assert "<script" not in shown and "alert(1)</script>" not in full_page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in shown
    assert "lab &amp; co" in shown and "lab & co" not in shown
    assert "the weights are &lt;gone&gt;" in shown


def test_write_report_shows_numbers_of_the_table_and_marks_the_best(full_run, shown):
    with open(full_run[0] / "tables" / "cross_centre.csv", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["trained_on"] for row in rows} == {"lab & co", "south"}
    for row in rows:
        for name in ("accuracy", "balanced_accuracy"):
            mean, deviation = 100 * float(row[f"{name}_mean"]), 100 * float(row[f"{name}_std"])
            assert f'{mean:.1f}<span class="spread"> ± {deviation:.1f}</span>' in shown
    assert "random forest of 100 trees of depth 16" in shown and "majority-class baseline" in shown
    table = shown[shown.index("Correct predictions") :]
    body = table[table.index("<tbody>") : table.index("</tbody>")].split("<tr")[1:]
    assert len(body) == 5 and all('class="number best"' in row for row in body)


def test_write_report_shows_measures_known_or_not(shown):
    for text in ("Box AP at IoU 0.5", "0.876", "1,234", "odd measure", "3.99.1", "aecfe run &#39;my", "4,321"):
        assert text in shown
    assert re.search(r"Mask AP at IoU 0.5</th><td class=\"number\">–</td>", shown)


def test_write_report_counts_and_lists_what_was_missed(shown):
    assert "lab &amp; co: missed images (1 of 1 shown)" in shown and "no detection above score 0.7" in shown
    assert "south: unreadable files (1)" in shown
    # The key names the file, so the path is cut from the reason.
    assert "<code>images/1.png</code> cannot be read (cut short)" in shown
    assert "66.7 %" in shown  # 4 of 6 images with a cell


def test_write_report_shows_cells_to_look_at_with_the_reason(full_run, shown):
    assert "1 of 1 detections of south to look" in shown and "low score: 0.60" in shown
    names = {path.stem for path in (full_run[0] / "figures").iterdir()}
    assert {"cross_centre", "detector_training", "autoencoder_training", "augmentation", "map_features"} <= names
    for centre in ("lab & co", "south"):
        assert {f"detections_{centre}", f"crops_{centre}", f"missed_{centre}"} <= names
    assert "flagged_south" in names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (full_run[0] / "figures").iterdir())


def test_write_report_without_the_original_images_says_so(full_run, monkeypatch):
    run, settings, _ = full_run
    monkeypatch.setattr(report_pictures, "reconstruction_strips", lambda run, centre: ({}, {}))
    monkeypatch.setattr(report_maps, "project", first_plane)
    text = write_report(run, settings).read_text(encoding="utf-8")
    assert "4 of the images chosen here could not be opened" in text
    assert "<summary>south: missed images (1)" in text


def test_write_report_refuses_a_damaged_file(empty_run):
    run, settings = empty_run
    (run / "tables").mkdir(parents=True)
    (run / "tables" / "cross_centre.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cross_centre.json: not valid JSON"):
        write_report(run, settings)


def test_a_run_given_by_a_relative_path_finds_its_autoencoders(full_run, monkeypatch):
    run, settings, _ = full_run
    monkeypatch.chdir(run.parent)
    assert Run(Path(run.name), settings, {}, seed=0).autoencoders == {"AE-CFE": Path(run.name) / "autoencoder"}
