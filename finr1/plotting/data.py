"""Figures of the data: what was kept, what it looks like, and what the filter caught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from finr1.plotting.style import BLUE, GREY, SKY, WIDTH, dots_with_intervals, label_rows, legend_of, looks, safe_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def funnel(rows: Sequence[Mapping]) -> Figure:
    """How many records are left after each stage; `rows`: {"stage", "count"} in order, the raw ones first."""
    counts = [row["count"] for row in rows]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.7 + 0.3 * len(rows)))
    ax.barh(range(len(rows)), counts, color=[GREY, *[SKY] * (len(rows) - 2), BLUE][: len(rows)], height=0.7)
    for place, count in enumerate(counts):
        ax.text(count, place, f" {count:,}  ({100 * count / max(counts[0], 1):.1f} %)", va="center", fontsize=8)
    label_rows(ax, [safe_text(row["stage"]) for row in rows])
    ax.set_xlim(0, 1.3 * max([*counts, 1]))  # room for the numbers behind the longest bar
    ax.set_xlabel("records (share of the raw ones)")
    return fig


def dataset_overview(rows: Sequence[Mapping], length: str) -> Figure:
    """Left: records by answer kind and language. Right: how long they are, by split.

    `rows`: {"answer_kind", "language", "split", <length>: int}; `length` names the key and is the unit on the axis.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
    table = pd.DataFrame(rows)
    kinds = pd.crosstab(table["answer_kind"], table["language"]).loc[table["answer_kind"].value_counts().index]
    kinds.plot.barh(stacked=True, ax=left, width=0.8, color=[BLUE, SKY], edgecolor="white")
    label_rows(left, [safe_text(kind) for kind in kinds.index])
    left.set(xlabel="records", ylabel="", title="answer kind")
    left.legend(loc="lower right")
    bins = np.histogram_bin_edges(table[length], bins=20)
    for (split, values), line in zip(table.groupby("split")[length], ("-", "--", ":"), strict=False):
        right.hist(values, bins=bins, weights=np.full(len(values), 100 / len(values)), histtype="step",
                   linestyle=line, linewidth=1.4, label=f"{split} (n = {len(values):,})")  # fmt: skip
    right.set(xlabel=length, ylabel="share of the split (%)", title="length")
    right.set_ylim(0, 1.35 * right.get_ylim()[1])  # the legend stands above the curves
    right.legend(loc="upper right", handlelength=1.6)
    return fig


def _share_dots(rows: Sequence[Mapping]) -> list[dict]:
    """For `dots_with_intervals`: `k` of `n` with Wilson's 95 % interval; no dot where `n` is 0."""
    from statsmodels.stats.proportion import proportion_confint

    series, drawn = looks(row.get("series", "") for row in rows), []
    for row in rows:
        k, n = row["k"], row["n"]
        low, high = proportion_confint(k, n, method="wilson") if n else (None, None)
        drawn.append({"label": f"{safe_text(row['label'])}, n = {n:,}", "look": series[row.get("series", "")]}
                     | {"value": k / n if n else None, "low": low, "high": high})  # fmt: skip
    return drawn


def shares(rows: Sequence[Mapping], unit: str) -> Figure:
    """Dots with 95 % intervals of shares; `rows`: {"label", "k", "n"}, and "series" where a label has several dots."""
    labels, drawn = {row["label"] for row in rows}, _share_dots(rows)
    fig, ax = plt.subplots(figsize=(WIDTH, 1 + 0.28 * len(labels)))
    dots_with_intervals(ax, drawn)
    ax.set(xlim=(-2, 102), xlabel=f"{unit} (%), 95 % interval")
    if any("series" in row for row in rows):
        legend_of(fig, dict.fromkeys(row["look"] for row in drawn))
    return fig


def score_distribution(scores: Sequence[Mapping[str, bool]]) -> Figure:
    """The seven criteria, {criterion: met} per trace. Left: points of each trace. Right: share that meets each."""
    met = pd.DataFrame(scores).astype(bool)
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + 0.26 * max(len(met.columns), 5)))
    points = met.sum(axis=1).value_counts().reindex(range(len(met.columns) + 1), fill_value=0)
    left.bar_label(left.bar(points.index, points, color=[SKY] * len(met.columns) + [BLUE]), fontsize=7)
    left.set(xlabel="criteria met", ylabel="traces", title=f"points (n = {len(met):,})", xticks=list(points.index))
    dots_with_intervals(right, _share_dots([{"label": name, "k": met[name].sum(), "n": len(met)} for name in met]))
    right.set(xlim=(-2, 102), xlabel="traces that meet it (%)", title="by criterion, 95 % interval")
    return fig
