import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.reports import report_maps, report_pictures
from experiments.reports.report import SECTIONS, write_report
from experiments.reports.run_folder import AUTOENCODERS, Run, read_rows
from mrcnn.files.errors import InputError
from tests.experiments.reports.sample_runs import make_settings, write_full_run
from tests.experiments.reports.sample_stores import first_plane


class Page(HTMLParser):
    """Elements and addresses of a page; closing tags must match the open ones."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.images = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.images += [dict(attrs)] if tag == "img" else []
        self.open += [] if tag in ("meta", "img", "br") else [tag]

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
    images = np.zeros((3, 16, 16, 3), np.uint8)
    found = {
        "south": ({"original": images, "AE-CFE": images}, {}),
        "lab & co": ({}, {"AE-CFE": "the weights are <gone>"}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_pictures, "reconstructions", lambda run, centre: found[centre])
        path = write_report(run, settings, records=records, seed=1)
        first = path.read_bytes()
        assert write_report(run, settings, records=records, seed=1).read_bytes() == first
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(full_page):
    """The page without pictures and scripts."""
    text = re.sub(r"data:image/[^\"]*", "", full_page)
    return " ".join(re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.DOTALL).split())


def test_write_report_of_an_empty_run_names_every_missing_stage(empty_run):
    run, settings = empty_run
    text = write_report(run, settings).read_text(encoding="utf-8")
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
    positions = [full_page.index(f'id="{anchor}"') for anchor in SECTIONS]
    assert positions == sorted(positions)


def test_write_report_lets_the_browser_run_its_own_scripts_alone(full_page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', full_page)[1]
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", full_page, re.DOTALL)
    programs = [text for attributes, text in scripts if "application/json" not in attributes]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in programs]
    assert digests == re.findall(r"'sha256-([^']*)'", policy) and len(scripts) == len(programs) + 1
    assert "default-src 'none'" in policy and "unsafe-inline'; script" in policy and "unsafe-eval" not in policy


def test_write_report_escapes_names_from_folders(full_page, shown):
    assert "<script" not in shown and "alert(1)</script>" not in full_page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in shown
    assert "lab &amp; co" in shown and "lab & co" not in shown
    assert "the weights are &lt;gone&gt;" in shown


def test_write_report_shows_numbers_of_the_table_and_marks_the_best(full_run, shown):
    rows = pd.read_csv(full_run[0] / "tables" / "cross_centre.csv").to_dict("records")
    assert {row["trained_on"] for row in rows} == {"lab & co", "south"}
    for row in rows:
        for name in ("accuracy", "balanced_accuracy"):
            mean, deviation = (100 * row[f"{name}_{value}"] for value in ("mean", "std"))
            assert f'{mean:.1f}<span class="spread"> ± {deviation:.1f}</span>' in shown
    table = shown[shown.index("Correct predictions") :]
    body = table[table.index("<tbody>") : table.index("</tbody>")].split("<tr")[1:]
    assert len(body) == 5 and all('class="number best"' in row for row in body)


def test_first_sentence_compares_the_best_method_across_centres_with_the_others(full_run, shown):
    scores = pd.read_csv(full_run[0] / "tables" / "cross_centre.csv")
    across = scores[scores.trained_on != scores.tested_on]
    means = 100 * across.groupby("method").accuracy_mean.mean()
    sentence = shown.partition('<p class="lead">')[2].partition(".</p>")[0].partition(" This run")[0]
    best = means.idxmax()
    assert f"{means[best]:.1f} % of the cells of another with {best}" in sentence
    assert all(
        f"{name} for {means[name]:.1f} %" in sentence for name in means.index.intersection(AUTOENCODERS) if name != best
    )
    assert f"{100 * across.majority_rate.mean():.1f} %" in sentence


@pytest.mark.parametrize(
    "text",
    [
        *("random forest of 100 trees of depth 16", "majority-class baseline", "4,321", "3.99.1", "aecfe run &#39;my"),
        *("Box AP at IoU 0.5", "0.876", "1,234", "odd measure", 'Mask AP at IoU 0.5</th><td class="number">–</td>'),
        *("lab &amp; co: missed images (1 of 1 shown)", "no detection above score 0.7", "unreadable files (1)"),
        "<code>images/1.png</code> cannot be read (cut short)",  # the image is named, so the path is cut
        *("66.7 %", "1 of 3", "1 of 1 detections of south to look", "low score: 0.60"),
    ],
)
def test_write_report_shows_what_the_stages_left(shown, text):
    assert text in shown


def test_write_report_leaves_its_figures_in_the_run(full_run, full_page):
    names = {path.stem for path in (full_run[0] / "figures").iterdir()}
    assert {"cross_centre", "detector_training", "autoencoder_training", "augmentation", "map_features"} <= names
    assert {"flagged_south", "reconstructions_south", "map_ae_cfe"} <= names
    assert {f"{part}_{centre}" for part in ("detections", "crops", "missed") for centre in full_run[2]} <= names


def test_write_report_without_the_original_images_says_so(full_run, monkeypatch):
    run, settings, _ = full_run
    monkeypatch.setattr(report_pictures, "reconstructions", lambda run, centre: ({}, {}))
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


def test_read_rows_reads_a_log_and_nothing_of_a_missing_file(tmp_path):
    (tmp_path / "log.csv").write_bytes(b'step,loss\n10,"0,5"\n20,0.25\n')
    assert read_rows(tmp_path / "log.csv") == [{"step": "10", "loss": "0,5"}, {"step": "20", "loss": "0.25"}]
    assert read_rows(tmp_path / "none.csv") == []


@pytest.mark.parametrize("damaged", [b"step,loss\n10", b"step\n1,2\n", b'step,loss\n1,"2', b"step\n\xff\n"])
def test_read_rows_names_a_damaged_log(tmp_path, damaged):
    (tmp_path / "log.csv").write_bytes(damaged)
    with pytest.raises(InputError, match=r"log\.csv: .*run that stage again"):
        read_rows(tmp_path / "log.csv")
