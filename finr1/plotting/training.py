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
from matplotlib.ticker import FixedLocator, MaxNLocator

from finr1.plotting.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, WIDTH, safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SFT_KEYS = ("loss", "mean_token_accuracy", "learning_rate", "grad_norm", "tokens_per_s", "memory_gib")
# What the trainer logs -> what stands over its panel, and a factor. Names are TRL 1.16's.
AXES = {
    "loss": ("loss (nats / token)", 1),
    "mean_token_accuracy": ("token accuracy (%)", 100),
    "learning_rate": ("learning rate", 1),
    "grad_norm": ("gradient norm", 1),
    "entropy": ("entropy (nats / token)", 1),
    "reward": ("total reward", 1),
    "reward_std": ("reward spread", 1),
    "frac_reward_zero_std": ("groups without spread (%)", 100),
    "completions/mean_length": ("completion length (tokens)", 1),
    "completions/clipped_ratio": ("truncated (%)", 100),
    "kl": ("KL to the start (nats / token)", 1),
    "clip_ratio/region_mean": ("clipped tokens (%)", 100),
    "step_time": ("time a step (s)", 1),
    "tokens_per_s": ("tokens / s", 1),
    "memory_gib": ("memory (GiB)", 1),
    "problems_left_out": ("problems left out of the epoch", 1),
}
STYLES = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PINK, ":"), (SKY, "--"), (ORANGE, "-.")]


def trailing_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Mean of the last `window` values at each place; fewer at the start."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def series(rows: Sequence[Mapping], key: str) -> tuple[list[int], list[float]]:
    """Steps and values at which `key` was logged with a number; both empty when it never was."""
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None and not math.isnan(row[key])]
    return [step for step, _ in found], [value for _, value in found]


def default_window(rows: Sequence[Mapping]) -> int:
    """A tenth of the run, at least 3 steps."""
    return max(3, len(rows) // 10)


def curve(ax: Axes, rows: Sequence[Mapping], key: str, window: int, style=STYLES[0], label: str | None = None) -> bool:
    """Draw `key` into `ax`, faint raw and bold trailing mean; False (and nothing drawn) when it was not logged."""
    steps, values = series(rows, key)
    if not steps:
        return False
    factor = AXES.get(key, ("", 1))[1]
    values = [factor * value for value in values]
    colour, line = style
    if key in ("learning_rate", "problems_left_out"):  # no noise to smooth
        ax.yaxis.set_major_formatter("{x:.3g}")
    else:
        ax.plot(steps, values, color=colour, alpha=0.25, marker="." if len(steps) < 40 else "", markersize=3)
        values = trailing_mean(values, window)
    ax.plot(steps, values, color=colour, linestyle=line, label=label)
    return True


def _name(ax: Axes, text: str) -> None:
    """What the panel shows and in which unit: over it, where a small panel has the room."""
    ax.set_title(text, loc="left")


def _missing(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=8, color="0.4")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)


def _finish(fig: Figure, axs: Sequence[Axes], used: int, window: int) -> Figure:
    for ax in axs[used:]:
        ax.set_visible(False)
    for ax in axs[:used]:
        if ax.has_data():
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
            if ax.get_yscale() == "linear" and not isinstance(ax.yaxis.get_major_locator(), FixedLocator):
                ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    fig.supxlabel(f"training step (faint: as logged, bold: mean of the last {window})", fontsize=9)
    return fig


def _grid(count: int, columns: int = 2, height: float = 1.3) -> tuple[Figure, list[Axes]]:
    rows = math.ceil(count / columns)
    fig, axs = plt.subplots(rows, columns, figsize=(WIDTH, 0.35 + height * rows), squeeze=False)
    return fig, list(axs.flat)


def training_curves(rows: Sequence[Mapping], keys: Sequence[str] = SFT_KEYS, window: int | None = None) -> Figure:
    """One panel for each of `keys` over the steps of `rows` (lines of `metrics.jsonl`)."""
    window = window or default_window(rows)
    fig, axs = _grid(len(keys))
    for ax, key in zip(axs, keys, strict=False):
        _name(ax, AXES.get(key, (safe_text(key), 1))[0])
        drawn = _memory_panel(ax, rows) if key == "memory_gib" else curve(ax, rows, key, window)
        if not drawn:
            _missing(ax, "not logged in this run")
    return _finish(fig, axs, len(keys), window)


