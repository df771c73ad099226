"""The style sheet and every figure of the suite: plain rows that were read from files in, a figure out."""

from finr1.plotting.benchmark import accuracy_by, benchmark_scores, beside_the_paper, decomposition, paired_forest
from finr1.plotting.data import dataset_overview, funnel, score_distribution, shares
from finr1.plotting.style import MODEL_COLOURS, MODEL_NAMES, safe_text, save_figure, show_source, use_style
from finr1.plotting.training import grpo_curves, memory_bars, pass_rate_histogram, show_live, toy_grpo, training_curves

__all__ = [
    "MODEL_COLOURS", "MODEL_NAMES", "accuracy_by", "benchmark_scores", "beside_the_paper", "dataset_overview",
    "decomposition", "funnel", "grpo_curves", "memory_bars", "paired_forest", "pass_rate_histogram", "safe_text",
    "save_figure", "score_distribution", "shares", "show_live", "show_source", "toy_grpo", "training_curves",
    "use_style",
]  # fmt: skip
