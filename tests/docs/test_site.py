"""The documentation as a site: it builds without a warning, hangs together, and needs no network to be read."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the site is built with the packages of the extra `docs`")

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def links():
    spec = importlib.util.spec_from_file_location("docs_links", ROOT / "tools" / "docs_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built anew."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    "path", ["docs/data.md", "docs/results/README.md", "README.md", "experiments/configs/demo.yaml"]
)
def test_paths_of_site_and_repository_are_inverse(links, path):
    assert links.repository_path(links.site_path(path)) == path


def test_links_to_the_rest_of_the_repository_lead_to_copies_and_others_stay(links):
    stay = "[a](data.md#to-cite) ![b](figures/methods.png) [c](https://doi.org/10.1/x) [d](#options) [e](nosuch.yaml)\n"
    code = "```python\nx = d[0](README.md)\n```\n"
    for page, text, in_site in [
        ("docs/methods.md", stay, stay),
        ("docs/results/README.md", "x [l](../../LICENSE)\n", "x [l](../repository/LICENSE)\n"),
        ("README.md", "[d](docs/data.md#to-cite) [l](LICENSE)\n", "[d](../data.md#to-cite) [l](LICENSE)\n"),
        ("docs/data.md", f"{code}[a](../README.md)\n", f"{code}[a](repository/readme.md)\n"),
    ]:
        assert links.rewrite(text, page) == in_site
    assert list(links.targets("[d](docs/data.md#to-cite)\n[l](LICENSE)\n", "README.md")) == ["docs/data.md", "LICENSE"]
    assert list(links.targets("[a](../../../../etc/passwd) [b](/etc/passwd)", "docs/data.md")) == []


def test_site_has_every_page(site, links):
    pages = [path for path in (ROOT / "docs").rglob("*.md")] + [ROOT / name for name in links.PAGES]
    for path in pages:
        page = Path(links.site_path(path.relative_to(ROOT).as_posix())).with_suffix(".html")
        page = page.with_name("index.html") if page.name == "README.html" else page
        assert (site / page).is_file(), page
    assert (site / "repository" / "experiments" / "configs" / "thesis.yaml").is_file()
    assert "train_autoencoder" in (site / "api" / "autoencoder.html").read_text(encoding="utf-8")


def test_links_of_the_site_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#?]+)', text) if page.name != "404.html" else []:  # is for a server
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / link).resolve().exists(), f"{page.relative_to(site)}: {link}"
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link[^>]* href=\"([^\"]+)\"", text)
        assert not [source for source in loaded if re.match(r"(https?:)?//", source)], page


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_search_works_from_disk(site, tmp_path):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}"]
    address = f"{(site / 'data.html').as_uri()}?q=labelme"
    command = [BROWSER, *flags, "--virtual-time-budget=15000", "--dump-dom", address]
    page = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    results = page[page.index('<ol class="md-search-result__list"') :]
    results = results[: results.index("</ol>")]
    assert re.search(r'href="[^"]*train-detector\.html', results)
