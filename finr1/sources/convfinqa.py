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
from dataclasses import dataclass, replace
from pathlib import Path

from finr1.records import Problem
from finr1.records import Turn as EarlierTurn
from finr1.sources.files import MALFORMED, Files, Reason, attempt, download, split_in_name
from finr1.sources.finqa import page_of
from finr1.sources.golds import agree, answer_kind, choose_golds, clean_executed, clean_gold
from finr1.sources.pages import Page
from finr1.sources.programs import parse_program, worked_reasoning

HOME = "https://github.com/czyssrs/ConvFinQA/raw/main/data.zip"
# From the most complete copy of a conversation to the least.
SCHEMAS = ("official", "official turn", "lists", "turn", "last turn", "damaged table", "model", "pair", "other")


@dataclass(frozen=True)
class Turn:
    """One question with its program, executed answer and text answer; None or "" where the file has none."""

    question: str
    program: str = ""
    executed: object = None
    text: str = ""
    record: int = 0  # the number of the record that it stands in

    def shown_answer(self) -> str:
        """The gold as the history shows it: the text answer, unless the executed one contradicts it."""
        text, executed = clean_gold(self.text), clean_executed(self.executed)
        try:
            trusted = not executed or agree(text, executed, answer_kind(text, executed, self.question))
        except ValueError:
            trusted = False
        return text if text and trusted else executed


@dataclass(frozen=True)
class Conversation:
    """A page and the turns over it by their number; a file of single turns may lack some of them."""

    id: str
    page: Page
    turns: dict[int, Turn]


def fetch(cache: Path) -> Files:
    """The official archive, downloaded into `cache` once. Raises `SourceError` if its home cannot be reached."""
    return download({"data.zip": HOME}, cache)


def schema(raw: object) -> str:
    """Which of `SCHEMAS` a record has, told from its keys."""
    keys = raw.keys() if isinstance(raw, dict) else set()
    if {"id", "table", "annotation"} <= keys:
        note = raw["annotation"]
        return "official turn" if isinstance(note, dict) and "cur_dial" in note else "official"
    marks = {
        "lists": {"id", "financial_report", "conversation"},
        "turn": {"id", "cur_dial", "exe_ans", "text", "table"},
        "last turn": {"id", "questions", "answer", "text", "table"},
        "damaged table": {"doc", "dialogue"},
        "model": {"question_id", "conv_questions"},
        "pair": {"question", "answer"},
    }
    return next((name for name, needed in marks.items() if needed <= keys), "other")


def rows(files: Files) -> Iterator[tuple[str, int, dict | str]]:
    """(file, number of the record, {"conversation", "turn"} or a reason), one item a turn, the best copies first."""
    by_schema: dict[tuple[int, str], list[tuple[int, dict]]] = {}
    for name, records in files.items():
        for number, raw in enumerate(records):
            by_schema.setdefault((SCHEMAS.index(schema(raw)), name), []).append((number, raw))
    for (rank, name), records in sorted(by_schema.items(), key=lambda item: item[0][0]):
        if reason := _unusable(SCHEMAS[rank]):
            yield from ((name, record, Reason(reason)) for record, _ in records)
            continue
        for conversation in _conversations(SCHEMAS[rank], records):
            if isinstance(conversation, tuple):
                yield name, *conversation
                continue
            for number, turn in conversation.turns.items():
                yield name, turn.record, {"conversation": conversation, "turn": number}


def read(row: dict, file: str) -> Problem | str:
    """One turn of a conversation as a `Problem`, or the reason why it is none."""
    conversation, number = row["conversation"], row["turn"]
    turn, split, context = conversation.turns[number], split_in_name(file), conversation.page.context()
    earlier = [conversation.turns.get(n) for n in range(number)]
    history = [EarlierTurn(question=t.question, answer=t.shown_answer()) for t in earlier if t]
    golds = choose_golds(turn.text, turn.executed, turn.question)
    broken = len(history) < number or any(not t.answer for t in history)
    reasons = {"no context": not context, "unknown split": not split, "no question": not turn.question}
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason or isinstance(golds, str) or broken:
        return reason or (golds if isinstance(golds, str) else "no gold in an earlier turn")
    steps, asked = parse_program(turn.program), " ".join([*(t.question for t in history), turn.question])
    return Problem(
        id=f"convfinqa/{conversation.id}_{number}",
        source="convfinqa",
        module="reasoning business knowledge",
        language="en",
        capability="multi_turn",
        answer_kind=golds.kind,
        context=context,
        history=history,
        question=turn.question,
        gold=golds.gold,
        alternatives=golds.alternatives,
        flaw=golds.flaw,
        split=split,
        group=page_of(conversation.id),
        family="look-up" if steps == [] else steps[-1].operation if steps else "",
        level=len(steps) + 1 if steps is not None else None,  # a look-up is the easiest
        reference=worked_reasoning(turn.program, golds.gold, clean_executed(turn.executed), conversation.page, asked),
    )


