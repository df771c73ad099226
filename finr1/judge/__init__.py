"""The model that decides, in one place: two rounds of filtering, the verifier of the reward, the benchmark's judge.

`rules` decide what can be computed, a `model` the rest; `verifier` is the model behind a reward, and `error` says how
often a judge errs and takes that out of scores.
"""

from finr1.judge.error import TAKEN_OUT, Verdict, apply_verdicts, judge_line, judge_samples, with_judge_error
from finr1.judge.model import (
    CHECK_PROMPTS,
    check_answers,
    check_prompt,
    check_request,
    make_backend,
    read_check,
    score_prompt,
    score_with_model,
)
from finr1.judge.rules import CRITERIA, Scores, check_answer, false_equations, score_reasoning, split_steps

__all__ = [
    "CHECK_PROMPTS", "CRITERIA", "TAKEN_OUT", "Scores", "Verdict", "apply_verdicts", "check_answer", "check_answers",
    "check_prompt", "check_request", "false_equations", "judge_line", "judge_samples", "make_backend", "read_check",
    "score_prompt", "score_reasoning", "score_with_model", "split_steps", "with_judge_error",
]  # fmt: skip
