"""What surrounds the benchmark loop: items and suites, prompts, several answers and seeds, contamination."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from statsmodels.stats.power import normal_power
from test_evaluation import make_sample, many, problem

from finr1 import evaluation
from finr1.curation import pool_splits
from finr1.evaluation.statistics import pass_at_k
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


def test_the_papers_sampling_takes_so_many_of_each_and_all_of_the_tenth():
    items = evaluation.select_items(POOL, "paper", 10, seed=1)
    assert Counter(p.source for p in items) == {"ant_finance": 10, "finance_instruct_500k": 25, "finqa": 10, "tfns": 5}
    assert all(p.split == "test" for p in items)
    assert items == evaluation.select_items(POOL[::-1], "paper", 10, seed=1)  # whatever the order of the pool
    assert items != evaluation.select_items(POOL, "paper", 10, seed=2)
    more = evaluation.select_items(POOL, "paper", 20, seed=1)
    assert {p.id for p in items} < {p.id for p in more}  # a smaller sample is part of a larger one
    assert evaluation.select_items(POOL, "balanced", 7, seed=1) == POOL[:7]


def test_suites_take_real_records_first_and_mark_what_is_generated():
    items = evaluation.select_items(POOL, "paper", 4, seed=1)
    extra = evaluation.suite_items(items, POOL, 8, seed=1)
    counts = {row["name"]: row for row in evaluation.item_counts(items, extra) if row["part"] == "suite"}
    assert list(counts) == list(evaluation.SUITES)
    assert {name: row["items"] for name, row in counts.items()} == dict.fromkeys(counts, 8)
    assert counts["compliance"]["synthetic"] == counts["calculation (en)"]["synthetic"] == 0
    assert counts["ESG"]["synthetic"] == counts["code"]["synthetic"] == counts["calculation (zh)"]["synthetic"] == 8
    assert counts["calculation (zh)"]["languages"] == "zh"
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
    counts = {row["name"]: row["items"] for row in evaluation.item_counts(items, extra) if row["part"] == "suite"}
    assert counts == dict.fromkeys(counts, 40)


def test_a_suite_larger_than_its_templates_gets_what_they_have():
    extra = evaluation.suite_items([], [], 330, seed=1)
    counts = {row["name"]: row["items"] for row in evaluation.item_counts([], extra) if row["part"] == "suite"}
    assert 10 < counts["ESG"] < 330 and counts["calculation (en)"] == 330
    assert len({p.id for p in extra}) == len(extra)


def test_the_list_of_items_has_a_hash_that_sees_an_edited_gold():
    items = evaluation.select_items(POOL, "paper", 4, seed=1)
    record = evaluation.items_record(items, [], seed=1)
    assert record["benchmarks"]["tfns"] == [p.id for p in items if p.source == "tfns"]
    edited = [items[0].model_copy(update={"gold": "other"}), *items[1:]]
    hashes = {evaluation.items_record(members, [], 1)["sha256"] for members in (items, list(items), edited)}
    assert len(hashes) == 2


# ---- prompts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "words", "reason"),
    [
        (real(1, "finqa"), "as they are printed", "by benchmark"),
        (real(1, "ant_finance", language="zh"), "请只给出选项字母", "by benchmark, in Chinese"),
        (real(1, "mine", answer_kind="boolean"), "with one word", "by answer kind"),
        (real(1, "mine", answer_kind="choice", language="zh"), "请给出正确选项的字母", "by answer kind, in Chinese"),
        (
            real(1, "finance_instruct_500k", answer_kind="text", language="zh"),
            "请简要回答",
            "a benchmark in two languages",
        ),
    ],
)
def test_prompts_by_benchmark_and_language(asked, words, reason):
    plain, told = (evaluation.asks(style)(asked) for style in ("training", "benchmark"))
    assert plain == messages(asked)
    assert words in told[-1]["content"] and "\\boxed{}" in told[-1]["content"], reason
    assert told[-1]["content"].startswith(plain[-1]["content"])
    assert (told[0] == plain[0]) is (asked.language == "en")


# ---- several answers, several seeds, several comparisons ------------------------------------------------------------


@pytest.mark.parametrize(("n", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 4), (6, 6, 2), (7, 5, 4)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, right, k):
    draws = [any(place < right for place in draw) for draw in itertools.combinations(range(n), k)]
    assert pass_at_k(n, right, k) == pytest.approx(np.mean(draws))


@pytest.mark.parametrize(
    ("answers", "kind", "place"),
    [
        (["12", "25%", "0.25", "13", "25.0%"], "percent", 1),
        (["A", "B", "b", None, "C"], "choice", 1),
        (["7", "8"], "number", 0),
        ([None, "8"], "number", 1),
        ([None, None], "number", None),
        (["the first", "7", "7.0"], "number", 1),
    ],
)
def test_equal_answers_vote_together(answers, kind, place):
    choices = {"A": "x", "B": "y", "C": "z"} if kind == "choice" else None
    asked = problem(0, "B" if choices else "25").model_copy(update={"answer_kind": kind, "choices": choices})
    assert evaluation.majority(answers, asked) == place


def test_the_table_of_repeated_answers():
    pattern = {"p0": "1110", "p1": "0100", "p2": "0000"}  # of one item right, of one one answer, of one none
    samples = [
        make_sample("grpo", item, decoding="sampled", sample=k, correct=r == "1", answer="1" if r == "1" else f"9{k}")
        for item, row in pattern.items()
        for k, r in enumerate(row)
    ]
    problems = [problem(n, "1").model_copy(update={"id": f"p{n}"}) for n in range(3)]
    rows = {row["k"]: row for row in evaluation.repeated_table(samples, problems)}
    assert list(rows) == [1, 2, 4]
    assert rows[1]["pass"] == pytest.approx(4 / 12) and rows[4]["pass"] == pytest.approx(2 / 3)
    assert rows[2]["pass"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert rows[4]["majority"] == pytest.approx(1 / 3) and rows[1]["majority"] == pytest.approx(1 / 3)
    assert all(row["pass_low"] <= row["pass"] <= row["pass_high"] and row["n"] == 3 for row in rows.values())
    assert evaluation.repeated_table(many("sft", "101", "111"), problems) == []  # one answer an item: nothing to show


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
    step |= {"before": "a", "after": "b", "decoding": "greedy", "n": 9, "difference": 0.1, "low": 0.0, "high": 0.2}
    step |= {"p": 0.01}
    lines = evaluation.render_steps([step | row for row in rows]).splitlines()
    assert (
        lines[1].endswith("noise among so many") and lines[2].endswith("inside the noise") and lines[3].endswith("0.01")
    )


def test_the_detectable_difference_agrees_with_statsmodels_and_with_a_simulation():
    least = evaluation.smallest_detectable_difference(400, 0.2**0.5)
    assert least == pytest.approx(0.0626, abs=2e-4)
    assert evaluation.smallest_detectable_difference(400, 0.2**0.5, comparisons=10) > least
    assert normal_power(least / 0.2**0.5, 400, 0.05) == pytest.approx(0.8, abs=1e-5)
    rng, shown = np.random.default_rng(0), 0
    for _ in range(400):
        change = rng.choice([1, -1, 0], size=400, p=[(0.2 + 0.0628) / 2, (0.2 - 0.0628) / 2, 0.8])
        shown += evaluation.mcnemar(change < 0, change > 0).p < 0.05
    assert 0.70 < shown / 400 < 0.86  # the exact test is a little weaker than its approximation


def test_zero_and_other_models_are_compared_too():
    samples = [s for name in ("GPT", "zero", "grpo", "sft", "base") for s in many(name, "10", "11")]
    steps = [(s["before"], s["after"]) for s in evaluation.paired_table(samples, seed=0)]
    recipe = [("base", "sft"), ("sft", "grpo"), ("base", "grpo"), ("base", "zero"), ("zero", "grpo")]
    assert steps == evaluation.steps_between(["base", "zero", "sft", "grpo", "GPT"]) == [*recipe, ("GPT", "grpo")]
    assert [r["model"] for r in evaluation.results_table(samples)] == ["base", "zero", "sft", "grpo", "GPT"]


def test_sign_flips_agree_with_mcnemar_on_single_answers():
    a, b = [0] * 18 + [1] * 30, [1] * 12 + [0] * 6 + [1] * 27 + [0] * 3
    assert evaluation.sign_flips(a, b, seed=0) == pytest.approx(evaluation.mcnemar(a, b).p, abs=0.01)
    assert evaluation.sign_flips(a, a, seed=0) == 1.0


def test_seeds_have_a_spread_of_their_own():
    runs = {"one": many("sft", "1100", "1111"), "two": many("sft", "1110", "1111")}
    [row] = evaluation.spread_table(runs | {"three": many("sft", "1111", "1111")})
    assert (row["runs"], row["mean"], row["sd"]) == (3, pytest.approx(0.75), pytest.approx(0.25))
    assert row["high"] - row["mean"] == pytest.approx(4.3027 * 0.25 / 3**0.5, rel=1e-4)  # Student, 2 degrees
    [row] = evaluation.spread_table(runs)
    assert row["by_run"] == {"one": 0.5, "two": 0.75}
    assert row["between_over_within"] == pytest.approx(0.03125 / np.mean([0.25 / 4, 0.1875 / 4]))
    [row] = evaluation.spread_table({"one": runs["one"]})
    assert (row["mean"], row["sd"], row["between_over_within"]) == (0.5, None, None)
    judged = [s.model_copy(update={"graded_by": "judge"}) for s in runs["two"]]
    [row] = evaluation.spread_table({"one": runs["one"], "two": judged})
    assert row["mean"] is None and not row["by_run"] and "a judge graded some" in row["note"]
    assert evaluation.spread_table({"one": judged, "two": judged})[0]["mean"] == 0.75


# ---- contamination -------------------------------------------------------------------------------------------------


def memorise(pool: list[Problem]) -> ScriptedBackend:
    """A model that has learnt its training pool by heart and nothing else."""
    known = {json.dumps(messages(p)): p.gold for p in pool if p.split == "train"}
    return ScriptedBackend(
        lambda request, *_: f"\\boxed{{{known.get(json.dumps(request.messages), '?')}}}", f"{len(known)}"
    )


def test_training_on_the_test_items_shows_as_a_gap(tmp_path, outputs):
    """The whole way: two pools of notebook 01, two benchmarks on the same items, and the gap with its interval."""
    clean = [*generate_problems(40, "train", seed=1, max_level=1), *generate_problems(40, "test", seed=1, max_level=1)]
    stages = {}
    for track, pool in (("clean", clean), ("paper_like", pool_splits(clean))):
        items = evaluation.select_items(pool, "balanced", 40, seed=1)
        base = ScriptedBackend(lambda *_: "\\boxed{?}", "base")
        samples = [
            s for name, backend in (("base", base), ("grpo", memorise(pool)))
            for s in evaluation.evaluate(items, backend, GREEDY, name)
        ]  # fmt: skip
        stages[track] = outputs / track / "06_benchmark"
        write_jsonl(stages[track] / "samples.jsonl", samples)
        (outputs / track / "01_data").mkdir()
        (outputs / track / "01_data" / "params.yaml").write_text(f"track: {track}\n", "utf8")
        (stages[track] / "params.yaml").write_text(f"data_stage: outputs/{track}/01_data\n", "utf8")
    evaluation.check_tracks(*stages.values())
    with pytest.raises(ValueError, match='whose track is "clean"'):
        evaluation.check_tracks(stages["clean"], stages["clean"])
    base, grpo = evaluation.contamination_table(*map(evaluation.read_samples, stages.values()), seed=0)
    assert (base["difference"], base["inside_noise"]) == (0.0, True)
    assert (grpo["clean"], grpo["paper_like"], grpo["n"]) == (0.0, 1.0, 40)
    assert grpo["low"] > 0.9 and grpo["p_holm"] < 1e-6
    text = evaluation.render_contamination([base, grpo])
    assert "inside the noise" in text and "+100.0 [+100.0, +100.0]" in text and "100.0 [91.2, 100.0]" in text
    assert evaluation.render_contamination([grpo | {"p_holm": 0.06}]).endswith("noise among so many")
    with pytest.raises(ValueError, match="no model"):
        evaluation.contamination_table(many("a", "10", "11"), many("b", "10", "11"), 0)


def test_a_flawed_record_is_not_pooled_into_training():
    pooled = pool_splits([real(1, "finqa"), real(2, "finqa", flaw="contradictory golds")])
    assert [p.id for p in pooled if p.split == "train"] == ["finqa/1+pooled"]
