"""Pages with plots in a browser without a screen: they draw, they answer the mouse, and they ask for nothing else."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.reports import qc, report, report_maps
from experiments.reports.qc import Shown
from experiments.reports.quality import Limits, check_stores
from experiments.reports.report import SECTIONS, write_report
from tests.experiments.reports.sample_runs import HOSTILE, write_full_run
from tests.experiments.reports.sample_stores import first_plane, write_image, write_odd_store

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --window-size=1400,9000 "
    "--virtual-time-budget=10000 --dump-dom"
).split()

# Names that would do harm wherever text is taken for markup. No centre's name may hold a slash.
HOSTILE_CENTRE = "<img src=x onerror=\"window.harmed='centre'\">"
HOSTILE_TYPE = "</b><svg onload=window.harmed='type'></svg>"
HOSTILE_FILE = "images/\"'><script>window.harmed='file'</script>@crop{safe}$x é.png"

CATCH = """
window.faults = [];
window.addEventListener("error", (event) => window.faults.push(String(event.message)));
window.addEventListener("unhandledrejection", (event) => window.faults.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => window.faults.push(event.violatedDirective));
console.error = (...words) => window.faults.push(words.join(" "));
"""

PROBE = Path(__file__).with_name("probe.js").read_text("utf-8")


def look_at(page, folder):
    """Open a copy of a page with the probe in it; returns what it found of the plots.

    Nothing may go wrong, nothing may be asked for, and no name may do harm.
    """
    text = page.read_text(encoding="utf-8")
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (CATCH, PROBE))
    # The page's own policy stays in force for everything else.
    start, policy, end = text.partition("script-src ")
    allowed = "".join(f"'sha256-{digest}' " for digest in digests)
    text = f"{start}{policy}{allowed}{end}".replace("<title>", f"<script>{CATCH}</script><title>", 1)
    start, _, end = text.rpartition("</body>")
    copy = folder / "copy.html"
    copy.write_text(f"{start}<script>{PROBE}</script></body>{end}", encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'browser'}", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, encoding="utf-8")
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    assert [s for s in done.stderr.splitlines() if "CONSOLE" in s and "setting log level" not in s] == []
    result = json.loads(html.unescape(found[1]))
    assert result["faults"] == result["requests"] == [] and result["harmed"] is None and result["markup"] == 0
    assert result["scripts"] == 4  # Bokeh's two, the page's own and the probe
    return result["plots"]


def test_qc_page_draws_answers_the_mouse_and_is_not_harmed_by_names(tmp_path, monkeypatch):
    monkeypatch.setattr(qc, "project", first_plane)
    names = {0: (HOSTILE_FILE, HOSTILE_TYPE), 2: ("images/2.png", "")}
    missed = ((f"{HOSTILE_FILE}.tif", f"unreadable: {HOSTILE_FILE}"), ("images/missed.png", f"no {HOSTILE_TYPE}"))
    odd = {0: {"score": 0.7}, 1: {"score": 0.4}}
    write_odd_store(tmp_path / "a.h5", HOSTILE_CENTRE, odd, missed=missed, names=names)
    write_odd_store(tmp_path / "b.h5", "north", count=12, seed=1)
    write_image(tmp_path / "images" / "missed.png")
    checks = check_stores({HOSTILE_CENTRE: tmp_path / "a.h5", "north": tmp_path / "b.h5"}, Limits())
    options = {"images": tmp_path, "flags_file": f"{HOSTILE_TYPE}.csv"}
    qc.write_qc_page(tmp_path / "qc.html", checks, Limits(), Shown(points=30), **options)
    plots = look_at(tmp_path / "qc.html", tmp_path)
    assert len(plots) == 4
    for plot in plots:
        # 30 of 36 cells; every one is in one group.
        assert plot["points"] == 30 and sum(plot["groups"]) == 30
        assert plot["before"] and not plot["after"]
        for tooltip in plot["tooltips"]:
            assert [value["elements"] for value in tooltip[:6]] == [["IMG"], [], [], [], [], []]
            assert all(value["loaded"] for value in tooltip)
    by_centre, by_type, *_ = plots
    assert by_centre["legend"] == [f"{HOSTILE_CENTRE[:23]}…", "north"]
    assert by_centre["tooltips"][0][1]["text"] == HOSTILE_CENTRE
    assert by_type["legend"][-1] == "no type"
    texts = [value["text"] for plot in plots for tooltip in plot["tooltips"] for value in tooltip]
    assert HOSTILE_TYPE.replace("_", " ") in texts
    assert any(text.endswith(HOSTILE_FILE[-50:]) for text in texts)
    assert "low score: 0.70" in texts and "0.70" in texts


def test_report_page_draws_its_maps(tmp_path, monkeypatch, draw_cell):
    monkeypatch.setattr(report, "SECTIONS", {name: SECTIONS[name] for name in ("cross-centre", "maps", "settings")})
    monkeypatch.setattr(report_maps, "project", first_plane)
    run, settings, records = write_full_run(tmp_path, draw_cell)
    page = write_report(run, settings, records=records, seed=1)
    plots = look_at(page, tmp_path)
    # The detector's features and one autoencoder, each by centre and by type; 4 cells of each of 2 centres.
    assert [plot["points"] for plot in plots] == [8] * 4
    assert [plot["groups"] for plot in plots] == [[4, 4]] * 4
    assert [plot["legend"] for plot in plots] == [["lab & co", "south"], ["eosinophil", "monocyte"]] * 2
    for plot in plots:
        for tooltip in plot["tooltips"]:
            assert [value["elements"] for value in tooltip[:5]] == [["IMG"], [], [], [], []]
            assert tooltip[4]["text"] in ("0.97", "0.60")
    assert HOSTILE not in page.read_text(encoding="utf-8")