def _unusable(schema_name: str) -> str | None:
    reasons = {
        "damaged table": "damaged table",
        "model": "answers of a model",
        "pair": "no context",
        "other": "unknown schema",
    }
    return reasons.get(schema_name)


def _conversations(schema_name: str, records: list[tuple[int, dict]]) -> Iterator[Conversation | tuple[int, Reason]]:
    """The conversations of `records`, or the number of a record that is none with the reason."""
    if schema_name in ("official turn", "turn"):
        yield from _from_turns(records)
        return
    make = {"official": _official, "lists": _lists, "last turn": _last_turn}[schema_name]
    for number, raw in records:
        conversation = attempt(make, raw)
        if conversation == MALFORMED:
            yield number, MALFORMED
            continue
        turns = {n: replace(turn, record=number) for n, turn in conversation.turns.items()}
        yield replace(conversation, turns=turns)


def _official(raw: dict) -> Conversation:
    note = raw["annotation"]
    questions = note["dialogue_break"]
    programs = note.get("turn_program") or [""] * len(questions)
    executed = note.get("exe_ans_list") or [None] * len(questions)  # the private test set has none
    turns = zip(questions, programs, executed, _texts(raw, programs), strict=True)
    return Conversation(
        _identifier(raw), _page(raw), {n: Turn(q.strip(), p, e, t) for n, (q, p, e, t) in enumerate(turns)}
    )


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
            found = re.fullmatch(r"[A#](\d+)", name)
            if found and int(found[1]) < len(results):
                texts[turn] = results[int(found[1])]
    halves = raw["annotation"].get("qa_split") or []
    for half, qa in enumerate(questions):
        if half in halves:
            texts[len(halves) - 1 - halves[::-1].index(half)] = str(qa.get("answer", ""))
    return texts


def _lists(raw: dict) -> Conversation:
    turns = {
        number: Turn(turn["question"].strip(), turn["expected_program"], turn["expected_answer"])
        for number, turn in enumerate(raw["conversation"])
    }
    return Conversation(_identifier(raw), _page(raw["financial_report"]), turns)


def _from_turns(records: list[tuple[int, dict]]) -> Iterator[Conversation | tuple[int, Reason]]:
    """Conversations from one record a turn, official (`annotation`, lists) or derived (flat, `text` and `table`)."""
    grouped: dict[str, list[tuple[int, dict]]] = {}
    seen: set[tuple[str, int]] = set()
    for number, raw in records:
        key = attempt(_turn_key, raw)
        if MALFORMED in (key, attempt(_turn, number, raw), attempt(_page, raw)):
            yield number, MALFORMED
        elif key in seen:
            yield number, Reason("duplicate id")
        else:
            seen.add(key)
            grouped.setdefault(key[0], []).append((number, raw))
    for identifier, members in grouped.items():
        turns = dict(sorted((_turn(number, raw) for number, raw in members), key=lambda item: item[0]))
        yield Conversation(identifier, _page(members[0][1]), turns)


def _turn_key(raw: dict) -> tuple[str, int]:
    """Conversation and place of a single turn."""
    return re.sub(r"_\d+$", "", raw["id"]), int((raw.get("annotation") or raw)["turn_ind"])


def _turn(number: int, raw: dict) -> tuple[int, Turn]:
    """A turn's place in its conversation, and the turn, from record `number` of a file of single turns."""
    note = raw.get("annotation") or raw
    question, text = note["cur_dial"][-1].strip(), raw.get("answer", "")
    program = note.get("cur_program") or ""  # the private test set has none
    return int(note["turn_ind"]), Turn(question, program, note.get("exe_ans"), text, number)


def _last_turn(raw: dict) -> Conversation:
    """A copy that states only the last answer."""
    turns = {number: Turn(question.strip()) for number, question in enumerate(raw["questions"])}
    turns[len(turns) - 1] = Turn(raw["questions"][-1].strip(), executed=raw["answer"])
    return Conversation(_identifier(raw), _page(raw), turns)


def _identifier(raw: dict) -> str:
    if not isinstance(raw["id"], str):
        raise TypeError("an id is text")
    return raw["id"]


def _page(raw: dict) -> Page:
    if isinstance(raw["table"], str):
        return Page.from_text(f"{raw['text']}\n\n{raw['table']}")
    return Page.from_lists(raw["pre_text"], raw["table"], raw["post_text"])
