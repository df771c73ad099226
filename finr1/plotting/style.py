"""The style sheet, fixed colours, text that every machine can draw, and saving."""

from __future__ import annotations

import hashlib
import inspect
import re
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
from matplotlib import font_manager

if TYPE_CHECKING:
    from IPython.display import Code
    from matplotlib.figure import Figure

STYLE_SHEET = Path(__file__).parent.parent / "paper.mplstyle"
WIDTH = 5.5  # inches

# A model has the same colour, hatch and marker in every figure; the second code carries a print in grey.
MODEL_COLOURS = {"base": "#999999", "zero": "#CC79A7", "sft": "#0072B2", "grpo": "#D55E00", "reported": "#009E73"}
MODEL_HATCHES = {"base": "", "zero": "\\\\\\", "sft": "///", "grpo": "xxx", "reported": "..."}
MODEL_MARKERS = {"base": "o", "zero": "v", "sft": "s", "grpo": "D", "reported": "^"}
MODEL_NAMES = {"base": "base", "zero": "GRPO only", "sft": "SFT", "grpo": "SFT + GRPO", "reported": "reported"}
# Any other model, in the order in which a figure meets them.
_OTHERS = (("#56B4E9", "++", "P"), ("#E69F00", "oo", "X"), ("#000000", "**", "*"), ("#F0E442", "--", "<"))
BLUE, VERMILION, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY = "#999999"

# Fonts with Chinese glyphs under the names by which the common systems ship them, best first.
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Microsoft YaHei",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Hiragino Sans GB", "Heiti SC", "SimHei", "Droid Sans Fallback",
    "Arial Unicode MS",
)  # fmt: skip


class Look(NamedTuple):
    """How a model is drawn in every figure."""

    colour: str
    hatch: str
    marker: str
    name: str


def looks(models: Sequence[str]) -> dict[str, Look]:
    """Model -> its `Look`: fixed for the recipe's models, by place for others (from the fifth of them, repeated)."""
    others = [model for model in models if model not in MODEL_COLOURS]
    found = {model: Look(*_OTHERS[place % len(_OTHERS)], safe_text(model)) for place, model in enumerate(others)}
    return {
        model: found.get(model)
        or Look(MODEL_COLOURS[model], MODEL_HATCHES[model], MODEL_MARKERS[model], MODEL_NAMES[model])
        for model in models
    }


def use_style() -> None:
    """Apply the style sheet; where a font with Chinese glyphs is installed, draw with it what DejaVu lacks.

    Leaves the backend alone: the same call serves a notebook and a machine without a screen.
    """
    mpl.style.use(STYLE_SHEET)
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    chinese = [name for name in CJK_FONTS if name in installed]
    mpl.rcParams["font.family"] = ["DejaVu Sans", *chinese[:1]]


@cache
def _glyphs(font: str) -> frozenset[int]:
    """Code points that `font` can draw; none when it is not installed."""
    try:
        path = font_manager.findfont(font, fallback_to_default=False)
    except ValueError:
        return frozenset()
    return frozenset(font_manager.get_font(path).get_charmap())


def safe_text(text: Any) -> str:
    """`text` as the current fonts can draw it: never an empty box in the place of a glyph, never stray maths.

    Each run of characters without a glyph becomes a short, stable id: "债券 A" -> "zh-d03b A". The same run has the
    same id in every figure, so a table can name it (`placeholders`). A dollar sign is a dollar sign, not TeX.
    """
    drawable = frozenset().union(*(_glyphs(name) for name in mpl.rcParams["font.family"])) or _glyphs("DejaVu Sans")
    out, run = [], ""
    for char in str(text).replace("\n", " ") + "\0":  # the end mark closes the last run
        if char != "\0" and ord(char) not in drawable:
            run += char
            continue
        if run:
            out.append(_placeholder(run))
            run = ""
        out.append(r"\$" if char == "$" else char)
    return "".join(out[:-1])


def _placeholder(run: str) -> str:
    kind = "zh" if re.search(r"[\u3400-\u9fff\uf900-\ufaff]", run) else "text"
    return f"{kind}-{hashlib.sha256(run.encode()).hexdigest()[:4]}"


def placeholders(texts: list[str]) -> dict[str, str]:
    """What `safe_text` put into a figure -> the original, for those of `texts` that it had to change."""
    return {drawn: text for text in texts if (drawn := safe_text(text)) != text.replace("$", r"\$")}


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
