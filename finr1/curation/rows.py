"""Rows as TRL's trainers take them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from finr1 import grading, sandbox
from finr1.records import SYSTEM_PROMPT, Problem, Trace, messages, render_completion


def sft_rows(traces: Iterable[Trace], system_prompt: str = SYSTEM_PROMPT) -> list[dict[str, object]]:
    """Conversational prompt-completion rows; TRL takes the loss on the completion alone (`completion_only_loss`).

    A completion that is not in the response format (DeepSeek-R1 gives reasoning and answer apart) is rendered into
    it. Raises `ValueError` for a trace without an answer: it belongs filtered out.
    """
    rows = []
    for trace in traces:
        if not trace.answer:
            raise ValueError(f"trace {trace.id} has no answer and cannot be trained on")
        in_format = grading.has_format(trace.completion)
        content = trace.completion if in_format else render_completion(trace.reasoning, trace.answer)
        prompt = messages(trace.problem, system_prompt)
        rows.append({"id": trace.id, "prompt": prompt, "completion": [{"role": "assistant", "content": content}]})
    return rows


def is_objective(problem: Problem) -> bool:
    """Whether rules decide every answer to it: not free text, and of code only what has unit tests."""
    if problem.answer_kind == "code":
        return sandbox.read_tests(problem.gold) is not None
    return problem.answer_kind != "text"


def rl_rows(problems: Iterable[Problem], system_prompt: str = SYSTEM_PROMPT) -> list[dict[str, object]]:
    """Prompts for GRPO; the other columns reach the reward functions by their names.

    `choices` and `labels` are JSON strings, "" for none: `datasets` would merge dicts into one struct with every key.
    """
    return [
        {
            "id": problem.id,
            "prompt": messages(problem, system_prompt),
            "solution": problem.gold,
            "answer_kind": problem.answer_kind,
            "alternatives": problem.alternatives,
            "choices": json.dumps(problem.choices, ensure_ascii=False) if problem.choices else "",
            "labels": json.dumps(problem.labels, ensure_ascii=False) if problem.labels else "",
            "family": problem.family,
            "level": problem.level,
            "language": problem.language,
            "capability": problem.capability,
        }
        for problem in problems
    ]
