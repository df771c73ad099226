"""Real DeepSeek-R1 traces with a graded result: the published answers to FinanceReasoning's hard questions.

https://github.com/BUPT-Reasoning-Lab/FinanceReasoning, results/FinanceReasoning/hard/cot/deepseek-r1. Not trained on:
they show what answer check and rules judge make of a real teacher. Nobody asked it for our response format, so its
answer is read leniently.
"""

from __future__ import annotations

import os
from pathlib import Path

from finr1 import grading
from finr1.records import Problem, Trace
from finr1.sources.files import Broken, read_folder


def read_traces(data_dir: Path | None = None) -> tuple[list[Trace], list[bool]]:
    """The traces below `data_dir` or `$FINR1_DATA`, if any, and whether their authors' grader accepts each."""
    folder = Path(data_dir or os.environ.get("FINR1_DATA", "")) / "financereasoning"
    records = [record for rows in read_folder(folder).values() for record in rows] if folder.is_dir() else []
    records = [record for record in records if not isinstance(record, Broken)]
    records = [record for record in records if "extracted_answer" in record.get("result", ())]  # else it is a program
    return [_trace(record) for record in records], [bool(record["result"]["acc"]) for record in records]


def _trace(record: dict) -> Trace:
    name, gold = f"financereasoning/{record['question_id']}", record["ground_truth"]
    thought = record["reasoning_content"]
    kind = "boolean" if isinstance(gold, bool) else "number"
    problem = Problem(
        id=name, source="financereasoning", module="none", language="en", capability="calculation", answer_kind=kind,
        context=record["context"], question=record["question"], gold=str(gold), split="dev", group=name,
    )  # fmt: skip
    return Trace(
        id=f"{name}#0", problem=problem, teacher="deepseek-r1", reasoning=thought, tokens=record["completion_tokens"],
        completion=f"<think>{thought}</think>{record['output']}",
        answer=grading.lenient_answer(record["output"], answer_kind=kind),
    )  # fmt: skip
