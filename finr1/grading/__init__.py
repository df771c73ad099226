"""Grading: when is an answer right? The one judge of answers for curation, rewards and benchmark.

It must be right on both sides: a false "wrong" starves the policy of reward, a false "right" teaches it to cheat.
`extraction` finds the answer in a completion, `grader` compares it with the gold one. What they read:
`numbers` (built on `numerals`, `units`, compared in `matching`), `letters` of options, `verdicts` of yes and no.
"""

from finr1.grading.extraction import extract_answer, has_format, lenient_answer
from finr1.grading.grader import grade, is_correct

__all__ = ["extract_answer", "grade", "has_format", "is_correct", "lenient_answer"]
