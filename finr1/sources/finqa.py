"""FinQA: questions over a page of an annual report (text and a table), with a gold program.

Chen et al. 2021, https://github.com/czyssrs/FinQA. A record of the official schema:

    {"id": "ETR/2016/page_23.pdf-2", "pre_text": [...], "table": [[...]], "post_text": [...],
     "qa": {"question": ..., "answer": "94", "exe_ans": 94.0, "program": "subtract(5829, 5735)"}}

Public re-uploads hold the same questions in five other shapes, each lacking something. `rows` brings them to the
official schema and joins what is missing by id, or by page, from the other files of the folder; an id is used once,
from its most complete copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finr1.records import Problem
from finr1.sources.files import Files, Reason, attempt, download, split_in_name
from finr1.sources.golds import choose_golds, clean_executed
from finr1.sources.pages import Page
from finr1.sources.programs import execute, parse_program, worked_reasoning

HOME = "https://raw.githubusercontent.com/czyssrs/FinQA/main/dataset/"
# From the most complete copy of a record to the least.
SCHEMAS = ("official", "uda", "lists", "flat", "verl", "pair", "prompt", "split ids", "model", "other")


def fetch(cache: Path) -> Files:
    """The official files, downloaded into `cache` once. Raises `SourceError` if their home cannot be reached."""
    return download({f"{split}.json": f"{HOME}{split}.json" for split in ("train", "dev", "test")}, cache)


def schema(raw: object) -> str:
    """Which of `SCHEMAS` a record has, told from its keys."""
    keys = raw.keys() if isinstance(raw, dict) else set()
    marks = {
        "model": {"id", "generation", "prediction"},
        "official": {"id", "qa", "table", "pre_text"},
        "uda": {"q_uid", "answers", "context"},
        "lists": {"id", "question", "table", "pre_text", "program"},
        "flat": {"id", "question", "context", "gold_raw"},
        "verl": {"prompt", "extra_info", "reward_model"},
        "pair": {"q_uid", "answer_1", "answer_2"},
        "prompt": {"text"},
        "split ids": {"train", "dev", "test"},
    }
    if marks["split ids"] <= keys and not all(_are_strings(raw[split]) for split in marks["split ids"]):
        return "other"
    return next((name for name, needed in marks.items() if needed <= keys), "other")


def rows(files: Files) -> Iterator[tuple[str, int, dict | str]]:
    """(file, number, record in the official schema or the reason why there is none), the most complete copies first."""
    joins = Joins.collect(files)
    ranked = [
        (SCHEMAS.index(schema(raw)), name, number, raw)
        for name, records in files.items()
        for number, raw in enumerate(records)
    ]
    pages: dict[str, Page] = {}
    for rank, name, number, raw in sorted(ranked, key=lambda item: item[0]):
        record = attempt(_TO_OFFICIAL[SCHEMAS[rank]], raw, joins)
        if isinstance(record, str):
            yield name, number, Reason(record)
            continue
        page = page_of(record["id"])
        if record["page"] is None and page not in pages:
            yield name, number, Reason("no context")
        else:
            record["page"] = pages.setdefault(page, record["page"])
            joins.splits.setdefault(page, split_in_name(name))  # a page stays in the split where it was first seen
            yield name, number, record | {"split": joins.splits[page]}


def read(record: dict, file: str) -> Problem | str:
    """A record of the official schema as a `Problem`, or the reason why it is none.

    `page` (a `Page`) and `split` are read where `rows` has put them, else the lists of the record and the file's name.
    """
    page = record.get("page") or Page.from_lists(record["pre_text"], record["table"], record["post_text"])
    split = record.get("split") or split_in_name(file)
    qa = record["qa"]
    golds = choose_golds(qa.get("answer"), qa.get("exe_ans"), qa["question"])
    reasons = {"no context": not page.context(), "unknown split": not split, "no question": not qa["question"].strip()}
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason or isinstance(golds, str):
        return reason or golds
    program = qa.get("program") or ""
    steps = parse_program(program)
    return Problem(
        id=f"finqa/{record['id']}",
        source="finqa",
        module="reasoning business knowledge",
        language="en",
        capability="calculation",
        answer_kind=golds.kind,
        context=page.context(),
        question=qa["question"].strip(),
        gold=golds.gold,
        alternatives=golds.alternatives,
        flaw=golds.flaw,
        split=split,
        group=page_of(record["id"]),
        family=steps[-1].operation if steps else "",
        level=len(steps) if steps else None,
        reference=worked_reasoning(program, golds.gold, clean_executed(qa.get("exe_ans")), page, qa["question"]),
    )


def page_of(identifier: str) -> str:
    """The page of a FinQA id or a ConvFinQA dialogue id: `Single_V/2008/page_17.pdf-1` -> `V/2008/page_17.pdf`."""
    return re.sub(r"(?<=\.pdf).*$", "", re.sub(r"^(Single|Double)_", "", identifier))


@dataclass
class Joins:
    """What some files know about records of others: golds and programs by id, the split by page."""

    golds: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # id -> question, text answer, executed answer
    programs: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> question, program
    splits: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def collect(cls, files: Files) -> Joins:
        """Gather the joins of a folder. Prompts carry no id: they are in the order of the published split ids."""
        joins = cls()
        found = [(schema(raw), name, raw) for name, records in files.items() for raw in records]
        ids = next((raw for kind, _, raw in found if kind == "split ids"), {})
        joins.splits = {page_of(identifier): split for split, members in ids.items() for identifier in members}
        prompts: dict[str, list[str]] = {}
        for kind, name, raw in found:
            if kind == "pair" and isinstance(raw["q_uid"], str):
                joins.golds[raw["q_uid"]] = (str(raw.get("question")), raw["answer_1"], raw["answer_2"])
            elif kind == "prompt":
                prompts.setdefault(split_in_name(name) or "", []).append(str(raw["text"]))
        for split, texts in prompts.items():
            if len(texts) == len(ids.get(split, ())):  # else the order says nothing
                joins.programs |= {i: _prompt_parts(text) for i, text in zip(ids[split], texts, strict=True)}
        return joins

    def gold(self, identifier: str, question: str) -> tuple[str, str]:
        """Text and executed answer under the same id *and* question; empty strings if there are none."""
        known, text, executed = self.golds.get(identifier, ("", "", ""))
        return (text, executed) if _same(known, question) else ("", "")

    def program(self, identifier: str, question: str) -> str:
        """The gold program under the same id and question, or ""."""
        known, program = self.programs.get(identifier, ("", ""))
        return program if _same(known, question) else ""


def _prompt_parts(text: str) -> tuple[str, str]:
    found = re.search(r"Question: (.*?)\n.*?Output: (.*?)\s*(?:</s>|$)", text, re.DOTALL)
    return (found[1], found[2]) if found else ("", "")


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _same(first: str, second: str) -> bool:
    return first.split() == second.split()


def _official(raw: dict, joins: Joins) -> dict | str:
    page = Page.from_lists(raw["pre_text"], raw["table"], raw["post_text"])
    if not isinstance(raw["id"], str):
        raise TypeError("an id is text")
    return {"id": raw["id"], "page": page if page.context() else None, "qa": raw["qa"]}


def _uda(raw: dict, joins: Joins) -> dict | str:
    qa = {"question": raw["question"], "program": raw.get("program", "")}
    qa |= {"answer": raw["answers"].get("str_answer"), "exe_ans": raw["answers"].get("exe_answer")}
    return _official({"id": raw["q_uid"], "qa": qa, **raw["context"]}, joins)


def _lists(raw: dict, joins: Joins) -> dict | str:
    text, _ = joins.gold(raw["id"], raw["question"])
    qa = {"question": raw["question"], "program": raw["program"], "answer": text, "exe_ans": raw["answer"]}
    return _official({**raw, "qa": qa}, joins)


def _flat(raw: dict, joins: Joins) -> dict | str:
    text, _ = joins.gold(raw["id"], raw["question"])  # `answer` and `gold_raw` here are the executed answer
    qa = {"question": raw["question"], "program": raw["program"], "answer": text, "exe_ans": raw["gold_raw"]}
    return {"id": raw["id"], "page": Page.from_text(raw["context"]), "qa": qa}


def _verl(raw: dict, joins: Joins) -> dict | str:
    """The re-upload's own gold has lost its percent sign: the joined one is used, or the program is executed."""
    context, _, rest = raw["prompt"][0]["content"].removeprefix("Context: ").rpartition("\nQuestion: ")
    identifier, question = raw["extra_info"]["id"], rest.split("\n\n")[0].strip()
    text, executed = joins.gold(identifier, question)
    page, program = Page.from_text(context), joins.program(identifier, question)
    qa = {"question": question, "program": program, "answer": text, "exe_ans": executed or execute(program, page.table)}
    return {"id": identifier, "page": page, "qa": qa}


def _pair(raw: dict, joins: Joins) -> dict | str:
    qa = {"question": raw["question"], "answer": raw["answer_1"], "exe_ans": raw["answer_2"]}
    return {"id": raw["q_uid"], "page": None, "qa": qa | {"program": joins.program(raw["q_uid"], raw["question"])}}


_TO_OFFICIAL = {
    "official": _official,
    "uda": _uda,
    "lists": _lists,
    "flat": _flat,
    "verl": _verl,
    "pair": _pair,
    "prompt": lambda raw, joins: "used for its program only",
    "split ids": lambda raw, joins: "list of split ids",
    "model": lambda raw, joins: "answers of a model",
    "other": lambda raw, joins: "unknown schema",
}
