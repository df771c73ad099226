"""The style sheet, fixed colours and markers, labelled dots with their intervals, and saving."""

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import Code
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

from finr1.paths import data_beside
from finr1.records import CHANCE, RECIPE

WIDTH = 5.5  # inches: the text width of a paper
_LOOKS = data_beside(__file__, "looks.yaml")
MODEL_COLOURS, MODEL_MARKERS, CJK_FONTS = (_LOOKS[name] for name in ("colours", "markers", "cjk_fonts"))


class Look(NamedTuple):
    """How a model, or another series, is drawn."""

    colour: str
    marker: str
    name: str


def looks(models: Iterable[str]) -> dict[str, Look]:
    """Model -> its `Look`: fixed for the recipe's models, by place for others (from the fifth of them, repeated)."""
    models = list(dict.fromkeys(models))
    others = [model for model in models if model not in RECIPE | CHANCE]
    drawn = {model: Look(*look, safe_text(model)) for model, look in zip(others, itertools.cycle(_LOOKS["others"]))}
    drawn |= {model: Look(MODEL_COLOURS[model], MODEL_MARKERS[model], name) for model, name in RECIPE.items()}
    drawn |= {model: Look(colour, "|", CHANCE[model]) for model, colour in _LOOKS["ticks"].items()}
    return {model: drawn[model] for model in models}


def use_style() -> None:
    """Apply the style sheet; where a font with Chinese glyphs is installed, draw with it what DejaVu lacks."""
    mpl.style.use(Path(__file__).parent / "paper.mplstyle")
    mpl.rcParams["font.family"] = ["DejaVu Sans", *[name for name in CJK_FONTS if name in get_font_names()][:1]]


def safe_text(text: Any) -> str:
    """`text` for a label: one line, a dollar sign is no TeX, and without a Chinese font a glyph is its code point."""
    line = str(text).replace("\n", " ").replace("_", " ").replace("$", r"\$")
    all_glyphs = len(mpl.rcParams["font.family"]) > 1
    return "".join(char if all_glyphs or ord(char) < 0x2E80 else f"U+{ord(char):X} " for char in line)


def label_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Name the rows 0, 1, ... of a horizontal plot, first row on top, grid along the values."""
    ax.set_yticks(range(len(labels)), [safe_text(label) for label in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)


def dots(ax: Axes, rows: Sequence[Mapping]) -> None:
    """A horizontal plot of estimates in percent: one line for each label, on it a dot with its interval for each row.

    `rows`: {"label", "value", "low", "high", "look"}, numbers in [-1, 1]; "hollow" leaves the dot empty, "points" are
    drawn small beside it; a None is not drawn. A look with the marker "|" is a tick over the whole line.
    """
    labels = list(dict.fromkeys(row["label"] for row in rows))
    for place, label in enumerate(labels):
        members = [row for row in rows if row["label"] == label and row["value"] is not None]
        for tick in (row for row in members if row["look"].marker == "|"):
            ax.vlines(100 * tick["value"], place - 0.42, place + 0.42, tick["look"].colour, linewidth=2, zorder=1)
        members = [row for row in members if row["look"].marker != "|"]
        for number, row in enumerate(members):
            y, look = place + 0.7 * ((number + 0.5) / len(members) - 0.5), row["look"]
            if row["low"] is not None:
                ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=look.colour, linewidth=1.1)
            face = "white" if row.get("hollow") else look.colour
            ax.plot(100 * row["value"], y, look.marker, color=look.colour, markerfacecolor=face)
            if points := [100 * value for value in row.get("points", ())]:
                ax.plot(points, [y + 0.06] * len(points), ".", color=look.colour, alpha=0.5, markersize=4)
    label_rows(ax, labels)


def legend_of(place: Figure | Axes, rows: Iterable[Mapping], **where: Any) -> None:
    """Each marker of `dots` with its name, over the panels of a figure or as `where` says."""
    drawn = dict.fromkeys(row["look"] for row in rows)
    tick = {"linestyle": "", "markersize": 9, "markeredgewidth": 2}
    handles = [plt.Line2D([], [], color=look.colour, marker=look.marker, label=look.name,
                          **tick if look.marker == "|" else {}) for look in drawn]  # fmt: skip
    place.legend(handles=handles, **{"loc": "outside upper center", "ncols": 4} | where)


def save_figure(fig: Figure, folder: Path | str, name: str) -> None:
    """Write `<folder>/<name>.pdf` and `.png`, the same bytes for the same figure; its titles become its alt text."""
    give_alt_text(fig, name)
    Path(folder).mkdir(parents=True, exist_ok=True)
    fig.savefig(Path(folder) / f"{name}.pdf", metadata={"CreationDate": None})
    fig.savefig(Path(folder) / f"{name}.png", metadata={"Software": None})


def give_alt_text(fig: Figure, name: str) -> None:
    """Its titles, or `name` where it has none, as the text that a notebook keeps for those who cannot see it."""
    texts = [fig.get_suptitle(), *(ax.get_title(at) for ax in fig.axes for at in ("left", "center"))]
    fig._repr_mimebundle_ = lambda **_: ({}, {"image/png": {"alt": "; ".join(filter(None, texts)) or name}})


def show_source(obj: Any) -> Code:
    """The source of a function, class or module as a highlighted notebook output: shown, never pasted."""
    return Code(inspect.getsource(obj), language="python")
