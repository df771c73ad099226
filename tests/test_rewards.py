"""Rewards: tables of completions, and what must never be paid."""

import pytest
from recipes import recipe

from finr1.rewards import observed

CELLS = recipe("05_grpo")
format_reward, accuracy_reward, gated_reward = CELLS.format_reward, CELLS.accuracy_reward, CELLS.gated_reward


def chats(*texts: str) -> list[list[dict[str, str]]]:
    """As TRL passes completions."""
    return [[{"role": "assistant", "content": text}] for text in texts]


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
    assert format_reward(chats(text), **columns) == [shape]
    assert accuracy_reward(chats(text), **columns) == [right]
    assert gated_reward(chats(text), **columns) == [float(bool(shape and right))]


@pytest.mark.parametrize("gold, kind", [("", "number"), ("not a number", "number"), ("   ", "text")])
def test_an_unreadable_gold_pays_nothing_and_punishes_nothing(gold, kind):
    assert accuracy_reward(chats(GOOD, ""), solution=[gold] * 2, answer_kind=[kind] * 2) == [None, None]


def test_code_is_run_where_the_system_does_not_tell_its_cores(monkeypatch):
    """macOS has no affinity; the sandbox is Linux's, but code without unit tests is judged there, too."""
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delattr("psutil.Process.cpu_affinity", raising=False)
    answer = "<think>so</think><answer>x = 1</answer>"
    assert accuracy_reward(chats(answer), solution=["x = 1"], answer_kind=["code"]) == [1.0]


def test_free_text_is_left_to_a_judge():
    text = GOOD.replace("\\boxed{60}", "a broad fall in demand")
    columns = {"solution": ["weaker demand"], "answer_kind": ["text"]}
    assert accuracy_reward(chats(text), **columns) == [None]
    assert gated_reward(chats(text), **columns) == [None]
    assert gated_reward(chats("no format"), **columns) == [0.0]


def test_labels_and_choices_come_as_json():
    text = GOOD.replace("60}", "bearish}")
    columns = {"solution": ["0"], "answer_kind": ["label"], "labels": ['{"0": "bearish", "1": "bullish"}']}
    assert accuracy_reward(chats(text), **columns) == [1.0]
    text = GOOD.replace("60}", "B}")
    columns = {"solution": ["B"], "answer_kind": ["choice"], "choices": ['{"A": "bond", "B": "stock"}']}
    assert accuracy_reward(chats(text), **columns) == [1.0]


# ---- computed together, for TRL --------------------------------------------------------------------------------------


def length_reward(completions, completion_ids, **columns):
    return [len(ids) / 10 for ids in completion_ids]


async def slow_reward(completions, **columns):
    return [0.25 for _ in completions]


def test_what_nobody_can_judge_has_no_reward_at_all_wherever_accuracy_stands_in_the_list():
    """The reward that is marked decides; a reward that is listed before it is never taken for it."""
    completions = chats(GOOD, GOOD.replace("\\boxed{60}", "a broad fall"))
    row = {"solution": ["60", "weaker"], "answer_kind": ["number", "text"], "choices": ["", ""], "labels": ["", ""],
           "prompts": [[{"role": "user", "content": "?"}]] * 2, "completion_ids": [[1] * 4, [1] * 5],
           "id": ["a", "b"]}  # fmt: skip
    for order in ([length_reward, format_reward, accuracy_reward], [accuracy_reward, slow_reward, length_reward]):
        logged, extra = {}, {}
        functions = observed(order, None)
        assert [f.__name__ for f in functions] == [f.__name__ for f in order]
        values = [f(completions, log_metric=logged.__setitem__, log_extra=extra.__setitem__, **row) for f in functions]
        assert all(value[0] is not None and value[1] is None for value in values)
        assert values[order.index(accuracy_reward)] == [1.0, None]
        assert values[order.index(length_reward)][0] == 0.4
        assert logged["watch/agreement"] == 1.0 and extra == {"id": ["a", "b"]}


def test_without_a_reward_that_judges_the_answer_the_others_stand_alone():
    row = {"answer_kind": ["text"], "choices": [""], "labels": [""], "completion_ids": [[1] * 4],
           "prompts": [[{"role": "user", "content": "?"}]]}  # fmt: skip
    logged = {}
    (only,) = observed([format_reward], None)
    assert only(chats(GOOD), log_metric=logged.__setitem__, **row) == [1.0]
    assert "watch/agreement" not in logged and "watch/repetition" in logged
