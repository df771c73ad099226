"""The ablation over several seeds, beside the paper's; rows are those of `ablation.ablation_rows`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from finr1.plotting.style import MODEL_COLOURS, WIDTH, looks, safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {"base": "base", "zero": "GRPO\nonly", "sft": "SFT", "grpo": "SFT +\nGRPO"}
_FILLS = {"greedy": "full", "sampled": "none"}  # a decoding by fill, an arm by colour and marker


def ablation(rows: Sequence[Mapping], reported: Sequence[Mapping], this_run: str) -> Figure:
    """Each arm's accuracy over the seeds (left), and the means that the paper reports (right): two panels, two axes.

    Small dots: one seed each. `reported`: {"model", "mean" in percent} in the order base, GRPO only, SFT, SFT + GRPO.
    `this_run`: what the left panel was measured on.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3), gridspec_kw={"width_ratios": [1.5, 1]})
    arms = [arm for arm in _LABELS if any(row["model"] == arm for row in rows)]
    decodings = list(dict.fromkeys(row["decoding"] for row in rows))
    for row in rows:
        _arm(left, row, arms.index(row["model"]) + 0.3 * (decodings.index(row["decoding"]) - (len(decodings) - 1) / 2))
    left.set_xticks(range(len(arms)), [_LABELS[arm] for arm in arms])
    left.set(ylabel="accuracy (%)", xlim=(-0.5, len(arms) - 0.5))
    left.set_ylim(-3, 103)
    left.set_title(f"this run\n{safe_text(this_run)}", fontsize=8)
    handles = [
        plt.Line2D([], [], color="black", marker="o", fillstyle=_FILLS.get(d, "full"), label=d) for d in decodings
    ]
    handles.append(plt.Line2D([], [], color="black", marker=".", linestyle="", alpha=0.5, label="one seed"))
    left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, columnspacing=1)
    means = [row["mean"] for row in reported]
    right.bar(range(len(means)), means, 0.6, color=MODEL_COLOURS["reported"], hatch="...", edgecolor="white")
    for place, mean in enumerate(means):
        right.text(place, mean + 1, f"{mean:.1f}", ha="center", fontsize=7)
    right.set_xticks(range(len(means)), list(_LABELS.values()))
    right.tick_params(axis="x", labelsize=7)
    right.set(ylim=(-3, 103), ylabel="mean of five benchmarks (%)")
    right.set_title("reported by the paper: 7B,\nno seeds, no intervals", fontsize=8)
    fig.supxlabel(
        f"left: {_sizes(rows)}; lines: 95 % intervals over {'seeds and ' * (rows[0]['seeds'] > 1)}items", fontsize=8
    )
    fig.suptitle("Not comparable with each other", fontsize=9, fontweight="bold")
    return fig


def _sizes(rows: Sequence[Mapping]) -> str:
    """Such as "3 seeds, 1440 items": of the arm that has fewest items, should undecided answers have cost it some."""
    seeds = rows[0]["seeds"]
    return f"{seeds} seed{'s' if seeds > 1 else ''}, n = {min(row['n'] for row in rows)} items in all"


def _arm(ax: Axes, row: Mapping, x: float) -> None:
    """Mean with its interval over seeds and items, its value above, and a dot a seed."""
    look = looks([row["model"]])[row["model"]]
    fill = _FILLS.get(row["decoding"], "full")
    ax.plot([x, x], [100 * row["low"], 100 * row["high"]], color=look.colour, linewidth=1.4)
    ax.plot(x, 100 * row["accuracy"], look.marker, color=look.colour, fillstyle=fill, markersize=6)
    seeds = [100 * value for value in row["by_seed"].values()]
    ax.plot([x + 0.09] * len(seeds), seeds, ".", color=look.colour, alpha=0.5, markersize=5)
    ax.text(x, 100 * row["high"] + 2, f"{100 * row['accuracy']:.0f}", ha="center", fontsize=7)
