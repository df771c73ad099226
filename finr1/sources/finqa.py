"""FinQA: questions over a page of an annual report (text and a table), with a gold program.

Chen et al. 2021, https://github.com/czyssrs/FinQA. Public re-uploads hold the same questions in other shapes (`SHAPES`)
and each lacks something. That is joined from the other files of the folder: golds and program under the same id and
question, text and table under the same page. An id is used once, from its most complete copy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from finr1.records import Problem, Turn
from finr1.sources.files import Files, NoProblem, attempt, require, split_in_name
from finr1.sources.golds import choose_golds, execute, parse_program, worked_reasoning
from finr1.sources.pages import Page

HOME = "https://raw.githubusercontent.com/czyssrs/FinQA/main/dataset/"
URLS = {f"{split}.json": f"{HOME}{split}.json" for split in ("train", "dev", "test")}


@dataclass(frozen=True)
class Asked:
    """A question with its gold program, executed answer and text answer; None or "" where the file has none."""

    question: str
    program: str = ""
    executed: object = None
    text: object = ""


@dataclass(frozen=True)
class Shape:
    """A published shape: the keys by which a record is told, and where each part lies in it; "" is joined.

    With a `reason`, records of the shape are no problems.
    """

    keys: str
    reason: str = ""
    id: str = "id"
    question: str = "question"
    program: str = ""
    text: str = ""  # the annotator's answer
    executed: str = ""
    page: str = ""  # "." : its lists are keys of the record itself


SHAPES = {  # the most complete copies of a record first, but for a model's answers, whose keys a copy may have, too
    "model": Shape("id generation prediction", "answers of a model"),
    "official": Shape("id qa table pre_text", question="qa.question", program="qa.program", text="qa.answer",
                      executed="qa.exe_ans", page="."),
    "uda": Shape("q_uid answers context", id="q_uid", program="program", text="answers.str_answer",
                 executed="answers.exe_answer", page="context"),
    "lists": Shape("id question table pre_text program", program="program", executed="answer", page="."),
    "flat": Shape("id question context gold_raw", program="program", executed="gold_raw", page="context"),
    "verl": Shape("prompt extra_info reward_model", page="context"),  # its own gold has lost its percent sign
    "pair": Shape("q_uid answer_1 answer_2", id="q_uid", text="answer_1", executed="answer_2"),
    "prompt": Shape("text", "used for its program only"),
    "split ids": Shape("train dev test", "list of split ids"),
    "other": Shape("", "unknown schema"),
}  # fmt: skip


class Folder:
    """What the files of a folder state about records of each other."""

    def __init__(self, records: list[tuple[str, str, int, Any]]) -> None:
        """Collect it from the pairs, the prompts and the split ids among (shape, file, number, record)."""
        self.known: dict[tuple[str, str], dict] = defaultdict(dict)  # id and question -> program, text, executed
        self.pages: dict[str, Page] = {}
        self.splits: dict[str, str | None] = {}  # of a page: it stays where it was first seen
        ids = next((raw for shape, _, _, raw in records if shape == "split ids"), {})
        prompts = defaultdict(list)
        for shape, file, _, raw in records:
            if shape == "pair":
                self.of(raw["q_uid"], raw.get("question")).update(text=raw["answer_1"], executed=raw["answer_2"])
            elif shape == "prompt":
                prompts[split_in_name(file)].append(str(raw["text"]))
        for split, members in ids.items():
            self.splits |= {page_of(identifier): split for identifier in members}
            if len(members) != len(prompts[split]):  # a prompt has no id: it stands in the order of the split ids
                continue
            for identifier, text in zip(members, prompts[split], strict=True):
                if match := re.search(r"Question: (.*?)\n.*?Output: (.*?)\s*(?:</s>|$)", text, re.DOTALL):
                    self.of(identifier, match[1])["program"] = match[2]

    def of(self, identifier: object, question: object) -> dict[str, Any]:
        """What is known of the record with this id *and* question."""
        return self.known[str(identifier), " ".join(str(question).split())]


def shape_of(raw: object) -> str:
    """Which of `SHAPES` a record has, told from its keys."""
    keys = raw.keys() if isinstance(raw, dict) else set()
    shape = next(name for name, shape in SHAPES.items() if keys >= set(shape.keys.split()))
    lists = raw.values() if shape == "split ids" else ()
    are_ids = all(isinstance(ids, list) and all(isinstance(one, str) for one in ids) for ids in lists)
    return shape if are_ids else "other"  # else records by split


def read_files(files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number, problem or reason), the most complete copies first."""
    records = [
        (shape_of(raw), file, number, raw) for file, content in files.items() for number, raw in enumerate(content)
    ]
    folder, order = Folder(records), list(SHAPES)
    for shape, file, number, raw in sorted(records, key=lambda record: order.index(record[0])):
        yield file, number, attempt(_problem, SHAPES[shape], raw, split_in_name(file), folder)


