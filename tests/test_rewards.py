"""Rewards: tables of completions, and what must never be paid."""

import pytest

from finr1.rewards import accuracy_reward, format_reward, gated_reward

GOOD = "<think>12 * 5 = 60</think><answer>\\boxed{60}</answer>"
CASES = [
    # completion, format, accuracy, why
    (GOOD, 1, 1, "format and answer"),
    (GOOD.replace("60}", "61}"), 1, 0, "format, wrong answer"),
    ("\\boxed{60}", 0, 1, "right without the format"),
    ("60", 0, 0, "no box, no block: nothing to extract"),
    ("", 0, 0, "empty"),
    ("<think></think><answer></answer>", 0, 0, "empty blocks"),
    (GOOD + " and more", 0, 1, "text outside"),
    (GOOD + GOOD, 0, 1, "two of everything"),
    ("<think>a</think><answer>\\boxed{60} or \\boxed{61}</answer>", 1, 0, "only the last box counts"),
    ("<think>a</think><answer>59 60 61</answer>", 1, 0, "a list of guesses"),
    ("<think>60", 0, 0, "never closed"),
    ("<answer>\\boxed{60}</answer><think>a</think>", 0, 0, "wrong order"),
]


@pytest.mark.parametrize("text, shape, right, why", CASES, ids=[row[3] for row in CASES])
def test_rewards_of_one_completion(text, shape, right, why):
    columns = {"solution": ["60"], "answer_kind": ["number"]}
    assert format_reward([text], **columns) == [shape]
    assert accuracy_reward([text], **columns) == [right]
    assert gated_reward([text], **columns) == [float(bool(shape and right))]


def test_chats_and_strings_are_both_read():
    assert format_reward([[{"role": "assistant", "content": GOOD}], GOOD]) == [1.0, 1.0]


@pytest.mark.parametrize("gold, kind", [("", "number"), ("not a number", "number"), ("   ", "text")])
def test_an_unreadable_gold_pays_nothing_and_punishes_nothing(gold, kind):
    assert accuracy_reward([GOOD, ""], solution=[gold] * 2, answer_kind=[kind] * 2) == [None, None]


def test_code_is_run_where_the_system_does_not_tell_its_cores(monkeypatch):
    """macOS has no affinity; the sandbox is Linux's, but code without unit tests is judged there, too."""
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delattr("psutil.Process.cpu_affinity", raising=False)
    answer = "<think>so</think><answer>x = 1</answer>"
    assert accuracy_reward([answer], solution=["x = 1"], answer_kind=["code"]) == [1.0]


def test_free_text_is_left_to_a_judge():
    text = GOOD.replace("\\boxed{60}", "a broad fall in demand")
    columns = {"solution": ["weaker demand"], "answer_kind": ["text"]}
    assert accuracy_reward([text], **columns) == [None]
    assert gated_reward([text], **columns) == [None]
    assert gated_reward(["no format"], **columns) == [0.0]


def test_labels_and_choices_come_as_json():
    text = GOOD.replace("60}", "bearish}")
    columns = {"solution": ["0"], "answer_kind": ["label"], "labels": ['{"0": "bearish", "1": "bullish"}']}
    assert accuracy_reward([text], **columns) == [1.0]
    text = GOOD.replace("60}", "B}")
    columns = {"solution": ["B"], "answer_kind": ["choice"], "choices": ['{"A": "bond", "B": "stock"}']}
    assert accuracy_reward([text], **columns) == [1.0]
