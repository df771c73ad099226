"""Figures of the benchmark: every bar and dot with its 95 % interval and n, accuracies in percent.

Rows are those of `evaluation.results_table`, steps those of `evaluation.paired_table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from finr1.plotting.style import (
    BLUE,
    GREEN,
    MODEL_COLOURS,
    ORANGE,
    PINK,
    VERMILION,
    WIDTH,
    Look,
    dots_with_intervals,
    handles_of,
    label_rows,
    legend_of,
    looks,
    safe_text,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {  # value -> what the panel is called
    "accuracy": "accuracy", "lenient": "answer read leniently", "format": "in the format",
}  # fmt: skip
PARTS = {  # part of a gain -> how it is drawn
    "format_part": Look(PINK, "o", "more answers in the format"),
    "given_format_part": Look(GREEN, "s", "better answers in the format"),
    "without_format_part": Look(ORANGE, "^", "better answers outside it"),
}
SUM = Look("black", "D", "sum")
DECODING_MARKERS = {"greedy": "o", "sampled": "s"}
PROTOCOLS = {
    "ours": Look(BLUE, "o", "ours"), "strict": Look(VERMILION, "s", "strict"),
    "lenient": Look(GREEN, "^", "lenient"), "judge": Look(PINK, "D", "judge"),
}  # fmt: skip


def _in_order(values: Iterable[str], order: Iterable[str] = MODEL_COLOURS) -> list[str]:
    """Distinct `values`, those in `order` first and in that order."""
    known, seen = list(order), list(dict.fromkeys(values))
    return sorted(seen, key=lambda value: known.index(value) if value in known else len(known))


def _models(rows: Sequence[Mapping]) -> dict[str, Look]:
    return looks(_in_order(row["model"] for row in rows))


def _n(rows: Sequence[Mapping]) -> str:
    """The decided items of `rows` as text: "240", or "200–240" where the models differ."""
    sizes = sorted({row["n"] for row in rows})
    return "–".join(str(size) for size in dict.fromkeys((sizes[0], sizes[-1]))) if sizes else "0"


def _step_label(step: Mapping) -> str:
    """Which step, in which decoding, on how many of the asked items: those that are decided for both models."""
    pair = looks([step["before"], step["after"]])
    asked = step.get("asked") or step["n"]
    n = step["n"] if step["n"] == asked else f"{step['n']} of {asked}"
    return f"{pair[step['before']].name} → {pair[step['after']].name}, {step['decoding']}, n = {n}"


def _rows(rows: Sequence[Mapping], value: str = "accuracy") -> list[dict]:
    """`rows` for `dots_with_intervals`: a line for each decoding with its n, a dot for each model."""
    low, high = ("low", "high") if value == "accuracy" else (f"{value}_low", f"{value}_high")
    models, drawn = _models(rows), []
    for decoding in _in_order((row["decoding"] for row in rows), DECODING_MARKERS):
        members = [row for model in models for row in rows if (row["decoding"], row["model"]) == (decoding, model)]
        each = max((row["samples"] - row["undecided"]) / row["n"] if row["n"] else 0 for row in members)
        label = f"{decoding},\nn = {_n(members)}" + (f" × {each:.0f}" if each > 1 else "")
        drawn += [{"label": label, "value": row[value], "low": row[low], "high": row[high],
                   "look": models[row["model"]]} for row in members]  # fmt: skip
    return drawn


def benchmark_scores(rows: Sequence[Mapping]) -> Figure:
    """Accuracy, leniently read accuracy and share in the format, by model and decoding, with 95 % intervals."""
    models = _models(rows)
    fig, axs = plt.subplots(1, len(PANELS), figsize=(WIDTH, 1.6 + 0.2 * len(models)), sharey=True)
    for ax, (value, title) in zip(axs, PANELS.items(), strict=True):
        dots_with_intervals(ax, _rows(rows, value))
        ax.set(xlim=(-3, 103), title=title)
    undecided, asked = (sum(row[key] for row in rows) for key in ("undecided", "samples"))
    left = f"\n{undecided} of {asked} answers undecided: the accuracies are of the rest" if undecided else ""
    fig.supxlabel(f"held-out problems (%), n items × answers to each, 95 % intervals{left}", fontsize=8)
    legend_of(fig, list(models.values()))
    return fig


def paired_forest(steps: Sequence[Mapping]) -> Figure:
    """Difference in accuracy of each step on the same items; hollow where the interval contains zero, or where Holm's
    correction for all comparisons leaves nothing of it.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 0.75 + 0.32 * len(steps)))
    ax.axvline(0, color="black", linewidth=0.8)
    colours = looks(_in_order(step["after"] for step in steps))
    rows = []
    for place, step in enumerate(steps):
        look = colours[step["after"]]._replace(marker=DECODING_MARKERS.get(step["decoding"], "o"))
        noise = step["inside_noise"] or (step.get("p_holm") is not None and step["p_holm"] >= 0.05)
        drawn = {"label": _step_label(step), "value": step["difference"], "look": look, "hollow": noise}
        rows.append(step | drawn)
        text = f"{100 * step['difference']:+.1f} [{100 * step['low']:+.1f}, {100 * step['high']:+.1f}]"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    dots_with_intervals(ax, rows)
    ax.set_xlabel(
        "difference in accuracy (percentage points), paired 95 % interval\nhollow: noise, alone or among so many"
    )
    ax.margins(x=0.08)
    return fig


