"""Figures of the benchmark: every dot with its 95 % interval and n, accuracies in percent.

Rows are those of `evaluation.results_table`, steps those of `evaluation.paired_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from finr1.plotting.style import GREEN, ORANGE, PINK, WIDTH, Look, dots_with_intervals, legend_of, looks, safe_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {"accuracy": "accuracy", "lenient": "answer read leniently", "format": "in the format"}  # value -> title
PARTS = {  # part of a gain -> how it is drawn
    "format_part": Look(PINK, "o", "more answers in the format"),
    "given_format_part": Look(GREEN, "s", "better answers in the format"),
    "without_format_part": Look(ORANGE, "^", "better answers outside it"),
}
SUM = Look("black", "D", "sum")
DECODING_MARKERS = {"greedy": "o", "sampled": "s"}


def _dots(rows: Sequence[Mapping], by: str, value: str = "accuracy") -> list[dict]:
    """`rows` for `dots_with_intervals`: one line for each value of `by` with its n, one dot for each model."""
    low, high = ("low", "high") if value == "accuracy" else (f"{value}_low", f"{value}_high")
    models, drawn = looks(row["model"] for row in rows), []
    for group in dict.fromkeys(row[by] for row in rows):
        members = [row for row in rows if row[by] == group]
        sizes = sorted({row["n"] for row in members})  # models differ where some answers are undecided
        n = "–".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
        for row in members:
            seeds = row.get("by_seed", {}).values()
            drawn.append({"label": f"{safe_text(group)}, n = {n}", "look": models[row["model"]], "points": seeds}
                         | {"value": row[value], "low": row[low], "high": row[high]})  # fmt: skip
    return drawn


def benchmark_scores(rows: Sequence[Mapping]) -> Figure:
    """Accuracy, leniently read accuracy and share in the format, by model and decoding, with 95 % intervals."""
    models = looks(row["model"] for row in rows)
    fig, axs = plt.subplots(1, len(PANELS), figsize=(WIDTH, 1.6 + 0.2 * len(models)), sharey=True)
    for ax, (value, title) in zip(axs, PANELS.items(), strict=True):
        dots_with_intervals(ax, _dots(rows, "decoding", value))
        ax.set(xlim=(-3, 103), title=title)
    undecided, asked = (sum(row[key] for row in rows) for key in ("undecided", "samples"))
    left = f"\n{undecided} of {asked} answers undecided: the accuracies are of the rest" if undecided else ""
    fig.supxlabel(f"held-out problems (%), n items, 95 % intervals{left}", fontsize=8)
    legend_of(fig, models.values())
    return fig


def accuracy_by(rows: Sequence[Mapping], key: str, decoding: str = "greedy") -> Figure:
    """Accuracy of each model by `key` (capability, family, source, suite, protocol), dots with 95 % intervals."""
    rows = [row for row in rows if row["decoding"] == decoding and row["accuracy"] is not None]
    models, groups = looks(row["model"] for row in rows), {row[key] for row in rows}
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + (0.12 + 0.08 * len(models)) * len(groups)))
    dots_with_intervals(ax, _dots(rows, key))
    ax.set(xlim=(-2, 102), xlabel=f"accuracy (%), {decoding} decoding, 95 % interval")
    legend_of(fig, models.values())
    return fig


def _step_label(step: Mapping) -> str:
    """Which step, in which decoding, on how many of the asked items: those that are decided for both models."""
    before, after = (looks([step[key]])[step[key]].name for key in ("before", "after"))
    asked = step.get("asked") or step["n"]
    n = step["n"] if step["n"] == asked else f"{step['n']} of {asked}"
    return f"{before} → {after}, {step['decoding']}, n = {n}"


def paired_forest(steps: Sequence[Mapping]) -> Figure:
    """Difference in accuracy of each step on the same items; hollow where the interval contains zero, or where Holm's
    correction for all comparisons leaves nothing of it.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 0.75 + 0.32 * len(steps)))
    models, rows = looks(step["after"] for step in steps), []
    for place, step in enumerate(steps):
        look = models[step["after"]]._replace(marker=DECODING_MARKERS.get(step["decoding"], "o"))
        noise = step["inside_noise"] or (step.get("p_holm") is not None and step["p_holm"] >= 0.05)
        rows.append({"label": _step_label(step), "value": step["difference"], "low": step["low"], "high": step["high"],
                     "look": look, "hollow": noise})  # fmt: skip
        text = f"{100 * step['difference']:+.1f} [{100 * step['low']:+.1f}, {100 * step['high']:+.1f}]"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    dots_with_intervals(ax, rows)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("accuracy (percentage points), paired 95 % interval\nhollow: noise, alone or among so many")
    ax.margins(x=0.08)
    return fig


