"""Benchmark: choose (`items`), ask (`prompts`, `conversations`, `models`), grade and keep (`samples`; a judge's
verdicts are made and applied by `finr1.judge`).

Then intervals and paired tests (`statistics`, `several`), tables (`tables`), other rules of grading (`protocols`), and
what a score hides (`checks`).
"""

from finr1.evaluation.checks import (
    bad_gold_table,
    check_tracks,
    contamination_table,
    flawed_rows,
    read_samples,
    render_bad_golds,
    render_contamination,
)
from finr1.evaluation.items import SUITES, item_counts, items_record, select_items, suite_items
from finr1.evaluation.models import count_comparisons, read_models
from finr1.evaluation.prompts import asks
from finr1.evaluation.protocols import JUDGE, PROTOCOLS, regrade
from finr1.evaluation.rendering import (
    change_text,
    decided,
    estimate,
    percent,
    points,
    protocol_table,
    remark,
    render_rows,
    render_steps,
    render_table,
    share_text,
    table_notes,
)
from finr1.evaluation.samples import MODELS, Sample, evaluate
from finr1.evaluation.several import (
    detectable_table,
    holm,
    majority,
    pass_at_k,
    power_table,
    repeated_table,
    seed_spread,
    spread_table,
)
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
    sign_flips,
    smallest_detectable_difference,
    wilson_interval,
)
from finr1.evaluation.tables import item_scores, paired_row, paired_table, protocol_rows, results_table

__all__ = [
    "Cells",
    "Decomposition",
    "JUDGE",
    "MODELS",
    "McNemar",
    "PROTOCOLS",
    "PairedDifference",
    "SUITES",
    "Sample",
    "asks",
    "bad_gold_table",
    "cells",
    "check_tracks",
    "change_text",
    "clustered_interval",
    "contamination_table",
    "count_comparisons",
    "decided",
    "decompose",
    "decomposition_intervals",
    "detectable_table",
    "estimate",
    "evaluate",
    "flawed_rows",
    "holm",
    "item_counts",
    "item_scores",
    "items_record",
    "majority",
    "mcnemar",
    "paired_bootstrap",
    "paired_row",
    "paired_table",
    "pass_at_k",
    "percent",
    "points",
    "power_table",
    "protocol_rows",
    "protocol_table",
    "read_models",
    "read_samples",
    "regrade",
    "remark",
    "render_bad_golds",
    "render_contamination",
    "render_rows",
    "render_steps",
    "render_table",
    "repeated_table",
    "results_table",
    "seed_spread",
    "select_items",
    "share_text",
    "sign_flips",
    "smallest_detectable_difference",
    "spread_table",
    "suite_items",
    "table_notes",
    "wilson_interval",
]
