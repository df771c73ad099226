"""Reward functions with TRL's signature: `(completions, **columns) -> list[float | None]`.

Fin-R1's reward is R = R_format + R_accuracy, each 0 or 1 (arXiv 2503.16252). The gated variant pays 1 only when both
hold, as DianJin-R1 does. `None` means "cannot be judged": TRL then counts the row's other rewards alone.
"""

from __future__ import annotations

import json

from finr1 import grading

Completions = list[list[dict[str, str]]] | list[str]


def _texts(completions: Completions) -> list[str]:
    """The text of each completion; TRL passes chats for conversational data, strings otherwise."""
    return [c if isinstance(c, str) else c[0]["content"] for c in completions]


def format_reward(completions: Completions, **columns) -> list[float]:
    """1.0 when the text is one think block, then one answer block, with nothing outside; else 0.0.

    Example:
        >>> format_reward(["<think>12 * 5 = 60</think><answer>\\\\boxed{60}</answer>", "60"])
        [1.0, 0.0]
    """
    return [float(grading.has_format(text)) for text in _texts(completions)]


def accuracy_reward(
    completions: Completions,
    solution: list[str],
    answer_kind: list[str],
    alternatives: list[list[str]] | None = None,
    choices: list[str] | None = None,
    labels: list[str] | None = None,
    **columns,
) -> list[float | None]:
    """1.0 when `grading` finds the extracted answer right, 0.0 when wrong, None when rules cannot tell.

    `solution`, `answer_kind`, ... are columns of the RL rows (`curation.rl_rows`); `choices` and `labels` are JSON.
    A gold answer that cannot be read also gives None: such a row must not teach anything.
    """
    texts, rows = _texts(completions), len(solution)
    rewards: list[float | None] = []
    for text, gold, kind, others, options, names in zip(
        texts, solution, answer_kind, alternatives or [[]] * rows, choices or [""] * rows, labels or [""] * rows,
        strict=True,
    ):  # fmt: skip
        try:
            correct = grading.is_correct(
                text, gold=gold, answer_kind=kind, alternatives=others or (),
                choices=json.loads(options) if options else None, labels=json.loads(names) if names else None,
            )  # fmt: skip
        except ValueError:
            correct = None
        rewards.append(None if correct is None else float(correct))
    return rewards


def gated_reward(completions: Completions, **columns) -> list[float | None]:
    """1.0 when the format holds AND the answer is right, 0.0 otherwise, None when rules cannot tell.

    A missing format is 0.0 even for an answer that rules cannot judge: no verdict could lift it.
    """
    accuracy = accuracy_reward(completions, **columns)
    return [a if shape else 0.0 for a, shape in zip(accuracy, format_reward(completions), strict=True)]