def _memory_panel(ax: Axes, rows: Sequence[Mapping]) -> bool:
    """What is held between the steps, under the peak so far: exact numbers, nothing to smooth."""
    for key, (colour, line), label in zip(("memory_gib", "peak_memory_gib"), STYLES, ("held", "peak"), strict=False):
        steps, values = series(rows, key)
        ax.plot(steps, values, color=colour, linestyle=line, label=label)
    if not series(rows, "memory_gib")[0]:
        return False
    ax.legend(loc="lower right", ncols=2, handlelength=1.6, borderaxespad=0, columnspacing=1)
    ax.set_ylim(0, None)
    return True


def live_curve(rows: Sequence[Mapping], keys: Sequence[str] = ("loss",)) -> Figure:
    """A small figure to redraw while a stage trains: `keys`, two in a row, from the rows written so far."""
    window = default_window(rows)
    fig, axs = _grid(len(keys), columns=min(len(keys), 2))
    for ax, key in zip(axs, keys, strict=False):
        _name(ax, AXES.get(key, (reward_name(key), 1))[0])
        if not curve(ax, rows, key, window):
            _missing(ax, "nothing logged yet")
    return _finish(fig, axs, len(keys), window)


def show_live(keys: Sequence[str] = ("loss",), seconds: float = 5.0) -> Callable[[Sequence[Mapping]], None]:
    """`on_progress` for `launch`: redraws `live_curve` in the cell's output, at most once in `seconds`."""
    drawn, handle = -math.inf, None

    def redraw(rows: Sequence[Mapping]) -> None:
        nonlocal drawn, handle
        from IPython.display import display

        if time.monotonic() - drawn < seconds:
            return
        drawn = time.monotonic()
        fig = live_curve(rows, keys)
        if handle is None:
            handle = display(fig, display_id=True)
        else:
            handle.update(fig)  # in its place, so that a progress line beside it stays
        plt.close(fig)  # or the cell shows it once more, and pyplot keeps them all

    return redraw


def reward_name(key: str) -> str:
    """A panel's name: "rewards/format_reward/mean" -> "format reward"; other keys as they are."""
    parts = key.split("/")
    name = parts[1] if parts[0] == "rewards" and len(parts) == 3 else key
    return safe_text(name).replace("_", " ")


def _total_panel(ax: Axes, rows: Sequence[Mapping], window: int) -> bool:
    drawn = curve(ax, rows, "reward", window, STYLES[0], "mean")
    if curve(ax, rows, "reward_std", window, STYLES[1], "spread"):
        ax.legend(loc="upper left", ncols=2, handlelength=1.6, borderaxespad=0, columnspacing=1)
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])
    return drawn


def _time_panel(ax: Axes, rows: Sequence[Mapping], window: int) -> bool:
    """Seconds by phase, stacked, where the run logs them as "time/<phase>", else TRL's seconds a step."""
    timed = [row for row in rows if any(key.startswith("time/") for key in row)]
    if not timed:
        return curve(ax, rows, "step_time", window)
    phases = sorted({key for row in timed for key in row if key.startswith("time/")}, key=_phase_order)
    # A step that uses the completions of the one before samples none.
    seconds = [trailing_mean([row.get(key) or 0.0 for row in timed], window) for key in phases]
    names = [safe_text(key.removeprefix("time/")).replace("_", " ") for key in phases]
    layers = ax.stackplot([row["step"] for row in timed], seconds, labels=names, linewidth=0)
    looks = [(SKY, ""), (ORANGE, "///"), (GREEN, "..."), (BLUE, "xxx")]
    for layer, (colour, hatch) in zip(layers, looks, strict=False):
        layer.set(facecolor=colour, hatch=hatch, edgecolor="white")
    ax.legend(loc="upper left", ncols=2, handlelength=1.6, borderaxespad=0, columnspacing=1)
    ax.set_ylim(0, 1.7 * float(np.sum(seconds, axis=0).max()))
    return True


def _phase_order(key: str) -> tuple[int, str]:
    """In the order in which a step goes through its phases."""
    known = ["time/generate", "time/score", "time/reward", "time/update"]
    return (known.index(key) if key in known else len(known), key)


