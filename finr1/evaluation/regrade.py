"""The same answers under other rules of grading: how far does a score move by protocol alone?

Three groups report 55.4, 60.0 and 66.7 on FinQA for one and the same model (Qwen2.5-7B-Instruct). Regrading needs no
model, since the texts of a benchmark are kept: `python -m finr1 regrade RUN [--protocol NAME]`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from finr1 import grading
from finr1.evaluation.rendering import protocol_table
from finr1.evaluation.samples import Sample, grade_answer
from finr1.judge import Verdict, apply_verdicts, judge_line
from finr1.paths import run_folder
from finr1.records import Problem, R, read_jsonl, write_jsonl
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
    gives yes or no. Three things are ours: that evaluator reads only programs, and a model's bare answer is taken as a
    program's result; a currency sign is left out; and `\\%` and `\\$`, as a box in LaTeX has them, are read as `%` and
    `$`. Kinds without a number: equal texts.
    """
    if problem.answer_kind == "code":  # unit tests leave nothing between the lines
        return bool(ours(problem, text))
    answer = (grading.extract_answer(text) or "").strip()
    if problem.answer_kind not in ("number", "percent", "boolean"):
        return answer.casefold() in {gold.casefold() for gold in (problem.gold, *problem.alternatives)}
    answer, gold = answer.replace("\\%", "%").replace("\\$", "$"), executed_gold(problem)
    value: float | str | None = _strict_number(answer)
    if value is None and parse_program(answer):  # at least one step: "94 (or 95)" is two answers, and not the first
        value = execute(answer, _table(problem.context))
    number = _strict_number(gold)
    if number is None or not isinstance(value, float):
        return (value if isinstance(value, str) else answer).casefold() == gold.casefold()
    return round(value, 5) == round(number, 5)


def executed_gold(problem: Problem) -> str:
    """The result of the source's program among the golds of `problem`; where it has none, its text answer.

    Golds that contradict each other have it first. Else it stands behind a text answer, unless that is a sentence.
    """
    golds = [problem.gold, *problem.alternatives]
    plain = [gold for gold in golds if _strict_number(gold) is not None and not gold.endswith("%")]
    return golds[0] if problem.flaw == CONTRADICTORY or not plain else plain[-1]


def _strict_number(text: str) -> float | None:
    text = text.replace(",", "").replace("$", "").strip()
    if text.startswith("const_"):
        text = text.removeprefix("const_").replace("m1", "-1")
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _table(context: str) -> tuple[tuple[str, ...], ...]:
    """The rows of the markdown table in `context`, as `sources.pages.Page` renders it; its rule has no number."""
    lines = [line.strip() for line in context.splitlines()]
    return tuple(tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines if line.startswith("|"))


PROTOCOLS: dict[str, Callable[[Problem, str], bool | None]] = {"ours": ours, "strict": strict, "lenient": lenient}
JUDGE = "judge"  # the fourth: a model's verdicts, which are kept


def regrade_samples(
    samples: Sequence[Sample], problems: Sequence[Problem], protocol: str, verdicts: Sequence[Verdict] = ()
) -> list[Sample]:
    """`samples` with `correct` by another protocol. Raises `KeyError` for an unknown protocol.

    Raises `ValueError` where a sample's problem is not among `problems`, or stands there with another question or gold:
    generated problems of two seeds have the same ids.

    "judge" is ours with the kept `verdicts` of a judge where they count; nobody is asked.
    """
    if protocol == JUDGE:
        return apply_verdicts(regrade_samples(samples, problems, "ours"), verdicts)
    by_id, verdict = {problem.id: problem for problem in problems}, PROTOCOLS[protocol]
    graded = []
    for sample in samples:
        problem = by_id.get(sample.problem_id)
        if problem is None:
            raise ValueError(f"{sample.problem_id} was asked and is not among the problems")
        if (problem.question, problem.gold) != (sample.question, sample.gold):
            raise ValueError(f"{sample.problem_id} was asked with another question or gold than the problem of that id")
        graded.append(sample.model_copy(update={"correct": verdict(problem, sample.text), "graded_by": "rules"}))
    return graded


def read_benchmark(run: str) -> tuple[Path, list[Sample], list[Problem]]:
    """Folder, answers and problems of the finished benchmark in `run`: a folder of outputs/, a path, or its 06.

    The problems of a run that did not keep its items are all of its notebook 01. Raises `ValueError`, in one line, for
    a file that is missing, empty or cannot be read.
    """
    folder = run_folder(run)
    stage = folder if (folder / "samples.jsonl").is_file() else folder / "06_benchmark"
    items = stage / "items.jsonl"
    problems = items if items.is_file() else stage.parent / "01_data" / "problems.jsonl"
    return stage, read_whole(stage / "samples.jsonl", Sample), read_whole(problems, Problem)


def read_whole(file: Path, record: type[R]) -> list[R]:
    """All rows of a JSONL file. Raises `ValueError`, in one line, for a row that cannot be read, or without any."""
    if not file.is_file():
        raise ValueError(f"{file} is missing")
    rows: list[R] = []
    try:
        for row in read_jsonl(file, record):
            rows.append(row)
    except ValueError as error:  # a row that is no `record`, or bytes that are no UTF-8
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = "".join(f"{part}: " for part in first["loc"])
        raise ValueError(f"{file}, line {len(rows) + 1}: {where}{first['msg']}") from error
    if not rows:
        raise ValueError(f"{file} is empty")
    return rows


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `regrade` to the commands of `python -m finr1`."""
    about = "the answers of a finished benchmark under other rules, without any model"
    parser = commands.add_parser("regrade", help=about, description=f"Grades {about}: accuracies side by side.")
    parser.add_argument("run", metavar="RUN", help="folder of outputs/, or a path to one, or to its 06_benchmark")
    rules = (
        "ours: the rules of this version, whatever graded the run; strict: FinQA's own evaluator; lenient: the last "
        "number or option; judge: verdicts kept by notebook 06; all (default): side by side"
    )
    parser.add_argument("--protocol", choices=[*PROTOCOLS, JUDGE, "all"], default="all", help=rules)
    parser.add_argument("--output", type=Path, help="write the regraded samples there (one protocol only)")
    parser.set_defaults(command=run_regrade)


def run_regrade(options: argparse.Namespace) -> int:
    """Print a table with one column per protocol; returns 2 where the run has no benchmark, no kept verdicts of a
    judge, or files that cannot be read or do not belong together.
    """
    try:
        if options.output and options.protocol == "all":
            raise ValueError("--output needs one --protocol")
        stage, samples, problems = read_benchmark(options.run)
        kept = stage / "verdicts.jsonl"
        verdicts = []
        if options.protocol == JUDGE or (kept.is_file() and kept.stat().st_size > 0):
            verdicts = read_whole(kept, Verdict)
        protocols = [options.protocol]
        if options.protocol == "all":
            protocols = [*PROTOCOLS, JUDGE] if verdicts else [*PROTOCOLS]
        graded = {protocol: regrade_samples(samples, problems, protocol, verdicts) for protocol in protocols}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(protocol_table(graded))
    pairs = zip(samples, graded["ours"], strict=True) if "ours" in graded else []
    if changed := sum(was.graded_by == "rules" and was.correct is not now.correct for was, now in pairs):
        print(f"ours: today's rules grade {changed} of {len(samples)} answers otherwise than the run did")
    if JUDGE in graded:
        print(judge_line(verdicts))
    if options.output:
        write_jsonl(options.output, graded[options.protocol])
    return 0
