"""Two rounds of filtering: the answer check, then seven criteria on the reasoning, by `rules` or a `model`."""

from finr1.judge.model import check_answers, make_backend, score_with_model
from finr1.judge.rules import CRITERIA, Scores, check_answer, false_equations, score_reasoning, split_steps

__all__ = [
    "CRITERIA",
    "Scores",
    "check_answer",
    "check_answers",
    "false_equations",
    "make_backend",
    "score_reasoning",
    "score_with_model",
    "split_steps",
]