def _problem(shape: Shape, raw: dict, split: str | None, folder: Folder) -> Problem:
    """A record of any shape as a problem. Adds its page to the folder's."""
    if shape.reason:
        raise NoProblem(shape.reason)
    if shape is SHAPES["verl"]:
        context, _, rest = raw["prompt"][0]["content"].removeprefix("Context: ").rpartition("\nQuestion: ")
        raw = {"id": raw["extra_info"]["id"], "context": context, "question": rest.split("\n\n")[0]}
    identifier, question, page = (_at(raw, path) for path in (shape.id, shape.question, shape.page))
    elsewhere, group = folder.of(identifier, question), page_of(identifier)
    program, text, executed = (
        _at(raw, path) if path else elsewhere.get(part)
        for part, path in (("program", shape.program), ("text", shape.text), ("executed", shape.executed))
    )
    program = program or ""
    if page and (page := Page.of(page)).context():
        folder.pages.setdefault(group, page)
        if not executed and not shape.executed:
            executed = execute(program, page.table)
    require({"no context": group in folder.pages})
    steps = parse_program(program)
    return page_problem(
        Asked(question, program, executed, text),
        folder.pages[group],
        folder.splits.setdefault(group, split),
        id=f"finqa/{identifier}",
        source="finqa",
        capability="calculation",
        group=group,
        family=steps[-1].operation if steps else "",
        level=len(steps) if steps else None,
    )


def _at(raw: dict, path: str) -> Any:
    """The value at a path such as `qa.answer`; None for no path or where the last key is missing."""
    if path in ("", "."):
        return raw if path else None
    *outer, last = path.split(".")
    for key in outer:
        raw = raw[key]
    return raw.get(last)


def page_problem(asked: Asked, page: Page, split: str | None, history: Sequence[Turn] = (), **fields: Any) -> Problem:
    """A question about a page as a `Problem`; raises `NoProblem` with the first thing that it lacks."""
    context, question = page.context(), asked.question.strip()
    require({"no context": context, "unknown split": split, "no question": question})
    golds = choose_golds(asked.text, asked.executed, question)
    questions = " ".join([*(turn.question for turn in history), question])
    return Problem(
        module="reasoning business knowledge",
        language="en",
        answer_kind=golds.kind,
        context=context,
        history=list(history),
        question=question,
        gold=golds.gold,
        alternatives=golds.alternatives,
        flaw=golds.flaw,
        split=split,
        reference=worked_reasoning(asked.program, golds.gold, asked.executed, page, questions),
        **fields,
    )


def page_of(identifier: str) -> str:
    """The page of a FinQA id or a ConvFinQA dialogue id: `Single_V/2008/page_17.pdf-1` -> `V/2008/page_17.pdf`."""
    return re.sub(r"(?<=\.pdf).*$", "", re.sub(r"^(Single|Double)_", "", identifier))
