"""The short run of notebook 05: a handful of algorithms from one model on the same problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from finr1.plotting.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, WIDTH

if TYPE_CHECKING:
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

    `result` is what `finr1.grpo.variants.compare` gives. Hollow where the interval contains zero.
    """
    others = [row for row in result["rows"] if row["difference"]]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + max(1.6, 0.3 * len(others))), width_ratios=(5, 4))
    for name, curve in result["curves"].items():
        label, colour, marker, line = LOOKS[name]
        steps = [int(step) for step in curve]
        left.plot(steps, list(curve.values()), color=colour, marker=marker, linestyle=line, markersize=4, label=label)
    left.set(xlabel="training step", ylabel="format + accuracy", xticks=steps)
    right.axvline(0, color="black", linewidth=0.8)
    for place, row in enumerate(others):
        _, colour, marker, _ = LOOKS[row["variant"]]
        low, mid, high = (row["difference"][key] for key in ("low", "difference", "high"))
        right.plot([low, high], [place, place], color=colour)
        face = "white" if low <= 0 <= high else colour
        right.plot(mid, place, marker, color=colour, markerfacecolor=face, markersize=5)
    right.set_yticks(
        range(len(others)), [f"{LOOKS[row['variant']][0]}, n = {row['difference']['n']}" for row in others]
    )
    right.invert_yaxis()
    right.margins(y=0.15)
    right.set(xlabel="difference to GRPO (95 %)")
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=min(len(result["curves"]), 4))
    return fig
