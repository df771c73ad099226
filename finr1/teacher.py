"""Traces: from a teacher's reply, or from a worked solution where no teacher is asked, at once or by parts."""

import random
from collections.abc import Iterable

from finr1 import grading
from finr1.judge.steps import split_steps
from finr1.records import Problem, Trace, Way, messages, render_completion


def solution_of(problem: Problem, sample: int, seed: int, by_parts_share: float) -> str:
    """The worked solution to tell: by parts for a share of the problems with two. A larger share adds problems."""
    by_parts = problem.reference_by_parts and rng_of("way", problem, sample, seed).random() < by_parts_share
    return problem.reference_by_parts if by_parts else problem.reference


def rng_of(purpose: str, problem: Problem, sample: int, seed: int) -> random.Random:
    # The chat is the seed, not the id: answers are stored by chat, and an id may move to another problem.
    return random.Random(f"{purpose}:{seed}:{sample}:{messages(problem, system_prompt='')}")


def derived_traces(problems: Iterable[Problem], seed: int = 0, by_parts_share: float = 0.0) -> list[Trace]:
    """Traces of the problems with a worked solution: FinQA's gold program in words, TFNS's rationale by rule."""
    told = [(problem, solution_of(problem, 0, seed, by_parts_share)) for problem in problems if problem.reference]
    return [trace_of(problem, 0, "derived", render_completion(text, problem.gold), text) for problem, text in told]


def trace_of(problem: Problem, sample: int, teacher: str, text: str, reasoning: str, **known) -> Trace:
    said = {"completion": text, "reasoning": reasoning, "answer": grading.extract_answer(text)}
    way = way_of(problem, reasoning or text)
    return Trace(id=f"{problem.id}#{sample}", problem=problem, teacher=teacher, way=way, **said, **known)


def way_of(problem: Problem, text: str) -> Way | None:
    """Which of the problem's two solutions (None: it has one) has about the steps of `text`; at a tie the shorter."""
    if not problem.reference_by_parts:
        return None
    at_once, by_parts = (len(split_steps(told)) for told in (problem.reference, problem.reference_by_parts))
    steps = len(split_steps(text.partition("</think>")[0].removeprefix("<think>")))
    return "by_parts" if steps > (at_once + by_parts) / 2 else "at_once"
