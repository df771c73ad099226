"""What surrounds the benchmark loop: items and suites, prompts, several answers and seeds, contamination."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_evaluation import many, problem, run_cell

from finr1 import evaluation
from finr1.generation import SamplingParams, ScriptedBackend
from finr1.records import Problem, messages, write_jsonl
from finr1.synthetic import generate_problems

GREEDY = SamplingParams(max_tokens=8)


def real(number: int, source: str, capability: str = "knowledge", language: str = "en", **other) -> Problem:
    update = {"id": f"{source}/{number}", "source": source, "capability": capability, "language": language}
    return problem(number, str(number)).model_copy(update=update | other)


# ---- items and suites -----------------------------------------------------------------------------------------------

POOL = [
    *(real(n, "finqa", "calculation") for n in range(30)),
    *(real(n, "tfns", "sentiment") for n in range(5)),
    *(real(n, "finance_instruct_500k") for n in range(25)),
    *(real(n, "ant_finance", "compliance", "zh") for n in range(12)),
    *(real(n, "finqa", "calculation", split="train", id=f"finqa/train{n}") for n in range(9)),
]


def chosen(folder: Path, pool: list[Problem], sampling: str, num_items: int, seed: int = 1) -> list[Problem]:
    """The items that notebook 06 takes from `pool`."""
    write_jsonl(folder / "problems.jsonl", pool)
    params = SimpleNamespace(sampling=sampling, num_items=num_items, seed=seed)
    return run_cell("test = [", params=params, run=SimpleNamespace(inputs={"data_stage": folder}))["test"]


def test_the_papers_sampling_takes_so_many_of_each_and_all_of_the_tenth(tmp_path):
    items = chosen(tmp_path, POOL, "paper", 10)
    assert Counter(p.source for p in items) == {"ant_finance": 10, "finance_instruct_500k": 25, "finqa": 10, "tfns": 5}
    assert all(p.split == "test" for p in items)
    assert items == chosen(tmp_path, POOL[::-1], "paper", 10)  # whatever the order of the pool
    assert items != chosen(tmp_path, POOL, "paper", 10, seed=2)
    more = chosen(tmp_path, POOL, "paper", 20)
    assert {p.id for p in items} < {p.id for p in more}  # a smaller sample is part of a larger one
    assert chosen(tmp_path, POOL, "balanced", 7) == POOL[:7]


def suite_sizes(problems: list[Problem]) -> Counter:
    suites = (evaluation.suite_of(p.capability, p.language) for p in problems)
    return Counter(suite for suite in suites if suite)


def test_suites_take_real_records_first_and_mark_what_is_generated(tmp_path):
    items = chosen(tmp_path, POOL, "paper", 4)
    extra = evaluation.suite_items(items, POOL, 8, seed=1)
    assert suite_sizes([*items, *extra]) == dict.fromkeys(evaluation.SUITES, 8)
    made = suite_sizes([p for p in extra if p.source == "synthetic"])
    assert "compliance" not in made and "calculation (en)" not in made
    assert made["ESG"] == made["code"] == made["calculation (zh)"] == 8
    assert {p.language for p in extra if p.capability == "calculation" and p.source == "synthetic"} == {"zh"}
    ids = [p.id for p in (*items, *extra)]
    assert len(set(ids)) == len(ids) and {p.split for p in extra} == {"test"}
    assert extra == evaluation.suite_items(items, POOL, 8, seed=1)
    assert evaluation.suite_items(items, POOL, 0, seed=1) == []


def asked_of(problems: list[Problem]) -> set[tuple]:
    return {(p.question, p.context, *(turn.question for turn in p.history)) for p in problems}


def test_a_generated_suite_repeats_no_question_of_the_run():
    pool = generate_problems(60, "test", seed=3)
    items = pool[:30]
    extra = evaluation.suite_items(items, pool, 40, seed=3)  # from the same seed as the problems
    spare = [p for p in extra if p.id in {q.id for q in pool}]
    new = [p for p in extra if p not in spare]
    assert new and asked_of(new).isdisjoint(asked_of(pool)) and len(asked_of(new)) == len(new)
    assert suite_sizes([*items, *extra]) == dict.fromkeys(evaluation.SUITES, 40)


def test_a_suite_larger_than_its_templates_gets_what_they_have():
    extra = evaluation.suite_items([], [], 330, seed=1)
    counts = suite_sizes(extra)
    assert 10 < counts["calculation (zh)"] < 330 and counts["ESG"] == 330
    assert len({p.id for p in extra}) == len(extra)


# ---- several comparisons, contamination -----------------------------------------------------------------------------


def test_holm_is_stricter_than_each_alone_and_known_to_the_textbook():
    assert evaluation.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert evaluation.holm([]) == []


def test_a_difference_that_only_survives_alone_is_called_noise():
    rows = [
        {"inside_noise": False, "p_holm": 0.2},
        {"inside_noise": True, "p_holm": 1.0},
        {"inside_noise": False, "p_holm": 0.01},
    ]
    step = dict.fromkeys(("format_part", "given_format_part", "without_format_part", "lenient_difference"), 0.0)
    step |= {
        "before": "a",
        "after": "b",
        "decoding": "greedy",
        "n": 9,
        "asked": 9,
        "difference": 0.1,
        "low": 0.0,
        "high": 0.2,
    }
    step |= {"p": 0.01}
    cells = evaluation.step_cells([step | row for row in rows])
    assert [line[""] for line in cells] == ["noise among so many", "inside the noise", ""]


def test_zero_and_other_models_are_compared_too():
    samples = [s for name in ("GPT", "zero", "grpo", "sft", "base") for s in many(name, "10", "11")]
    steps = [(s["before"], s["after"]) for s in evaluation.paired_table(samples, seed=0)]
    recipe = [("base", "sft"), ("sft", "grpo"), ("base", "grpo"), ("base", "zero"), ("zero", "grpo")]
    assert steps == evaluation.steps_between(["base", "zero", "sft", "grpo", "GPT"]) == [*recipe, ("GPT", "grpo")]
    assert [r["model"] for r in evaluation.results_table(samples)] == ["base", "zero", "sft", "grpo", "GPT"]


def test_sign_flips_agree_with_mcnemar_on_single_answers():
    a, b = [0] * 18 + [1] * 30, [1] * 12 + [0] * 6 + [1] * 27 + [0] * 3
    assert evaluation.sign_flips(a, b, seed=0) == pytest.approx(evaluation.mcnemar(a, b)[2], abs=0.01)
    assert evaluation.sign_flips(a, a, seed=0) == 1.0


def memorise(pool: list[Problem]) -> ScriptedBackend:
    """A model that has learnt its training pool by heart and nothing else."""
    known = {json.dumps(messages(p)): p.gold for p in pool if p.split == "train"}
    return ScriptedBackend(
        lambda request, *_: f"\\boxed{{{known.get(json.dumps(request.messages), '?')}}}", f"{len(known)}"
    )


def test_training_on_the_test_items_shows_as_a_gap():
    """Two pools of notebook 01, two benchmarks on the same items, and the gap with its interval."""
    clean = [*generate_problems(40, "train", seed=1), *generate_problems(40, "test", seed=1)]
    pooled = clean + [p.model_copy(update={"id": f"{p.id}+pooled", "split": "train"}) for p in clean[40:]]
    sides = [
        evaluation.evaluate([p for p in pool if p.split == "test"][:40], memorise(pool), GREEDY, "grpo")
        for pool in (clean, pooled)
    ]
    gap = evaluation.paired_row(*sides, seed=0)
    assert (gap["difference"], gap["n"]) == (1.0, 40) and gap["low"] > 0.9 and gap["p"] < 1e-6
    same = evaluation.paired_row(sides[0], sides[0], seed=0)
    assert (same["difference"], same["inside_noise"]) == (0.0, True)
