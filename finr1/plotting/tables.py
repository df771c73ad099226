"""Tables of notebooks and of the report: text stands left, numbers right, and no row wraps at 1,280 pixels.

Each cell carries its style, for JupyterLab drops a style sheet from a notebook that it does not trust.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML
from markupsafe import Markup
from pandas.api import types

ROOM = 104  # characters of a row in JupyterLab at 1,280 pixels, with its file browser open
# A cell that stands to the right: a number, maybe with its unit, its interval or its n; or a dash.
NUMBER = re.compile(r"([-–]|[-+]?\d[\d,.]*(e[-+]\d+)?)( %)?( \[[^]]*\])?( (of|/) \d+| n=\d+)?")
_BOX = Markup('<div class="scroll mathjax_ignore tex2jax_ignore" style="overflow-x:auto">{}</div>')
_TABLE = Markup('<table style="table-layout:auto;border-collapse:collapse;margin:0">{}</table>')
_CELL = Markup('<{0} style="text-align:{1};vertical-align:top;white-space:{2};padding:.3em .6em">{3}</{0}>')
_MORE = Markup('<details><summary style="cursor:pointer">{}</summary>{}</details>')


def table(
    rows: pd.DataFrame | Sequence[Mapping], columns: int = 5, formats: Mapping[str, str] | None = None,
    missing: str = "–",
) -> HTML:  # fmt: skip
    """A table to `display`: its first `columns`, long texts cut; where that leaves something out, all of it on demand.

    `formats`: {column: "{:.1f}"}; without one, a column of floats gets three digits of its largest. `missing` stands
    for None and NaN. Texts are escaped, `Markup` is not. An index with a name, or of texts, becomes the first column.
    """
    names, texts = cells(rows, formats or {}, missing)
    if not texts or not texts[0]:
        return HTML("<p>no rows</p>")
    lines = [[text if isinstance(text, Markup) else " ".join(text.split()) for text in column] for column in texts]
    fixed = [all(map(NUMBER.fullmatch, column)) for column in lines]  # half a number would be a lie
    widths = [2 + max(map(_width, [name, *column])) for name, column in zip(names, lines, strict=True)]

    def room(count: int, cap: int) -> int:
        return sum(width if whole else min(cap, width) for whole, width in zip(fixed, widths[:count], strict=False))

    fits = ((n, cap) for n in range(columns, 0, -1) for cap in range(ROOM, 15, -1) if room(n, cap) <= ROOM)
    count, cap = next(fits, (1, ROOM))
    short = [
        [text if whole else _cut(text, cap - 2) for text in column]
        for whole, column in zip(fixed, lines[:count], strict=False)
    ]
    shown = _BOX.format(_html(names[:count], short, "nowrap"))
    if short != lines:
        shown += _MORE.format(f"all {len(names)} columns in full", _BOX.format(_html(names, texts, "pre-line")))
    return HTML(shown)


def cells(
    rows: pd.DataFrame | Sequence[Mapping], formats: Mapping[str, str], missing: str
) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the texts of each."""
    frame = pd.DataFrame(rows, dtype=object)  # a column of texts would make texts of `Markup`
    if frame.index.names != [None] or not types.is_integer_dtype(frame.index):
        frame = frame.reset_index(names=[name or "" for name in frame.index.names], allow_duplicates=True)
    names = [" ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame]
    texts = []
    for place, name in enumerate(names):
        column = frame.iloc[:, place]
        form = formats.get(name) or _form(pd.Series([*column]))
        absent = column.isna()
        texts.append(
            [
                missing if gone else form.format(value) if form and not isinstance(value, str) else cell_text(value)
                for value, gone in zip(column, absent, strict=True)
            ]
        )
    return names, texts


def _form(column: pd.Series) -> str:
    """How a column of numbers is written; empty for any other."""
    if not types.is_numeric_dtype(column) or types.is_bool_dtype(column):
        return ""
    sizes = column.dropna().abs()
    if (sizes % 1 == 0).all():
        return "{:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(sizes.max())))
    short = decimals > 5 or sizes[sizes > 0].min() < 10**-decimals / 2
    return "{:.3g}" if short else f"{{:,.{decimals}f}}"


def cell_text(value: Any) -> str:
    """A value as a table shows it: floats short, members with commas, HTML as it is."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        value = [f"{key} {cell_text(item)}" for key, item in value.items()]
    return ", ".join(map(cell_text, value)) if isinstance(value, list | tuple) and value else str(value)


def _width(text: str) -> int:
    """Of a text in letters; a Chinese character is as wide as two."""
    text = Markup(text).striptags() if isinstance(text, Markup) else text
    return len(text) + sum(char > "\u2e80" for char in text)


def _cut(text: str, width: int) -> str:
    return (
        text
        if _width(text) <= width or isinstance(text, Markup)
        else f"{text[: width * len(text) // _width(text) - 2]} …"
    )


def _html(names: Sequence[str], columns: Sequence[Sequence[str]], white_space: str) -> Markup:
    sides = ["right" if all(map(NUMBER.fullmatch, column)) else "left" for column in columns]

    def line(tag: str, texts: Sequence[str]) -> Markup:
        made = [_CELL.format(tag, side, white_space, text) for side, text in zip(sides, texts, strict=True)]
        return Markup("<tr>{}</tr>").format(Markup("").join(made))

    body = Markup("").join(line("td", texts) for texts in zip(*columns, strict=True))
    return _TABLE.format(Markup("<thead>{}</thead><tbody>{}</tbody>").format(line("th", names), body))
