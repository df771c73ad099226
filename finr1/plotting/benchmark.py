"""Figures of the benchmark: every bar and dot with its 95 % interval and n, accuracies in percent.

Rows are those of `evaluation.results_table`, steps those of `evaluation.paired_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from finr1.evaluation.rendering import decided, remark
from finr1.plotting.data import label_rows
from finr1.plotting.style import (
    BLUE,
    GREEN,
    MODEL_COLOURS,
    ORANGE,
    PINK,
    VERMILION,
    WIDTH,
    looks,
    safe_text,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "accuracy": ("low", "high"),
    "lenient": ("lenient_low", "lenient_high"),
    "format": ("format_low", "format_high"),
}
TITLES = {"accuracy": "accuracy", "lenient": "answer read leniently", "format": "in the format"}
PARTS = {  # part of the gain -> (label, colour, hatch)
    "format_part": ("more answers in the format", PINK, "///"),
    "given_format_part": ("better answers in the format", GREEN, ""),
    "without_format_part": ("better answers outside it", ORANGE, "..."),
}
DECODING_MARKERS = {"greedy": "o", "sampled": "s"}


def _ordered(values, order: Sequence[str]) -> list:
    """Distinct `values`, those in `order` first and in that order."""
    found = list(dict.fromkeys(values))
    return sorted(found, key=lambda value: order.index(value) if value in order else len(order))


def _models(rows: Sequence[Mapping]) -> list[str]:
    return _ordered((row["model"] for row in rows), list(MODEL_COLOURS))


def _interval(ax: Axes, x: float, row: Mapping, value: str) -> None:
    low, high = (100 * row[bound] for bound in PANELS[value])
    ax.plot([x, x], [low, high], color="black", linewidth=1)
    ax.text(x, high + 1.5, f"{100 * row[value]:.0f}", ha="center", fontsize=7)


def _bars(ax: Axes, rows: Sequence[Mapping], value: str, decodings: Sequence[str], models: Sequence[str]) -> None:
    width = 0.8 / len(models)
    for row in rows:
        if row[value] is None:
            continue
        model = row["model"]
        x = decodings.index(row["decoding"]) + (models.index(model) - (len(models) - 1) / 2) * width
        look = looks(models)[model]
        ax.bar(x, 100 * row[value], width, color=look.colour, hatch=look.hatch, edgecolor="white")
        _interval(ax, x, row, value)
    ax.set_xticks(range(len(decodings)), decodings)
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(0, 112)
    ax.set_yticks(range(0, 101, 20))


def _patches(models: Sequence[str]) -> list[Patch]:
    return [
        Patch(facecolor=look.colour, hatch=look.hatch, edgecolor="white", label=look.name)
        for look in looks(models).values()
    ]


def _model_legend(fig: Figure, models: Sequence[str]) -> None:
    fig.legend(handles=_patches(models), loc="outside upper center", ncols=len(models))


def _n(rows: Sequence[Mapping]) -> str:
    """The decided items of `rows` as text: "240", or "200–240" where the models differ."""
    sizes = sorted({row["n"] for row in rows})
    return "–".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1])))


def _size(rows: Sequence[Mapping], decoding: str) -> str:
    """The size of a benchmark in words: "greedy: 240 items", "sampled: 240 items × 4 answers"."""
    rows = [row for row in rows if row["decoding"] == decoding]
    each = (rows[0]["samples"] - rows[0]["undecided"]) / rows[0]["n"] if rows[0]["n"] else 0
    return f"{decoding}: {_n(rows)} items" + (f" × {each:.0f} answers" if each > 1 else "")


def benchmark_bars(rows: Sequence[Mapping]) -> Figure:
    """Accuracy, leniently read accuracy and share in the format, by model and decoding, with 95 % intervals."""
    models, decodings = _models(rows), _ordered((row["decoding"] for row in rows), ["greedy", "sampled"])
    fig, axs = plt.subplots(1, len(PANELS), figsize=(WIDTH, 2.6), sharey=True)
    for ax, value in zip(axs, PANELS, strict=True):
        _bars(ax, rows, value, decodings, models)
        ax.set_title(TITLES[value])
    axs[0].set_ylabel("held-out problems (%)")
    undecided, asked = (sum(row[key] for row in rows) for key in ("undecided", "samples"))
    left = f"\n{undecided} of {asked} answers undecided: the accuracies are of the rest" if undecided else ""
    sizes = "; ".join(_size(rows, decoding) for decoding in decodings)
    fig.supxlabel(f"{sizes}; lines: 95 % intervals{left}", fontsize=8)
    _model_legend(fig, models)
    return fig


def paired_forest(steps: Sequence[Mapping]) -> Figure:
    """Difference in accuracy of each step on the same items; hollow where the interval contains zero, or where Holm's
    correction for all comparisons leaves nothing of it.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 0.75 + 0.32 * len(steps)))
    ax.axvline(0, color="black", linewidth=0.8)
    drawn = looks(_ordered((row["after"] for row in steps), list(MODEL_COLOURS)))
    for place, row in enumerate(steps):
        colour = drawn[row["after"]].colour
        ax.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour)
        ax.plot(100 * row["difference"], place, DECODING_MARKERS.get(row["decoding"], "o"), color=colour,
                markerfacecolor="white" if remark(row) else colour)  # fmt: skip
        text = f"{100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    label_rows(ax, [f"{_step_name(row)}, n = {decided(row)}" for row in steps])
    ax.set_xlabel(
        "difference in accuracy (percentage points), paired 95 % interval\nhollow: noise, alone or among so many"
    )
    ax.margins(x=0.08)
    return fig


