"""Reward functions with TRL's signature: `(completions, **columns) -> list[float | None]`.

Fin-R1's reward is R = R_format + R_accuracy, each 0 or 1 (arXiv 2503.16252). The gated variant pays 1 only when both
hold, as DianJin-R1 does. `None` means "cannot be judged": the trainer (`grpo.observed`) then drops the row's other
rewards, too, so that it teaches nothing. TRL alone would add up what is left, as if the answer were wrong.

Rules (`grading`) decide first, for code by its unit tests in a sandbox. `verified` makes the same rewards with a model
for what rules leave open, as asynchronous functions, which TRL runs beside each other.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from finr1 import grading, sandbox
from finr1.judge.verifier import Case, Verifier

PATIENCE = 300.0  # seconds that a step waits for a verifier behind an endpoint

Completions = list[list[dict[str, str]]] | list[str]


def _texts(completions: Completions) -> list[str]:
    """The text of each completion; TRL passes chats for conversational data, strings otherwise."""
    return [c if isinstance(c, str) else c[0]["content"] for c in completions]


def format_reward(completions: Completions, **columns) -> list[float]:
    """1.0 when the text is one think block, then one answer block, with nothing outside; else 0.0.

    Example:
        >>> format_reward(["<think>12 * 5 = 60</think><answer>\\boxed{60}</answer>", "60"])
        [1.0, 0.0]
    """
    return [float(grading.has_format(text)) for text in _texts(completions)]


def accuracy_reward(completions: Completions, **columns) -> list[float | None]:
    """1.0 when `grading` finds the extracted answer right, 0.0 when wrong, None when rules cannot tell.

    `solution`, `answer_kind`, ... are columns of the RL rows (`curation.rl_rows`); `choices` and `labels` are JSON.
    A gold answer that cannot be read also gives None: such a row must not teach anything.
    """
    return [_paid(judged.correct) for judged in judge_by_rules(completions, **columns)]


def gated_reward(completions: Completions, **columns) -> list[float | None]:
    """1.0 when the format holds AND the answer is right, 0.0 otherwise, None when rules cannot tell.

    A missing format is 0.0 even for an answer that rules cannot judge: no verdict could lift it.
    """
    return [_paid(judged.correct) for judged in judge_by_rules(completions, gated=True, **columns)]


def verified(verifier: Verifier, gated: bool = False) -> Callable[..., Awaitable[list[float | None]]]:
    """`accuracy_reward` or `gated_reward` under the same name, with `verifier` for what rules leave undecided.

    Logs each step the shares of completions that were undecided by rules, asked about, known from before, and left
    without a verdict (`verifier/undecided`, `asked`, `cached`, `failed`; the second and third make up the first), and
    beside each completion what the verifier said (column `verifier` of TRL's record of completions).
    """

    async def reward(completions: Completions, log_metric=None, log_extra=None, **columns) -> list[float | None]:
        judged = await asyncio.to_thread(judge_by_rules, completions, gated, **columns)
        try:
            asked = asyncio.to_thread(ask, verifier, judged, completions, **columns)
            # A thread can't be ended: a local model would go on beside the training and put back a random state of
            # before. It can't be dead either, so it is waited for.
            judged = await asyncio.wait_for(asked, None if verifier.is_local else PATIENCE)
        except TimeoutError:  # other ranks are waiting; what is still answered will be known the next time
            judged = [row._replace(said=f"no verdict within {PATIENCE} s") if row.undecided else row for row in judged]
        for name, value in shares(judged).items() if log_metric else ():
            log_metric(f"verifier/{name}", value)
        if log_extra:
            log_extra("verifier", [row.said for row in judged])
        return [_paid(row.correct) for row in judged]

    reward.__name__ = (gated_reward if gated else accuracy_reward).__name__  # TRL names metrics and columns by it
    return reward


class Judged(NamedTuple):
    """The verdict on one completion and how it came about."""

    correct: bool | None
    undecided: bool = False  # by rules, and so put to the verifier
    cached: bool = False  # the verifier had been asked before
    said: str = ""  # by the verifier, or why it said nothing


def shares(judged: Sequence[Judged]) -> dict[str, float]:
    """Of all completions: those undecided by rules, asked about, known from before, and left without a verdict."""
    opened = [row for row in judged if row.undecided]
    counts = {
        "undecided": len(opened),
        "asked": sum(not row.cached for row in opened),
        "cached": sum(row.cached for row in opened),
        "failed": sum(row.correct is None for row in opened),
    }
    return {name: count / max(len(judged), 1) for name, count in counts.items()}


def judge_by_rules(
    completions: Completions,
    gated: bool = False,
    *,
    solution: Sequence[str],
    answer_kind: Sequence[str],
    alternatives: Sequence[Sequence[str]] | None = None,
    choices: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    **columns,
) -> list[Judged]:
    """What `grading` says of each completion; with `gated`, one without the format is wrong whatever its answer.

    Code with unit tests is run in as many threads as there are cores.
    """
    texts, rows = _texts(completions), len(solution)
    golds = zip(solution, answer_kind, alternatives or [()] * rows, choices or [""] * rows, labels or [""] * rows,
                strict=True)  # fmt: skip

    def judge(text: str, gold: tuple) -> Judged:
        return Judged(False) if gated and not grading.has_format(text) else _by_rules(text, *gold)

    if "code" not in answer_kind:
        return [judge(text, gold) for text, gold in zip(texts, golds, strict=True)]
    with ThreadPoolExecutor(_cores()) as pool:
        return list(pool.map(judge, texts, golds))


def _cores() -> int:
    """Those that this process may use, where the system tells (macOS does not)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ask(
    verifier: Verifier,
    judged: Sequence[Judged],
    completions: Completions,
    *,
    solution: Sequence[str],
    alternatives: Sequence[Sequence[str]] | None = None,
    prompts: Sequence | None = None,
    **columns,
) -> list[Judged]:
    """`judged`, with what `verifier` says of the undecided ones; `prompts` (chats) for orders that show a question."""
    texts, result = _texts(completions), list(judged)
    opened = [i for i, row in enumerate(judged) if row.undecided]
    cases = [
        Case(
            _question(prompts[i]) if prompts else "",
            " or ".join([solution[i], *(alternatives[i] if alternatives else ())]),
            grading.extract_answer(texts[i]) or "",
        )
        for i in opened
    ]
    for i, opinion in zip(opened, verifier(cases) if cases else (), strict=True):
        word = {True: "right", False: "wrong", None: "no verdict"}[opinion.correct]
        result[i] = Judged(opinion.correct, True, opinion.cached, f"{word}: {opinion.reason}".rstrip(": "))
    return result


def _by_rules(text: str, gold: str, kind: str, others: Sequence[str], options: str, names: str) -> Judged:
    try:
        correct = grading.is_correct(
            text, gold=gold, answer_kind=kind, alternatives=others or (),
            choices=json.loads(options) if options else None, labels=json.loads(names) if names else None,
        )  # fmt: skip
    except ValueError:
        return Judged(None)  # the gold answer can't be read; nobody is asked about it
    return Judged(correct, undecided=correct is None)


def _paid(correct: bool | None) -> float | None:
    return None if correct is None else float(correct)


def _question(prompt: str | list[dict[str, str]]) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def check_rows(rows: Sequence[dict]) -> None:
    """Raise `SandboxUnavailable` when `rows` hold unit tests and this platform can't run code safely."""
    if any(row["answer_kind"] == "code" and _has_tests(row["solution"]) for row in rows):
        sandbox.check()


def _has_tests(gold: str) -> bool:
    try:
        return sandbox.read_tests(gold) is not None
    except ValueError:
        return False
