"""Figures of the data: what was kept, what it looks like, and what the filter caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from finr1.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    WIDTH,
    Look,
    dots_with_intervals,
    label_rows,
    legend_of,
    safe_text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLIT_STYLES = {"train": (BLUE, "-"), "dev": (ORANGE, "--"), "test": (VERMILION, ":")}
LANGUAGE_STYLES = {"en": (BLUE, ""), "zh": (SKY, "///")}
FIRST, SECOND = Look(BLUE, "o", ""), Look(VERMILION, "s", "")


def _share(label: str, k: int, n: int, look: Look = FIRST) -> dict:
    """A row of `dots_with_intervals`: `k` of `n` with Wilson's 95 % interval; no dot where `n` is 0."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(k, n, method="wilson") if n else (None, None)
    return {"label": label, "value": k / n if n else None, "low": low, "high": high, "look": look}


def funnel(rows: Sequence[Mapping]) -> Figure:
    """How many records are left after each stage, raw to kept.

    `rows`: {"stage": str, "count": int}, in order; the first one is the raw count.
    """
    counts = [row["count"] for row in rows]
    raw = max(counts[0], 1) if counts else 1
    fig, ax = plt.subplots(figsize=(WIDTH, 0.7 + 0.3 * len(rows)))
    colours = [GREY, *[SKY] * (len(rows) - 2), BLUE] if len(rows) > 1 else [BLUE]
    ax.barh(range(len(rows)), counts, color=colours[: len(rows)], height=0.7)
    for place, count in enumerate(counts):
        ax.text(count, place, f" {count:,}  ({100 * count / raw:.1f} %)", va="center", fontsize=8)
    label_rows(ax, [safe_text(row["stage"]) for row in rows])
    ax.set_xlim(0, 1.3 * max([*counts, 1]))  # room for the numbers behind the longest bar
    ax.set_xlabel("records (share of the raw ones)")
    return fig


