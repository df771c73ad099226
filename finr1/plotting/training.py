"""Figures of the training, drawn from `metrics.jsonl`: the raw curve faint under a trailing mean.

A trailing mean looks back only. A centred one uses padding at the right edge, and draws a drop there that never was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from finr1.plotting.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, WIDTH, safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {  # what the trainer logs -> what stands over its panel; a share is shown in percent. Names are TRL 1.16's.
    "loss": "loss (nats / token)",
    "mean_token_accuracy": "token accuracy (%)",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens / s",
    "memory_gib": "memory (GiB)",
    "reward": "total reward",
    "frac_reward_zero_std": "groups without spread (%)",
    "completions/mean_length": "completion length (tokens)",
    "completions/clipped_ratio": "truncated (%)",
    "entropy": "entropy (nats / token)",
    "kl": "KL to the start (nats / token)",
    "clip_ratio/region_mean": "clipped tokens (%)",
    "problems_left_out": "problems left out of the epoch",
    "watch": "signs of reward hacking (%)",
    "time": "time per step (s)",
    "step_time": "time per step (s)",
}
SFT_KEYS = ("loss", "mean_token_accuracy", "learning_rate", "grad_norm", "tokens_per_s", "memory_gib")
GRPO_KEYS = ("reward", "frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio", "entropy", "kl",
             "clip_ratio/region_mean", "grad_norm", "watch")  # fmt: skip
# Panels with several lines: what is logged -> its name in the legend. "watch" and "time" have one for each key below.
SEVERAL = {
    "memory_gib": {"memory_gib": "held", "peak_memory_gib": "peak"},
    "reward": {"reward": "mean", "reward_std": "spread"},
}
EXACT = ("learning_rate", "problems_left_out", "memory_gib", "peak_memory_gib")  # no noise to smooth
STYLES = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PINK, ":"), (SKY, "--"), (ORANGE, "-.")]
HATCHES = [(BLUE, ""), (ORANGE, "///"), (GREEN, "..."), (SKY, "xxx"), (PINK, "++"), (GREY, "\\\\")]
VERIFIER = {  # shares of a step's completions, as the verifier logs them -> what they are
    "verifier/undecided": "undecided by rules", "verifier/cached": "known from before", "verifier/failed": "no verdict",
}  # fmt: skip


def trailing_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Mean of the last `window` values at each place; fewer at the start."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def series(rows: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """Steps and values at which `key` was logged with a number; both empty when it never was."""
    logged = [(row["step"], row[key]) for row in rows if row.get(key) is not None and not math.isnan(row[key])]
    return [step for step, _ in logged], [value for _, value in logged]


def training_curves(rows: Sequence[Mapping], keys: Sequence[str] = SFT_KEYS, columns: int = 2) -> Figure:
    """One panel for each of `keys` over the steps of `rows` (lines of `metrics.jsonl`); what is not there says so.

    Smoothed over a tenth of the run, at least 3 steps.
    """
    window, lines = max(3, len(rows) // 10), math.ceil(len(keys) / columns)
    fig, axs = plt.subplots(lines, columns, figsize=(WIDTH, 0.35 + 1.3 * lines), squeeze=False)
    for ax in axs.flat[len(keys) :]:
        ax.set_visible(False)
    for ax, key in zip(axs.flat, keys, strict=False):
        reward = safe_text(key.removeprefix("rewards/").removesuffix("/mean")).replace("_", " ")
        ax.set_title(TITLES.get(key, reward), loc="left")  # over the panel, where a small one has the room
        _panel(ax, rows, key, window)
        if not ax.has_data():
            missing = "no KL term in this run (beta = 0)" if key == "kl" else "not logged in this run"
            ax.text(0.5, 0.5, missing, transform=ax.transAxes, ha="center", va="center", fontsize=8, color="0.4")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
    fig.supxlabel(f"training step (faint: as logged, bold: mean of the last {window})", fontsize=9)
    return fig


def _panel(ax: Axes, rows: Sequence[Mapping], key: str, window: int) -> None:
    """The lines of one panel; nothing where none was logged. Of several only the bold ones, as raw ones hide others."""
    below = {k: k.removeprefix(f"{key}/").replace("_", " ") for row in rows for k in row if k.startswith(f"{key}/")}
    labels = SEVERAL.get(key) or below or {key: ""}
    logged = {name: series(rows, name) for name in labels}
    logged = {name: drawn for name, drawn in logged.items() if drawn[0]}
    percent = TITLES.get(key, "").endswith("(%)")
    for (name, (steps, values)), (colour, line) in zip(logged.items(), STYLES, strict=False):
        shown = np.array(values) * (100 if percent else 1)
        if len(logged) == 1 and name not in EXACT:
            ax.plot(steps, shown, color=colour, alpha=0.25, marker="." if len(steps) < 40 else "", markersize=3)
        smooth = shown if name in EXACT else trailing_mean(shown, window)
        ax.plot(steps, smooth, color=colour, linestyle=line, label=safe_text(labels[name]))
    if not logged:
        return
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    everything = [value for _, values in logged.values() for value in values]
    if key in ("kl", "grad_norm") and max(everything) > 50 * float(np.median(everything)) > 0:
        ax.set_yscale("log")  # one wild step would flatten all others
        return
    low, high = ax.get_ylim()
    if key.startswith("rewards/"):  # the paper's are 0 or 1; a reward of another size goes further
        low, high = min(-0.05, low), max(1.05, high)
    elif key == "clip_ratio/region_mean":  # mostly near zero
        low, high = 0, max(1, high)
    elif percent:
        low, high = -5, 105
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    if len(logged) > 1:
        ax.legend(loc="upper left", ncols=2, handlelength=1.6, borderaxespad=0, columnspacing=1)
        ax.set_yticks([tick for tick in ax.get_yticks() if tick <= high])
        ax.set_ylim(low := min(0, low), high + 0.4 * math.ceil(len(logged) / 2) * (high - low))  # the legend's room
    if key == "learning_rate":
        ax.yaxis.set_major_formatter("{x:.3g}")


def grpo_curves(rows: Sequence[Mapping]) -> Figure:
    """Everything that shows whether GRPO learns or collapses, a panel each.

    Each reward, under whatever name the run logs it ("rewards/<name>/mean"), their total with its spread, groups
    without spread (no gradient comes from them), completion length, truncated share, entropy, KL (only with beta > 0),
    clipped share, gradient norm, signs of hacking, time by phase; problems left out of an epoch where a run does that.
    """
    logged = {key for row in rows for key in row}
    rewards = sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))
    time_key = "time" if any(key.startswith("time/") for key in logged) else "step_time"
    return training_curves(rows, [*rewards, *GRPO_KEYS, time_key, *({"problems_left_out"} & logged)])


def show_live(keys: Sequence[str], seconds: float = 5.0) -> Callable[[Sequence[Mapping]], None]:
    """`on_progress` for `launch`: redraws the curves of `keys` in the cell's output, at most once in `seconds`."""
    drawn, handle = -math.inf, None

    def redraw(rows: Sequence[Mapping]) -> None:
        nonlocal drawn, handle
        from IPython.display import display

        if time.monotonic() - drawn < seconds:
            return
        drawn = time.monotonic()
        fig = training_curves(rows, keys, columns=min(len(keys), 2))
        if handle is None:
            handle = display(fig, display_id=True)
        else:
            handle.update(fig)  # in its place, so that a progress line beside it stays
        plt.close(fig)  # or the cell shows it once more, and pyplot keeps them all

    return redraw


