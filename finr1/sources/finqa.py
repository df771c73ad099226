"""FinQA: questions over a page of an annual report, with a gold program; files complete each other (README.md)."""

import re
from collections import defaultdict
from typing import Any, NamedTuple

from finr1.records import Problem
from finr1.sources.files import Files, NoProblem, Results, attempt, problem_of, read_each, require, split_in_name
from finr1.sources.golds import choose_golds, execute, parse_program, worked_reasoning
from finr1.sources.pages import Page


class Asked(NamedTuple):
    """A question with its gold program, executed answer and text answer; None or "" where the file has none."""

    question: str
    program: str = ""
    executed: object = None
    text: object = ""


def read_files(files: Files) -> Results:
    """The results, the most complete copies first."""
    known, splits = _joined(files)
    pages: dict[str, Page] = {}
    for file, number, found in sorted(read_each(_read, files), key=rank_of):
        if not isinstance(found, str):
            found = attempt(_problem, known[_key(found[1])] | found[1], split_in_name(file), pages, splits)
        yield file, number, found


def rank_of(result: tuple[str, int, Any]) -> int:
    """The rank of a result of `_read` among the copies: reasons come first, then the most complete copies."""
    return -1 if isinstance(result[2], str) else result[2][0]


def _read(raw: Any, file: str) -> tuple[int, dict[str, Any]]:
    """A record of a published shape: its rank among the copies (0: the most complete), and the parts that it has."""
    match raw:
        case {"id": name, "qa": qa, "table": _, "pre_text": _}:
            rank, parts = 0, {"id": name, "page": raw, "question": qa["question"], "program": qa.get("program")}
            parts |= {"text": qa.get("answer"), "executed": qa.get("exe_ans")}
        case {"q_uid": name, "answers": answers, "context": page}:
            rank, parts = 1, {"id": name, "page": page, "program": raw.get("program")}
            parts |= {"text": answers.get("str_answer"), "executed": answers.get("exe_answer")}
        case {"id": name, "table": _, "pre_text": _, "program": program}:
            rank, parts = 2, {"id": name, "page": raw, "program": program, "executed": raw.get("answer")}
        case {"id": name, "context": page, "gold_raw": executed}:
            rank, parts = 3, {"id": name, "page": page, "program": raw.get("program"), "executed": executed}
        case {"prompt": [{"content": text}, *_], "extra_info": {"id": name}}:  # its own gold lost its percent sign
            page, _, rest = text.removeprefix("Context: ").rpartition("\nQuestion: ")
            rank, parts = 4, {"id": name, "page": page, "question": rest.split("\n\n")[0]}
        case {"q_uid": name, "answer_1": text, "answer_2": executed}:
            rank, parts = 5, {"id": name, "text": text, "executed": executed}
        case {"text": _} | {"train": [*_], "dev": [*_], "test": [*_]}:
            raise NoProblem("about other records")
        case _:
            raise NoProblem("unknown schema")
    return rank, {"question": raw.get("question")} | parts


def _joined(files: Files) -> tuple[dict[tuple[str, str], dict], dict[str, str | None]]:
    """Parts of records that other files hold: golds and program by id and question, and the split by page."""
    known, splits, prompts = defaultdict(dict), {}, defaultdict(list)
    ids: dict[str, list] = {}
    for file, raw in ((file, raw) for file, records in files.items() for raw in records):
        match raw:
            case {"q_uid": name, "question": question, "answer_1": text, "answer_2": executed}:
                known[_key({"id": name, "question": question})] |= {"text": text, "executed": executed}
            case {"text": text}:
                prompts[split_in_name(file)].append(str(text))
            case {"train": [*_], "dev": [*_], "test": [*_]}:
                ids = raw
    for split, members in ids.items():
        splits |= {page_of(str(name)): split for name in members}
        if len(members) == len(prompts[split]):  # a prompt has no id: it stands in the order of the split ids
            for name, text in zip(members, prompts[split], strict=True):
                if match := re.search(r"Question: (.*?)\n.*?Output: (.*?)\s*(?:</s>|$)", text, re.DOTALL):
                    known[_key({"id": name, "question": match[1]})]["program"] = match[2]
    return known, splits


def _key(parts: dict) -> tuple[str, str]:
    """A record's id *and* question."""
    return str(parts["id"]), " ".join(str(parts["question"]).split())


def _problem(parts: dict, split: str | None, pages: dict[str, Page], splits: dict[str, str | None]) -> Problem:
    """The parts of a record as a problem. Adds its page to `pages` and `splits`: a page stays in its first split."""
    name, page, group = parts["id"], parts.get("page"), page_of(parts["id"])
    program, executed = parts.get("program") or "", parts.get("executed")
    if page and (page := Page.of(page)).context():
        pages.setdefault(group, page)
        if not executed and "executed" not in parts:
            executed = execute(program, page.table)
    require({"no context": group in pages})
    asked, level = Asked(parts["question"], program, executed, parts.get("text")), len(parse_program(program) or ())
    fields = {"group": group, "split": splits.setdefault(group, split), "level": level or None}
    return page_problem("finqa", name, asked, pages[group], capability="calculation", **fields)


def page_problem(source: str, key: str, asked: Asked, page: Page, **fields: Any) -> Problem:
    """A question about a page as a `Problem`. Raises `NoProblem` with the first part that is missing."""
    context, question, steps = page.context(), asked.question.strip(), parse_program(asked.program)
    require({"no context": context, "unknown split": fields["split"], "no question": question})
    golds = choose_golds(asked.text, asked.executed, question)
    questions = " ".join([*(turn.question for turn in fields.get("history", ())), question])
    ways = worked_reasoning(asked.program, golds["gold"], asked.executed, page, questions)
    told = dict(zip(("reference", "reference_by_parts"), ways, strict=True))
    family = "look-up" if steps == [] else steps[-1][0] if steps else ""
    return problem_of(source, key, context=context, question=question, family=family, **told, **golds, **fields)


def page_of(identifier: str) -> str:
    """The page of a FinQA id or a ConvFinQA dialogue id: `Single_V/2008/page_17.pdf-1` -> `V/2008/page_17.pdf`."""
    return re.sub(r"(?<=\.pdf).*$", "", re.sub(r"^(Single|Double)_", "", identifier))
