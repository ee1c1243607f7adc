"""Pages with plots in a browser without a screen: they draw, they answer the mouse, and they ask for nothing else."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess

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

# Names that would run a script, end an attribute or a script, or be a field of a tooltip, wherever text is taken for
# markup. No centre's name may hold a slash.
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

# Points at the first cell of each plot's groups, reads the tooltips, and clicks on the first name of each legend.
PROBE = """
function everywhere(root, selector) {
  const found = [...root.querySelectorAll(selector)];
  for (const element of root.querySelectorAll("*")) {
    if (element.shadowRoot != null) found.push(...everywhere(element.shadowRoot, selector));
  }
  return found;
}
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
function point(target, type, x, y) {
  const places = {clientX: x, clientY: y, bubbles: true, composed: true, pointerType: "mouse", isPrimary: true};
  target.dispatchEvent(new PointerEvent(type, places));
}
async function probe() {
  const result = {plots: []};
  await pause(1500);
  for (const view of [...Bokeh.index].filter((view) => view.model.renderers != null)) {
    const renderers = view.model.renderers;
    const plot = {points: renderers[0].data_source.get_length(), groups: [], tooltips: []};
    for (const renderer of renderers) {
      const indices = [...renderer.view.filter.indices];
      plot.groups.push(indices.length);
      const [i, data, glyph] = [indices[0], renderer.data_source, renderer.glyph];
      const box = view.canvas_view.events_el.getBoundingClientRect();
      const x = box.left + view.frame.x_scale.compute(data.get_column(glyph.x.field)[i]);
      const y = box.top + view.frame.y_scale.compute(data.get_column(glyph.y.field)[i]);
      point(view.canvas_view.events_el, "pointerenter", x, y);
      point(view.canvas_view.events_el, "pointermove", x, y);
      await pause(100);
      const values = everywhere(document, "[data-value]").filter((element) => element.getClientRects().length > 0);
      plot.tooltips.push(values.map((element) => ({
        text: element.textContent,
        elements: [...element.querySelectorAll("*")].map((inner) => inner.tagName),
        loaded: [...element.querySelectorAll("img")].every((inner) => inner.src.startsWith("data:image/jpeg")),
      })));
      point(view.canvas_view.events_el, "pointermove", box.left - 50, box.top - 50);
      point(view.canvas_view.events_el, "pointerout", box.left - 50, box.top - 50);
      await pause(100);
    }
    const legend = view.model.below.find((model) => model.items != null);
    plot.legend = legend.items.map((item) => item.label.value);
    plot.before = legend.items[0].renderers[0].visible;
    point(everywhere(view.shadow_el, ".bk-item")[0], "pointerdown", 0, 0);
    await pause(50);
    plot.after = legend.items[0].renderers[0].visible;
    result.plots.push(plot);
  }
  result.markup = everywhere(document.body, "svg, iframe, object, [onerror], [onload]").length;
  result.scripts = everywhere(document.body, "script:not([type])").length;
  result.harmed = window.harmed ?? null;
  result.faults = window.faults;
  result.requests = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 60));
  const written = document.createElement("pre");
  written.id = "probe";
  written.textContent = JSON.stringify(result);
  document.body.append(written);
}
probe();
"""


def look_at(page, folder):
    """Open a copy of a page with the probe in it: what it found, and what the browser complained of."""
    text = page.read_text(encoding="utf-8")
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (CATCH, PROBE))
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # The page's own policy stays in force for everything else.
    assert text.count("script-src ") >= 1
    text = text.replace("script-src ", f"script-src {allowed} ", 1)
    text = text.replace("<title>", f"<script>{CATCH}</script><title>", 1)
    end = text.rindex("</body>")
    copy = folder / "copy.html"
    copy.write_text(f"{text[:end]}<script>{PROBE}</script>{text[end:]}", encoding="utf-8")
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={folder / 'browser'}", copy.as_uri()],
        capture_output=True,
        timeout=120,
        encoding="utf-8",
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "setting log level" not in line]
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), complaints


def check_quiet(result, complaints):
    """Nothing went wrong, and nothing was asked for."""
    assert result["faults"] == [] and complaints == []
    assert result["requests"] == [] and result["harmed"] is None and result["markup"] == 0
    assert result["scripts"] == 4  # Bokeh's two, the page's own and the probe


def test_qc_page_draws_answers_the_mouse_and_is_not_harmed_by_names(tmp_path, monkeypatch):
    monkeypatch.setattr(qc, "project", first_plane)
    names = {0: (HOSTILE_FILE, HOSTILE_TYPE), 2: ("images/2.png", "")}
    missed = ((f"{HOSTILE_FILE}.tif", f"unreadable: {HOSTILE_FILE}"), ("images/missed.png", f"no {HOSTILE_TYPE}"))
    write_odd_store(
        tmp_path / "a.h5", HOSTILE_CENTRE, {0: {"score": 0.7}, 1: {"score": 0.4}}, missed=missed, names=names
    )
    write_odd_store(tmp_path / "b.h5", "north", count=12, seed=1)
    write_image(tmp_path / "images" / "missed.png")
    checks = check_stores({HOSTILE_CENTRE: tmp_path / "a.h5", "north": tmp_path / "b.h5"}, Limits())
    page = tmp_path / "qc.html"
    shown = Shown(points=30)
    qc.write_qc_page(page, checks, Limits(), shown, images=tmp_path, flags_file=f"{HOSTILE_TYPE}.csv")

    result, complaints = look_at(page, tmp_path)

    check_quiet(result, complaints)
    assert len(result["plots"]) == 4
    for plot in result["plots"]:
        # 30 of 36 cells; every one is in one group.
        assert plot["points"] == 30 and sum(plot["groups"]) == 30
        assert plot["before"] and not plot["after"]
        for tooltip in plot["tooltips"]:
            assert [value["elements"] for value in tooltip[:6]] == [["IMG"], [], [], [], [], []]
            assert all(value["loaded"] for value in tooltip)
    by_centre, by_type = result["plots"][:2]
    assert by_centre["legend"] == [f"{HOSTILE_CENTRE[:23]}…", "north"]
    assert by_centre["tooltips"][0][1]["text"] == HOSTILE_CENTRE
    assert by_type["legend"][-1] == "no type"
    texts = [value["text"] for plot in result["plots"] for tooltip in plot["tooltips"] for value in tooltip]
    assert HOSTILE_TYPE.replace("_", " ") in texts
    assert any(text.endswith(HOSTILE_FILE[-50:]) for text in texts)
    assert "low score: 0.70" in texts and "0.70" in texts


def test_report_page_draws_its_maps(tmp_path, monkeypatch, draw_cell):
    monkeypatch.setattr(report, "SECTIONS", {name: SECTIONS[name] for name in ("cross-centre", "maps", "settings")})
    monkeypatch.setattr(report_maps, "project", first_plane)
    run, settings, records = write_full_run(tmp_path, draw_cell)
    page = write_report(run, settings, records=records, seed=1)

    result, complaints = look_at(page, tmp_path)

    check_quiet(result, complaints)
    # The detector's features and one autoencoder, each by centre and by type; 4 cells of each of 2 centres.
    assert [plot["points"] for plot in result["plots"]] == [8] * 4
    assert [plot["groups"] for plot in result["plots"]] == [[4, 4]] * 4
    assert [plot["legend"] for plot in result["plots"]] == [["lab & co", "south"], ["eosinophil", "monocyte"]] * 2
    for plot in result["plots"]:
        for tooltip in plot["tooltips"]:
            assert [value["elements"] for value in tooltip[:5]] == [["IMG"], [], [], [], []]
            assert tooltip[4]["text"] in ("0.97", "0.60")
    assert HOSTILE not in page.read_text(encoding="utf-8")
