"""The report as PDF, by whatever this machine has for it: a Chromium, or WeasyPrint. Neither is a dependency."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
SECONDS = 180  # a browser that hangs is ended


def find_browser() -> str | None:
    """Path of a Chromium-like browser; `FINR1_BROWSER` names one that is elsewhere."""
    named = os.environ.get("FINR1_BROWSER")
    found = (shutil.which(name) for name in ([named] if named else BROWSERS))
    return next(filter(None, found), None)


def write_pdf(html: Path, pdf: Path) -> str:
    """Convert `html` to `pdf` where a converter is found; returns one line on what happened.

    Without a converter, or when it fails, no file is left at `pdf`: a missing PDF never fails a run.
    """
    pdf.unlink(missing_ok=True)
    if browser := find_browser():
        return _with_browser(browser, html, pdf)
    if importlib.util.find_spec("weasyprint"):
        from weasyprint import HTML

        HTML(filename=str(html)).write_pdf(str(pdf))
        return f"{pdf.name}: {pdf.stat().st_size / 1e6:.1f} MB, by weasyprint"
    return f"no {pdf.name}: neither a Chromium nor weasyprint is installed here (the HTML is complete without it)"


def _with_browser(browser: str, html: Path, pdf: Path) -> str:
    name = Path(browser).name
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer",
            # Chromium's own sandbox refuses to run as root; the page is ours and holds no script.
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            f"--print-to-pdf={pdf.absolute()}", html.absolute().as_uri(),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            pdf.unlink(missing_ok=True)
            return f"no {pdf.name}: {name} failed ({type(error).__name__})"
    return (
        f"{pdf.name}: {pdf.stat().st_size / 1e6:.1f} MB, by {name}"
        if pdf.exists()
        else f"no {pdf.name}: {name} wrote none"
    )