def _step_name(row: Mapping) -> str:
    names = looks([row["before"], row["after"]])
    return f"{names[row['before']].name} → {names[row['after']].name}, {row['decoding']}"


def accuracy_by(rows: Sequence[Mapping], key: str, decoding: str = "greedy") -> Figure:
    """Accuracy of each model by `key` ("capability", "family", "language", "source"), dots with 95 % intervals."""
    rows = [row for row in rows if row["decoding"] == decoding and row["accuracy"] is not None]
    models, groups = _models(rows), list(dict.fromkeys(sorted(row[key] for row in rows)))
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + (0.12 + 0.08 * len(models)) * len(groups)))
    step, drawn = 0.7 / max(len(models), 1), looks(models)
    for row in rows:
        model = row["model"]
        y = groups.index(row[key]) + (models.index(model) - (len(models) - 1) / 2) * step
        colour = drawn[model].colour
        ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour, linewidth=1.1)
        ax.plot(100 * row["accuracy"], y, drawn[model].marker, color=colour, markersize=4, clip_on=False)
    sizes = {group: _n([row for row in rows if row[key] == group]) for group in groups}
    label_rows(ax, [f"{safe_text(g).replace('_', ' ')}, n = {sizes[g]}" for g in groups])
    for edge in np.arange(0.5, len(groups) - 1):
        ax.axhline(edge, color="0.9", linewidth=0.6)
    ax.set(xlim=(-2, 102), xlabel=f"accuracy (%), {decoding} decoding, 95 % interval")
    handles = [
        plt.Line2D([], [], color=look.colour, marker=look.marker, markersize=4, label=look.name)
        for look in drawn.values()
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=max(len(models), 1))
    return fig


PROTOCOL_MARKERS = {"ours": "o", "strict": "s", "lenient": "^", "judge": "D"}


def protocol_scores(rows: Sequence[Mapping], reported: Sequence[Mapping], decoding: str = "greedy") -> Figure:
    """The same answers under each protocol (left), and one model's FinQA score as three groups report it (right).

    `rows` of `evaluation.protocol_rows`; `reported`: {"group", "score" in percent}. Two panels: other questions, other
    models; what they share is that nothing but the protocol differs within a row.
    """
    rows = [row for row in rows if row["decoding"] == decoding and row["accuracy"] is not None]
    models = _models(rows)
    protocols = _ordered((row["protocol"] for row in rows), list(PROTOCOL_MARKERS))
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 1.5 + 0.42 * len(models)), gridspec_kw={"width_ratios": [2.2, 1]}
    )
    colours = dict(zip(protocols, (BLUE, VERMILION, GREEN, PINK), strict=False))
    step = 0.7 / max(len(protocols), 1)
    for row in rows:
        protocol = row["protocol"]
        y = models.index(row["model"]) + (protocols.index(protocol) - (len(protocols) - 1) / 2) * step
        left.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colours[protocol], linewidth=1.1)
        left.plot(100 * row["accuracy"], y, PROTOCOL_MARKERS[protocol], color=colours[protocol], markersize=4.5)
    sizes = {model: _n([row for row in rows if row["model"] == model]) for model in models}
    label_rows(left, [f"{looks(models)[m].name}, n = {sizes[m]}" for m in models])
    left.set(xlim=(-2, 102), xlabel=f"accuracy (%), {decoding}, 95 % interval", title="this run")
    handles = [
        plt.Line2D([], [], color=colours[p], marker=PROTOCOL_MARKERS[p], markersize=4.5, label=p) for p in protocols
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=max(len(protocols), 1))
    right.plot([row["score"] for row in reported], range(len(reported)), "P", color=MODEL_COLOURS["reported"])
    for place, row in enumerate(reported):
        right.annotate(f"{row['score']:.1f}", (row["score"], place), xytext=(0, 5), textcoords="offset points",
                       ha="center", fontsize=7)  # fmt: skip
    label_rows(right, [safe_text(row["group"]) for row in reported])
    right.set(xlim=(50, 72), ylim=(len(reported) - 0.4, -0.8), title="one 7B model,\nthree reports",
              xlabel="FinQA (%)\nno interval")  # fmt: skip
    return fig


