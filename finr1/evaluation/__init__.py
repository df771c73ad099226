"""The benchmark: asking and grading, statistics, tables and their text, other rules, and lm-evaluation-harness."""

# ruff: noqa: F401, I001
# fmt: off
from finr1.evaluation.regrade import PROTOCOLS, protocol_rows, regrade_samples
from finr1.evaluation.rendering import (
    SHOWN, above_the_constant, change_said, change_text, estimate, headline_sentence, name_of, percent, points, remark,
    render_table, result_cells, score_guesses, shares_by, step_cells, table_notes,
)
from finr1.evaluation.samples import DECISIONS, SUITES, Sample, chance_samples, evaluate, suite_items, suite_of
from finr1.evaluation.statistics import (
    clustered_interval, holm, mcnemar, paired_bootstrap, sign_flips, wilson_interval,
)
from finr1.evaluation.tables import (
    PARTS, headline_samples, item_scores, paired_row, paired_table, results_table, steps_between,
)
