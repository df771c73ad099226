"""Lessons: each exercise with its solution and typical wrong answers, pooled seeds, GRPO from scratch, all end to end."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from runpy import run_path

import nbformat
import pytest
import yaml

from finr1 import grading

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ROOT / "notebooks" / "lessons"
sys.path.insert(0, str(LESSONS))

import checks  # noqa: E402

MINE = ("exercises_01", "exercises_02", "exercises_03", "exercises_04", "exercises_05", "exercises_06")
NOTEBOOKS = [LESSONS / f"{name}.ipynb" for name in (*MINE, "grpo_from_scratch", "pooled_seeds")]


def rewards_of(format_weight: float, accuracy_weight: float, gated: bool = False):
    def reward(completions, solution, answer_kind, **columns):
        texts = [completion[0]["content"] for completion in completions]
        rights = [bool(grading.is_correct(t, gold=g, answer_kind=k))
                  for t, g, k in zip(texts, solution, answer_kind, strict=True)]  # fmt: skip
        shapes = [grading.has_format(text) for text in texts]
        return [float(r and s) if gated else accuracy_weight * r + format_weight * s
                for r, s in zip(rights, shapes, strict=True)]  # fmt: skip

    return reward


def without_a_number(trace) -> bool:
    return all(re.search(r"\d", step) for step in checks.judge.split_steps(trace.reasoning))


STRAYS = "goalkeeper|soup|mountains|piano|train to|holiday|球赛|葱花|山里|猫|火车|休市"
AUDIT = {"precision": 1.0, "recall": 0.5, "sound kept": 1.0}
COSTS = {row["stage"]: row["cost"] for row in checks.plan.make_plan("paper")["costs"]}
ONE_SEED = COSTS["04 SFT"] + 2 * (COSTS["05 GRPO samples"] + COSTS["05 GRPO update"])
CLAIM = {"preset": "paper", "arms": ["zero", "grpo"], "seeds": 3, "training_cost": ONE_SEED}

# Exercise -> wrong answers, each with a part of the reason that has to be given.
WRONG = {
    "kept_copies": [({"b", "d"}, "another question"), ({"a", "b", "d", "e"}, "no tokens of their own")],
    "same_question": [(lambda a, b: a.lower() == b.lower(), "misses the copy"), (lambda a, b: True, "one instance")],
    "leaks": [({"a"}, "whatever else it asks"), ({"a", "b", "c"}, "longest run of words")],
    "faults": [(["wrong_answer", "repetition", "missing_format"], "Recompute"),
               (["arithmetic_slip", "skipped_steps", "missing_format"], "is one there twice"),
               (["typo", "", ""], "is no name of a fault")],
    "request": [(lambda p: f"{p.context} {p.question} (it is {p.gold}) \\boxed{{}}", "reason backwards"),
                (lambda p: f"{p.question} \\boxed{{}}", "context is missing")],
    "price": [(60_091 * 2600 / 1e6, "rejected one was paid"), (60_091 / 0.5 * 2400 / 1e6, "prompts are missing")],
    "eighth": [(lambda trace: True, "recall goes from"), (without_a_number, "sound traces"),
               (lambda trace: not re.search(STRAYS, trace.reasoning), "knows words")],
    "audit": [(AUDIT, "all traces with a fault"), (AUDIT | {"precision": 0.1}, "all rejected traces")],
    "verdicts": [([True, True, True, False, None], "more than a verdict"),
                 ([True, False, None, False, None], "a thought does not count")],
    "labels": [(checks.example()["ids"], "learn to ask"),
               ([-100 if word == "<|im_end|>" else token for word, token in
                 zip(checks.example()["words"], [-100] * 10 + checks.example()["ids"][10:], strict=True)],
                "never stops")],
    "lora": [(576 * 1536, "frozen weight"), (16 * 576, "A alone")],
    "steps": [(125, "micro-batches"), (62, "left over")],
    "two_zeros": [(rewards_of(1, 1), "not told apart"), (rewards_of(0, 0, gated=True), "not told apart"),
                  (rewards_of(2, 1), "obedience"), (rewards_of(0, 1), "format is never learned")],
    "by_hand": [([1.41, 0, 0, -1.41], "n - 1"), ([1, 0, 0, -1], "Divide by the spread")],
    "dead": [({"a"}, "every advantage is 0"), ({"a", "c"}, "None is no 0"), ({"a", "c", "d", "e"}, "it teaches")],
    "clipped": [([False, True, True, False, True], "may still rise"), ([False, True, False, True, False], "-1.3")],
    "collapsed": [("percent_of", "difficulty, not collapse"), ("growth", "There is no family")],
    "mcnemar": [(0.217, "two sides"), (0.04, "no proof"), (0.9, "80 items")],
    "constant": [(21 / 35, "on the test golds"), (0.5, "commonest training gold")],
    "claim": [(CLAIM | {"arms": ["sft", "grpo"]}, "nothing to compare"), (CLAIM | {"seeds": 1}, "say nothing"),
              (CLAIM, "price of one seed"), (CLAIM | {"preset": "demo"}, "Qwen2.5-7B")],
}  # fmt: skip


@cache
def solutions() -> dict:
    made = {}
    for path in sorted((LESSONS / "solutions").glob("exercises_*.py")):
        made |= run_path(str(path))
    return made


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_a_solution_is_right(name, capsys):
    assert checks.why_wrong(name, solutions()[name]) == ""
    checks.check(name, solutions()[name])
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_a_wrong_answer_is_told_its_reason(name, capsys):
    assert len(WRONG[name]) >= 2
    for answer, reason in WRONG[name]:
        assert reason in checks.why_wrong(name, answer)
    assert "There is no answer" in checks.why_wrong(name, ...)
    checks.hint(name)
    assert len(capsys.readouterr().out) > 20


def test_an_answer_of_a_wrong_shape_is_no_traceback():
    assert "could not be used" in checks.why_wrong("audit", 3)
    with pytest.raises(ValueError, match="no exercise 'fault'"):
        checks.check("fault", 1)


def test_each_exercise_has_a_hint_a_solution_and_a_place_in_one_notebook():
    hints = yaml.safe_load((LESSONS / "solutions" / "hints.yaml").read_text("utf8"))
    assert list(hints) == list(checks.EXERCISES) and set(checks.EXERCISES) <= set(solutions())
    asked = [
        name
        for file in MINE
        for name in re.findall(r'check\("(\w+)"', (LESSONS / f"{file}.ipynb").read_text("utf8").replace('\\"', '"'))
    ]
    assert asked == list(checks.EXERCISES)
    assert all(
        3 <= sum(name in asked for name in run_path(str(LESSONS / "solutions" / f"{file}.py"))) <= 5 for file in MINE
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_keeps_the_house_rules(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# ") and path.stat().st_size < 45_000
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            assert len(cell.source.splitlines()) <= 15, cell.source
            assert "!pip" not in cell.source and "if False" not in cell.source and "try:" not in cell.source
