"""Curves of `metrics.jsonl` under their trailing mean: a centred one, padded, would draw a drop that never was."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import DisplayHandle
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from finr1.paths import data_beside
from finr1.plotting.style import WIDTH, give_alt_text, safe_text

PANELS = data_beside(__file__, "panels.yaml")
LINES = ("-", "--", "-.", ":", "--", "-.")


def training_curves(rows: Sequence[Mapping], keys: Sequence[str] = PANELS["sft"], columns: int = 2) -> Figure:
    """A panel for each of `keys` over `rows` of metrics.jsonl, smoothed over a tenth of them; a missing one says so."""
    window, lines = max(3, len(rows) // 10), math.ceil(len(keys) / columns)
    log = pd.DataFrame([*rows], columns=None if rows else ["step"]).set_index("step")
    fig, axs = plt.subplots(lines, columns, figsize=(WIDTH, 0.35 + 1.3 * lines), squeeze=False)
    for ax in axs.flat[len(keys) :]:
        ax.set_visible(False)
    for ax, key in zip(axs.flat, keys, strict=False):
        reward = safe_text(key.removeprefix("rewards/").removesuffix("/mean"))
        ax.set_title(PANELS["titles"].get(key, reward), loc="left")  # over the panel, where a small one has the room
        _panel(ax, log, key, window)
        if not ax.has_data():
            missing = "no KL term in this run (beta = 0)" if key == "kl" else "not logged in this run"
            ax.text(0.5, 0.5, missing, transform=ax.transAxes, ha="center", va="center", fontsize=8, color="0.4")
            ax.set(xticks=[], yticks=[])
    fig.supxlabel(f"training step (faint: as logged, bold: mean of the last {window})", fontsize=9)
    return fig


def _panel(ax: Axes, log: pd.DataFrame, key: str, window: int) -> None:
    """The lines of one panel; nothing where none was logged. Of several only the bold ones, as raw ones hide others."""
    below = {name: name.removeprefix(f"{key}/") for name in log if name.startswith(f"{key}/")}
    labels = PANELS["several"].get(key) or below or {key: ""}
    logged = {name: log[name].dropna() for name in labels if name in log and log[name].notna().any()}
    percent = PANELS["titles"].get(key, "").endswith("(%)")
    for place, (name, values) in enumerate(logged.items()):
        colour, line = f"C{place}", LINES[place % len(LINES)]
        values = values * (100 if percent else 1)
        if len(logged) == 1 and name not in PANELS["exact"]:
            values.plot(ax=ax, color=colour, alpha=0.25, marker="." if len(values) < 40 else "", markersize=3)
        smooth = values if name in PANELS["exact"] else values.rolling(window, min_periods=1).mean()
        points = {"marker": "o", "linestyle": ""} if name == "eval_accuracy" else {"linestyle": line}
        ax.plot(smooth.index, smooth, color=colour, label=safe_text(labels[name]), **points)
    if not logged:
        return
    ax.set_xlabel("")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    everything = pd.concat(logged.values())
    if key in ("kl", "grad_norm") and everything.max() > 50 * everything.median() > 0:
        ax.set_yscale("log")  # one wild step would flatten all others
        return
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    low, high = ax.get_ylim()
    if key.startswith("rewards/"):  # the paper's are 0 or 1; a reward of another size goes further
        low, high = min(-0.05, low), max(1.05, high)
    elif percent and key != "clip_ratio/region_mean":  # that one is mostly near zero
        low, high = -5, 105
        ax.set_yticks([0, 50, 100])
    if len(logged) > 1:
        high += 0.4 * math.ceil(len(logged) / 2) * (high - low)  # room for the legend
        ax.legend(loc="upper left", ncols=2, handlelength=1.6, borderaxespad=0, columnspacing=1)
    ax.set_ylim(low, high)


def grpo_curves(rows: Sequence[Mapping]) -> dict[str, Figure]:
    """Whether GRPO learns or collapses: figures by name, with a panel for each reward, whatever it is called."""
    logged = {key for row in rows for key in row}
    own = {"rewards": sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))}
    own["cost"] = ["verifier"] if any(key.startswith("verifier/") for key in logged) else []
    return {name: training_curves(rows, [*own.get(name, ()), *keys]) for name, keys in PANELS["grpo"].items()}


def show_live(keys: Sequence[str], seconds: float = 5.0) -> Callable[[Sequence[Mapping]], None]:
    """`on_progress` for `launch`: redraws the curves of `keys` in the cell's output, at most once in `seconds`."""
    handle, drawn = DisplayHandle(), []

    def redraw(rows: Sequence[Mapping]) -> None:
        if drawn and time.monotonic() - drawn[-1] < seconds:
            return
        fig = training_curves(rows, keys, columns=min(len(keys), 2))
        give_alt_text(fig, "curves of the training")
        (handle.update if drawn else handle.display)(fig)  # in its place, so that a progress line beside it stays
        plt.close(fig)  # or the cell shows it once more, and pyplot keeps them all
        drawn.append(time.monotonic())

    return redraw