def dataset_overview(rows: Sequence[Mapping], length: str = "tokens") -> Figure:
    """Left: records by answer kind and language. Right: how long they are, by split.

    `rows`: {"answer_kind", "language", "split", <length>: int}; `length` names the key and is the unit on the axis.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
    kinds = [kind for kind, _ in Counter(row["answer_kind"] for row in rows).most_common()]
    start = np.zeros(len(kinds))
    for language in sorted({row["language"] for row in rows}):
        count = Counter(row["answer_kind"] for row in rows if row["language"] == language)
        values = np.array([count[kind] for kind in kinds])
        colour, hatch = LANGUAGE_STYLES.get(language, (GREY, ".."))
        left.barh(range(len(kinds)), values, left=start, color=colour, hatch=hatch, edgecolor="white", label=language)
        start += values
    label_rows(left, [safe_text(kind) for kind in kinds])
    left.set(xlabel="records", title="answer kind")
    left.legend(loc="lower right")
    lengths = [row[length] for row in rows]
    bins = np.histogram_bin_edges(lengths, bins=min(30, max(5, len(set(lengths)))))
    for split in [name for name in SPLIT_STYLES if any(row["split"] == name for row in rows)]:
        values = [row[length] for row in rows if row["split"] == split]
        colour, line = SPLIT_STYLES[split]
        weights = np.full(len(values), 100 / len(values))
        right.hist(values, bins=bins, weights=weights, histtype="step", color=colour, linestyle=line, linewidth=1.4,
                   label=f"{split} (n = {len(values):,})")  # fmt: skip
    right.set(xlabel=length, ylabel="share of the split (%)", title="length")
    right.set_ylim(0, 1.35 * right.get_ylim()[1])  # the legend stands above the curves
    right.legend(loc="upper right", handlelength=1.6)
    return fig


def filter_audit(rows: Sequence[Mapping]) -> Figure:
    """Of the traces with each planted fault, how many did the filter reject? Dots with 95 % intervals.

    `rows`: {"fault": str, "planted": int, "rejected": int}; the fault "none" stands for sound traces, whose rejection
    is the filter's mistake. The title states precision (rejected traces that had a fault) and recall over all faults.
    """
    faulty, sound = ([row for row in rows if (row["fault"] == "none") is of_sound] for of_sound in (False, True))
    drawn = [
        _share(f"{safe_text(row['fault']).replace('_', ' ')}, n = {row['planted']}", row["rejected"], row["planted"])
        for row in faulty
    ]
    drawn += [_share(f"sound (wrongly rejected), n = {row['planted']}", row["rejected"], row["planted"], SECOND)
              for row in sound]  # fmt: skip
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.28 * len(rows)))
    dots_with_intervals(ax, drawn)
    ax.set(xlim=(-2, 102), xlabel="rejected by the filter (%), 95 % interval")
    caught, planted = (sum(row[key] for row in faulty) for key in ("rejected", "planted"))
    rejected = caught + sum(row["rejected"] for row in sound)
    recall = f"recall {100 * caught / planted:.1f} % of {planted}" if planted else "no fault planted"
    precision = f"precision {100 * caught / rejected:.1f} % of {rejected} rejected" if rejected else "nothing rejected"
    ax.set_title(f"{precision}, {recall}", loc="left")
    return fig


def score_distribution(scores: Sequence[Mapping[str, bool]]) -> Figure:
    """The seven criteria. Left: points of each trace; only full marks are kept. Right: share that meets each criterion.

    `scores`: one {criterion: met} per trace, all with the same criteria.
    """
    criteria = list(scores[0]) if scores else []
    totals = Counter(sum(bool(score[name]) for name in criteria) for score in scores)
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 0.9 + 0.26 * max(len(criteria), 5)), gridspec_kw={"width_ratios": [1, 1.1]}
    )
    points = range(len(criteria) + 1)
    bars = left.bar(points, [totals[p] for p in points], color=[SKY] * len(criteria) + [GREEN])
    left.bar_label(bars, fontsize=7)
    left.set(xlabel="criteria met", ylabel="traces", title=f"points (n = {len(scores):,})", xticks=list(points))
    left.margins(y=0.12)
    met = {name: sum(bool(score[name]) for score in scores) for name in criteria}
    dots_with_intervals(right, [_share(safe_text(n).replace("_", " "), k, len(scores)) for n, k in met.items()])
    right.set(xlim=(-2, 102), xlabel="traces that meet it (%)", title="by criterion, 95 % interval")
    return fig


def judge_agreement(yields: Sequence[Mapping], agreements: Sequence[Mapping]) -> Figure:
    """Left: traces kept at each threshold, by judge. Right, where there are two judges: their Cohen's kappa.

    `yields`: rows {judge, least, kept, n}; `agreements`: rows {on, kappa, low, high, n}, kappa in [-1, 1].
    """
    fig, axes = plt.subplots(1, 2 if agreements else 1, figsize=(WIDTH, 2.4), squeeze=False)
    left, right = axes[0, 0], axes[0, -1]
    rows = sorted(yields, key=lambda row: row["least"])
    n = {row["judge"]: row["n"] for row in rows}
    of_judge = {judge: look._replace(name=f"{safe_text(judge)}, n = {n[judge]:,}")
                for judge, look in zip(n, (FIRST, SECOND), strict=False)}  # fmt: skip
    dots_with_intervals(left, [_share(f"at least {r['least']}", r["kept"], r["n"], of_judge[r["judge"]]) for r in rows])
    left.set(xlabel="traces kept (%)", xlim=(-2, 102), title="yield by points, 95 % interval")
    legend_of(fig, list(of_judge.values()))
    if agreements:
        kappas = [{"label": f"{safe_text(row['on'])}, n = {row['n']:,}", "value": row["kappa"], "look": FIRST,
                   "low": row["low"], "high": row["high"]} for row in agreements]  # fmt: skip
        dots_with_intervals(right, kappas, factor=1)
        right.set(xlim=(-1, 1), xlabel="Cohen's kappa, 95 % interval", title="two judges")
    return fig


def pass_rate_histogram(rates: Sequence[float], low: float, high: float, samples: int) -> Figure:
    """Pass rate of the SFT model on each RL candidate; problems between `low` and `high` are chosen.

    A problem that always or never succeeds gives a group without spread, and so no gradient. `rates` in [0, 1], each
    from `samples` answers.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 2.2))
    counts = Counter(round(rate * samples) for rate in rates)
    places = range(samples + 1)
    inside = [low <= place / samples <= high for place in places]
    bars = ax.bar(
        [100 * place / samples for place in places], [counts[place] for place in places], width=70 / samples,
        color=[GREEN if kept else GREY for kept in inside], hatch=["" if kept else "///" for kept in inside],
        edgecolor="white",
    )  # fmt: skip
    ax.bar_label(bars, fontsize=7)
    ax.margins(y=0.12)
    kept = sum(low <= rate <= high for rate in rates)
    ax.set(xlabel=f"pass rate of the SFT model (%), {samples} answers per problem", ylabel="problems")
    ax.set_title(f"chosen (solid): {kept} of {len(rates)} problems, pass rate {100 * low:.3g} to {100 * high:.3g} %")
    return fig
