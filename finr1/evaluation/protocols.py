"""The same answers under other rules of grading: how far does a score move by protocol alone?

Three groups report 55.4, 60.0 and 66.7 on FinQA for one and the same model (Qwen2.5-7B-Instruct). Regrading needs no
model: the texts of a benchmark are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from finr1 import grading
from finr1.evaluation.samples import Sample, grade_answer
from finr1.judge import Verdict, apply_verdicts
from finr1.records import Problem
from finr1.sources.golds import CONTRADICTORY, execute, parse_program


def ours(problem: Problem, text: str) -> bool | None:
    """`grading` on the answer in its box or block: 1 %, or the digits written; percent or fraction."""
    return grade_answer(problem, grading.extract_answer(text))


def lenient(problem: Problem, text: str) -> bool | None:
    """`grading` on the answer wherever it stands, else the last number, letter or word of the kind asked for."""
    return grade_answer(problem, grading.lenient_answer(text, answer_kind=problem.answer_kind, labels=problem.labels))


def strict(problem: Problem, text: str) -> bool:
    """Execution accuracy as in FinQA's own evaluator: equal at five decimals, a program is executed first.

    As in https://github.com/czyssrs/FinQA, code/evaluate/evaluate.py: commas out, `x%` is x/100, `const_100` is 100 and
    `const_m1` is -1, a program's result is rounded to five decimals and has to *be* the executed gold; a comparison
    gives yes or no. Three things are ours: that evaluator reads programs alone, and a model's bare answer is taken as a
    program's result; a currency sign is left out; and `\\%` and `\\$`, as a box in LaTeX has them, are read as `%` and
    `$`. Kinds without a number: equal texts.
    """
    if problem.answer_kind == "code":  # unit tests leave nothing between the lines
        return bool(ours(problem, text))
    answer, executed = (grading.extract_answer(text) or "").strip(), executed_gold(problem)
    if problem.answer_kind not in ("number", "percent", "boolean"):
        return answer.casefold() in {gold.casefold() for gold in (problem.gold, *problem.alternatives)}
    answer = answer.replace("\\%", "%").replace("\\$", "$")
    value: float | str | None = _strict_number(answer)
    if value is None and parse_program(answer):  # at least one step: "94 (or 95)" is two answers, and not the first
        value = execute(answer, _table(problem.context))
    gold = _strict_number(executed)
    if gold is None or not isinstance(value, float):
        return (value if isinstance(value, str) else answer).casefold() == executed.casefold()
    return round(value, 5) == round(gold, 5)


def executed_gold(problem: Problem) -> str:
    """The result of the source's program among the golds of `problem`; where it has none, its text answer.

    Golds that contradict each other have it first. Else it stands behind a text answer, unless that is a sentence.
    """
    golds = [problem.gold, *problem.alternatives]
    plain = [gold for gold in golds if _strict_number(gold) is not None and not gold.endswith("%")]
    return golds[0] if problem.flaw == CONTRADICTORY or not plain else plain[-1]


PROTOCOLS: dict[str, Callable[[Problem, str], bool | None]] = {"ours": ours, "strict": strict, "lenient": lenient}
JUDGE = "judge"  # the fourth: a model's verdicts, which are kept


def regrade(
    samples: Sequence[Sample], problems: Sequence[Problem], protocol: str, verdicts: Sequence[Verdict] = ()
) -> list[Sample]:
    """`samples` with `correct` by another protocol. Raises `KeyError` for an unknown protocol.

    Raises `ValueError` where a sample's problem is not among `problems`, or stands there with another question or gold:
    generated problems of two seeds have the same ids.

    "judge" is ours with the kept `verdicts` of a judge where they count (`judge.error`); nobody is asked.
    """
    if protocol == JUDGE:
        return apply_verdicts(regrade(samples, problems, "ours"), verdicts)
    by_id, verdict = {problem.id: problem for problem in problems}, PROTOCOLS[protocol]
    for sample in samples:
        problem = by_id.get(sample.problem_id)
        if problem is None:
            raise ValueError(f"{sample.problem_id} was asked and is not among the problems")
        if (problem.question, problem.gold) != (sample.question, sample.gold):
            raise ValueError(f"{sample.problem_id} was asked with another question or gold than the problem of that id")
    return [
        sample.model_copy(update={"correct": verdict(by_id[sample.problem_id], sample.text), "graded_by": "rules"})
        for sample in samples
    ]


def _table(context: str) -> tuple[tuple[str, ...], ...]:
    """The rows of the markdown table in `context`, as `sources.pages.Page` renders it; its rule has no number."""
    lines = [line.strip() for line in context.splitlines()]
    return tuple(tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines if line.startswith("|"))


def _strict_number(text: str) -> float | None:
    text = text.replace(",", "").replace("$", "").strip()
    if text.startswith("const_"):
        text = text.removeprefix("const_").replace("m1", "-1")
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
