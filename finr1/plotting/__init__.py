"""The style sheet, and figures that two notebooks draw: plain rows that were read from files in, a figure out.

`table` shows rows in a notebook. A figure of one notebook is drawn in its cell, with the help of `dots`.
"""

# ruff: noqa: F401, I001
from finr1.plotting.benchmark import beside_the_paper, estimates, paired_forest, step_label
from finr1.plotting.style import (
    MODEL_COLOURS, Look, dots, label_rows, legend_of, looks, safe_text, save_figure, show_source, use_style,
)  # fmt: skip
from finr1.plotting.tables import table
from finr1.plotting.training import PANELS, grpo_curves, show_live, training_curves
