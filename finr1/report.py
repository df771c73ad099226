"""The page of notebook 07: one HTML file that says what a run found, how sure that is, and how it was made.

The notebook computes each table and figure once, and `Page.add` shows it there and keeps it for the page. The page is
self-contained (figures are inlined, no script, nothing is fetched), so that it can be mailed and still opens in ten
years; its template escapes every text of a model or a data set. nbconvert was tried and not taken: it exports a
notebook that has ended, while 07 writes its page as it runs, and its HTML templates fetch MathJax and require.js.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from finr1 import paths, reported
from finr1.manifest import read_manifest

if TYPE_CHECKING:
    from jinja2 import Environment

HEADINGS = {  # stage folder -> heading of its section, in the order of the page
    "01_data": "Data",
    "02_distillation": "Distillation",
    "03_filtering": "Filtering and its audit",
    "04_sft": "Supervised fine-tuning",
    "05_grpo": "GRPO",
    "06_benchmark": "The benchmark in figures",
}
# Metrics with a place of their own.
BETTER_SHOWN = ("rows", "steps", "by_capability", "by_source", "table", "protocols")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
# A cell that stands to the right: a number, maybe with its unit, its interval or its n; or a dash.
NUMBER = re.compile(r"(-|[-+]?\d[\d,.]*(e[-+]\d+)?)( %)?( \[[^]]*\])?( (of|/) \d+)?")


def environment() -> Environment:
    """Jinja as every HTML page of the suite uses it: texts escaped, an unknown name an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _template():
    jinja = environment()
    jinja.filters |= {"cell": cell_text, "columns": _columns, "data_uri": _data_uri}
    return jinja.get_template("report.html.j2")


# ---- the page -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; as the last value of a cell, the notebook shows it."""

    heading: str
    parts: tuple
    look: str
    anchor: str

    @property
    def html(self) -> Markup:
        return Markup(_template().module.section(self))

    def _repr_html_(self) -> str:
        # The classes keep a notebook from taking two dollar amounts for a formula.
        return f'<div class="mathjax_ignore tex2jax_ignore">{self.html}</div>'


