"""Two runs side by side: what went in differently (`runs`), what came out (`metrics`), as text and HTML (`page`)."""

from finr1.compare.metrics import compare_metrics, stage_numbers
from finr1.compare.runs import ComparedRun, NotComparable, read_run, same_outputs, setting_rows

__all__ = [
    "ComparedRun",
    "NotComparable",
    "compare_metrics",
    "read_run",
    "same_outputs",
    "setting_rows",
    "stage_numbers",
]
