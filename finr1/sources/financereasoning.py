"""Real DeepSeek-R1 traces with a graded result: the published answers to FinanceReasoning's hard questions.

https://github.com/BUPT-Reasoning-Lab/FinanceReasoning, results/FinanceReasoning/hard/cot/deepseek-r1. No source of the
paper and not trained on: they show what answer check and rules judge make of a real teacher. Nobody asked it for our
response format, so its answer is read leniently.
"""

from __future__ import annotations

import os
from pathlib import Path

from finr1 import grading
from finr1.records import Problem, Trace
from finr1.sources.files import SourceError, read_folder


def read_traces(data_dir: Path | None = None) -> tuple[list[Trace], list[bool]]:
    """The chain-of-thought traces below `data_dir/financereasoning` and whether their authors' grader accepts each.

    Without `data_dir`, those below `$FINR1_DATA`, or two empty lists where there are none.
    Raises `SourceError` if a named folder holds none.
    """
    folder = Path(data_dir or os.environ.get("FINR1_DATA", "")) / "financereasoning"
    if data_dir is None and not folder.is_dir():
        return [], []
    files, damaged = read_folder(folder)
    records = [record for rows in files.values() for record in rows if isinstance(record, dict)]
    records = [record for record in records if "extracted_answer" in record.get("result", ())]
    if damaged or not records:
        raise SourceError(next(iter(damaged.values()), f"{folder} holds no graded chain-of-thought answers"))
    return [_trace(record) for record in records], [bool(record["result"]["acc"]) for record in records]


def _trace(record: dict) -> Trace:
    gold, identifier = record["ground_truth"], f"financereasoning/{record['question_id']}"
    kind = "boolean" if isinstance(gold, bool) else "number"
    problem = Problem(
        id=identifier, source="financereasoning", module="none", language="en", capability="calculation",
        answer_kind=kind, context=record["context"], question=record["question"], gold=str(gold), split="dev",
        group=identifier,
    )  # fmt: skip
    return Trace(
        id=f"{identifier}#0",
        problem=problem,
        teacher="deepseek-r1",
        completion=f"<think>{record['reasoning_content']}</think>{record['output']}",
        reasoning=record["reasoning_content"],
        answer=grading.lenient_answer(record["output"], answer_kind=kind),
        tokens=record.get("completion_tokens"),
    )