def decomposition(steps: Sequence[Mapping]) -> Figure:
    """Each step's gain taken apart: what comes from keeping the format, what from better answers; with intervals.

    Of a judged step the sum is as judged and has no interval here: the judge's error is not taken out of the parts.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 1.1 + 0.52 * len(steps)))
    rows = []
    for step in steps:
        label = _step_label(step)
        for part, look in PARTS.items():
            ends = {"low": step[f"{part}_low"], "high": step[f"{part}_high"]}
            rows.append({"label": label, "value": step[part], **ends, "look": look})
        low, high = (None, None) if "as_judged" in step else (step["low"], step["high"])
        value = step.get("as_judged", step["difference"])
        rows.append({"label": label, "value": value, "low": low, "high": high, "look": SUM})
    dots_with_intervals(ax, rows)
    ax.axvline(0, color="black", linewidth=0.8)
    judged = any("as_judged" in step for step in steps)
    note = "\nas judged; the sum's interval has the judge's error: see the paired differences" * judged
    fig.supxlabel(f"difference in accuracy (percentage points); lines: paired 95 % intervals{note}", fontsize=8)
    legend_of(fig, [*PARTS.values(), SUM], columns=2)
    return fig


def accuracy_by(rows: Sequence[Mapping], key: str, decoding: str = "greedy") -> Figure:
    """Accuracy of each model by `key` ("capability", "family", "language", "source"), dots with 95 % intervals."""
    rows = [row for row in rows if row["decoding"] == decoding and row["accuracy"] is not None]
    models, groups = _models(rows), sorted({row[key] for row in rows})
    drawn = []
    for group in groups:
        members = sorted((row for row in rows if row[key] == group), key=lambda row: list(models).index(row["model"]))
        label = f"{safe_text(group).replace('_', ' ')}, n = {_n(members)}"
        drawn += [row | {"label": label, "value": row["accuracy"], "look": models[row["model"]]} for row in members]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9 + (0.12 + 0.08 * len(models)) * len(groups)))
    dots_with_intervals(ax, drawn)
    ax.set(xlim=(-2, 102), xlabel=f"accuracy (%), {decoding} decoding, 95 % interval")
    legend_of(fig, list(models.values()))
    return fig


def protocol_scores(rows: Sequence[Mapping], reported: Sequence[Mapping], decoding: str = "greedy") -> Figure:
    """The same answers under each protocol (left), and one model's FinQA score as three groups report it (right).

    `rows` of `evaluation.protocol_rows`; `reported`: {"group", "score" in percent}. Two panels: other questions, other
    models; what they share is that nothing but the protocol differs within a row.
    """
    rows = [row for row in rows if row["decoding"] == decoding and row["accuracy"] is not None]
    models = _models(rows)
    protocols = _in_order((row["protocol"] for row in rows), PROTOCOLS)
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 1.5 + 0.42 * len(models)), gridspec_kw={"width_ratios": [2.2, 1]}
    )
    drawn = []
    for model, look in models.items():
        members = [row for name in protocols for row in rows if (row["model"], row["protocol"]) == (model, name)]
        label = f"{look.name}, n = {_n(members)}"
        drawn += [
            row | {"label": label, "value": row["accuracy"], "look": PROTOCOLS[row["protocol"]]} for row in members
        ]
    dots_with_intervals(left, drawn)
    left.set(xlim=(-2, 102), xlabel=f"accuracy (%), {decoding}, 95 % interval", title="this run")
    legend_of(fig, [PROTOCOLS[name] for name in protocols])
    right.plot([row["score"] for row in reported], range(len(reported)), "P", color=MODEL_COLOURS["reported"])
    for place, row in enumerate(reported):
        right.annotate(f"{row['score']:.1f}", (row["score"], place), xytext=(0, 5), textcoords="offset points",
                       ha="center", fontsize=7)  # fmt: skip
    label_rows(right, [safe_text(row["group"]) for row in reported])
    right.set(xlim=(50, 72), ylim=(len(reported) - 0.4, -0.8), title="one 7B model,\nthree reports",
              xlabel="FinQA (%)\nno interval")  # fmt: skip
    return fig


def beside_the_paper(rows: Sequence[Mapping], reported: Sequence[Mapping], this_run: str, apart: str = "") -> Figure:
    """This run (left) and the paper's own numbers (right): two panels, because a level alone compares nothing.

    `rows`: greedy or sampled rows of `results_table`; `reported`: {"model": str, "scores": {benchmark: percent}} in
    the order base, SFT, Fin-R1; `this_run`: what the left panel was measured on and with; `apart`: why nothing of
    it may be compared (`reported.why_apart`), empty where the ledger decides.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.2))
    dots_with_intervals(left, _rows(rows))
    left.set(xlim=(-3, 103), xlabel="accuracy (%), 95 % interval")
    left.set_title(f"this run\n{safe_text(this_run)}", fontsize=8)
    models = _models(rows)
    shades = [Look(colour, marker, row["model"]) for row, colour, marker in
              zip(reported, ("#7FCEB9", "#3FB696", MODEL_COLOURS["reported"]), "os^", strict=True)]  # fmt: skip
    drawn = [
        {"label": name, "value": row["scores"][name], "low": None, "high": None, "look": look}
        for name in reported[0]["scores"]
        for row, look in zip(reported, shades, strict=True)
    ]
    dots_with_intervals(right, drawn, factor=1)
    right.set(xlim=(-3, 103), xlabel="accuracy (%), no intervals")
    right.set_title("reported by the paper: 7B,\nprotocol not stated in full", fontsize=8)
    heading = "Not comparable with each other" if apart else "Comparable only where the replication ledger compares"
    fig.suptitle(heading, fontsize=9, fontweight="bold")
    for ax, looks_of in ((left, list(models.values())), (right, shades)):
        ax.legend(handles=handles_of(looks_of), loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return fig
