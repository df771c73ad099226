"""FinQA: questions over a page of an annual report (text and a table), with a gold program.

Chen et al. 2021, https://github.com/czyssrs/FinQA. Re-uploads hold the same questions in other shapes (`_read`), and
each lacks something. That is joined from the other files of the folder: golds and program under the same id and
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


def read_files(files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number, problem or reason), the most complete copies first."""
    folder = Folder(files)
    records = [(attempt(_read, raw), file, number) for file, rows in files.items() for number, raw in enumerate(rows)]
    yield from ((file, number, reason) for reason, file, number in records if isinstance(reason, str))
    copies = [record for record in records if not isinstance(record[0], str)]
    for (_, parts), file, number in sorted(copies, key=lambda record: record[0][0]):
        yield file, number, attempt(_problem, parts, split_in_name(file), folder)


def _read(raw: Any) -> tuple[int, dict[str, Any]]:
    """A record of a published shape: its place among the copies, the most complete first, and the parts it states."""
    match raw:
        case {"id": _, "generation": _, "prediction": _}:
            raise NoProblem("answers of a model")
        case {"id": name, "qa": qa, "table": _, "pre_text": _}:
            place, names = 0, {"program": "program", "answer": "text", "exe_ans": "executed"}
            parts = {"id": name, "question": qa["question"], "page": raw} | {names[key]: qa.get(key) for key in names}
        case {"q_uid": name, "answers": answers, "context": page}:
            place, parts = 1, {"id": name, "page": page, "program": raw.get("program")}
            parts |= {"text": answers.get("str_answer"), "executed": answers.get("exe_answer")}
        case {"id": name, "table": _, "pre_text": _, "program": program}:
            place, parts = 2, {"id": name, "page": raw, "program": program, "executed": raw.get("answer")}
        case {"id": name, "context": page, "gold_raw": executed}:
            place, parts = 3, {"id": name, "page": page, "program": raw.get("program"), "executed": executed}
        case {"prompt": [{"content": text}, *_], "extra_info": {"id": name}}:  # its own gold lost its percent sign
            page, _, rest = text.removeprefix("Context: ").rpartition("\nQuestion: ")
            place, parts = 4, {"id": name, "page": page, "question": rest.split("\n\n")[0]}
        case {"q_uid": name, "answer_1": text, "answer_2": executed}:
            place, parts = 5, {"id": name, "text": text, "executed": executed}
        case {"text": _}:
            raise NoProblem("used for its program only")
        case {"train": [*_], "dev": [*_], "test": [*_]}:
            raise NoProblem("one list a split")
        case _:
            raise NoProblem("unknown schema")
    return place, {"question": raw.get("question")} | parts


class Folder:
    """What the files of a folder state about records of each other."""

    def __init__(self, files: Files) -> None:
        self.known: dict[tuple[str, str], dict] = defaultdict(dict)  # id and question -> program, text, executed
        self.pages: dict[str, Page] = {}
        self.splits: dict[str, str | None] = {}  # of a page: it stays where it was first seen
        ids, prompts = {}, defaultdict(list)
        for file, raw in ((file, raw) for file, records in files.items() for raw in records):
            match raw:
                case {"q_uid": name, "question": question, "answer_1": text, "answer_2": executed}:
                    self.of(name, question).update(text=text, executed=executed)
                case {"text": text}:
                    prompts[split_in_name(file)].append(str(text))
                case {"train": [*_], "dev": [*_], "test": [*_]}:
                    ids = raw
        for split, members in ids.items():
            self.splits |= {page_of(str(name)): split for name in members}
            if len(members) == len(prompts[split]):  # a prompt has no id: it stands in the order of the split ids
                for name, text in zip(members, prompts[split], strict=True):
                    if match := re.search(r"Question: (.*?)\n.*?Output: (.*?)\s*(?:</s>|$)", text, re.DOTALL):
                        self.of(name, match[1])["program"] = match[2]

    def of(self, name: object, question: object) -> dict[str, Any]:
        """What is known of the record with this id *and* question."""
        return self.known[str(name), " ".join(str(question).split())]


def _problem(parts: dict[str, Any], split: str | None, folder: Folder) -> Problem:
    """The stated parts of a record, and what others state of it, as a problem. Adds its page to the folder's."""
    name, question, page = parts["id"], parts["question"], parts.get("page")
    joined = folder.of(name, question) | parts
    program, executed, group = joined.get("program") or "", joined.get("executed"), page_of(name)
    if page and (page := Page.of(page)).context():
        folder.pages.setdefault(group, page)
        if not executed and "executed" not in parts:
            executed = execute(program, page.table)
    require({"no context": group in folder.pages})
    steps = parse_program(program)
    return page_problem(
        Asked(question, program, executed, joined.get("text")),
        folder.pages[group],
        folder.splits.setdefault(group, split),
        id=f"finqa/{name}",
        source="finqa",
        capability="calculation",
        group=group,
        family=steps[-1].operation if steps else "",
        level=len(steps) if steps else None,
    )


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
