"""The page of notebook 07: one HTML file that says what a run found, how sure that is, and how it was made.

`Page.add` shows each table and figure in the notebook and keeps it for the page, which is self-contained (figures
inlined, no script, nothing fetched); its template escapes every text of a model or a data set. nbconvert was tried: it
exports a notebook that has ended, while 07 writes its page as it runs, and its templates fetch MathJax and require.js.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finr1 import reported
from finr1.manifest import read_manifest

# They have a place of their own.
BETTER_SHOWN = ("rows", "steps", "by_capability", "by_family", "by_kind", "by_source", "protocols")
# A cell that stands to the right: a number, maybe with its unit, its interval or its n; or a dash.
NUMBER = re.compile(r"(-|[-+]?\d[\d,.]*(e[-+]\d+)?)( %)?( \[[^]]*\])?( (of|/) \d+)?")


def html_templates() -> Environment:
    """Jinja as every HTML page of the suite uses it: texts escaped, an unknown name an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _template():
    jinja = html_templates()
    jinja.filters |= {"cell": cell_text, "columns": _columns, "base64": base64.b64encode}
    return jinja.get_template("report.html.j2")


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; as the last value of a cell, the notebook shows it."""

    heading: str
    parts: tuple
    look: str
    anchor: str

    def _repr_html_(self) -> str:
        # The classes keep a notebook from taking two dollar amounts for a formula.
        return f'<div class="mathjax_ignore tex2jax_ignore">{_template().module.section(self)}</div>'


@dataclass
class Page:
    """The sections of the page in the order in which the notebook adds them."""

    lead: str  # a line below the title
    sections: list[Section] = field(default_factory=list)

    def add(self, heading: str, *parts, look: str = "section") -> Section:
        """Append a section, and return it, so that it may end a cell and be shown there.

        A part is a paragraph (str), HTML (`Markup`), a list (of str), named values (dict), a table (list of dict), or
        figures (list of paths of PNG files). `look`: section, apart (in a frame), or, below the section before it, part
        or folded (closed).
        """
        section = Section(heading, parts, look, f"section-{len(self.sections)}")
        self.sections.append(section)
        return section

    def add_stage(self, heading: str, folder: Path) -> None:
        """What a complete stage measured: numbers, warnings, figures, and tables as its manifest has them."""
        metrics = {k: v for k, v in read_manifest(folder)["metrics"].items() if k not in BETTER_SHOWN and v is not None}
        warnings = metrics.pop("warnings", [])
        tables = {k: v for k, v in metrics.items() if isinstance(v, list) and v and isinstance(v[0], dict)}
        values = {k: v for k, v in metrics.items() if k not in tables and "\n" not in str(v)}
        self.add(heading, values, warnings, sorted((folder / "figures").glob("*.png")))
        for name, rows in tables.items():
            look = "folded" if len(rows) > 12 else "part"
            note = "As manifest.json has them: shares from 0 to 1, 95 % intervals." if "low" in rows[0] else ""
            self.add(name.replace("_", " ").capitalize(), [_joined(row) for row in rows], note, look=look)

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
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, Mapping):
        value = [f"{key} {cell_text(item)}" for key, item in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(cell_text(item) for item in value)
    return str(value or "-")


def _columns(rows: Sequence[Mapping]) -> dict[str, list]:
    """For the template: names of the columns, "n" for each that holds numbers, and the rows as texts."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell_text(row.get(name)) for name in names] for row in rows]
    classes = ["n" if all(map(NUMBER.fullmatch, column)) else "" for column in zip(*cells, strict=True)]
    return {"names": names, "classes": classes, "rows": cells}


def _joined(row: Mapping) -> dict[str, object]:
    """`row` with each number and its interval in one cell; the interval stands behind its number as `low`, `high`."""
    cells: dict[str, object] = {}
    for key, value in row.items():
        if re.search(r"(^|_)low$", key) and cells:
            last, high = list(cells)[-1], row[re.sub("low$", "high", key)]
            if value is not None and high is not None:
                cells[last] = f"{cells[last]:.3g} [{value:.3g}, {high:.3g}]"
        elif not re.search(r"(^|_)high$", key):
            cells[key.replace("_", " ")] = value
    return cells
