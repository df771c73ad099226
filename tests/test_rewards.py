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


# ---- the share of true steps ----------------------------------------------------------------------------------------

STEPS = [
    # thought, reward, why
    ("12 * 5 = 60. So it is 60.", 1, "one true step"),
    ("10 * 5 = 50. 2 * 5 = 10. 50 + 10 = 60. So it is 60.", 1, "more steps earn no more"),
    ("10 * 5 = 50. 2 * 5 = 12. 50 + 12 = 62. So it is 62.", 2 / 3, "one of three is false"),
    ("22 * 5 = 110. So it is 110.", 0, "a number that nobody gave"),
    ("", 0, "no thought"),
    ("It is 60.", 0, "a result from nowhere"),
    ("0 + 5 = 5. 5 * 1 = 5. 12 shares at $5.", 0, "trivial equations and copied numbers"),
    ("12 * 5 = 70. So it is 70." + " 12 + 5 = 17." * 9, 0, "padding thins out no error"),
    ("12 * 5 = 60. " * 20 + "60 / 5 = 13. So it is 13.", 0.5, "copies count once"),
]


@pytest.mark.parametrize("thought, expected, why", STEPS, ids=[row[2] for row in STEPS])
def test_the_share_of_true_steps(thought, expected, why):
    prompt = [{"role": "system", "content": "22 is no number of the question"},
              {"role": "user", "content": "What do 12 shares at $5 cost?"}]  # fmt: skip
    logged = {}
    completions = chats(f"<think>{thought}</think><answer>no</answer>")
    paid = CELLS.true_steps_reward(completions, prompts=[prompt], log_metric=logged.__setitem__)
    assert paid == pytest.approx([expected])
    assert set(logged) == {"steps/checked"} and CELLS.true_steps_reward(completions, prompts=[prompt]) == paid


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
        assert logged["accuracy"] == 1.0, "right and in the format, of what could be judged"


def test_a_batch_logs_the_share_of_one_answer_by_family():
    columns = {"solution": ["60", "61"], "answer_kind": ["number"] * 2, "family": ["f"] * 2, "id": ["a", "b"],
               "completion_ids": [[1] * 4] * 2, "prompts": [[{"role": "user", "content": "?"}]] * 2}  # fmt: skip
    logged = {}
    observed([accuracy_reward], None)[0](chats(GOOD, GOOD), log_metric=logged.__setitem__, **columns)
    assert logged["accuracy"] == 0.5
    assert logged["one_answer/f"] == logged["watch/one_answer"] == 1.0
    assert logged["answer_entropy/within"] == logged["answer_entropy/across"] == 0.0


def test_without_a_reward_that_judges_the_answer_the_others_stand_alone():
    row = {"answer_kind": ["text"], "choices": [""], "labels": [""], "completion_ids": [[1] * 4],
           "prompts": [[{"role": "user", "content": "?"}]]}  # fmt: skip
    logged = {}
    (only,) = observed([format_reward], None)
    assert only(chats(GOOD), log_metric=logged.__setitem__, **row) == [1.0]
    assert "watch/agreement" not in logged and "watch/repetition" in logged
