"""The report in a real browser: nothing broken, nothing fetched, nothing cut, at a desk's width and at a tablet's.

Needs a Chromium (Debian: `apt-get install chromium`; `FINR1_BROWSER` names another); skipped with the reason without.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from test_report import GAIN, made_page, samples

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
# Boxes that may scroll on their own, so that the page never has to.
SCROLLS = ".scroll, .box, .asked, details pre, nav"
OUTSIDE = f"""() => [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('{SCROLLS}') && e.getClientRects().length)
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1
              || e.getBoundingClientRect().left < -1)
    .map(e => e.tagName + '.' + e.className)"""
# An element that hides what does not fit would cut its text; a box that scrolls does not.
CUT = f"""() => [...document.querySelectorAll('body *')]
    .filter(e => !e.matches('{SCROLLS}') && e.getClientRects().length && getComputedStyle(e).display != 'inline')
    .filter(e => getComputedStyle(e).overflowX != 'visible' && e.scrollWidth > e.clientWidth + 1)
    .map(e => e.tagName + '.' + e.className)"""
BROKEN = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
SMALLEST = """() => Math.min(...[...document.querySelectorAll('p, li, td, th, dd, dt, figcaption, summary, pre')]
    .map(e => parseFloat(getComputedStyle(e).fontSize)))"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    return made_page(tmp_path_factory.mktemp("browser"), samples(GAIN)) / "report.html"


@pytest.fixture(scope="module")
def browser():
    named = os.environ.get("FINR1_BROWSER")
    path = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        # As root Chromium's own sandbox refuses to start, and a container's /dev/shm is small.
        chromium = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [1280, 800, 420])
def test_the_report_is_whole_and_readable(page_file, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append("a dialog: a model's script ran"), dialog.dismiss()))
    page.goto(page_file.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(e => e.open = true)")
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert said == []
    assert page.evaluate("() => document.images.length") >= 2 and page.evaluate(BROKEN) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == [] and page.evaluate(CUT) == []
    assert page.evaluate(SMALLEST) >= 11
    page.close()


def test_every_entry_of_the_contents_leads_to_its_heading(page_file, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_file.as_uri())
    for link in page.locator("nav a").all():
        link.click()
        heading = page.locator(f"[id='{link.get_attribute('href')[1:]}']")
        assert heading.is_visible()
    page.close()


@pytest.mark.parametrize(
    "fault, caught_by",
    [
        ("<p style='width: 3000px'>wide</p>", OUTSIDE),
        ("<p style='overflow: hidden; width: 20px; white-space: nowrap'>cut words</p>", CUT),
        ("<img src='data:image/png;base64,AAAA' alt='broken'>", BROKEN),
    ],
)
def test_these_checks_see_a_fault(browser, fault, caught_by):
    page = browser.new_page(viewport={"width": 800, "height": 900})
    page.set_content(f"<body>{fault}</body>")
    assert len(page.evaluate(caught_by)) == 1
    page.close()
