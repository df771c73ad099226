"""Benchmark: fill up suites (`items`), ask models and grade (`samples`), and tell how good and how sure.

`chance` is what is right without reading, `statistics` has intervals and paired tests, `tables` the rows, `rendering`
their text, `regrade` other rules of grading, and `harness` the same items for lm-evaluation-harness. A judge's verdicts
are made by `finr1.judge`.
"""

# ruff: noqa: F401, I001
# fmt: off
from finr1.evaluation.chance import chance_samples, given_answers
from finr1.evaluation.items import SUITES, suite_items, suite_of
from finr1.evaluation.regrade import PROTOCOLS, protocol_rows, regrade_samples
from finr1.evaluation.rendering import (
    change_text, estimate, percent, points, remark, render_table, result_cells, shares_by, step_cells, table_notes,
)
from finr1.evaluation.samples import DECISIONS, Sample, evaluate
from finr1.evaluation.statistics import (
    clustered_interval, holm, mcnemar, paired_bootstrap, sign_flips, wilson_interval,
)
from finr1.evaluation.tables import PARTS, headline, item_scores, paired_row, paired_table, results_table, steps_between
