"""The short run of notebook 05: a handful of algorithms from one model on the same problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from finr1.evaluation import remark
from finr1.plotting.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {
    "grpo": ("GRPO", "black", "o", "-"), "no_kl": ("no KL", GREY, "x", ":"), "gated": ("gated", VERMILION, "s", "--"),
    "dapo": ("DAPO", BLUE, "^", "-."), "overlong": ("overlong", GREY, "v", "--"),
    "dr_grpo": ("Dr. GRPO", GREEN, "D", ":"),
    "gspo": ("GSPO", PINK, "P", "--"), "cispo": ("CISPO", ORANGE, "X", "-."), "gdpo": ("GDPO", SKY, "<", "-"),
    "reuse": ("two uses", GREY, ">", "-"),
}  # fmt: skip


def variants(result: Mapping[str, Any]) -> Figure:
    """Left: format + accuracy of what each sampled. Right: the paired difference to the paper's objective.

    `result` is what `finr1.grpo.variants.compare` gives; bars are 95 % intervals, n counts groups. Hollow where the
    difference is noise: the interval contains zero, or Holm's correction leaves nothing of it.
    """
    others = [row for row in result["rows"] if row["difference"]]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + max(1.6, 0.3 * len(others))), width_ratios=(5, 4))
    _curves(left, result["curves"])
    right.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(others):
        _, colour, marker, _ = LOOKS[row["variant"]]
        low, mid, high = (row["difference"][key] for key in ("low", "difference", "high"))
        right.plot([low, high], [place, place], color=colour)
        face = "white" if remark(row["difference"]) else colour
        right.plot(mid, place, marker, color=colour, markerfacecolor=face, markersize=5)
    right.set_yticks(
        range(len(others)), [f"{LOOKS[row['variant']][0]}, n = {row['difference']['n']}" for row in others]
    )
    right.invert_yaxis()
    right.margins(y=0.15)
    right.set(xlabel="difference to GRPO (95 %)")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(result["curves"]), 4))
    return fig


def _curves(ax: Axes, curves: Mapping[str, Mapping]) -> None:
    """A curve each, side by side at every step, so that no interval hides another."""
    steps = sorted({int(step) for curve in curves.values() for step in curve})
    apart = 0.6 * min(np.diff(steps), default=1) / len(curves)
    for place, (name, curve) in enumerate(curves.items()):
        label, colour, marker, line = LOOKS[name]
        middle, low, high, _ = np.array(list(curve.values())).T
        at = np.array([int(step) for step in curve]) + apart * (place - (len(curves) - 1) / 2)
        ax.errorbar(at, middle, [middle - low, high - middle], color=colour, marker=marker, linestyle=line,
                    markersize=4, elinewidth=0.8, label=label)  # fmt: skip
    counts = sorted({n for curve in curves.values() for *_, n in curve.values()})
    n = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else counts[0]
    ax.set(xlabel=f"training step (n = {n} groups each)", ylabel="format + accuracy (95 %)", xticks=steps)
