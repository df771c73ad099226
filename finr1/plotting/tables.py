"""Tables of notebooks and of the report: text stands left, numbers right, and no row wraps at 1,280 pixels."""

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

ROOM = 104  # characters of a row in JupyterLab at 1,280 pixels, with its file browser open
# A cell that stands to the right: a number, maybe with its unit, its interval or its n; or a dash.
NUMBER = re.compile(r"([-–]|[-+]?\d[\d,.]*(e[-+]\d+)?)( %)?( \[[^]]*\])?( (of|/) \d+| n=\d+)?")


def template(name: str) -> Template:
    """A page or a part of one: texts are escaped, and an unknown name is an error."""
    strictly = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    jinja = Environment(loader=FileSystemLoader(Path(__file__).parent.parent), **strictly)
    jinja.filters |= {"cell": cell_text, "columns": columns_of, "base64": base64.b64encode, "table": table}
    return jinja.get_template(name)


def table(
    rows: pd.DataFrame | Sequence[Mapping], columns: int | Sequence[str] = 5,
    formats: Mapping[str, str] | None = None, missing: str = "–",
) -> HTML:  # fmt: skip
    """A table to `display`: its first `columns`, or those named so; long texts cut. What is left out comes on demand.

    `formats`: {column: "{:.1f}"}; without one, a column of floats gets three digits of its largest. `missing` stands
    for None and NaN. Texts are escaped, `Markup` is not. An index with a name, or of texts, becomes the first column.
    """
    made = columns_of(rows, formats, missing)
    shown = made[:columns] if isinstance(columns, int) else [column for column in made if column["name"] in columns]
    widths = [column["width"] for column in shown if not column["n"]]  # half a number would be a lie
    left = ROOM - sum(column["width"] for column in shown if column["n"])
    cap = next((cap for cap in range(ROOM, 16, -1) if sum(min(cap, width) for width in widths) <= left), 16)
    more = len(made) > len(shown) or max(widths, default=0) > cap
    return HTML(template("table.html.j2").render(made=made, shown=shown, cap=cap, more=more))


def columns_of(
    rows: pd.DataFrame | Sequence[Mapping], formats: Mapping[str, str] | None = None, missing: str = "–"
) -> list[dict[str, Any]]:
    """Of each column its name, its texts, "n" (all are numbers) and the width of the longest in letters."""
    frame = pd.DataFrame(rows, dtype=object)  # a column of texts would make texts of `Markup`
    if frame.index.names != [None] or frame.index.dtype.kind not in "iu":
        frame = frame.reset_index(names=[name or "" for name in frame.index.names], allow_duplicates=True)
    made = []
    for name, values in frame.items():
        form = formats[name].format if name in (formats or {}) else _form(values)
        texts = [missing if gone else form(value) for value, gone in zip(values, values.isna(), strict=True)]
        name = " ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        width = 2 + max(len(Markup(text).striptags().encode("gb18030")) for text in [name, *texts])  # 汉字 as two
        made.append({"name": name, "texts": texts, "n": all(map(NUMBER.fullmatch, texts)), "width": width})
    return made


def _form(values: pd.Series) -> Callable[[Any], str]:
    """How a column is written: numbers with three digits of the largest, anything else each value by itself."""
    numbers = pd.Series([*values.dropna()])
    if numbers.dtype.kind not in "iuf":
        return cell_text
    sizes = numbers.abs().replace([0, math.inf], math.nan).dropna()
    decimals = 0 if (sizes % 1 == 0).all() else max(0, 2 - math.floor(math.log10(sizes.max())))
    return ("{:.3g}" if decimals > 5 or (sizes < 10**-decimals / 2).any() else f"{{:,.{decimals}f}}").format


def cell_text(value: Any) -> str:
    """A value by itself: floats short, members with commas, HTML as it is."""
    if isinstance(value, Mapping):
        value = [f"{key} {cell_text(item)}" for key, item in value.items()]
    if isinstance(value, list | tuple) and value:
        return ", ".join(map(cell_text, value))
    return value if isinstance(value, Markup) else f"{value:.4g}" if isinstance(value, float) else str(value)
