"""Lessons: each exercise with its solution and typical wrong answers, pooled seeds, and GRPO from scratch."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from functools import cache
from pathlib import Path
from runpy import run_path
from statistics import stdev

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from finished import finish
from recipes import cells
from scipy.stats import t

from finr1 import grading

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ROOT / "notebooks" / "lessons"
sys.path.insert(0, str(LESSONS))

import checks  # noqa: E402

MINE = tuple(f"exercises_0{number}" for number in range(10)) + ("exercises_10", "exercises_11")
NOTEBOOKS = [LESSONS / f"{name}.ipynb" for name in (*MINE, "grpo_from_scratch", "pooled_seeds")]


def rewards_of(format_weight: float, accuracy_weight: float, gated: bool = False):
    def reward(completions, solution, answer_kind, **columns):
        texts = [completion[0]["content"] for completion in completions]
        rights = [bool(grading.is_correct(text, gold=g, answer_kind=k))
                  for text, g, k in zip(texts, solution, answer_kind, strict=True)]  # fmt: skip
        shapes = [grading.has_format(text) for text in texts]
        return [float(r and s) if gated else accuracy_weight * r + format_weight * s
                for r, s in zip(rights, shapes, strict=True)]  # fmt: skip

    return reward


def without_a_number(trace) -> bool:
    return all(re.search(r"\d", step) for step in checks.judge.split_steps(trace.reasoning))


def gold_in_text(completions, solution, **columns) -> list[float]:
    texts = [completion[0]["content"] for completion in completions]
    return [(gold in text) + 0.5 * grading.has_format(text) for text, gold in zip(texts, solution, strict=True)]


def sixty_or_tags(completions, solution, **columns) -> list[float]:
    """Right answers for the gold 60 alone; any other gold pays the format only."""
    own = rewards_of(0.5, 1.0 if solution[0] == "60" else 0.0)
    return own(completions, solution, ["number"] * len(completions))


def same_numbers(first: str, second: str) -> bool:
    plain = [unicodedata.normalize("NFKC", text).replace("five", "5") for text in (first, second)]
    return sorted(re.findall(r"\d+", plain[0])) == sorted(re.findall(r"\d+", plain[1]))


def chat(problem) -> str:
    return " ".join(turn["content"] for turn in checks.records.messages(problem))


STRAYS = "goalkeeper|soup|mountains|piano|train to|holiday|球赛|葱花|山里|猫|火车|休市"
AUDIT = {"precision": 1.0, "recall": 0.5, "sound kept": 1.0}
COSTS = {row["stage"]: row["cost"] for row in checks.plan.make_plan("paper")["costs"]}
ONE_SEED = COSTS["04 SFT"] + 2 * (COSTS["05 GRPO samples"] + COSTS["05 GRPO update"])
CLAIM = {"preset": "paper", "arms": ["zero", "grpo"], "seeds": 3, "training_cost": ONE_SEED}

# Exercise -> wrong answers, each with a part of the reason that has to be given.
STEPS = pd.Series(checks.seed_steps())
BY_NORMAL = 1.96 * STEPS.std() / len(STEPS) ** 0.5
NEXT_SEED = t.ppf(0.975, len(STEPS) - 1) * STEPS.std() * (1 + 1 / len(STEPS)) ** 0.5
WRONG = {
    "printed_means": [(set(), "68.80, and 69.2 is printed"), ({"Fin-R2"}, "no model"),
                      ({"R1-Distill-Llama-70B", "Fin-R1-SFT"}, "that is rounding"),
                      ("R1-Distill-Llama-70B", "A set is wanted")],
    "reasoning_share": [(0.4, "count records"), (101_000 / 870_760, "raw records"), (0.5, "all kept records")],
    "splits": [(["train", "test", "dev", "train", "test"], "Place 2: a choice fits"),
               (["train", "dev", "test", "train", "test"], "Place 3: the best of many looks"),
               (["train", "dev", "dev", "test", "test"], "Place 4: a constant that knows")],
    "kept_copies": [({"b", "d"}, "another question"), ({"a", "b", "d", "e"}, "no tokens of their own")],
    "same_question": [(lambda a, b: a.lower() == b.lower(), "misses the copy"), (lambda a, b: True, "one instance"),
                      (same_numbers, "How many months does it stay?")],
    "leaks": [({"a"}, "whatever else it asks"), ({"a", "b", "c"}, "longest run of words")],
    "faults": [(["wrong_answer", "repetition", "missing_format"], "Recompute"),
               (["arithmetic_slip", "skipped_steps", "missing_format"], "is one there twice"),
               (["typo", "", ""], "is no name of a fault")],
    "request": [(lambda p: f"{p.context} {p.question} (it is {p.gold}) \\boxed{{}}", "reason backwards"),
                (lambda p: f"{p.question} \\boxed{{}}", "context is missing"),
                (lambda p: f"{p.context} {p.question} \boxed{{}}", "two backslashes in Python"),
                (lambda p: f"{chat(p)} {p.reference} \\boxed{{}}", "worked solution"),
                (lambda p: f"{chat(p)} {p.reference_by_parts} \\boxed{{}}", "worked solution"),
                (lambda p: f"{p.context} {p.question} \\boxed{{}}", "Earlier turns"),
                (lambda p: f"{p.history} {checks.records.render_question(p)} \\boxed{{}}", "leaves it to the first"),
                (lambda p: f"{p.context} {p.history} {p.question} \\boxed{{}}", "The options (`choices`) are missing")],
    "price": [(60_091 * 2600 / 1e6, "rejected one was paid"), (60_091 / 0.5 * 2400 / 1e6, "prompts are missing")],
    "eighth": [(lambda trace: True, "recall goes from"), (lambda trace: not trace.fault, "from 14 to 14"),
               (without_a_number, "sound traces"),
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
                  (rewards_of(2, 1), "obedience"), (rewards_of(0, 1), "format is never learned"),
                  (lambda completions, solution, **columns: [3, 2, 1, 0] if solution[0] == "60" else [0, 1, 2, 3],
                   "changed places"),
                  (gold_in_text, "boxes 48 is wrong"), (sixty_or_tags, "the answers that box 70")],
    "by_hand": [([1.41, 0, 0, -1.41], "n - 1"), ([1, 0, 0, -1], "Divide by the spread"),
                ([1.2, 0, 0, -1.2], "(r - mean) / spread")],
    "dead": [({"a"}, "every advantage is 0"), ({"a", "c"}, "None is no 0"), ({"a", "c", "d", "e"}, "it teaches"),
             ({"a", "c", "e", "z"}, "There is no 'z'")],
    "clipped": [([False, True, True, False, True], "may still rise"), ([False, True, False, True, False], "-1.3")],
    "collapsed": [("percent_of", "difficulty, not collapse"), ("growth", "There is no family")],
    "mcnemar": [(0.217, "two sides"), (0.04, "no proof"), (0.9, "80 items")],
    "constant": [(21 / 35, "on the test golds"), (0.5, "commonest training gold")],
    "claim": [(CLAIM | {"arms": ["sft", "grpo"]}, "nothing to compare"), (CLAIM | {"seeds": 1}, "say nothing"),
              (CLAIM, "price of one seed"), (CLAIM | {"preset": "demo"}, "Qwen2.5-7B"),
              (CLAIM | {"training_cost": 3 * (ONE_SEED - COSTS["04 SFT"])}, "SFT is not paid"),
              (CLAIM | {"training_cost": 3 * (ONE_SEED + COSTS["04 SFT"])}, "SFT is paid for both arms"),
              (CLAIM | {"training_cost": 3 * (ONE_SEED + COSTS["04 SFT"]) / 2}, "GRPO once for each seed"),
              (CLAIM | {"training_cost": 3.15 * ONE_SEED}, "training_cost: seeds x")],
    "better_or_noise": [(["better", "better", "worse", "noise"], "zero in its interval"),
              (["better", "noise", "worse", "better"], "looks so by chance"), (["good"] * 4, "none of the words")],
    "overlap": [(dict.fromkeys("ABC", "noise"), "overlap say nothing"),
                ({"A": "better", "B": "better", "C": "worse"}, "60 items turned right and 48 wrong")],
    "belongs": [({"05_grpo < 04_sft"}, "05_grpo was made from a 03_filtering"), (set(), "no longer there"),
                ("05_grpo < 03_filtering", "A set is wanted"),
                ({"05_grpo < 03_filtering", "06_benchmark < 04_sft", "06_benchmark < 05_grpo"}, "no broken link")],
    "edited": [([2, 1, 1, 1, 1], "no reward reads the thought"), ([1, 1, 1, 2, 1], "one number"),
               ([2, 1, 2, 2, 1], "empty thought")],
    "turn_two": [({"system", "question 1", "thought 1", "answer 1", "question 2"}, "fill the window"),
                 ({"system", "question 2"}, "could not be understood"), ("system", "A set is wanted")],
    "sizes": [([15.2, 7.6], "16 more for the scale"), ([30.4, 8.1], "fp32"), ([14.16, 8.075], "GiB")],
    "t_interval": [((STEPS.mean() - BY_NORMAL, STEPS.mean() + BY_NORMAL), "1.96 is for many seeds"),
                   ((STEPS.mean() - NEXT_SEED, STEPS.mean() + NEXT_SEED), "step of the next seed alone"),
                   ((STEPS.mean() - 3, STEPS.mean() + 3), "t(0.975"), ((0, STEPS.max()), "middle of the interval")],
    "seeds_needed": [(8, "1.96 in place of t"), (5, "at most 5.00 are wanted"), (12, "fewer seeds are enough"),
                     (20, "+-3.28 points: fewer"), (10, "+-5.01 points; at most 5.00"), (1, "begin with 2")],
    "best_of": [(0.05, "one arm"), (0.4, "do not add up"), (0.95**8, "none of them looks better")],
    "paired": [({"A", "B"}, "no item is in both"), ({"A", "C", "D"}, "no partner"), ({"A"}, "D: each of the 50"),
               ({"D"}, "A: both runs were asked the same items"), ({"A", "D", "E"}, "There is no 'E'")],
    "unpaired_width": [(18.58, "standard errors do not"), (6.71, "one standard error"), (9.6, "first run alone")],
    "survivors": [(3, "chances to be lucky"), (2, "0.06")],
    "memory": [(104.3, "an eighth"), (3.26, "weights alone"), (14.0, "2**30")],
    "hours": [(0.0738, "forward pass"), (0.0885, "peak"), (1.771, "one GPU")],
    "fits": [({"full", "qlora"}, "104 GiB"), ({"lora", "qlora"}, "13 GiB"), (set(), "3.4 GiB"),
             ({"qlora", "x"}, "There is no 'x'"), ("qlora", "A set is wanted")],
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


@pytest.mark.parametrize(
    "name, answer",
    [("by_hand", [1.2246, 0, 0, -1.225]), ("claim", CLAIM | {"training_cost": 3 * (10 + 2 * (93 + 102))})],
)  # fmt: skip
def test_a_rounded_answer_is_right(name, answer):
    """Of `claim`: from the numbers that its table shows."""
    assert checks.why_wrong(name, answer) == ""


def test_the_criteria_find_fourteen_of_twenty_nine_strays_whatever_the_generator_writes():
    table = checks.counts(checks.audited())
    assert len(checks.audited()) == 650 and table.loc["off_domain"].to_list() == [29, 14]
    assert table.loc["none", "planted"] > 400 and len(checks.strayed()) > 100


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


# ---- exercises as a learner opens them -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MINE)
def test_an_exercise_notebook_runs_before_it_is_answered(name, capsys, monkeypatch):
    """Cell by cell in this process: a kernel for each would take longer than the exercises."""
    monkeypatch.setattr("IPython.display.display", print)
    space: dict = {}
    for cell in nbformat.read(LESSONS / f"{name}.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{name}, {cell.id}", "exec"), space)
    said = re.findall(r"^(\w+): (.*)", capsys.readouterr().out, re.MULTILINE)
    told = {exercise: reason for exercise, reason in said if exercise in checks.EXERCISES}
    asked = run_path(str(LESSONS / "solutions" / f"{name}.py"))
    assert set(told) == set(checks.EXERCISES) & set(asked)
    assert all(reason.startswith("not yet. ") for reason in told.values())


# ---- a class pools its seeds -----------------------------------------------------------------------------------------

HEADER = "seed,processor,torch,date,sft_greedy,grpo_greedy,sft_sampled,grpo_sampled\n"
# Made up: no run gave these numbers.
MADE = HEADER + "101,A,2.13.0,2026-01-01,30.0,50.0,31.0,52.0\n102,A,2.13.0,2026-01-01,34.0,60.0,33.0,58.0\n"
POOL = cells("lessons/pooled_seeds", "line-of-run", "handed-in", "pooled")


def lines_of(text: str, folder: Path):
    (folder / "class.csv").write_text(text, "utf8")
    return POOL["handed_in"]([folder / "class.csv"])


def test_the_interval_of_a_class_is_that_of_its_steps(tmp_path):
    lines, left_out = lines_of(MADE + "103,B,2.13.0,2026-01-02,40.0,38.0,30.0,45.0\n", tmp_path)
    assert left_out == [] and len(lines) == 3
    greedy, sampled = POOL["pooled"](lines)
    mean, sd = 44 / 3, stdev([20, 26, -2])
    assert greedy["step"] == pytest.approx(mean) and greedy["sd"] == pytest.approx(sd) and greedy["up"] == 2
    assert (greedy["low"], greedy["high"]) == pytest.approx(
        (mean - 4.302653 * sd / 3**0.5, mean + 4.302653 * sd / 3**0.5)
    )
    assert greedy["low"] < 0 < greedy["high"] and sampled["low"] > 0
    twice = POOL["pooled"](lines_of(MADE, tmp_path)[0])
    assert twice[0]["high"] - twice[0]["low"] > 70  # two seeds: t is 12.7


def test_seeds_with_their_own_items_are_pooled_as_notebook_09_pools_them(tmp_path):
    """From items: the interval of 09, clustered by seed and item, is the class's interval of the steps."""
    ablation = cells("09_ablation", "variance-of-mean", "mean-over-seeds")
    steps = {101: 0.2, 102: 0.5, 103: 0.6}
    scores = {(seed, f"{seed}/{item}"): float(item < 50 * step) for seed, step in steps.items() for item in range(50)}
    items = ablation["mean_over_seeds"](pd.Series(scores).rename_axis(["seed", "item"]))
    rows = "".join(f"{seed},A,2.13.0,2026-01-01,0,{100 * step},0,0\n" for seed, step in steps.items())
    greedy, _ = POOL["pooled"](lines_of(HEADER + rows, tmp_path)[0])
    assert (greedy["low"], greedy["high"]) == pytest.approx((100 * items["low"], 100 * items["high"]))