def toy_grpo(rewards: Mapping[str, Sequence[float]], advantages: Sequence[float]) -> Figure:
    """One group by hand. Left: rewards of each completion, stacked by reward. Right: the advantages they become.

    `rewards`: reward name -> one value per completion; `advantages`: one per completion, in the same order.
    """
    numbers = [str(place + 1) for place in range(len(advantages))]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.3))
    bottom = np.zeros(len(advantages))
    for place, (name, values) in enumerate(rewards.items()):
        colour, hatch = HATCHES[place % len(HATCHES)]
        left.bar(numbers, values, bottom=bottom, color=colour, hatch=hatch, edgecolor="white",
                 label=safe_text(name).replace("_", " "))  # fmt: skip
        bottom += np.asarray(values, dtype=float)
    left.axhline(bottom.mean(), color="black", linestyle="--", linewidth=1, label="mean of the group")
    left.set(ylabel="reward", xlabel="completion")
    fig.legend(loc="outside upper center", ncols=len(rewards) + 1)
    colours = [BLUE if value > 0 else VERMILION if value < 0 else GREY for value in advantages]
    bars = right.bar(numbers, advantages, color=colours)
    right.bar_label(bars, fmt="%+.2f", fontsize=8, padding=1)
    right.axhline(0, color="black", linewidth=0.8)
    right.margins(y=0.15)
    right.set(ylabel="advantage", xlabel="completion")
    return fig


def verifier_shares(rows: Sequence[Mapping], batch_size: int) -> Figure:
    """How much of the reward a verifier decided, and how much it left open; `batch_size` completions per step.

    The title is the share of undecided completions that got no verdict, with Wilson's 95 % interval. Equal answers are
    asked about once, so these are not independent: read it as a lower bound of the width.
    """
    from statsmodels.stats.proportion import proportion_confint

    fig, ax = plt.subplots(figsize=(WIDTH, 2.2))
    totals = {}
    for (key, label), (colour, line), marker in zip(VERIFIER.items(), STYLES, "os^", strict=False):
        steps, values = series(rows, key)
        totals[key] = round(sum(values) * batch_size)
        ax.plot(steps, [100 * value for value in values], color=colour, linestyle=line, label=label, markersize=4,
                marker=marker if len(steps) < 40 else "")  # fmt: skip
    undecided, failed = totals["verifier/undecided"], totals["verifier/failed"]
    title = "rules decided everything"
    if undecided:
        low, high = proportion_confint(failed, undecided, method="wilson")
        share = f"{100 * failed / undecided:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        title = f"no verdict on {share} of {undecided} undecided completions"
    ax.set_title(title, loc="left")
    ax.set(xlabel="training step", ylabel="completions (%)", ylim=(-5, 140), yticks=[0, 50, 100])
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.legend(loc="upper left", ncols=3, handlelength=2.4)
    return fig