@dataclass
class Page:
    """The sections of the page in the order in which the notebook adds them."""

    lead: str  # a line below the title
    sections: list[Section] = field(default_factory=list)

    def add(self, heading: str, *parts, look: Literal["section", "part", "folded", "apart"] = "section") -> Section:
        """Append a section, and return it, so that it may end a cell and be shown there.

        A part is a paragraph (str), HTML (`Markup`), a list (of str), named values (dict), a table (list of dict), or
        figures (list of paths of PNG files). "part" and "folded" stand below the section before, "folded" closed.
        """
        section = Section(heading, parts, look, f"section-{len(self.sections)}")
        self.sections.append(section)
        return section

    def add_stage(self, folder: Path) -> None:
        """What a complete stage measured: numbers, warnings, figures, and tables as its manifest has them."""
        metrics = {k: v for k, v in read_manifest(folder)["metrics"].items() if k not in BETTER_SHOWN and v is not None}
        warnings = metrics.pop("warnings", [])
        tables = {k: v for k, v in metrics.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
        values = {k: v for k, v in metrics.items() if k not in tables and "\n" not in str(v)}
        self.add(HEADINGS[folder.name], values, warnings, sorted((folder / "figures").glob("*.png")))
        for name, rows in tables.items():
            look = "folded" if len(rows) > 12 else "part"
            note = "As manifest.json has them: shares from 0 to 1, 95 % intervals." if "low" in rows[0] else ""
            self.add(name.replace("_", " ").capitalize(), [_joined(row) for row in rows], note, look=look)

    def add_manifests(self, manifests: Mapping[str, Mapping]) -> None:
        """One folded part per manifest: the stage's parameters, then everything as it is in the file."""
        for name, made in manifests.items():
            values = {key: str(v) if isinstance(v, float) else v for key, v in made["parameters"].items()}
            changed = " with uncommitted changes" if made["code"]["dirty"] else ""
            heading = f"{name}: seed {made['seed']}, commit {(made['code']['commit'] or 'unknown')[:10]}{changed}"
            text = verbatim(json.dumps(made, indent=1, ensure_ascii=False))
            self.add(f"{heading}, finished {made['finished']}", values, text, look="folded")

    def write(self, path: Path) -> None:
        path.write_text(_template().render(page=self, paper=reported.PAPER), encoding="utf8")


def verbatim(text: str, most: int | None = None) -> Markup:
    """`text` as it was written, in a fixed width; after `most` characters a note says how many are left out."""
    if most and len(text) > most:
        text = f"{text[:most]} ... ({len(text) - most:,} more characters)"
    return Markup("<pre>{}</pre>").format(text.strip())


def tiles(values: Sequence[Mapping]) -> Markup:
    """Large numbers side by side: {"value", "name", "notes": list of str, "colour"}."""
    return Markup(_template().module.tiles(values))


def cell_text(value: object) -> str:
    """A value as a table shows it: numbers short, missing ones a dash, HTML as it is."""
    if isinstance(value, Markup):
        return value
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell_text(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell_text(item)}" for key, item in value.items())
    return str(value)


def _columns(rows: Sequence[Mapping]) -> dict[str, list]:
    """For the template: names of the columns, "n" for each that holds numbers, and the rows as texts."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell_text(row.get(name)) for name in names] for row in rows]
    classes = ["n" if all(map(NUMBER.fullmatch, column)) else "" for column in zip(*cells, strict=True)]
    soft = Markup('{}<span class="interval"> [{}</span>')
    for line in cells:
        for place, (value, bracket, interval) in enumerate(text.partition(" [") for text in line):
            if bracket and classes[place]:
                line[place] = soft.format(value, interval)
    return {"names": names, "classes": classes, "rows": cells}


def _data_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def _joined(row: Mapping) -> dict[str, object]:
    """`row` with each number and its interval in one cell; the interval stands behind its number as `low`, `high`."""
    cells: dict[str, object] = {}
    for key, value in row.items():
        if re.search(r"(^|_)low$", key) and cells:
            last, high = list(cells)[-1], row[re.sub("low$", "high", key)]
            cells[last] = None if value is None or high is None else f"{cells[last]:.3g} [{value:.3g}, {high:.3g}]"
        elif not re.search(r"(^|_)high$", key):
            cells[key.replace("_", " ")] = value
    return cells


def other_manifests(manifests: Mapping[str, Mapping], run_folder: Path) -> dict[str, dict]:
    """Notebook 00's manifest, and those of other runs that 06 and 09 read, as <run>/<stage>.

    One that is gone, or was made anew since it was read, is left out.
    """
    others: dict[str, dict] = {}
    if (run_folder / "00_overview" / "manifest.json").exists():
        others["00_overview"] = read_manifest(run_folder / "00_overview")
    known = {made["outputs_sha256"] for made in manifests.values()}
    for reader in (manifests[name] for name in ("06_benchmark", "09_ablation") if name in manifests):
        for entry in reader["inputs"].values():
            folder = paths.resolve(entry["path"])
            if entry["sha256"] in known or not (folder / "manifest.json").exists():
                continue
            made = read_manifest(folder)
            if made["outputs_sha256"] == entry["sha256"]:
                others[f"{made['run']}/{made['stage']}"] = made
    return others


# ---- the page as PDF ------------------------------------------------------------------------------------------------


def find_browser() -> str | None:
    """Path of a Chromium-like browser; `FINR1_BROWSER` names one that is elsewhere."""
    named = os.environ.get("FINR1_BROWSER")
    return next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)


def write_pdf(html: Path, pdf: Path) -> str:
    """Convert `html` to `pdf` with a Chromium or WeasyPrint, neither a dependency; returns one line on what happened.

    Without a converter, or when it fails, no file is left at `pdf`: a missing PDF never fails a run.
    """
    pdf.unlink(missing_ok=True)
    browser = find_browser()
    if browser is None and importlib.util.find_spec("weasyprint") is None:
        return f"no {pdf.name}: neither a Chromium nor weasyprint is installed here (the HTML is complete without it)"
    by = Path(browser).name if browser else "weasyprint"
    try:
        if browser:
            _print_with(browser, html, pdf)
        else:
            from weasyprint import HTML

            HTML(filename=str(html)).write_pdf(str(pdf))
        return f"{pdf.name}: {pdf.stat().st_size / 1e6:.1f} MB, by {by}"
    except (OSError, subprocess.SubprocessError) as error:
        pdf.unlink(missing_ok=True)
        return f"no {pdf.name}: {by} failed ({type(error).__name__})"


def _print_with(browser: str, html: Path, pdf: Path) -> None:
    # Chromium's own sandbox refuses to run as root; the page is ours and holds no script.
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--disable-gpu", f"--user-data-dir={profile}", "--no-pdf-header-footer", *sandbox]
        command = [browser, *options, f"--print-to-pdf={pdf.absolute()}", html.absolute().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=180)
