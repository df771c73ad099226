"""The figure of a preset's memory, from `plan.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

from finr1.plotting.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILION, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS = {
    "process": (GREY, ""), "weights": (BLUE, "///"), "gradients": (SKY, "..."), "optimizer": (GREEN, "xxx"),
    "reference model": (PINK, "\\\\"), "activations": (VERMILION, "++"), "logits": (ORANGE, "oo"),
    "sampling": ("#F0E442", "--"),
}  # fmt: skip


def memory_bars(memory: dict[str, dict[str, float]], available: float, where: str) -> Figure:
    """Stacked bars: GiB of each part in each phase; a line at the `available` GiB of `where`.

    `memory`: phase -> part -> GiB, as `finr1.plan` makes it.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 1.3 + 0.42 * len(memory)))
    phases = list(memory)
    left = [0.0] * len(phases)
    for part, (colour, hatch) in _LOOKS.items():
        values = [memory[phase].get(part, 0.0) for phase in phases]
        if any(values):
            axes.barh(phases, values, left=left, color=colour, hatch=hatch, edgecolor="white", label=part)
            left = [a + b for a, b in zip(left, values, strict=True)]
    for phase, total in zip(phases, left, strict=True):
        axes.annotate(f" {total:.1f}", (total, phase), va="center")
    axes.axvline(available, color="black", linestyle="--", linewidth=1)
    place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
    axes.annotate(f"{where}: {available:.0f} GiB", (available, 1.0), **place)
    axes.set(xlabel="GiB in each process", xlim=(0, 1.15 * max(*left, available)))
    axes.invert_yaxis()
    figure.legend(ncols=4, loc="outside lower center", frameon=False)
    return figure
