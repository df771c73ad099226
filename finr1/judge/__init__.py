"""Two rounds of filtering: the answer check, then seven criteria on the reasoning, by `rules` or a `model`."""

from finr1.judge.model import (
    CHECK_ORDERS,
    JUDGE_SAMPLING,
    check_answers,
    check_prompt,
    make_backend,
    read_reasoned,
    score_with_model,
)
from finr1.judge.rules import CRITERIA, Scores, check_answer, false_equations, score_reasoning, split_steps
from finr1.judge.study import Agreement, cohen_kappa, study_orders

__all__ = [
    "CHECK_ORDERS",
    "CRITERIA",
    "JUDGE_SAMPLING",
    "Agreement",
    "Scores",
    "check_answer",
    "check_answers",
    "check_prompt",
    "cohen_kappa",
    "false_equations",
    "make_backend",
    "read_reasoned",
    "score_reasoning",
    "score_with_model",
    "split_steps",
    "study_orders",
]
