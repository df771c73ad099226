"""ConvFinQA: FinQA's questions asked step by step, as a conversation over one page.

Chen et al. 2022, https://github.com/czyssrs/ConvFinQA. A record of the official `train.json` is a conversation made
from one FinQA question (`qa`) or two of the same page (`qa_0`, `qa_1`), one of `train_turn.json` a turn of it. Every
turn becomes a problem whose history holds the earlier questions with their golds; its group is the page, as in FinQA.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from finr1.records import Problem, Turn
from finr1.sources.files import Files, NoProblem, attempt, require, split_in_name
from finr1.sources.finqa import Asked, page_of, page_problem
from finr1.sources.golds import agree, answer_kind, clean_gold, parse_program
from finr1.sources.pages import Page

URLS = {"data.zip": "https://github.com/czyssrs/ConvFinQA/raw/main/data.zip"}
TURN = 2  # the place of single turns among the copies
Conversation = tuple[str, Page, dict[int, tuple[int, Asked]]]  # id, page, turn -> (number of its record, question)


def read_files(files: Files) -> Iterator[tuple[str, int, Problem | str]]:
    """(file, number of the record, problem or reason), one item a turn, the most complete copies first."""
    records = [(attempt(_read, raw), file, number) for file, rows in files.items() for number, raw in enumerate(rows)]
    yield from ((file, number, reason) for reason, file, number in records if isinstance(reason, str))
    copies = sorted((record for record in records if not isinstance(record[0], str)), key=lambda record: record[0][0])
    conversations: dict[tuple, Conversation] = {}  # a single turn's by its id, a whole one by its record
    for (place, name, page, turns), file, number in copies:
        key = (place, file, name if place == TURN else number)
        *_, known = conversations.setdefault(key, (name, page, {}))
        if turns.keys() & known.keys():
            yield file, number, "duplicate id"
        else:
            known |= {turn: (number, asked) for turn, asked in turns.items()}
    for (_, file, _), conversation in conversations.items():
        for turn, (number, _) in sorted(conversation[2].items()):
            yield file, number, attempt(_problem, conversation, turn, split_in_name(file))


def _read(raw: Any) -> tuple[int, str, Page, dict[int, Asked]]:
    """A record of a published shape: its place among the copies, the most complete first, its id, page and turns."""
    match raw:
        case {"id": str(name), "table": _, "annotation": {"cur_dial": _}} | {
            "id": str(name),
            "table": _,
            "cur_dial": _,
        }:
            turn = raw.get("annotation", raw)
            asked = Asked(
                turn["cur_dial"][-1], turn.get("cur_program") or "", turn.get("exe_ans"), raw.get("answer", "")
            )
            return TURN, re.sub(r"_\d+$", "", name), Page.of(raw), {int(turn["turn_ind"]): asked}
        case {"id": str(name), "table": _, "annotation": _}:
            return 0, name, Page.of(raw), dict(enumerate(_official(raw)))
        case {"id": str(name), "financial_report": page, "conversation": turns}:
            asked = [Asked(turn["question"], turn["expected_program"], turn["expected_answer"]) for turn in turns]
            return 1, name, Page.of(page), dict(enumerate(asked))
        case {"questions": _, "answer": _}:
            raise NoProblem("only the last answer")
        case {"doc": _, "dialogue": _}:  # `27% ( 27 % )` read as -27, rows of the same name lost
            raise NoProblem("damaged table")
        case {"question_id": _, "conv_questions": _}:  # 37 % differ from the official ones
            raise NoProblem("answers of a model")
        case {"question": _, "answer": _}:
            raise NoProblem("no context")
    raise NoProblem("unknown schema")


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
    text, executed = clean_gold(asked.text), clean_gold(asked.executed, executed=True)
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
