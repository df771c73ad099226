"""ConvFinQA: FinQA's questions asked step by step, as a conversation over one page (README.md)."""

import re
from typing import Any

from finr1.records import Problem, Turn
from finr1.sources.files import Files, NoProblem, Results, attempt, read_each, require, split_in_name
from finr1.sources.finqa import Asked, page_of, page_problem, rank_of
from finr1.sources.golds import agree, answer_kind, clean_gold, parse_program
from finr1.sources.pages import Page


def read_files(files: Files) -> Results:
    """The results, one per turn, the most complete copies first."""
    conversations: dict[tuple, tuple[Page, dict]] = {}  # its page, and turn -> (number of the record, question)
    for file, number, found in sorted(read_each(_read, files), key=rank_of):
        if isinstance(found, str):
            yield file, number, found
            continue
        rank, name, page, asked = found
        _, turns = conversations.setdefault((rank, file, name), (page, {}))
        if asked.keys() & turns.keys():
            yield file, number, "duplicate id"
        else:
            turns |= {turn: (number, question) for turn, question in asked.items()}
    for (_, file, name), (page, turns) in conversations.items():
        for turn, (number, _) in sorted(turns.items()):
            questions = [turns[n][1] for n in range(turn + 1) if n in turns]
            yield file, number, attempt(_problem, name, turn, questions, page, split_in_name(file))


def _read(raw: Any, file: str) -> tuple[int, str, Page, dict[int, Asked]]:
    """A record of a published shape: its rank among the copies (0: the most complete), its id, page and turns."""
    match raw:
        case {"id": str(name), "financial_report": page, "conversation": turns}:
            asked = [Asked(turn["question"], turn["expected_program"], turn["expected_answer"]) for turn in turns]
            return 1, name, Page.of(page), dict(enumerate(asked))
        case {"id": str(name), "table": _}:
            note, page = raw.get("annotation", raw), Page.of(raw)
            if "cur_dial" not in note:
                return 0, name, page, dict(enumerate(_official(raw)))
            program, executed, text = note.get("cur_program") or "", note.get("exe_ans"), raw.get("answer", "")
            turn = {int(note["turn_ind"]): Asked(note["cur_dial"][-1], program, executed, text)}
            return 2, re.sub(r"_\d+$", "", name), page, turn
    raise NoProblem("unknown schema")


def _problem(name: str, turn: int, questions: list[Asked], page: Page, split: str | None) -> Problem:
    """One turn of a conversation as a `Problem`. `questions` holds the earlier ones that are known, then this one."""
    *earlier, asked = questions
    history = [Turn(question=before.question.strip(), answer=_shown_answer(before)) for before in earlier]
    steps = parse_program(asked.program)
    level = None if steps is None else len(steps) + 1  # a look-up is the easiest
    fields = {"group": page_of(name), "split": split, "history": history, "level": level}
    problem = page_problem("convfinqa", f"{name}_{turn}", asked, page, capability="multi_turn", **fields)
    require({"no gold in an earlier turn": len(history) == turn and all(before.answer for before in history)})
    return problem


def _shown_answer(asked: Asked) -> str:
    """The gold as the history shows it: the text answer, unless the executed one contradicts it."""
    text, executed = clean_gold(asked.text), clean_gold(asked.executed, executed=True)
    trusted = not executed or agree(text, executed, answer_kind(text, executed, asked.question))
    return text if text and trusted else executed


def _official(raw: dict) -> list[Asked]:
    """The turns of an official conversation; the private test set has neither programs nor answers.

    The text answer of a look-up is its program. That of a calculation is the annotator's result of the step that
    `answer_list` names (`A1` or `#1`). The last turn of a half has the answer of its question.
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
    return [Asked(*turn) for turn in zip(note["dialogue_break"], programs, executed, texts, strict=True)]