@pytest.mark.parametrize(
    "line, told",
    [("103,A,2.13.0,2026-01-01,40.0,,30.0,45.0", "Line 3: a number is missing, or is no percentage."),
     ("103,A,2.13.0,2026-01-01,0.4,,x,0.5", "Line 3: a number is missing, or is no percentage."),
     ("103,A,2.13.0,2026-01-01,140,30,30,45", "Line 3: a number is missing, or is no percentage."),
     ("101,B,2.13.0,2026-01-02,40.0,38.0,30.0,45.0", "Line 3: seed 101 was handed in before.")],
)  # fmt: skip
def test_a_line_that_can_not_be_used_is_named(tmp_path, line, told):
    lines, left_out = lines_of(f"{MADE}{line}\n", tmp_path)
    assert left_out == [told] and list(lines["seed"]) == [101, 102]


def test_a_seed_may_be_handed_in_again_after_a_line_that_can_not_be_used(tmp_path):
    rows = "7,A,2.13.0,2026-01-01,40.0,,30.0,45.0\n7,A,2.13.0,2026-01-02,40.0,50.0,30.0,45.0\n"
    lines, left_out = lines_of(f"{HEADER}{rows}", tmp_path)
    assert left_out == ["Line 1: a number is missing, or is no percentage."] and list(lines["grpo_greedy"]) == [50.0]