def repeated_answers(rows: Sequence[Mapping]) -> Figure:
    """pass@k and maj@k over k by model, with 95 % intervals; `rows` of `evaluation.repeated_table`."""
    models = _models(rows)
    fig, axs = plt.subplots(1, 2, figsize=(WIDTH, 2.6), sharey=True)
    for ax, (value, title) in zip(axs, {"pass": "pass@k", "majority": "majority of k"}.items(), strict=True):
        for place, (model, look) in enumerate(looks(models).items()):
            members = [row for row in rows if row["model"] == model]
            x = [row["k"] * 1.03 ** (place - (len(models) - 1) / 2) for row in members]  # side by side
            y = [100 * row[value] for row in members]
            errors = [[100 * abs(row[value] - row[f"{value}_{end}"]) for row in members] for end in ("low", "high")]
            ax.errorbar(x, y, errors, color=look.colour, marker=look.marker, markersize=4, linewidth=1, label=look.name)
        ks = sorted({row["k"] for row in rows})
        ax.set_xscale("log", base=2)
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.minorticks_off()
        ax.set(xlabel="answers k", title=title, ylim=(-2, 102))
    axs[0].set_ylabel(f"items (%), n = {_n(rows)}, 95 % interval")
    handles, labels = axs[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(models))
    return fig


def decomposition_bars(steps: Sequence[Mapping]) -> Figure:
    """Each step's gain taken apart: what comes from keeping the format, what from better answers; with intervals.

    Side by side and not on top of each other: a part's interval belongs to the part, not to where a pile ends.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 1.1 + 0.52 * len(steps)))
    height = 0.2
    for place, row in enumerate(steps):
        for line, (part, (_, colour, hatch)) in enumerate(PARTS.items()):
            y = place + (line - 1.5) * height
            ax.barh(y, 100 * row[part], height=height, color=colour, hatch=hatch, edgecolor="white")
            ax.plot([100 * row[f"{part}_low"], 100 * row[f"{part}_high"]], [y, y], color="black", linewidth=1)
        y = place + 1.5 * height
        if "as_judged" not in row:  # a judge's error is not taken out of the parts, and so not of their sum
            ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color="black", linewidth=1)
        ax.plot(100 * row.get("as_judged", row["difference"]), y, "D", color="black", markersize=4, clip_on=False)
    ax.axvline(0, color="black", linewidth=0.8)
    label_rows(ax, [f"{_step_name(row)}, n = {decided(row)}" for row in steps])
    note = "\nas judged; the sum's interval has the judge's error: see the paired differences"
    judged = any("as_judged" in row for row in steps)
    fig.supxlabel(
        f"difference in accuracy (percentage points); lines: paired 95 % intervals{note * judged}", fontsize=8
    )
    handles = [Patch(facecolor=c, hatch=h, edgecolor="white", label=label) for label, c, h in PARTS.values()]
    handles.append(plt.Line2D([], [], color="black", marker="D", markersize=4, linestyle="", label="sum"))
    fig.legend(handles=handles, loc="outside upper center", ncols=2)
    return fig


def beside_the_paper(rows: Sequence[Mapping], reported: Sequence[Mapping], this_run: str, apart: str = "") -> Figure:
    """This run (left) and the paper's own numbers (right): two panels, because a level alone compares nothing.

    `rows`: greedy or sampled rows of `results_table`; `reported`: {"model": str, "scores": {benchmark: percent}} in
    the order base, SFT, Fin-R1; `this_run`: what the left panel was measured on and with; `apart`: why nothing of
    it may be compared (`reported.why_apart`), empty where the ledger decides.
    """
    decodings = _ordered((row["decoding"] for row in rows), ["greedy", "sampled"])
    models = _models(rows)
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.0), gridspec_kw={"width_ratios": [1, 1.9]})
    _bars(left, rows, "accuracy", decodings, models)
    left.set(ylabel="accuracy (%), 95 % interval")
    left.set_title(f"this run\n{safe_text(this_run)}", fontsize=8)
    sizes = [f"{decoding}\nn = {_n([row for row in rows if row['decoding'] == decoding])}" for decoding in decodings]
    left.set_xticks(range(len(decodings)), sizes)
    left.legend(handles=_patches(models), loc="upper center", bbox_to_anchor=(0.5, -0.2))
    benchmarks = list(reported[0]["scores"])
    width = 0.8 / len(reported)
    looks = [(0.35, ""), (0.65, "///"), (1.0, "xxx")]
    for place, (row, (alpha, hatch)) in enumerate(zip(reported, looks, strict=True)):
        x = [i + (place - (len(reported) - 1) / 2) * width for i in range(len(benchmarks))]
        right.bar(x, [row["scores"][name] for name in benchmarks], width, color=MODEL_COLOURS["reported"], alpha=alpha,
                  hatch=hatch, edgecolor="white", label=row["model"])  # fmt: skip
    right.set_xticks(range(len(benchmarks)), [name.replace("-", "-\n").replace("_", "_\n") for name in benchmarks])
    right.tick_params(axis="x", labelsize=7, length=0)
    right.set(ylim=(0, 112), yticks=range(0, 101, 20))
    right.set_title("reported by the paper, no intervals\n7B; protocol not stated in full", fontsize=8)
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1)
    heading = "Not comparable with each other" if apart else "Comparable only where the replication ledger compares"
    fig.suptitle(heading, fontsize=9, fontweight="bold")
    return fig
