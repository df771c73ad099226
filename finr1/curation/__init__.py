"""From problems to training rows: duplicates out, test questions out of training, splits, samples, the funnel.

Everything here is a plain function over a list of problems and keeps their order. Choices that look random (splits,
samples) come from a hash of the seed and the problem's id or group, so they do not depend on order or on what else is
in the list: a smaller sample is part of a larger one, and new records leave old ones where they were.
"""

from finr1.curation.duplicates import drop_duplicates, tokens
from finr1.curation.funnel import Funnel, Stage
from finr1.curation.leaks import LeakError, Match, assert_no_leak, decontaminate
from finr1.curation.rows import is_objective, rl_rows, sft_rows
from finr1.curation.splits import (
    assert_test_items,
    dev_as_test,
    hash_share,
    pool_splits,
    split_by_group,
    spread,
    stratified_sample,
)

__all__ = [
    "Funnel",
    "LeakError",
    "Match",
    "Stage",
    "assert_no_leak",
    "assert_test_items",
    "decontaminate",
    "dev_as_test",
    "drop_duplicates",
    "hash_share",
    "pool_splits",
    "is_objective",
    "rl_rows",
    "sft_rows",
    "split_by_group",
    "spread",
    "stratified_sample",
    "tokens",
]
