"""What the rules judge and a model have in common: the check of the answer, and Fin-R1's seven criteria of reasoning.

The paper has Qwen2.5-72B-Instruct give one point for each criterion and keeps only 7 of 7. Notebook 03 has the rules.
"""

from typing import NamedTuple

from finr1 import grading
from finr1.paths import data_beside
from finr1.records import Trace

WORDS = data_beside(__file__, "rules.yaml")
CRITERIA: dict[str, str] = WORDS["criteria"]


class Scores(NamedTuple):
    """One point for each of `CRITERIA` that a trace meets."""

    reasons: dict[str, str]  # of the criteria that it does not meet: what cost the point

    @property
    def points(self) -> dict[str, bool]:
        return {name: name not in self.reasons for name in CRITERIA}

    @property
    def total(self) -> int:
        return len(CRITERIA) - len(self.reasons)


def check_answer(trace: Trace) -> bool | None:
    """Round one: does the trace's answer match a gold answer? None = rules cannot tell, ask a model."""
    return grading.grade(trace.answer, **trace.problem.graded_against)
