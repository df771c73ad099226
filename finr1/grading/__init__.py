"""Grading: when is an answer right? Filter, reward and benchmark all ask here; the contract stands in README.md.

`extraction` finds the answer in a completion, `grader` compares it with the gold one. They read `numbers` (built on
`numerals`), `letters` of options and `booleans`; `cleaning` takes LaTeX, markdown and typographic signs off first.
"""

from finr1.grading.extraction import extract_answer, has_format, lenient_answer
from finr1.grading.grader import grade, is_correct

__all__ = ["extract_answer", "grade", "has_format", "is_correct", "lenient_answer"]
