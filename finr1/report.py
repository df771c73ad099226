"""The page of notebook 07: one HTML file that says what a run found, how sure that is, and how it was made.

`Page.add` shows each table and figure in the notebook and keeps it for the page, which fetches nothing; its template
escapes every text. nbconvert exports a notebook that has ended, while 07 writes its page as it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from IPython.display import HTML
from markupsafe import Markup

from finr1 import reported
from finr1.plotting.tables import template


@dataclass
class Page:
    """The sections of the page in the order in which the notebook adds them."""

    lead: str  # a line below the title
    sections: list[dict] = field(default_factory=list)

    def add(self, heading: str, *parts, look: str = "section") -> HTML:
        """Append a heading with what stands below it; returns that, so that it may end a cell and be shown there.

        A part is a paragraph (str), HTML (`Markup`, a table), a list (of str), named values (dict), rows (of dict), or
        figures (list of PNG files). `look`: section, apart (in a frame), or, below a section, part or folded (closed).
        """
        section = {"heading": heading, "parts": parts, "look": look, "anchor": f"section-{len(self.sections)}"}
        self.sections.append(section)
        shown = template("report.html.j2").module.section(section)
        # The classes keep a notebook from taking two dollar amounts for a formula.
        return HTML(f'<div class="mathjax_ignore tex2jax_ignore" style="overflow-wrap:break-word">{shown}</div>')

    def write(self, path: Path) -> None:
        path.write_text(template("report.html.j2").render(page=self, paper=reported.PAPER), encoding="utf8")


def tiles(values: Sequence[Mapping]) -> Markup:
    """Large numbers side by side: {"value", "name", "notes": list of str, "colour"}."""
    return Markup(template("report.html.j2").module.tiles(values))
