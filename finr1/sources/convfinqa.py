"""ConvFinQA: FinQA's questions asked step by step, as a conversation over one page.

Chen et al. 2022, https://github.com/czyssrs/ConvFinQA. A record of the official `train.json` is a whole conversation,
made from one FinQA question (Type I, `qa`) or from two of the same page (Type II, `qa_0` and `qa_1`):

    {"id": "Single_V/2008/page_17.pdf-1", "pre_text": [...], "table": [[...]], "post_text": [...], "qa": {...},
     "annotation": {"dialogue_break": [question, ...], "turn_program": [...], "exe_ans_list": [...], ...}}

and a record of `train_turn.json` is one turn of it. Every turn becomes a problem whose history holds the earlier
questions with their gold answers; its group is the page, named as in FinQA, so that a page never crosses splits.
Not used although published: re-uploads whose tables were damaged (`27% ( 27 % )` read as -27, rows of the same name
lost), and one whose "answers" are those of a model (37 % of them differ from the official ones).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from finr1.records import Problem, Turn
from finr1.sources.files import Files, NoProblem, attempt, split_in_name
from finr1.sources.finqa import Asked, page_of, page_problem
from finr1.sources.golds import agree, answer_kind, clean_executed, clean_gold, parse_program
from finr1.sources.pages import Page

URLS = {"data.zip": "https://github.com/czyssrs/ConvFinQA/raw/main/data.zip"}
SHAPES = {  # the keys by which a record is told; from the most complete copy of a conversation to the least
    "official": {"id", "table", "annotation"},
    "official turn": {"id", "table", "annotation", "cur_dial"},  # `cur_dial` within the annotation
    "lists": {"id", "financial_report", "conversation"},
    "turn": {"id", "cur_dial", "exe_ans", "text", "table"},
    "last turn": {"id", "questions", "answer", "text", "table"},
    "damaged table": {"doc", "dialogue"},
    "answers of a model": {"question_id", "conv_questions"},
    "no context": {"question", "answer"},
    "unknown schema": set(),
}


@dataclass
class Conversation:
    """A page and the turns over it by their number, each with the number of its record; some turns may lack."""

    id: str
    page: Page
    turns: dict[int, tuple[int, Asked]]


def shape_of(raw: object) -> str:
    """Which of `SHAPES` a record has, told from its keys."""
    keys = set(raw) if isinstance(raw, dict) else set()
    if isinstance(raw, dict) and isinstance(raw.get("annotation"), dict):
        keys |= raw["annotation"].keys() & {"cur_dial"}
    if SHAPES["official turn"] <= keys:
        return "official turn"
    return next(shape for shape, needed in SHAPES.items() if needed <= keys)


def read_files(files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number of the record, problem or reason), one item a turn, the most complete copies first."""
    shapes = {file: [shape_of(raw) for raw in records] for file, records in files.items()}
    for shape in SHAPES:
        for file, records in files.items():
            conversations: dict[str | int, Conversation] = {}  # a single turn's by its id, a whole one by its record
            for number, raw in enumerate(records):
                if shapes[file][number] == shape and (reason := attempt(_add, conversations, shape, number, raw)):
                    yield file, number, reason
            for conversation in conversations.values():
                for turn, (number, _) in sorted(conversation.turns.items()):
                    yield file, number, attempt(_problem, conversation, turn, split_in_name(file))


def _add(conversations: dict[str | int, Conversation], shape: str, number: int, raw: dict) -> None:
    """Put what record `number` holds into `conversations`."""
    if shape not in _READ:
        raise NoProblem(shape)
    identifier, turns, page = _READ[shape](raw)
    if not isinstance(identifier, str):
        raise TypeError("an id is text")
    key = identifier if shape in ("official turn", "turn") else number
    conversation = conversations.setdefault(key, Conversation(identifier, Page.of(page), {}))
    if turns.keys() & conversation.turns.keys():
        raise NoProblem("duplicate id")
    conversation.turns |= {turn: (number, asked) for turn, asked in turns.items()}


