"""The style sheet, fixed colours and markers, labelled dots with their intervals, and saving."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib import font_manager

if TYPE_CHECKING:
    from IPython.display import Code
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE_SHEET = Path(__file__).parent / "paper.mplstyle"
WIDTH = 5.5  # inches

# A model has the same colour and marker in every figure; the marker carries a print in grey.
MODEL_COLOURS = {"base": "#999999", "zero": "#CC79A7", "sft": "#0072B2", "grpo": "#D55E00", "reported": "#009E73"}
MODEL_MARKERS = {"base": "o", "zero": "v", "sft": "s", "grpo": "D", "reported": "^"}
MODEL_NAMES = {"base": "base", "zero": "GRPO only", "sft": "SFT", "grpo": "SFT + GRPO", "reported": "reported"}
# Any other model, in the order in which a figure meets them.
_OTHERS = (("#56B4E9", "P"), ("#E69F00", "X"), ("#000000", "*"), ("#F0E442", "<"))
BLUE, VERMILION, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY = "#999999"
# Fonts with Chinese glyphs under the names by which the common systems ship them, best first.
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei",
             "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei")  # fmt: skip


class Look(NamedTuple):
    """How a model, or another series, is drawn."""

    colour: str
    marker: str
    name: str


def looks(models: Sequence[str]) -> dict[str, Look]:
    """Model -> its `Look`: fixed for the recipe's models, by place for others (from the fifth of them, repeated)."""
    others = [model for model in models if model not in MODEL_COLOURS]
    drawn = {model: Look(*_OTHERS[place % len(_OTHERS)], safe_text(model)) for place, model in enumerate(others)}
    drawn |= {name: Look(MODEL_COLOURS[name], MODEL_MARKERS[name], MODEL_NAMES[name]) for name in MODEL_NAMES}
    return {model: drawn[model] for model in models}


def use_style() -> None:
    """Apply the style sheet; where a font with Chinese glyphs is installed, draw with it what DejaVu lacks.

    Leaves the backend alone: the same call serves a notebook and a machine without a screen.
    """
    mpl.style.use(STYLE_SHEET)
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    mpl.rcParams["font.family"] = ["DejaVu Sans", *[name for name in CJK_FONTS if name in installed][:1]]


def safe_text(text: Any) -> str:
    """`text` for a label: one line, a dollar sign is no TeX, and no empty box in the place of a Chinese glyph.

    Nearly all labels are English. Where no font with Chinese glyphs is installed, each is shown by its code point.
    """
    line = " ".join(str(text).split("\n")).replace("$", r"\$")
    if len(mpl.rcParams["font.family"]) > 1:
        return line
    return "".join(char if ord(char) < 0x2E80 else f"U+{ord(char):X} " for char in line)


def label_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Name the rows 0, 1, ... of a horizontal plot, first row on top, grid along the values."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)


def dots_with_intervals(ax: Axes, rows: Sequence[Mapping], factor: float = 100) -> None:
    """A horizontal plot of estimates: one labelled line per `label`, a dot with its 95 % interval per row.

    `rows`: {"label", "value", "low", "high", "look"}, numbers times `factor`; rows of one label stand below each other.
    A dot is hollow where "hollow" is true. Where "low" is None there is no interval, where "value" is, no dot either.
    """
    by_label: dict[str, list[Mapping]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    step = 0.7 / max(map(len, by_label.values()), default=1)
    for place, members in enumerate(by_label.values()):
        for number, row in enumerate(members):
            if row["value"] is None:
                continue
            y, look = place + (number - (len(members) - 1) / 2) * step, row["look"]
            if row["low"] is not None:
                ax.plot([factor * row["low"], factor * row["high"]], [y, y], color=look.colour, linewidth=1.1)
            face = "white" if row.get("hollow") else look.colour
            ax.plot(factor * row["value"], y, look.marker, color=look.colour, markerfacecolor=face, markersize=4.5,
                    clip_on=False)  # fmt: skip
        if len(members) > 1 and place:
            ax.axhline(place - 0.5, color="0.9", linewidth=0.6)
    label_rows(ax, list(by_label))


def handles_of(drawn: Sequence[Look]) -> list:
    """For a legend: each marker with its name."""
    return [
        plt.Line2D([], [], color=look.colour, marker=look.marker, markersize=4.5, label=look.name) for look in drawn
    ]


def legend_of(fig: Figure, drawn: Sequence[Look], columns: int = 4) -> None:
    """A legend over the panels."""
    fig.legend(handles=handles_of(drawn), loc="outside upper center", ncols=columns)


def save_figure(fig: Figure, folder: Path | str, name: str) -> None:
    """Write `<folder>/<name>.pdf` and `.png`, byte for byte the same for the same figure.

    Returns nothing, so that it may end a notebook's cell: the cell then shows the figure and no path.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fig.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    fig.savefig(folder / f"{name}.png", metadata={"Software": None})


def show_source(obj: Any) -> Code:
    """The source of a function, class or module as a highlighted notebook output: shown, never pasted."""
    from IPython.display import Code

    return Code(textwrap.dedent(inspect.getsource(obj)), language="python")
