"""Benchmark: ask, grade and keep (`samples`), intervals and paired tests (`statistics`), tables (`tables`)."""

from finr1.evaluation.models import read_models
from finr1.evaluation.protocols import PROTOCOLS, regrade
from finr1.evaluation.samples import MODELS, Sample, evaluate
from finr1.evaluation.statistics import (
    Cells,
    Decomposition,
    McNemar,
    PairedDifference,
    cells,
    clustered_interval,
    decompose,
    decomposition_intervals,
    mcnemar,
    paired_bootstrap,
    smallest_detectable_difference,
    wilson_interval,
)
from finr1.evaluation.tables import (
    item_scores,
    paired_row,
    paired_table,
    percent,
    points,
    protocol_table,
    render_table,
    results_table,
)

__all__ = [
    "MODELS",
    "PROTOCOLS",
    "Cells",
    "Decomposition",
    "McNemar",
    "PairedDifference",
    "Sample",
    "cells",
    "clustered_interval",
    "decompose",
    "decomposition_intervals",
    "evaluate",
    "item_scores",
    "mcnemar",
    "paired_bootstrap",
    "paired_row",
    "paired_table",
    "percent",
    "points",
    "protocol_table",
    "read_models",
    "regrade",
    "render_table",
    "results_table",
    "smallest_detectable_difference",
    "wilson_interval",
]