def test_one_seed_or_none_has_no_interval(tmp_path):
    lines, _ = lines_of(MADE.rpartition("102")[0], tmp_path)
    assert [row["low"] for row in POOL["pooled"](lines)] == [None, None]
    assert lines_of(HEADER, tmp_path)[0].empty


def test_the_line_of_a_run_has_the_columns_of_the_shipped_file(tmp_path):
    shipped = ROOT / "params" / "demo" / "seeds.csv"
    assert shipped.read_text("utf8").startswith(HEADER)
    assert len(POOL["handed_in"]([shipped])[1]) == 0
    about = {"hardware": {"cpu": "AMD, EPYC"}, "versions": {"torch": "2.13.0"}, "finished": "2026-01-01T10:00"}
    finish(tmp_path / "05_grpo", seed=117, **about)
    (tmp_path / "06_benchmark").mkdir()
    rows = [{"model": m, "decoding": how, "accuracy": value} for m, how, value in
            [("sft", "greedy", 0.3), ("grpo", "greedy", 0.5), ("sft", "sampled", 0.31), ("grpo", "sampled", 0.524),
             ("guess", "none", None)]]  # fmt: skip
    (tmp_path / "06_benchmark" / "metrics.json").write_text(json.dumps({"rows": rows}))
    line = POOL["line_of_run"](tmp_path)
    assert line == "117,AMD EPYC,2.13.0,2026-01-01,30.0,50.0,31.0,52.4"
    assert list(lines_of(f"{HEADER}{line}\n", tmp_path)[0]["seed"]) == [117]


