"""Accuracies in percent, each with its interval and n; rows and steps of `evaluation.results_table`, `paired_table`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from finr1.plotting.style import WIDTH, Look, dots, legend_of, looks, safe_text


def estimates(rows: Sequence[Mapping], key: str, value: str = "accuracy") -> list[dict]:
    """`rows` for `dots`: a line for each value of `key` with its n, on it the `value` of each model as a dot.

    `value`: accuracy, lenient, format. What chance is worth is an accuracy, and stands in every decoding.
    """
    low, high = ("low", "high") if value == "accuracy" else (f"{value}_low", f"{value}_high")
    models, drawn = looks(row["model"] for row in rows), []
    asked = [row for row in rows if row["decoding"] != "none"]
    for line in dict.fromkeys(row[key] for row in asked):
        sizes = [row["n"] for row in asked if row[key] == line]
        n = "–".join(str(size) for size in sorted({min(sizes), max(sizes)}))  # models differ in undecided answers
        for row in rows:
            chance = row["decoding"] == "none"
            if row[key] != line and not (chance and key == "decoding") or chance and value != "accuracy":
                continue
            drawn.append({"label": f"{line}, n = {n}", "look": models[row["model"]], "value": row[value],
                          "low": row[low], "high": row[high], "points": row.get("by_seed", {}).values()})  # fmt: skip
    return drawn


def step_label(step: Mapping) -> str:
    """Which step, in which decoding, on how many of the asked items: those that are decided for both models."""
    before, after = (looks([step[key]])[step[key]].name for key in ("before", "after"))
    asked = step.get("asked") or step["n"]
    n = step["n"] if step["n"] == asked else f"{step['n']} of {asked}"
    return f"{before} → {after}, {step['decoding']}, n = {n}"


def paired_forest(steps: Sequence[Mapping]) -> Figure:
    """Difference in accuracy of each step on the same items; hollow where it is noise, alone or among so many."""
    fig, ax = plt.subplots(figsize=(WIDTH, 0.75 + 0.32 * len(steps)))
    models, rows = looks(step["after"] for step in steps), []
    for place, step in enumerate(steps):
        noise = step["inside_noise"] or (step.get("p_holm") is not None and step["p_holm"] >= 0.05)
        rows.append({"label": step_label(step), "look": models[step["after"]], "hollow": noise,
                     "value": step["difference"], "low": step["low"], "high": step["high"]})  # fmt: skip
        text = f"{100 * step['difference']:+.1f} [{100 * step['low']:+.1f}, {100 * step['high']:+.1f}]"
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
    dots(ax, rows)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("accuracy (percentage points), paired 95 % interval\nhollow: noise, alone or among so many")
    ax.set_title(f"{sum(not row['hollow'] for row in rows)} of {len(rows)} steps are more than noise", loc="left")
    ax.margins(x=0.08)
    return fig


def beside_the_paper(rows: Sequence[Mapping], reported: Sequence[Mapping], this_run: str, apart: str = "") -> Figure:
    """This run (left) and the paper's own numbers (right): two panels, because a level alone compares nothing.

    `rows` of `results_table`, or means over seeds with "by_seed" and "seeds"; `reported` of `reported.recipe_rows`, or
    empty; `this_run`: what was measured, with which model; `apart`: why nothing compares, empty: the ledger decides.
    """
    fig, axs = plt.subplots(1, 2 if reported else 1, figsize=(WIDTH, 3.4), squeeze=False)
    seeds = max((row.get("seeds", 0) for row in rows), default=0)
    over = f"\n{seeds} seeds (small dots), over seeds and items" if seeds > 1 else ""
    panels = [(estimates(rows, "decoding"), f"this run\n{safe_text(this_run)}", f"95 % interval{over}")]
    if reported:
        shades = [Look("#009E73", marker, row["model"]) for row, marker in zip(reported, "ovsD", strict=True)]
        drawn = [{"label": name, "value": row["scores"][name] / 100, "low": None, "high": None, "look": look}
                 for name in reported[0]["scores"] for row, look in zip(reported, shades, strict=True)]  # fmt: skip
        panels.append((drawn, "reported by the paper: 7B,\nprotocol not stated in full", "no intervals"))
        heading = "Not comparable with each other" if apart else "Comparable only where the replication ledger compares"
        fig.suptitle(heading)
    for ax, (drawn, title, intervals) in zip(axs[0], panels, strict=True):
        dots(ax, drawn)
        ax.set(xlim=(-3, 103), xlabel=f"accuracy (%), {intervals}")
        ax.set_title(title, fontsize=8)
        legend_of(ax, drawn, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    return fig
