"""What surrounds the benchmark loop: items and suites, prompts, own history, several answers, judges, contamination."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from loopback import Loopback
from test_evaluation import BENCHMARK, make_sample, many, problem
from tiny_model import make_tiny_model

from finr1 import evaluation, judge
from finr1.__main__ import main
from finr1.curation import pool_splits
from finr1.evaluation.judged import STUDY, Agreement, Verdict
from finr1.generation import AnswerStore, SamplingParams, ScriptedBackend, TransformersBackend
from finr1.params import BenchmarkParams, ParameterError
from finr1.params.base import write_flat_yaml
from finr1.records import Problem, Turn, messages, write_jsonl
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


# ---- own history ----------------------------------------------------------------------------------------------------

TURNS = [Turn(question="What was it in 2014?", answer="20"), Turn(question="And in 2015?", answer="30")]
DIALOGUE = [
    problem(n, gold).model_copy(
        update={"id": f"c/{n}", "context": "a page", "history": TURNS[:n], "question": question}
    )
    for n, (gold, question) in enumerate(
        zip(("20", "30", "50"), (*(t.question for t in TURNS), "The sum?"), strict=True)
    )
]


def test_with_its_own_history_a_model_builds_on_its_own_answers(tmp_path):
    seen = []

    def answer(request, sampling, sample):
        seen.append(request.messages)
        turns = [m["content"] for m in request.messages]
        return f"<think>so</think><answer>\\boxed{{{7 + len(turns)}}}</answer>" if len(turns) < 5 else "no box"

    backend, store = ScriptedBackend(answer, "own"), AnswerStore(tmp_path / "a.jsonl")
    samples = evaluation.evaluate(DIALOGUE, backend, GREEDY, "sft", store, history="own")
    assert [s.own_turns for s in samples] == [[], ["9"], ["9", "11"]]  # system and user: 2 turns, then 4
    assert [[m["content"] for m in chat if m["role"] == "assistant"] for chat in seen] == [[], ["9"], ["9", "11"]]
    assert seen[2][1]["content"] == "a page\n\nWhat was it in 2014?"  # the page belongs to the first turn
    assert len(seen) == 3  # the shared beginning is asked once
    assert {s.history for s in samples} == {"own"}
    other = evaluation.evaluate(DIALOGUE, ScriptedBackend(lambda *_: "\\boxed{1}", "b"), GREEDY, "base", history="own")
    assert [s.prompt_sha256 for s in other] == [s.prompt_sha256 for s in samples]  # the same questions: comparable
    gold = evaluation.evaluate(DIALOGUE, backend, GREEDY, "sft")
    assert seen[-1][2]["content"] == "20" and gold[0].own_turns is None
    again = evaluation.evaluate(DIALOGUE, ScriptedBackend(None, "own"), GREEDY, "sft", store, history="own")
    assert again == samples  # all from the store


def test_each_sample_has_a_conversation_of_its_own(tmp_path):
    model = make_tiny_model(tmp_path / "m")
    sampling = SamplingParams(temperature=1.0, max_tokens=4, num_samples=3)
    samples = evaluation.evaluate(DIALOGUE, TransformersBackend(model), sampling, "sft", history="own")
    assert [(s.problem_id, s.sample) for s in samples] == [(f"c/{n}", k) for n in range(3) for k in range(3)]
    assert len({tuple(s.own_turns) for s in samples[-3:]}) == 3
    for k in range(3):  # the first answer of a sample is the first turn of its longer conversations
        assert samples[3 + k].own_turns == samples[6 + k].own_turns[:1]


def test_an_answer_without_a_box_becomes_a_turn_without_its_thinking():
    from finr1.evaluation.conversations import _as_turn

    texts = {"<think>long</think>It was 20.": "It was 20.", "<think>cut off in the mid": "-", "": "-"}
    assert {text: _as_turn(text) for text in texts} == texts


# ---- several answers, several seeds, several comparisons ------------------------------------------------------------


@pytest.mark.parametrize(("n", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 4), (6, 6, 2), (7, 5, 4)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, right, k):
    draws = [any(place < right for place in draw) for draw in itertools.combinations(range(n), k)]
    assert evaluation.pass_at_k(n, right, k) == pytest.approx(np.mean(draws))


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


def test_power_and_the_detectable_difference_agree_with_each_other_and_with_a_simulation():
    [row] = evaluation.power_table([400], [0.0628, 0.3])
    assert row["6.28 points"] == pytest.approx(0.8, abs=0.01) and row["30 points"] is None  # more than changes sides
    [least] = evaluation.detectable_table([400], [0.2])
    assert least["20% change"] == pytest.approx(0.0626, abs=2e-4)
    assert evaluation.detectable_table([400], [0.2], comparisons=10)[0]["20% change"] > least["20% change"]
    rng = np.random.default_rng(0)
    gained, lost = (0.2 + 0.0628) / 2, (0.2 - 0.0628) / 2
    found = 0
    for _ in range(400):
        change = rng.choice([1, -1, 0], size=400, p=[gained, lost, 0.8])
        found += evaluation.mcnemar(change < 0, change > 0).p < 0.05
    assert 0.70 < found / 400 < 0.86  # the exact test is a little weaker than its approximation


@pytest.mark.parametrize(
    ("models", "count"), [({}, 6), ({"zero_stage": "z"}, 10), ({"other_models": ["a=x", "b=y"]}, 10)]
)
def test_the_comparisons_of_a_run_are_counted_before_they_are_made(models, count):
    names = ["base", "sft", "grpo", *(["zero"] if "zero_stage" in models else [])]
    names += [entry[0] for entry in models.get("other_models", [])]
    samples = [s for name in names for how in ("greedy", "sampled") for s in many(name, "10", "11", decoding=how)]
    assert evaluation.count_comparisons(BenchmarkParams(**BENCHMARK | models)) == count
    assert len(evaluation.paired_table(samples, seed=0, resamples=50)) == count


def test_sign_flips_agree_with_mcnemar_on_single_answers():
    a, b = [0] * 18 + [1] * 30, [1] * 12 + [0] * 6 + [1] * 27 + [0] * 3
    assert evaluation.sign_flips(a, b, seed=0) == pytest.approx(evaluation.mcnemar(a, b).p, abs=0.01)
    assert evaluation.sign_flips(a, a, seed=0) == 1.0


def test_seeds_have_a_spread_of_their_own():
    spread = evaluation.seed_spread([0.2, 0.3, 0.25])
    assert (spread["runs"], spread["mean"], spread["sd"]) == (3, pytest.approx(0.25), pytest.approx(0.05))
    assert spread["high"] - spread["mean"] == pytest.approx(4.3027 * 0.05 / 3**0.5, rel=1e-4)  # Student, 2 degrees
    assert evaluation.seed_spread([0.2])["sd"] is None
    runs = {"one": many("sft", "1100", "1111"), "two": many("sft", "1110", "1111")}
    [row] = evaluation.spread_table(runs)
    assert row["by_run"] == {"one": 0.5, "two": 0.75} and row["runs"] == 2
    assert row["between_over_within"] == pytest.approx(0.03125 / np.mean([0.25 / 4, 0.1875 / 4]))
    judged = [s.model_copy(update={"graded_by": "judge"}) for s in runs["two"]]
    [row] = evaluation.spread_table({"one": runs["one"], "two": judged})
    assert row["mean"] is None and not row["by_run"] and "a judge graded some" in row["note"]
    assert evaluation.spread_table({"one": judged, "two": judged})[0]["mean"] == 0.75


# ---- judges ---------------------------------------------------------------------------------------------------------

OPEN = {"answer_kind": "text", "gold": "a wider margin"}


def judged_problems() -> list[Problem]:
    questions = [{"question": f"How much is case {n}?"} for n in range(12)]  # equal chats are asked once
    return [problem(n, "1").model_copy(update=q | (OPEN if n % 2 else {})) for n, q in enumerate(questions)]


def answers(request, sampling, sample):
    number = int(request.id.rpartition("/")[2])
    return f"\\boxed{{{('better margins' if number % 4 == 1 else 'rain') if number % 2 else 1 + number // 6}}}"


def test_a_judge_grades_what_rules_cannot_and_its_error_is_in_the_interval(tmp_path, outputs, capsys):
    asked = judged_problems()
    samples = evaluation.evaluate(asked, ScriptedBackend(answers, "a"), GREEDY, "base")
    assert [s.correct for s in samples].count(None) == 6
    calls = []

    def verdict(request, sampling, sample):
        calls.append(request.messages[0]["content"])
        given = calls[-1].split("===\n")[1]
        return "1" if given.startswith(("better", "1")) else "0"

    store, backend = AnswerStore(tmp_path / "judge.jsonl"), ScriptedBackend(verdict, "j")
    ask = (samples, asked, backend, "J", "undecided", 0, store)
    verdicts = evaluation.judge_samples(*ask)
    assert sum(not v.study for v in verdicts) == 6 and sum(v.study for v in verdicts) == 6 <= STUDY
    assert not any("How much is" in call for call in calls)  # the paper's order: without the question
    count = len(calls)
    assert evaluation.judge_samples(*ask) == verdicts and len(calls) == count  # from the store
    final = evaluation.apply_verdicts(samples, verdicts)
    assert {s.graded_by for s in final} == {"rules", "judge"}
    assert [s.correct for s in final if s.graded_by == "judge"] == [True, False] * 3
    assert evaluation.agreement(verdicts) == Agreement(3, 3, 3, 3)
    [row] = evaluation.judge_table(final, verdicts, seed=0)
    assert (row["judged share"], row["as judged"], row["corrected"]) == (0.5, 0.5, 0.5)
    [result] = evaluation.with_judge_error(evaluation.results_table(final), final, verdicts, seed=0)
    assert (result["accuracy"], result["as_judged"], result["low"]) == (0.5, 0.5, row["low"])
    assert result["judge_error"] == row["judge_error"] == evaluation.TAKEN_OUT
    low, high = evaluation.wilson_interval(6, 12)
    assert row["low"] <= low + 0.05 and row["high"] >= high - 0.05  # six answers do not make a judge perfect
    stage = outputs / "r" / "06_benchmark"
    write_jsonl(stage / "samples.jsonl", final)
    write_jsonl(stage / "items.jsonl", asked)
    write_jsonl(stage / "verdicts.jsonl", verdicts)
    assert main(["regrade", "r", "--protocol", "judge"]) == 0  # kept verdicts; no model
    printed = capsys.readouterr().out
    assert "50.0 [" in printed and "6 answers graded by J" in printed
    assert main(["regrade", "r"]) == 0
    assert "judge" in capsys.readouterr().out.splitlines()[0].split()


def test_a_judge_of_all_answers_and_a_reply_that_is_no_verdict():
    asked = judged_problems()
    samples = evaluation.evaluate(asked, ScriptedBackend(answers, "a"), GREEDY, "base")
    samples[0] = samples[0].model_copy(update={"answer": None})
    verdicts = evaluation.judge_samples(samples, asked, ScriptedBackend(lambda *_: "maybe", "m"), "J", "all", 0)
    assert len(verdicts) == 11 and not any(v.study for v in verdicts)  # a missing answer needs no judge
    final = evaluation.regrade(samples, asked, "judge", verdicts)
    ruled = evaluation.regrade(samples, asked, "ours")
    assert final == ruled and [s.correct for s in ruled].count(None) == 6  # no verdict takes none away
    assert "0 answers graded by J; 11 replies could not be read" in evaluation.judge_line(verdicts)


def of_judge(samples, verdict, study=False) -> list[Verdict]:
    """`verdict` of a sample, or of a number: what the judge says of each."""
    keys = [s.model_dump(include={"model", "decoding", "problem_id", "sample"}) for s in samples]
    return [
        Verdict(**key, judge="J", verdict=verdict(n, s), rules=s.correct, study=study)
        for n, (key, s) in enumerate(zip(keys, samples, strict=True))
    ]


def test_a_judge_that_overrules_the_rules_is_not_undone_by_them():
    """50 of 100 right by rules; the judge forgives 30 forms. Corrected by its disagreement it would be 50 again."""
    ruled = many("base", "1" * 50 + "0" * 50, "1" * 100)
    verdicts = of_judge(ruled, lambda n, s: n < 80)
    final = evaluation.apply_verdicts(ruled, verdicts)
    [row] = evaluation.with_judge_error(evaluation.results_table(final), final, verdicts, seed=0)
    assert (row["accuracy"], row["as_judged"]) == (0.8, 0.8)
    assert (row["low"], row["high"]) == pytest.approx(evaluation.wilson_interval(80, 100))
    assert "rules are no truth" in row["judge_error"] and row["judge_error"] in evaluation.render_table([row])
    [line] = evaluation.judge_table(final, verdicts, seed=0)
    assert (line["as judged"], line["corrected"], line["judged share"]) == (0.8, None, 1.0)
    assert evaluation.agreement(verdicts) == Agreement(50, 50, 20, 50)  # beside it, as information
    later = [s.model_copy(update={"model": "sft", "correct": True}) for s in final]
    steps = evaluation.paired_table([*final, *later], seed=0, resamples=200)
    [step] = evaluation.steps_with_judge_error(steps, [*final, *later], verdicts, seed=0)
    assert (step["difference"], step["p"]) == (steps[0]["difference"], steps[0]["p"])
    assert step["judge_error"] == row["judge_error"]


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        ("", "none of the studied answers right or wrong"),
        ("111", "none of the studied answers wrong"),
        ("000", "none of the studied answers right"),
        ("10", "no better than a coin"),
    ],
)
def test_a_judge_whose_error_is_not_known_is_said_to_be_so_and_stops_nothing(study, reason):
    """A study without right or wrong answers, or a judge that says no to all: as judged, with the reason."""
    opened = [s.model_copy(update={"correct": None}) for s in many("base", "1100", "1111")]
    known = many("sft", study, "1" * len(study))
    verdicts = [*of_judge(opened, lambda n, s: n < 3), *of_judge(known, lambda n, s: False, study=True)]
    final = [*evaluation.apply_verdicts(opened, verdicts), *known]
    rows = evaluation.with_judge_error(evaluation.results_table(final), final, verdicts, seed=0)
    assert rows[0]["accuracy"] == 0.75 and reason in rows[0]["judge_error"]
    assert all("judge_error" not in row for row in rows[1:])  # rules alone
    [line] = evaluation.judge_table(final, verdicts, seed=0)
    assert line["corrected"] is None and reason in line["judge_error"]
    assert reason in evaluation.table_notes(rows)[-1]


def test_the_judges_error_is_taken_out_of_each_part_of_a_table():
    study = many("base", "10" * 50, "11" * 50)
    verdicts = of_judge(study, lambda n, s: n % 2 == 0 or n % 4 == 1, study=True)  # passes half of what is wrong
    opened = [
        make_sample(item=f"q{n}", correct=None, capability="risk" if n % 2 else "esg", source=f"s{n % 2}")
        for n in range(80)
    ]
    verdicts += of_judge(opened, lambda n, s: n % 2 == 1 or n % 4 == 0)  # all of s1, half of s0
    final = [*evaluation.apply_verdicts(opened, verdicts), *study]
    for by, names in (("source", ("s0", "s1")), ("capability", ("esg", "risk"))):
        rows = evaluation.with_judge_error(evaluation.results_table(final, by), final, verdicts, seed=0)
        found = {row[by]: row for row in rows}
        assert [found[name]["as_judged"] for name in names] == [0.5, 1.0]
        assert [found[name]["accuracy"] for name in names] == [0.0, 1.0]
        assert "as_judged" not in found["synthetic" if by == "source" else "calculation"]


def test_the_correction_is_right_on_average_and_covers_the_truth():
    """A judge of known error on items of known accuracy: the raw score is biased, the corrected one is not."""
    rng = np.random.default_rng(0)
    truth, se, sp, covered, means = 0.3, 0.9, 0.8, 0, []
    for trial in range(60):
        right = rng.random(300) < truth
        said = np.where(right, rng.random(300) < se, rng.random(300) >= sp)
        samples = [make_sample(item=f"p{i}", correct=bool(v), graded_by="judge") for i, v in enumerate(said)]
        measured = Agreement(int(rng.binomial(100, se)), 100, int(rng.binomial(100, sp)), 100)
        estimate, low, high = evaluation.corrected_accuracy(samples, measured, seed=trial, resamples=400)
        means.append(estimate)
        covered += low <= truth <= high
    assert np.mean(means) == pytest.approx(truth, abs=0.02)  # as judged it would be 0.41
    assert covered >= 53  # 95 % of 60 is 57


def test_a_judge_that_forgives_does_not_favour_the_model_that_answers_more():
    """Both models are right on the same fifth; one leaves the rest open, and the judge passes half of what is wrong."""
    rng = np.random.default_rng(0)
    right = np.arange(400) % 5 == 0
    said = np.where(right, True, rng.random(400) < 0.5)
    shy = [
        make_sample("sft", f"p{i}", correct=bool(r), graded_by="judge" if r else "rules") for i, r in enumerate(right)
    ]
    bold = [make_sample("grpo", f"p{i}", correct=bool(v), graded_by="judge") for i, v in enumerate(said)]
    key = {"decoding": "greedy", "judge": "J", "sample": 0, "study": True}
    verdicts = [
        Verdict(model="grpo", problem_id=f"p{i}", verdict=bool(v), rules=bool(r), **key)
        for i, (v, r) in enumerate(zip(said, right, strict=True))
    ]
    steps = evaluation.paired_table([*shy, *bold], seed=0, resamples=500)
    assert steps[0]["difference"] > 0.3 and not steps[0]["inside_noise"]
    [step] = evaluation.steps_with_judge_error(steps, [*shy, *bold], verdicts, seed=0, resamples=2000)
    assert abs(step["difference"]) < 0.02 and step["inside_noise"] and step["p"] > 0.3
    assert step["as_judged"] == steps[0]["difference"]
    rules = [s.model_copy(update={"graded_by": "rules"}) for s in (*shy, *bold)]
    assert evaluation.steps_with_judge_error(steps, rules, [], seed=0) == steps
    with pytest.raises(ValueError, match="one of the two runs alone"):
        evaluation.contamination_table(shy, rules, 0)


@pytest.mark.parametrize(
    ("measured", "message"),
    [(Agreement(5, 10, 5, 10), "no better than a coin"), (Agreement(0, 0, 5, 10), "needs answers that are right")],
)
def test_a_judge_that_nothing_is_known_of_corrects_nothing(measured, message):
    with pytest.raises(ValueError, match=message):
        evaluation.corrected_accuracy([make_sample(graded_by="judge")], measured, seed=0)


def test_the_benchmarks_judge_is_an_endpoint_by_parameter(monkeypatch):
    monkeypatch.setenv("FINR1_API_KEY", "k")
    with Loopback(message=lambda question: {"content": "1"}) as server:
        params = BenchmarkParams(
            **BENCHMARK | {"judge_backend": "endpoint", "judge_model": "j", "judge_base_url": server.base_url}
        )
        asked = judged_problems()
        samples = evaluation.evaluate(asked, ScriptedBackend(answers, "a"), GREEDY, "base")
        verdicts = evaluation.judge_samples(samples, asked, judge.make_backend(params), "j", "undecided", 0)
    assert {v.verdict for v in verdicts} == {True}
    assert isinstance(verdicts[0], Verdict)


def test_the_benchmarks_judge_may_be_a_local_model(tmp_path):
    """A tiny model writes no verdict: each reply is counted as unread and takes no grade away."""
    folder = make_tiny_model(tmp_path / "judge")
    local = BENCHMARK | {"judge_backend": "transformers", "judge_model": str(folder)}
    examiner = judge.make_backend(BenchmarkParams(**local))
    asked = judged_problems()
    samples = evaluation.evaluate(asked, ScriptedBackend(answers, "a"), GREEDY, "base")
    store = AnswerStore(tmp_path / "judge.jsonl")
    verdicts = evaluation.judge_samples(samples, asked, examiner, str(folder), "undecided", 0, store)
    examiner.unload()
    assert len(verdicts) == 12 and [v.verdict for v in verdicts] == [None] * 12
    assert evaluation.apply_verdicts(samples, verdicts) == samples
    graded = {name: evaluation.regrade(samples, asked, name, verdicts) for name in (*evaluation.PROTOCOLS, "judge")}
    assert "judge [95 %]" in evaluation.protocol_table(graded).splitlines()[0]
    assert judge.make_backend(BenchmarkParams(**BENCHMARK)) is None
    with pytest.raises(ParameterError, match="judge_model = None.*hub id or a folder"):
        BenchmarkParams(**local | {"judge_model": None})
    with pytest.raises(FileNotFoundError):
        judge.make_backend(BenchmarkParams(**local | {"judge_model": str(tmp_path / "nowhere")}))


# ---- bad golds and contamination ------------------------------------------------------------------------------------


def test_scores_with_and_without_bad_golds():
    samples = many("sft", "1100", "1111")
    samples[0] = samples[0].model_copy(update={"flaw": "contradictory golds"})
    [row] = evaluation.bad_gold_table(samples)
    assert (row["all"][0], row["without"][0], row["flawed"][0]) == (0.5, pytest.approx(1 / 3), 1.0)
    assert "without bad golds" in evaluation.render_bad_golds([row]) and "n=3" in evaluation.render_bad_golds([row])
    assert [r["id"] for r in evaluation.flawed_rows([problem(1, "1"), real(2, "finqa", flaw="x")])] == ["finqa/2"]


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
        write_flat_yaml(outputs / track / "01_data" / "params.yaml", {"track": track})
        write_flat_yaml(stages[track] / "params.yaml", {"data_stage": f"outputs/{track}/01_data"})
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
