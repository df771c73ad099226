"""The site: built from a run, every link, picture and alt text looked at, in files and in a real browser.

Needs mkdocs (`make site-tools`) and, for the browser, a Chromium; skipped with the reason without. `test_notebooks`
builds it once more, from a run of all notebooks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from conftest import ROOT
from finished import finish
from test_report_browser import BROKEN, OUTSIDE, browser  # noqa: F401

pytestmark = pytest.mark.slow

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
# What of a page may scroll on its own.
ON_ITS_OWN = ".output, .md-typeset__scrollwrap, pre, code, math"


class Page(HTMLParser):
    """What a page links and fetches, its ids, and its pictures."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.fetched, self.ids, self.images = [], [], set(), []
        self.feed(path.read_text("utf8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id") or attrs.get("name"))
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag == "img":
            self.images.append((attrs.get("src"), (attrs.get("alt") or "").strip()))
        if tag in FETCHED and attrs.get(FETCHED[tag]) and attrs.get("rel") != "canonical":
            self.fetched.append(attrs[FETCHED[tag]])


def build(outputs: Path, run: str, site: Path) -> subprocess.CompletedProcess:
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mkdocs = shutil.which("mkdocs", path=places)
    if mkdocs is None:
        pytest.skip("mkdocs is not installed (`make site-tools`)")
    env = os.environ | {"FINR1_OUTPUTS": str(outputs), "RUN": run, "NO_MKDOCS_2_WARNING": "1"}
    env.pop("REPO_URL", None)
    command = [mkdocs, "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def faults_of(site: Path) -> list[str]:
    """Dead links, things that would be fetched from elsewhere, and pictures that are missing or say nothing."""
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    faults = []
    for path, page in pages.items():
        named = path.relative_to(site)
        faults += [f"{named}: fetches {url}" for url in page.fetched if urlsplit(url).scheme not in ("", "data")]
        faults += [f"{named}: no alt text for {src[:80]}" for src, alt in page.images if len(alt) < 4 or alt == "png"]
        for url in page.links + page.fetched:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.exists():
                faults.append(f"{named}: no {url}")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].ids:
                faults.append(f"{named}: no heading {url}")
    styles = [path for path in site.rglob("*.css") if "url(http" in path.read_text("utf8")]
    return faults + [f"{path.name}: fetches a file" for path in styles]


def look(page_file: Path, browser, width: int) -> list[str]:  # noqa: F811
    """What is wrong with a page as a browser shows it."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong, asked = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_load_state("load")
    page.evaluate("() => document.querySelectorAll('article details').forEach(e => e.open = true)")
    wrong += [url for url in asked if urlsplit(url).scheme not in ("file", "data", "blob")]
    wrong += page.evaluate(BROKEN)
    outside = OUTSIDE.replace("'body *'", "'article *'").replace(".scroll, .box, .asked, details pre, nav", ON_ITS_OWN)
    wrong += page.evaluate(outside) if page.locator("article").count() else []
    if page.evaluate("() => document.documentElement.scrollWidth") > width:
        wrong.append(f"the page is wider than {width}")
    page.close()
    return wrong


def stored(kind: str, data: dict | str, **metadata) -> nbformat.NotebookNode:
    if kind == "stream":
        return nbformat.v4.new_output("stream", name="stdout", text=data)
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """A run of one stage whose notebook stored every form of output that the suite's notebooks have."""
    folder = tmp_path_factory.mktemp("outputs")
    notebook = nbformat.read(ROOT / "notebooks" / "01_data.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].metadata["jupyter"] = {"source_hidden": True}
    picture = {"image/png": b64encode((ROOT / "docs" / "ways.png").read_bytes()).decode()}
    wide = "".join(f"<th>column {n}</th>" for n in range(40))
    code[-1].outputs = [
        stored("display", picture | {"text/plain": "<Figure>"}, **{"image/png": {"alt": "SFT & GRPO; <chance>"}}),
        stored("display", picture | {"text/plain": "<Figure>"}),
        stored("stream", "10 %\r100 %\nred: \x1b[31mwrong\x1b[0m <answer>"),
        stored("display", {"text/html": f"<table><tr>{wide}</tr></table>", "text/plain": "TABLE AS TEXT"}),
        stored("display", {"application/vnd.jupyter.widget-view+json": {"model_id": "7"}, "text/plain": "Output()"}),
    ]
    stage = folder / "tiny" / "01_data"
    stage.mkdir(parents=True)
    nbformat.write(notebook, stage / "01_data.ipynb")
    finish(stage)
    return folder


@pytest.fixture(scope="module")
def site(outputs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(outputs, "tiny", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_notebook_and_guide_has_a_page(site):
    pages = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    assert {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= pages
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= pages
    assert {"index", "zh", "report", "results"} <= pages


def test_every_link_leads_somewhere_and_every_picture_says_what_it_shows(site):
    assert faults_of(site) == []


def test_a_notebooks_page_shows_what_the_run_stored(site):
    text = (site / "notebooks" / "01_data.html").read_text("utf8")
    assert 'alt="SFT &amp; GRPO; &lt;chance&gt;"' in text and "Figure 1. SFT &amp; GRPO" in text
    assert "100 %\nred: wrong &lt;answer&gt;" in text and "\x1b" not in text and "\n10 %" not in text
    assert "Output()" not in text and "TABLE AS TEXT" not in text and "column 39" in text
    assert text.index("<summary>Imports</summary>") < text.index("matplotlib")
    assert "As the run <code>tiny</code> executed it, seed 1" in text
    assert "did not execute this notebook" in (site / "notebooks" / "05_grpo.html").read_text("utf8")


def test_a_list_right_below_its_sentence_is_a_list(site):
    for page in site.rglob("*.html"):
        assert "\n- " not in re.sub(r"(?s)<(pre|code|script|style)\b.*?</\1>", "", page.read_text("utf8")), page


def test_formulas_are_markup_and_the_seeds_are_a_table_or_a_sentence(site):
    text = (site / "notebooks" / "05_grpo.html").read_text("utf8")
    assert text.count("<math") >= 2 and "\\frac" not in text and "$$" not in text
    rows = (ROOT / "params" / "demo" / "seeds.csv").read_text("utf8").splitlines()[1:]
    results = (site / "results.html").read_text("utf8")
    assert results.count("<tr>") == len(rows) + 1 if rows else "No run is listed yet" in results


@pytest.mark.parametrize("width", [1280, 420])
def test_the_pages_are_whole_in_a_browser(site, browser, width):  # noqa: F811
    pages = sorted(path for path in site.rglob("*.html") if path.name not in ("404.html", "report-page.html"))
    faults = {path.stem: wrong for path in pages if (wrong := look(path, browser, width))}
    assert faults == {}


def test_a_reader_can_search_without_a_server(site, browser):  # noqa: F811
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").fill("advantage")
    page.locator("a.md-search-result__link").first.wait_for(timeout=20_000)
    page.close()


def test_a_run_that_is_not_there_is_refused(outputs, tmp_path):
    done = build(outputs, "no-such-run", tmp_path / "site")
    assert done.returncode != 0 and "there is no run" in done.stdout + done.stderr
    assert not (tmp_path / "site").exists()


def test_these_checks_see_faults(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html">b</a><a href="#none">c</a><img src="x.png"><script src="https://cdn.example/x.js"></script>'
    )
    kinds = ("no alt text", "no b.html", "no heading #none", "no x.png", "fetches https")
    assert all(any(kind in fault for fault in faults_of(tmp_path)) for kind in kinds)
