"""Open questions with a written answer: Finance-Instruct-500k and FinanceQT.

* https://huggingface.co/datasets/Josephgflowers/Finance-Instruct-500k: `system, user, assistant`; re-uploads hold the
  same as `{prompt: [...], completion: [...]}` or `{messages: [...]}`. Fin-R1 benchmarks on a stratified tenth of it:
  where a file states no split, a tenth by hash is `test`. `train` is a split only beside another one: the hub calls all
  of a data set so that nobody has split.
* FinanceQT is https://huggingface.co/datasets/lumalik/Quant-Trading-Instruct: `context, question, answer`.

Answers are `text` (the judge's case) unless they are one number, which rules can grade.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finr1.records import Problem, Turn, hash_share
from finr1.sources.files import Files, Reason, attempt, load_hub, split_in_name

FINANCE_INSTRUCT_ID = "Josephgflowers/Finance-Instruct-500k"
FINANCEQT_ID = "lumalik/Quant-Trading-Instruct"
TEST_SHARE, SPLIT_SEED = 0.1, 0


def fetch_finance_instruct(cache: Path) -> Files:
    """The hub's data set, kept in `cache`. Raises `SourceError` if it cannot be reached."""
    return load_hub(FINANCE_INSTRUCT_ID, cache)


def fetch_financeqt(cache: Path) -> Files:
    """The hub's data set, kept in `cache`. Raises `SourceError` if it cannot be reached."""
    return load_hub(FINANCEQT_ID, cache)


def finance_instruct_rows(files: Files) -> Iterator[tuple[str, int, Problem | Reason]]:
    """Each record as (file, number, problem or reason); train files are read as unsplit where no other split is."""
    has_splits = any(split_in_name(name) in ("dev", "test") for name in files)
    for name, records in files.items():
        for number, record in enumerate(records):
            found = attempt(read_finance_instruct, record, name if has_splits else "")
            yield name, number, found if isinstance(found, Problem) else Reason(found)


def read_finance_instruct(record: Any, file: str) -> Problem | str:
    """A conversation as a `Problem` whose gold is the last answer, or the reason why it is none."""
    chat = _chat(record)
    if isinstance(chat, str):
        return chat
    system = "\n".join(turn["content"].strip() for turn in chat if turn["role"] == "system")
    turns = [(turn["role"], turn["content"].strip()) for turn in chat if turn["role"] != "system"]
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        return "no question and answer in turn"
    if not all(text for _, text in turns):
        return "no question" if not turns[-2][1] else "no gold" if not turns[-1][1] else "empty turn"
    history = [Turn(question=turns[i][1], answer=turns[i + 1][1]) for i in range(0, len(turns) - 2, 2)]
    return _open_problem("finance_instruct_500k", file, turns[-2][1], turns[-1][1], system, history)


def read_financeqt(record: Any, file: str) -> Problem | str:
    """A row of trading questions as a `Problem`, or the reason why it is none."""
    if missing := {"context", "question", "answer"} - record.keys():
        return f"missing column {min(missing)}"
    question, answer, context = (str(record[name] or "").strip() for name in ("question", "answer", "context"))
    if not question or not answer:
        return "no question" if not question else "no gold"
    return _open_problem("financeqt", file, question, answer, context, [])


def _chat(record: dict) -> list[dict] | str:
    if {"user", "assistant"} <= record.keys():
        return [{"role": role, "content": record.get(role) or ""} for role in ("system", "user", "assistant")]
    if {"prompt", "completion"} <= record.keys():
        return [*record["prompt"], *record["completion"]]
    for name in ("messages", "conversations"):
        if name in record:
            roles = {"human": "user", "gpt": "assistant"}
            return [
                {"role": roles.get(role := turn.get("role") or turn["from"], role),
                 "content": turn.get("content") or turn.get("value") or ""}
                for turn in record[name]
            ]  # fmt: skip
    return "missing column user" if "assistant" in record else "missing column assistant" if "user" in record else (
        "unknown schema"
    )  # fmt: skip


def _open_problem(source: str, file: str, question: str, answer: str, context: str, history: list[Turn]) -> Problem:
    key = hashlib.sha256("\n".join([context, *(t.question for t in history), question]).encode()).hexdigest()[:12]
    is_code = source == "financeqt"
    split = split_in_name(file) or "train"
    if not is_code and split_in_name(file) is None and hash_share(key, SPLIT_SEED) < TEST_SHARE:
        split = "test"
    has_chinese = re.search(r"[\u4e00-\u9fff]", question)
    return Problem(
        id=f"{source}/{key}",
        source=source,
        module="code" if is_code else "professional knowledge",
        language="zh" if has_chinese else "en",
        capability="code" if is_code else "knowledge",
        answer_kind="number" if re.fullmatch(r"[-+]?\$?\d[\d,]*(\.\d+)?", answer) else "text",
        context=context,
        history=history,
        question=question,
        gold=answer,
        split=split,
        group=f"{source}/{key}",
    )
