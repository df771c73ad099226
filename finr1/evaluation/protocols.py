"""The same answers under other rules of grading: how far does a score move by protocol alone?

Three groups report 55.4, 60.0 and 66.7 on FinQA for one and the same model (Qwen2.5-7B-Instruct). Regrading needs no
model: the texts of a benchmark are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from finr1 import grading
from finr1.evaluation.samples import Sample, grade_answer
from finr1.records import Problem
from finr1.sources.pages import Page
from finr1.sources.programs import execute


def ours(problem: Problem, text: str) -> bool | None:
    """`grading` on the answer in its box or block: 1 %, or the digits written; percent or fraction."""
    return grade_answer(problem, grading.extract_answer(text))


def lenient(problem: Problem, text: str) -> bool | None:
    """`grading` on the answer wherever it stands, else the last number, letter or word of the kind asked for."""
    return grade_answer(problem, grading.lenient_answer(text, answer_kind=problem.answer_kind, labels=problem.labels))


def strict(problem: Problem, text: str) -> bool:
    """Execution accuracy as in FinQA's own evaluator: equal at five decimals, a program is executed first.

    The evaluator's reading of numbers (https://github.com/czyssrs/FinQA, evaluate.py): commas out, `x%` is x/100. A
    currency sign is left out, too, since models write it. The gold is the executed answer where the source has one (the
    alternative of a text answer). Kinds without a number: equal texts.
    """
    answer = (grading.extract_answer(text) or "").strip()
    golds = [problem.gold, *problem.alternatives]
    if problem.answer_kind not in ("number", "percent"):
        return answer.casefold() in {gold.casefold() for gold in golds}
    value = _strict_number(answer)
    if value is None and answer:
        value = execute(answer, Page.from_text(problem.context).table)
    executed = _strict_number(golds[-1])
    if isinstance(value, str) or executed is None:
        return answer.casefold() == golds[-1].casefold()
    return value is not None and round(value, 5) == round(executed, 5)


PROTOCOLS: dict[str, Callable[[Problem, str], bool | None]] = {"ours": ours, "strict": strict, "lenient": lenient}


def regrade(samples: Iterable[Sample], problems: Sequence[Problem], protocol: str) -> list[Sample]:
    """`samples` with `correct` by another protocol. Raises `KeyError` for an unknown protocol or problem."""
    by_id, verdict = {problem.id: problem for problem in problems}, PROTOCOLS[protocol]
    return [sample.model_copy(update={"correct": verdict(by_id[sample.problem_id], sample.text)}) for sample in samples]


def _strict_number(text: str) -> float | None:
    text = text.replace(",", "").replace("$", "").strip()
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
