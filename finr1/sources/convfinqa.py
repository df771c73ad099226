"""ConvFinQA: FinQA's questions asked step by step, as a conversation over one page.

Chen et al. 2022, https://github.com/czyssrs/ConvFinQA. A record of the official `train.json` is a conversation made
from one FinQA question (`qa`) or two of the same page (`qa_0`, `qa_1`), one of `train_turn.json` a turn of it. Every
turn becomes a problem whose history holds the earlier questions with their golds; its group is the page, as in FinQA.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finr1.records import Problem, Turn
from finr1.sources.files import Files, NoProblem, attempt, require, split_in_name
from finr1.sources.finqa import Asked, page_of, page_problem
from finr1.sources.golds import agree, answer_kind, clean_executed, clean_gold, parse_program
from finr1.sources.pages import Page

URLS = {"data.zip": "https://github.com/czyssrs/ConvFinQA/raw/main/data.zip"}
SHAPES = {  # the keys that tell a record, those of its annotation included; from the most complete copy to the least
    "official": {"id", "table", "annotation"},
    "lists": {"id", "financial_report", "conversation"},
    "turn": {"id", "table", "cur_dial"},
    # Published, too, but no use: the name is the reason.
    "only the last answer": {"questions", "answer"},
    "damaged table": {"doc", "dialogue"},  # `27% ( 27 % )` read as -27, rows of the same name lost
    "answers of a model": {"question_id", "conv_questions"},  # 37 % differ from the official ones
    "no context": {"question", "answer"},
    "unknown schema": set(),
}
Conversation = tuple[str, Page, dict[int, tuple[int, Asked]]]  # id, page, turn -> (number of its record, question)


def shape_of(raw: object) -> str:
    """Which of `SHAPES` a record has, told from its keys."""
    if not isinstance(raw, dict):
        return "unknown schema"
    note = raw.get("annotation")
    keys = raw.keys() | (note.keys() if isinstance(note, dict) else set())
    return "turn" if SHAPES["turn"] <= keys else next(shape for shape, needed in SHAPES.items() if needed <= keys)


def read_files(files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number of the record, problem or reason), one item a turn, the most complete copies first."""
    for shape in SHAPES:
        for file, records in files.items():
            conversations: dict[str | int, Conversation] = {}  # a single turn's by its id, a whole one by its record
            for number, raw in enumerate(records):
                if shape_of(raw) == shape and (reason := attempt(_add, conversations, shape, number, raw)):
                    yield file, number, reason
            for conversation in conversations.values():
                for turn, (number, _) in sorted(conversation[2].items()):
                    yield file, number, attempt(_problem, conversation, turn, split_in_name(file))


def _add(conversations: dict[str | int, Conversation], shape: str, number: int, raw: dict) -> None:
    """Put what record `number` holds into `conversations`."""
    identifier, page, note = raw.get("id"), raw, raw.get("annotation") or raw
    if shape == "official":
        turns = dict(enumerate(_official(raw)))
    elif shape == "lists":
        asked = [Asked(t["question"], t["expected_program"], t["expected_answer"]) for t in raw["conversation"]]
        turns, page = dict(enumerate(asked)), raw["financial_report"]
    elif shape == "turn":
        identifier = re.sub(r"_\d+$", "", identifier)
        asked = Asked(note["cur_dial"][-1], note.get("cur_program") or "", note.get("exe_ans"), raw.get("answer", ""))
        turns = {int(note["turn_ind"]): asked}
    else:
        raise NoProblem(shape)
    if not isinstance(identifier, str):
        raise TypeError("an id is text")
    key = identifier if shape == "turn" else number
    _, _, known = conversations.setdefault(key, (identifier, Page.of(page), {}))
    require({"duplicate id": not turns.keys() & known.keys()})
    known |= {turn: (number, asked) for turn, asked in turns.items()}


def _problem(conversation: Conversation, turn: int, split: str | None) -> Problem:
    """One turn of a conversation as a `Problem`."""
    identifier, page, turns = conversation
    asked = turns[turn][1]
    earlier = [turns[n][1] for n in range(turn) if n in turns]
    history = [Turn(question=before.question.strip(), answer=_shown_answer(before)) for before in earlier]
    steps = parse_program(asked.program)
    problem = page_problem(
        asked,
        page,
        split,
        history,
        id=f"convfinqa/{identifier}_{turn}",
        source="convfinqa",
        capability="multi_turn",
        group=page_of(identifier),
        family="look-up" if steps == [] else steps[-1].operation if steps else "",
        level=None if steps is None else len(steps) + 1,  # a look-up is the easiest
    )
    require({"no gold in an earlier turn": len(history) == turn and all(before.answer for before in history)})
    return problem


def _shown_answer(asked: Asked) -> str:
    """The gold as the history shows it: the text answer, unless the executed one contradicts it."""
    text, executed = clean_gold(asked.text), clean_executed(asked.executed)
    trusted = not executed or agree(text, executed, answer_kind(text, executed, asked.question))
    return text if text and trusted else executed


def _official(raw: dict) -> list[Asked]:
    """The turns of an official conversation; the private test set has neither programs nor answers.

    A look-up's text answer is its program, a calculation's the annotator's result of the step that `answer_list` names
    (`A1` or `#1`), the last of a half its question's answer.
    """
    note = raw["annotation"]
    programs = note.get("turn_program") or [""] * len(note["dialogue_break"])
    executed = note.get("exe_ans_list") or [None] * len(programs)
    questions = [raw[key] for key in ("qa", "qa_0", "qa_1") if key in raw]
    results = [str(step.get("res", "")) for qa in questions for step in qa.get("steps") or []]
    texts = [program if parse_program(program) == [] and "const" not in program else "" for program in programs]
    named = note.get("answer_list") or []
    if len(named) == len(programs):  # else turns were merged and the numbers no longer fit
        for turn, name in enumerate(named):
            step = re.fullmatch(r"[A#](\d+)", name)
            if step and int(step[1]) < len(results):
                texts[turn] = results[int(step[1])]
    halves = note.get("qa_split") or []
    for half, qa in enumerate(questions):
        if half in halves:
            texts[len(halves) - 1 - halves[::-1].index(half)] = str(qa.get("answer", ""))
    turns = zip(note["dialogue_break"], programs, executed, texts, strict=True)
    return [Asked(*turn) for turn in turns]
