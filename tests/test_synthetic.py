"""Synthetic problems: exact answers, true steps, and no overlap between the splits."""

import re
from collections import Counter

import pytest

from finr1 import grading, judge, synthetic
from finr1.records import messages, render_completion

SPLITS = {"train": 600, "dev": 200, "test": 400}


@pytest.fixture(scope="module")
def problems():
    return {split: synthetic.generate_problems(count, split, seed=7) for split, count in SPLITS.items()}


def test_every_capability_both_languages_and_two_levels_are_there(problems):
    train = problems["train"]
    assert len({p.family for p in train}) >= 12
    assert {p.capability for p in train} == {
        "calculation", "code", "compliance", "risk", "esg", "sentiment", "multi_turn"
    }  # fmt: skip
    assert {p.language for p in train} == {"en", "zh"}
    assert {p.level for p in train} == {1, 2}
    assert max(Counter(p.family for p in train).values()) - min(Counter(p.family for p in train).values()) <= 1


def test_the_same_seed_gives_the_same_problems_and_another_seed_others():
    again = [synthetic.generate_problems(60, "train", seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_splits_share_no_instance_no_wording_and_no_name(problems):
    instances = {s: {(p.family, synthetic.numbers_of(p)) for p in ps} for s, ps in problems.items()}
    questions = {s: {p.question for p in ps} for s, ps in problems.items()}
    for first, second in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not instances[first] & instances[second]
        assert not questions[first] & questions[second]
        for name in synthetic.COMPANIES[second]:
            assert not any(name in p.question + p.context for p in problems[first])


def test_wordings_of_one_family_differ_between_splits(problems):
    for family in synthetic.FAMILIES:
        words = {
            split: {"".join(c for c in p.question if not c.isdigit() and c != ".") for p in ps if p.family == family}
            for split, ps in problems.items()
        }
        assert not words["train"] & words["test"], family


def test_no_problem_stands_twice(problems):
    everything = [p for ps in problems.values() for p in ps]
    assert len({str(messages(p)) for p in everything}) == len(everything)
    assert len({p.id for p in everything}) == len(everything)


def test_each_worked_solution_is_true_ends_at_the_gold_and_has_three_steps(problems):
    for p in (p for ps in problems.values() for p in ps):
        assert judge.false_equations(p.reference) == [], p.reference
        assert len(judge.split_steps(p.reference)) >= 3, p.reference
        text = render_completion(p.reference, p.gold)
        verdict = grading.is_correct(text, gold=p.gold, answer_kind=p.answer_kind, labels=p.labels)
        assert verdict is True, (p.family, p.gold)


def test_gold_answers_of_closed_questions_are_not_all_alike(problems):
    for family in (
        "gift_rule",
        "position_rule",
        "disclosure_zh",
        "risk_ratio",
        "esg_topic",
        "sentiment",
        "code_branch",
    ):
        golds = Counter(p.gold for p in problems["test"] if p.family == family)
        assert max(golds.values()) <= 0.8 * sum(golds.values()), (family, golds)


def test_too_many_problems_name_the_family_that_ran_out():
    with pytest.raises(ValueError, match="no further instance"):
        synthetic.generate_problems(20_000, "test", seed=0)


def test_an_echo_of_the_question_or_of_its_options_is_never_right(problems):
    """What a policy finds first when the grader can be fooled: to repeat the options in place of choosing one."""
    for p in (p for ps in problems.values() for p in ps if p.answer_kind in ("boolean", "label")):
        tail = re.split(r"[,，:：.。]|Is this |Is it |of it: ", p.question.rstrip("?？"))[-1].strip()
        options = re.findall(r"[\w-]+ or [\w-]+|\w+还是\w+", p.question)
        for echo in (p.question, tail, *options):
            verdict = grading.is_correct(
                render_completion("so", echo), gold=p.gold, answer_kind=p.answer_kind, labels=p.labels
            )
            assert verdict is False, (p.family, echo, p.gold)