def _signs_panel(ax: Axes, rows: Sequence[Mapping], window: int) -> bool:
    """The shares of `finr1.grpo.monitor.signs`; bold lines alone, four raw ones would hide each other."""
    names = {"agreement": "format = accuracy", "no_reasoning": "no reasoning", "repetition": "repeats",
             "options": "options"}  # fmt: skip
    logged = {name: series(rows, f"watch/{key}") for key, name in names.items()}
    for (name, (steps, values)), (colour, line) in zip(logged.items(), STYLES, strict=False):
        if steps:
            ax.plot(steps, 100 * trailing_mean(values, window), color=colour, linestyle=line, label=name)
    if not ax.has_data():
        return False
    ax.legend(loc="upper left", ncols=2, handlelength=1.6, borderaxespad=0, columnspacing=1)
    ax.set_ylim(-5, 165)
    ax.yaxis.set_major_locator(FixedLocator([0, 50, 100]))  # the room above is the legend's
    return True


def grpo_curves(rows: Sequence[Mapping], window: int | None = None) -> Figure:
    """Everything that shows whether GRPO learns or collapses, a panel each; what the run did not log says so.

    Each reward, their total with its spread, groups without spread (no gradient comes from them), completion length,
    truncated share, entropy, KL (only with beta > 0), clipped share, gradient norm, signs of hacking, time by phase;
    problems left out of an epoch where a run does that.
    """
    window = window or default_window(rows)
    rewards = sorted({key for row in rows for key in row if key.startswith("rewards/") and key.endswith("/mean")})
    plain = ["frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio", "entropy", "kl",
             "clip_ratio/region_mean", "grad_norm"]  # fmt: skip
    plain += ["problems_left_out"] if series(rows, "problems_left_out")[0] else []
    fig, axs = _grid(1 + len(rewards) + len(plain) + 2)
    panels = iter(axs)
    for key in rewards:
        ax = next(panels)
        curve(ax, rows, key, window)
        _name(ax, reward_name(key))
        ax.set_ylim(-0.05, 1.05)
    ax = next(panels)
    _name(ax, "total reward")
    if not _total_panel(ax, rows, window):
        _missing(ax, "not logged in this run")
    for key in plain:
        ax = next(panels)
        _name(ax, AXES[key][0])
        if not curve(ax, rows, key, window):
            _missing(ax, "no KL term in this run (beta = 0)" if key == "kl" else "not logged in this run")
        elif key in ("kl", "grad_norm") and max(values := series(rows, key)[1]) > 50 * float(np.median(values)) > 0:
            ax.set_yscale("log")  # one wild step would flatten all others
        elif key == "clip_ratio/region_mean":  # mostly near zero
            ax.set_ylim(0, max(1, ax.get_ylim()[1]))
        elif AXES[key][1] == 100:
            ax.set_ylim(-5, 105)
    ax = next(panels)
    _name(ax, "signs of reward hacking (%)")
    if not _signs_panel(ax, rows, window):
        _missing(ax, "not logged in this run")
    ax = next(panels)
    _name(ax, "time a step (s)")
    if not _time_panel(ax, rows, window):
        _missing(ax, "not logged in this run")
    return _finish(fig, axs, len(rewards) + len(plain) + 3, window)


def toy_grpo(rewards: Mapping[str, Sequence[float]], advantages: Sequence[float], labels: Sequence[str] = ()) -> Figure:
    """One group by hand. Left: rewards of each completion, stacked by reward. Right: the advantages they become.

    `rewards`: reward name -> one value a completion; `advantages`: one a completion, in the same order.
    """
    names = [safe_text(label) for label in labels] or [str(i + 1) for i in range(len(advantages))]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.3))
    bottom = np.zeros(len(advantages))
    looks = [(BLUE, ""), (ORANGE, "///"), (GREEN, "..")]
    for (name, values), (colour, hatch) in zip(rewards.items(), looks, strict=False):
        left.bar(range(len(values)), values, bottom=bottom, color=colour, hatch=hatch, edgecolor="white",
                 label=safe_text(name).replace("_", " "))  # fmt: skip
        bottom += np.asarray(values, dtype=float)
    left.axhline(bottom.mean(), color="black", linestyle="--", linewidth=1, label="mean of the group")
    left.set(ylabel="reward", xlabel="completion")
    fig.legend(loc="outside upper center", ncols=len(rewards) + 1)
    colours = [BLUE if value > 0 else VERMILION if value < 0 else GREY for value in advantages]
    bars = right.bar(range(len(advantages)), advantages, color=colours)
    right.bar_label(bars, fmt="%+.2f", fontsize=8, padding=1)
    right.axhline(0, color="black", linewidth=0.8)
    right.margins(y=0.15)
    right.set(ylabel="advantage", xlabel="completion")
    for ax in (left, right):
        ax.set_xticks(range(len(names)), names)
    return fig
