"""Judging answers: rules decide where they can, a model decides the rest. `error` measures how often the model errs."""

# ruff: noqa: F401, I001
# fmt: off
from finr1.judge.error import TAKEN_OUT, Verdict, apply_verdicts, judge_line, judge_samples, with_judge_error
from finr1.judge.model import (
    CHECK_PROMPTS, CRITERIA, JUDGE_SAMPLING, WORDS, Verifier, check_answer, check_prompt, check_request, fenced,
    make_backend, make_verifier, read_check, sampling_of,
)
from finr1.judge.steps import checked_steps, split_steps
