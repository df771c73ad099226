"""The same answers under other rules of grading, without any model: `python -m finr1 regrade RUN`."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finr1 import grading
from finr1.evaluation.rendering import shares_by
from finr1.evaluation.samples import Sample, grade_text
from finr1.evaluation.tables import results_table
from finr1.judge import Verdict, apply_verdicts, judge_line
from finr1.manifest import unfinished
from finr1.paths import run_folder, shown
from finr1.records import Problem, read_jsonl
from finr1.sources.golds import CONTRADICTORY, execute, parse_program


def strict(problem: Problem, text: str) -> bool:
    """Execution accuracy: numbers equal at five decimals, texts equal; a program is executed first.

    As in https://github.com/czyssrs/FinQA, code/evaluate/evaluate.py. Added here: a bare answer counts as a program's
    result, a currency sign is dropped, and LaTeX's `\\%` and `\\$` are read as `%` and `$`.
    """
    if problem.answer_kind == "code":  # unit tests leave nothing between the lines
        return bool(grade_text(problem, text)["correct"])
    answer = (grading.extract_answer(text) or "").strip()
    if problem.answer_kind not in ("number", "percent", "boolean"):
        return answer.casefold() in {gold.casefold() for gold in (problem.gold, *problem.alternatives)}
    answer = answer.replace("\\%", "%").replace("\\$", "$")
    # The executed gold: golds that contradict each other have it first, else it stands behind a text answer.
    golds = [problem.gold, *problem.alternatives]
    plain = [gold for gold in golds if _strict_number(gold) is not None and not gold.endswith("%")]
    gold = golds[0] if problem.flaw == CONTRADICTORY or not plain else plain[-1]
    value, number = _strict_number(answer), _strict_number(gold)
    if value is None and parse_program(answer):  # at least one step: "94 (or 95)" is two answers, and not the first
        lines = [line.strip()[1:-1] for line in problem.context.splitlines() if line.strip().startswith("|")]
        table = tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines)  # the page's
        value = execute(answer, table)
    if number is None or not isinstance(value, float):
        return (value if isinstance(value, str) else answer).casefold() == gold.casefold()
    return round(value, 5) == round(number, 5)


def _strict_number(text: str) -> float | None:
    text = text.replace(",", "").replace("$", "").strip()
    if text.startswith("const_"):
        text = text.removeprefix("const_").replace("m1", "-1")
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


PROTOCOLS: dict[str, Callable[[Problem, str], bool | None]] = {
    "ours": lambda problem, text: grade_text(problem, text)["correct"],
    "strict": strict,
    "lenient": lambda problem, text: grade_text(problem, text)["lenient_correct"],
}


def regrade_samples(
    samples: Sequence[Sample], problems: Sequence[Problem], verdicts: Sequence[Verdict] = ()
) -> dict[str, list[Sample]]:
    """`samples` with `correct` by each of `PROTOCOLS`; "judge" is ours, with the `verdicts` where there are some."""
    by_id = {problem.id: problem for problem in problems}
    asked = [by_id.get(sample.problem_id) for sample in samples]
    for problem, sample in zip(asked, samples, strict=True):  # generated ones of two seeds share their ids
        if problem is None or (problem.question, problem.gold) != (sample.question, sample.gold):
            raise ValueError(f"{sample.problem_id} is not among the problems as it was asked")
    graded = {
        name: [sample.model_copy(update={"correct": rule(problem, sample.text), "graded_by": "rules"})
               for problem, sample in zip(asked, samples, strict=True)]
        for name, rule in PROTOCOLS.items()
    }  # fmt: skip
    return graded | ({"judge": apply_verdicts(graded["ours"], verdicts)} if verdicts else {})


def protocol_rows(graded: Mapping[str, Sequence[Sample]]) -> list[dict]:
    """`results_table` under each protocol, as one list of rows that name it."""
    return [{"protocol": name} | row for name, samples in graded.items() for row in results_table(samples)]


def read_benchmark(run: str) -> tuple[Path, list[Sample], list[Problem]]:
    """Folder, answers and problems of a run's benchmark; `OSError` or `ValueError` where it is not complete."""
    stage = run_folder(run) / "06_benchmark"
    if missing := unfinished(stage):
        raise ValueError(f"{shown(stage)}: {missing}")
    return stage, list(read_jsonl(stage / "samples.jsonl", Sample)), list(read_jsonl(stage / "items.jsonl", Problem))


def run_regrade(options: argparse.Namespace) -> int:
    """Print a table with one column per protocol."""
    stage, samples, problems = read_benchmark(options.run)
    verdicts = list(read_jsonl(stage / "verdicts.jsonl", Verdict))
    graded = regrade_samples(samples, problems, verdicts)
    print("accuracy in percent [95 % interval], items")
    print(shares_by(protocol_rows(graded), "protocol").to_string(sparsify=False))
    pairs = zip(samples, graded["ours"], strict=True)
    if changed := sum(was.graded_by == "rules" and was.correct is not now.correct for was, now in pairs):
        print(f"ours: today's rules grade {changed} of {len(samples)} answers differently from the run's")
    if verdicts:
        print(judge_line(verdicts))
    return 0
