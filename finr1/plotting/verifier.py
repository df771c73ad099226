"""How much of the reward a verifier decided, and how much it left open, over the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

from finr1.plotting.style import BLUE, GREEN, VERMILION, WIDTH
from finr1.plotting.training import series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = {  # `rewards.verified` logs each as "verifier/<name>", a share of the step's completions
    "undecided": ("undecided by rules", BLUE, "-", "o"),
    "cached": ("known from before", GREEN, "--", "s"),
    "failed": ("no verdict", VERMILION, ":", "^"),
}


def verifier_shares(rows: Sequence[Mapping], batch_size: int) -> Figure:
    """Shares of the completions of each step in `rows` (lines of `metrics.jsonl`); `batch_size` completions a step.

    Over them stands the share of the undecided ones that got no verdict, with Wilson's 95 % interval. Equal answers are
    asked about once, so these are not independent: read it as a lower bound of the width.
    """
    from statsmodels.stats.proportion import proportion_confint

    fig, ax = plt.subplots(figsize=(WIDTH, 2.2))
    totals = {}
    for name, (label, colour, line, marker) in _LINES.items():
        steps, values = series(rows, f"verifier/{name}")
        totals[name] = round(sum(values) * batch_size)
        ax.plot(
            steps, [100 * value for value in values], color=colour, linestyle=line, label=label,
            marker=marker if len(steps) < 40 else "", markersize=4,
        )  # fmt: skip
    undecided, failed = totals["undecided"], totals["failed"]
    title = "rules decided everything"
    if undecided:
        low, high = proportion_confint(failed, undecided, method="wilson")
        share = f"{100 * failed / undecided:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        title = f"no verdict on {share} of {undecided} undecided completions"
    ax.set_title(title, loc="left")
    ax.set(xlabel="training step", ylabel="completions (%)", ylim=(-5, 140))
    ax.set_yticks([0, 50, 100])
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.legend(loc="upper left", ncols=3, handlelength=2.4)
    return fig