def decomposition(steps: Sequence[Mapping]) -> Figure:
    """Each step's gain taken apart: what comes from keeping the format, what from better answers; with intervals.

    Of a judged step the sum is as judged and has no interval here: the judge's error is not taken out of the parts.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 1.1 + 0.52 * len(steps)))
    rows = []
    for step in steps:
        whole = {"sum": step["difference"], "sum_low": step["low"], "sum_high": step["high"]}
        if "as_judged" in step:
            whole = {"sum": step["as_judged"], "sum_low": None, "sum_high": None}
        for part, look in (PARTS | {"sum": SUM}).items():
            value, low, high = ((step | whole)[f"{part}{end}"] for end in ("", "_low", "_high"))
            rows.append({"label": _step_label(step), "value": value, "low": low, "high": high, "look": look})
    dots_with_intervals(ax, rows)
    ax.axvline(0, color="black", linewidth=0.8)
    judged = any("as_judged" in step for step in steps)
    note = "\nas judged; the sum's interval has the judge's error: see the paired differences" if judged else ""
    fig.supxlabel(f"difference in accuracy (percentage points); lines: paired 95 % intervals{note}", fontsize=8)
    legend_of(fig, [*PARTS.values(), SUM], ncols=2)
    return fig


def beside_the_paper(rows: Sequence[Mapping], reported: Sequence[Mapping], this_run: str, apart: str = "") -> Figure:
    """This run (left) and the paper's own numbers (right): two panels, because a level alone compares nothing.

    `rows` of `results_table`, or means over seeds with "by_seed" and "seeds"; `reported` of `reported.recipe_rows`, or
    empty; `this_run`: what was measured, and with which model; `apart`: why none of it may be compared
    (`reported.why_apart`), empty where the ledger decides.
    """
    fig, axs = plt.subplots(1, 2 if reported else 1, figsize=(WIDTH, 3.4), squeeze=False)
    left, right = axs[0, 0], axs[0, -1]
    dots_with_intervals(left, _dots(rows, "decoding"))
    seeds = max((row.get("seeds", 0) for row in rows), default=0)
    over = f"\n{seeds} seeds (small dots), over seeds and items" if seeds > 1 else ""
    left.set(xlim=(-3, 103), xlabel=f"accuracy (%), 95 % interval{over}")
    left.set_title(f"this run\n{safe_text(this_run)}", fontsize=8)
    legend_of(left, looks(row["model"] for row in rows).values(), loc="upper center", bbox_to_anchor=(0.5, -0.22),
              ncols=2)  # fmt: skip
    if reported:
        shades = [Look(GREEN, marker, row["model"]) for row, marker in zip(reported, "ovsD", strict=True)]
        drawn = [{"label": name, "value": row["scores"][name], "low": None, "high": None, "look": look}
                 for name in reported[0]["scores"] for row, look in zip(reported, shades, strict=True)]  # fmt: skip
        dots_with_intervals(right, drawn, factor=1)
        right.set(xlim=(-3, 103), xlabel="accuracy (%), no intervals")
        right.set_title("reported by the paper: 7B,\nprotocol not stated in full", fontsize=8)
        legend_of(right, shades, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
        heading = "Not comparable with each other" if apart else "Comparable only where the replication ledger compares"
        fig.suptitle(heading, fontsize=9, fontweight="bold")
    return fig