def _problem(conversation: Conversation, turn: int, split: str | None) -> Problem:
    """One turn of a conversation as a `Problem`."""
    asked = conversation.turns[turn][1]
    earlier = [conversation.turns[n][1] for n in range(turn) if n in conversation.turns]
    history = [Turn(question=before.question, answer=_shown_answer(before)) for before in earlier]
    steps = parse_program(asked.program)
    problem = page_problem(
        asked,
        conversation.page,
        split,
        history,
        id=f"convfinqa/{conversation.id}_{turn}",
        source="convfinqa",
        capability="multi_turn",
        group=page_of(conversation.id),
        family="look-up" if steps == [] else steps[-1].operation if steps else "",
        level=None if steps is None else len(steps) + 1,  # a look-up is the easiest
    )
    if len(history) < turn or not all(before.answer for before in history):
        raise NoProblem("no gold in an earlier turn")
    return problem


def _shown_answer(asked: Asked) -> str:
    """The gold as the history shows it: the text answer, unless the executed one contradicts it."""
    text, executed = clean_gold(asked.text), clean_executed(asked.executed)
    try:
        trusted = not executed or agree(text, executed, answer_kind(text, executed, asked.question))
    except ValueError:
        trusted = False
    return text if text and trusted else executed


def _official(raw: dict) -> tuple[str, dict[int, Asked], dict]:
    note = raw["annotation"]
    questions = note["dialogue_break"]
    programs = note.get("turn_program") or [""] * len(questions)
    executed = note.get("exe_ans_list") or [None] * len(questions)  # the private test set has none
    turns = zip(questions, programs, executed, _texts(raw, programs), strict=True)
    return raw["id"], {n: Asked(q.strip(), p, e, t) for n, (q, p, e, t) in enumerate(turns)}, raw


def _texts(raw: dict, programs: list[str]) -> list[str]:
    """The text answer of each turn, "" where the record has none.

    A look-up's text is its program, a calculation's the annotator's result of the step that `answer_list` names (`A1`
    or `#1`), the last of a half its question's answer.
    """
    questions = [raw[key] for key in ("qa", "qa_0", "qa_1") if key in raw]
    results = [str(step.get("res", "")) for qa in questions for step in qa.get("steps") or []]
    named = raw["annotation"].get("answer_list") or []
    texts = [program if parse_program(program) == [] and "const" not in program else "" for program in programs]
    if len(named) == len(programs):  # else turns were merged and the numbers no longer fit
        for turn, name in enumerate(named):
            step = re.fullmatch(r"[A#](\d+)", name)
            if step and int(step[1]) < len(results):
                texts[turn] = results[int(step[1])]
    halves = raw["annotation"].get("qa_split") or []
    for half, qa in enumerate(questions):
        if half in halves:
            texts[len(halves) - 1 - halves[::-1].index(half)] = str(qa.get("answer", ""))
    return texts


def _turn(raw: dict) -> tuple[str, dict[int, Asked], dict]:
    """One turn: official, with an annotation and the page's lists, or derived from it, flat and with a page of text."""
    note = raw.get("annotation") or raw
    program = note.get("cur_program") or ""  # the private test set has none
    asked = Asked(note["cur_dial"][-1].strip(), program, note.get("exe_ans"), raw.get("answer", ""))
    return re.sub(r"_\d+$", "", raw["id"]), {int(note["turn_ind"]): asked}, raw


def _lists(raw: dict) -> tuple[str, dict[int, Asked], dict]:
    turns = [Asked(t["question"].strip(), t["expected_program"], t["expected_answer"]) for t in raw["conversation"]]
    return raw["id"], dict(enumerate(turns)), raw["financial_report"]


def _last_turn(raw: dict) -> tuple[str, dict[int, Asked], dict]:
    """A copy that states only the last answer."""
    *earlier, last = raw["questions"]
    turns = [*(Asked(question.strip()) for question in earlier), Asked(last.strip(), executed=raw["answer"])]
    return raw["id"], dict(enumerate(turns)), raw


_READ = {"official": _official, "official turn": _turn, "lists": _lists, "turn": _turn, "last turn": _last_turn}