def test_the_notebook_of_the_class_runs_on_made_lines(tmp_path, monkeypatch, capsys):
    (tmp_path / "class.csv").write_text(MADE + "103,B,2.13.0,2026-01-02,40.0,38.0,30.0,45.0\n")
    monkeypatch.setattr("IPython.display.display", print)
    space: dict = {}
    for cell in nbformat.read(LESSONS / "pooled_seeds.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), space)
            if cell.id == "parameters":  # an absolute path stays as it is
                space |= {"files": [str(tmp_path / "class.csv")], "run": "no such run"}
    printed = capsys.readouterr().out
    assert "There is no finished run" in printed and "3 seeds are there." in printed
    assert "2 kinds of machine" in printed and "inside the noise; 2 of them up" in printed
    assert space["ax"].get_title().startswith("mean greedy step +14.7 [") and "over 3 seeds" in space["ax"].get_title()


# ---- GRPO from scratch -----------------------------------------------------------------------------------------------


def test_grpo_from_scratch_has_trls_loss_at_a_tiny_scale(monkeypatch, capsys):
    """The whole notebook with one seed and few steps; its last cell asserts that the loss is TRL's."""
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    space: dict = {}
    for cell in nbformat.read(LESSONS / "grpo_from_scratch.ipynb", 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), space)
            if cell.id == "parameters":
                space |= {"seeds": [1], "sft_steps": 80, "steps": 2}
    said = capsys.readouterr().out
    assert len(re.findall(r"(?:grpo|dapo): ours ([+-]\d\.\d{6}), TRL's ", said)) == 2
    clipped = re.search(r"(\d+)% of the ratios are clipped", said)
    assert int(clipped[1]) >= 5, "the clip has to be at work for this to say something"
    written = {
        c.id: c.source for c in nbformat.read(LESSONS / "grpo_from_scratch.ipynb", 4).cells if c.cell_type == "code"
    }
    code, names = list(written.values()), list(written)
    lines = "\n".join(code[names.index("task") : names.index("measure")]).splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 120  # as its text says
    assert not any("trl" in source.lower() for source in code[1:-5])
    assert space["rewards"].std() > 0, "or all advantages are 0"
    assert torch.equal(space["advantages_of"](torch.ones(8)), torch.zeros(8))
