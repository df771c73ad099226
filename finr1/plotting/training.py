"""Figures of the training: what fits, what is learned from, and the curves of `metrics.jsonl`.

A raw curve stands faint under its trailing mean, which looks back only. A centred mean, padded at the right edge,
draws a drop there that never was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from finr1.plotting.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, WIDTH, label_rows, safe_text

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
    "verifier": "verifier: completions (%)",
    "time": "time per step (s)",
    "step_time": "time per step (s)",
}
SFT_KEYS = ("loss", "mean_token_accuracy", "learning_rate", "grad_norm", "tokens_per_s", "memory_gib")
GRPO_KEYS = ("reward", "frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio", "entropy", "kl",
             "clip_ratio/region_mean", "grad_norm", "watch")  # fmt: skip
# Panels with several lines: what is logged -> its name in the legend. "watch/a", "watch/b" are lines of panel "watch".
SEVERAL = {
    "memory_gib": {"memory_gib": "held", "peak_memory_gib": "peak"},
    "reward": {"reward": "mean", "reward_std": "spread"},
}
EXACT = ("learning_rate", "problems_left_out", "memory_gib", "peak_memory_gib")  # no noise to smooth
STYLES = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PINK, ":"), (SKY, "--"), (ORANGE, "-.")]


def training_curves(rows: Sequence[Mapping], keys: Sequence[str] = SFT_KEYS, columns: int = 2) -> Figure:
    """One panel for each of `keys` over the steps of `rows` (lines of `metrics.jsonl`); what is not there says so.

    Smoothed over a tenth of the run, at least 3 steps.
    """
    window, lines = max(3, len(rows) // 10), math.ceil(len(keys) / columns)
    log = pd.DataFrame([*rows], columns=None if rows else ["step"]).set_index("step")
    fig, axs = plt.subplots(lines, columns, figsize=(WIDTH, 0.35 + 1.3 * lines), squeeze=False)
    for ax in axs.flat[len(keys) :]:
        ax.set_visible(False)
    for ax, key in zip(axs.flat, keys, strict=False):
        reward = safe_text(key.removeprefix("rewards/").removesuffix("/mean"))
        ax.set_title(TITLES.get(key, reward), loc="left")  # over the panel, where a small one has the room
        _panel(ax, log, key, window)
        if not ax.has_data():
            missing = "no KL term in this run (beta = 0)" if key == "kl" else "not logged in this run"
            ax.text(0.5, 0.5, missing, transform=ax.transAxes, ha="center", va="center", fontsize=8, color="0.4")
            ax.set(xticks=[], yticks=[])
    fig.supxlabel(f"training step (faint: as logged, bold: mean of the last {window})", fontsize=9)
    return fig


def _panel(ax: Axes, log: pd.DataFrame, key: str, window: int) -> None:
    """The lines of one panel; nothing where none was logged. Of several only the bold ones, as raw ones hide others."""
    below = {name: name.removeprefix(f"{key}/") for name in log if name.startswith(f"{key}/")}
    labels = SEVERAL.get(key) or below or {key: ""}
    logged = {name: log[name].dropna() for name in labels if name in log and log[name].notna().any()}
    percent = TITLES.get(key, "").endswith("(%)")
    for (name, values), (colour, line) in zip(logged.items(), STYLES, strict=False):
        values = values * (100 if percent else 1)
        if len(logged) == 1 and name not in EXACT:
            values.plot(ax=ax, color=colour, alpha=0.25, marker="." if len(values) < 40 else "", markersize=3)
        smooth = values if name in EXACT else values.rolling(window, min_periods=1).mean()
        ax.plot(smooth.index, smooth, color=colour, linestyle=line, label=safe_text(labels[name]))
    if not logged:
        return
    ax.set_xlabel("")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    everything = pd.concat(logged.values())
    if key in ("kl", "grad_norm") and everything.max() > 50 * everything.median() > 0:
        ax.set_yscale("log")  # one wild step would flatten all others
        return
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    low, high = ax.get_ylim()
    if key.startswith("rewards/"):  # the paper's are 0 or 1; a reward of another size goes further
        low, high = min(-0.05, low), max(1.05, high)
    elif percent and key != "clip_ratio/region_mean":  # that one is mostly near zero
        low, high = -5, 105
        ax.set_yticks([0, 50, 100])
    if len(logged) > 1:
        high += 0.4 * math.ceil(len(logged) / 2) * (high - low)  # room for the legend
        ax.legend(loc="upper left", ncols=2, handlelength=1.6, borderaxespad=0, columnspacing=1)
    ax.set_ylim(low, high)


def grpo_curves(rows: Sequence[Mapping]) -> Figure:
    """Everything that shows whether GRPO learns or collapses, a panel each.

    Each reward, under whatever name the run logs it ("rewards/<name>/mean"), their total with its spread, groups
    without spread (no gradient comes from them), completion length, truncated share, entropy, KL (only with beta > 0),
    clipped share, gradient norm, signs of hacking, time by phase; where a run has them, what its verifier decided and
    the problems left out of an epoch.
    """
    logged = {key for row in rows for key in row}
    rewards = sorted(key for key in logged if key.startswith("rewards/") and key.endswith("/mean"))
    time_key = "time" if any(key.startswith("time/") for key in logged) else "step_time"
    verifier = ["verifier"] if any(key.startswith("verifier/") for key in logged) else []
    return training_curves(rows, [*rewards, *GRPO_KEYS, time_key, *verifier, *({"problems_left_out"} & logged)])


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
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.3))
    numbers = [str(place + 1) for place in range(len(advantages))]
    table = pd.DataFrame({safe_text(name): values for name, values in rewards.items()}, index=numbers)
    table.plot.bar(stacked=True, ax=left, rot=0, color=[BLUE, ORANGE, GREEN, SKY], edgecolor="white", legend=False)
    left.axhline(table.sum(axis=1).mean(), color="black", linestyle="--", linewidth=1, label="mean of the group")
    left.set(ylabel="reward", xlabel="completion")
    fig.legend(loc="outside upper center", ncols=len(rewards) + 1)
    colours = [BLUE if value > 0 else VERMILION if value < 0 else GREY for value in advantages]
    right.bar_label(right.bar(numbers, advantages, color=colours), fmt="%+.2f", fontsize=8, padding=1)
    right.axhline(0, color="black", linewidth=0.8)
    right.margins(y=0.15)
    right.set(ylabel="advantage", xlabel="completion")
    return fig


def memory_bars(memory: dict[str, dict[str, float]], available: float, where: str) -> Figure:
    """Stacked bars: GiB of each part in each phase (phase -> part -> GiB); a line at the `available` GiB of `where`."""
    fig, ax = plt.subplots(figsize=(WIDTH, 1.3 + 0.42 * len(memory)))
    gib = pd.DataFrame(memory).T.fillna(0)
    colours = [BLUE, SKY, GREEN, PINK, VERMILION, ORANGE, "#F0E442", GREY]
    gib.plot.barh(stacked=True, ax=ax, width=0.8, color=colours, edgecolor="white", legend=False)
    for place, total in enumerate(gib.sum(axis=1)):
        ax.text(total, place, f" {total:.1f}", va="center")
    ax.axvline(available, color="black", linestyle="--", linewidth=1, label=f"{where}: {available:.0f} GiB")
    ax.set(xlabel="GiB in each process", xlim=(0, 1.15 * max(*gib.sum(axis=1), available)))
    label_rows(ax, list(gib.index))
    fig.legend(ncols=4, loc="outside lower center")
    return fig


def pass_rate_histogram(rates: Sequence[float], low: float, high: float, samples: int) -> Figure:
    """Pass rates in [0, 1] of the SFT model on the RL candidates, `samples` answers each; `low` to `high` are chosen.

    A problem that always or never succeeds gives a group without spread, and so no gradient.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 2.2))
    steps = [place / samples for place in range(samples + 1)]
    counts = [sum(round(rate * samples) == place for rate in rates) for place in range(samples + 1)]
    colours = [GREEN if low <= rate <= high else GREY for rate in steps]
    ax.bar_label(ax.bar([100 * rate for rate in steps], counts, width=70 / samples, color=colours), fontsize=7)
    kept = sum(low <= rate <= high for rate in rates)
    ax.set(xlabel=f"pass rate of the SFT model (%), {samples} answers per problem", ylabel="problems")
    ax.set_title(f"chosen (green): {kept} of {len(rates)} problems, pass rate {100 * low:.3g} to {100 * high:.3g} %")
    return fig
