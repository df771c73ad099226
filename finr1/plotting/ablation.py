"""The ablation over several seeds, beside the paper's; rows are those of notebook 09."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from finr1.plotting.style import MODEL_COLOURS, MODEL_NAMES, WIDTH, looks, safe_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ablation(rows: Sequence[Mapping], reported: Sequence[Mapping], this_run: str) -> Figure:
    """Each arm's accuracy over the seeds (left), and the means that the paper reports (right): two panels, two axes.

    Small dots: one seed each. `reported`: {"model", "mean" in percent} in the order base, GRPO only, SFT, SFT + GRPO;
    without any there is one panel. `this_run`: what the arms were measured on.
    """
    ratios = [1.5, 1] if reported else [1]
    fig, panels = plt.subplots(1, len(ratios), figsize=(WIDTH, 3.3), squeeze=False, width_ratios=ratios)
    left, arms = panels[0][0], list(dict.fromkeys(row["model"] for row in rows))
    decodings, look = list(dict.fromkeys(row["decoding"] for row in rows)), looks(arms)
    fills = dict(zip(decodings, ("full", "none"), strict=False))  # a decoding by fill, an arm by colour and marker
    for row in rows:
        x = arms.index(row["model"]) + 0.3 * (decodings.index(row["decoding"]) - (len(decodings) - 1) / 2)
        colour, marker = look[row["model"]].colour, look[row["model"]].marker
        seeds = [100 * value for value in row["by_seed"].values()]
        left.plot([x, x], [100 * row["low"], 100 * row["high"]], color=colour, linewidth=1.4)
        left.plot(x, 100 * row["accuracy"], marker, color=colour, fillstyle=fills[row["decoding"]], markersize=6)
        left.plot([x + 0.09] * len(seeds), seeds, ".", color=colour, alpha=0.5, markersize=5)
        left.text(x, 100 * row["high"] + 2, f"{100 * row['accuracy']:.0f}", ha="center", fontsize=7)
    names = [look[arm].name.replace(" ", "\n", 1) for arm in arms]
    left.set_xticks(range(len(arms)), names, fontsize=8 if len(arms) < 6 else 6)
    left.set(ylabel="accuracy (%)", xlim=(-0.5, len(arms) - 0.5), ylim=(-3, 106))
    left.set_title(f"this run\n{safe_text(this_run)}", fontsize=8)
    handles = [plt.Line2D([], [], color="black", marker="o", fillstyle=fills[name], label=name) for name in decodings]
    handles.append(plt.Line2D([], [], color="black", marker=".", linestyle="", alpha=0.5, label="one seed"))
    left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, columnspacing=1)
    if reported:
        right, means = panels[0][1], [row["mean"] for row in reported]
        right.bar(range(len(means)), means, 0.6, color=MODEL_COLOURS["reported"], hatch="...", edgecolor="white")
        for place, mean in enumerate(means):
            right.text(place, mean + 1, f"{mean:.1f}", ha="center", fontsize=7)
        paper = [MODEL_NAMES[arm].replace(" ", "\n", 1) for arm in ("base", "zero", "sft", "grpo")]
        right.set_xticks(range(len(means)), paper, fontsize=7)
        right.set(ylim=(-3, 106), ylabel="mean of five benchmarks (%)")
        right.set_title("reported by the paper: 7B,\nno seeds, no intervals", fontsize=8)
        fig.suptitle("Not comparable with each other", fontsize=9, fontweight="bold")
    seeds, n = rows[0]["seeds"], min(row["n"] for row in rows)  # an arm with undecided answers has fewer items
    held = "seeds and items" if seeds > 1 else "items"
    sizes = f"{seeds} seed{'s' if seeds > 1 else ''}, n = {n} items in all"
    fig.supxlabel(f"{'left: ' if reported else ''}{sizes}; lines: 95 % intervals over {held}", fontsize=8)
    return fig
