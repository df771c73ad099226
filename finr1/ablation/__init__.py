"""The paper's ablation (base, Zero, SFT, SFT + GRPO) over several seeds: `command` runs it, `table` measures it.

A report reads it with `read_ablation(stage folder)` and draws it with `plotting.ablation` and `plotting.paired_forest`.
"""

from finr1.ablation.stage import HOW_TO_MAKE, TEXT, AblationParams, read_ablation, write_ablation
from finr1.ablation.table import ARMS, ablation_rows, ablation_steps, mean_over_seeds, render

__all__ = [
    "ARMS",
    "HOW_TO_MAKE",
    "TEXT",
    "AblationParams",
    "ablation_rows",
    "ablation_steps",
    "mean_over_seeds",
    "read_ablation",
    "render",
    "write_ablation",
]
