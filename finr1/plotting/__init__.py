"""The style sheet and every figure of the suite: plain rows that were read from files in, a figure out."""

from finr1.plotting.ablation import ablation
from finr1.plotting.benchmark import (
    accuracy_by,
    benchmark_scores,
    beside_the_paper,
    decomposition,
    paired_forest,
    protocol_scores,
)
from finr1.plotting.data import (
    dataset_overview,
    filter_audit,
    funnel,
    judge_agreement,
    pass_rate_histogram,
    score_distribution,
)
from finr1.plotting.plan import memory_bars
from finr1.plotting.style import (
    MODEL_COLOURS,
    MODEL_NAMES,
    dots_with_intervals,
    safe_text,
    save_figure,
    show_source,
    use_style,
)
from finr1.plotting.training import grpo_curves, show_live, toy_grpo, training_curves, verifier_shares

__all__ = [
    "MODEL_COLOURS",
    "MODEL_NAMES",
    "ablation",
    "accuracy_by",
    "benchmark_scores",
    "beside_the_paper",
    "dataset_overview",
    "decomposition",
    "dots_with_intervals",
    "filter_audit",
    "funnel",
    "grpo_curves",
    "judge_agreement",
    "memory_bars",
    "paired_forest",
    "pass_rate_histogram",
    "protocol_scores",
    "safe_text",
    "save_figure",
    "score_distribution",
    "show_live",
    "show_source",
    "toy_grpo",
    "training_curves",
    "use_style",
    "verifier_shares",
]
