"""Answers to problems, with the gold history of a conversation or with the model's own.

With the gold history a model that went wrong at the first turn is set right before the second; its own history is what
a user would get. Turns go in order, and all conversations of a turn in one batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from finr1 import grading
from finr1.records import Problem, Turn

if TYPE_CHECKING:
    from finr1.generation import AnswerStore, Backend, Completion, Progress, SamplingParams

Ask = Callable[[Problem], list[dict]]
Answered = tuple[Problem, "Completion", list[str] | None]  # the last: the model's own earlier answers
MAX_TURN = 2000  # characters of an answer without a box that become a turn


def complete(
    problems: Sequence[Problem],
    backend: Backend,
    sampling: SamplingParams,
    store: AnswerStore | None,
    ask: Ask,
    on_progress: Callable[[Progress], object] | None = None,
) -> Iterator[Answered]:
    """Each problem with each of its answers, the history as the problem has it; in the order of the problems."""
    from finr1.generation import Request, generate

    requests = [Request(id=problem.id, messages=ask(problem)) for problem in problems]
    completions = iter(generate(requests, sampling, backend, store, on_progress=on_progress))
    for problem in problems:
        for _ in range(sampling.num_samples):
            yield problem, next(completions), None


def complete_own(
    problems: Sequence[Problem],
    backend: Backend,
    sampling: SamplingParams,
    store: AnswerStore | None,
    ask: Ask,
    on_progress: Callable[[Progress], object] | None = None,
) -> Iterator[Answered]:
    """As `complete`, but the earlier turns hold what the model itself answers to them.

    Sample k of an item is one conversation of its own from the first turn on, asked with `sampling.seed + k`. Items of
    one conversation share their beginning: equal chats are asked once.
    """
    rounds = []
    for k in range(sampling.num_samples):
        one = sampling.model_copy(update={"num_samples": 1, "seed": sampling.seed + k})
        own: list[list[str]] = [[] for _ in problems]
        for turn in range(max((len(problem.history) for problem in problems), default=0)):
            places = [place for place, problem in enumerate(problems) if len(problem.history) > turn]
            asked = [_earlier(problems[place], turn, own[place]) for place in places]
            answered = complete(asked, backend, one, store, ask, on_progress)
            for place, (_, completion, _) in zip(places, answered, strict=True):
                own[place].append(_as_turn(completion.tagged))
        last = [_with_history(problem, answers) for problem, answers in zip(problems, own, strict=True)]
        answered = complete(last, backend, one, store, ask, on_progress)
        completions = [completion.model_copy(update={"sample": k}) for _, completion, _ in answered]
        rounds.append(list(zip(completions, own, strict=True)))
    for place, problem in enumerate(problems):
        for one_round in rounds:
            yield problem, *one_round[place]


def _earlier(problem: Problem, turn: int, own: list[str]) -> Problem:
    """The question of an earlier turn as a problem of its own, behind the model's answers so far."""
    update = {"id": f"{problem.id}@{turn}", "question": problem.history[turn].question, "choices": None}
    return _with_history(problem.model_copy(update=update | {"history": problem.history[:turn]}), own)


def _with_history(problem: Problem, own: list[str]) -> Problem:
    turns = [Turn(question=turn.question, answer=answer) for turn, answer in zip(problem.history, own, strict=True)]
    return problem.model_copy(update={"history": turns})


def _as_turn(text: str) -> str:
    """An answer as the next prompt shows it: its result, as gold turns are, else its text without the thinking."""
    answer = grading.extract_answer(text)
    rest = re.sub(r"(?s).*</think>|<think>.*", "", text).strip()
    return answer or rest[:MAX_TURN] or "-"
