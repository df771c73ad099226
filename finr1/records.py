"""The records that flow through the suite, and the chat format in which a model sees them.

`Problem` (sources, synthetic) -> `Trace` = problem + reasoning + answer (generation) -> rows for TRL (curation).
The response format is Fin-R1's: one think block, then one answer block that holds a `\\boxed{}` (arXiv 2503.16252).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError

from finr1 import grading
from finr1.manifest import making
from finr1.paths import Unreadable, replacing, shown

AnswerKind = Literal["number", "percent", "boolean", "choice", "label", "text", "code"]
Capability = Literal["calculation", "code", "compliance", "risk", "esg", "multi_turn", "sentiment", "knowledge"]
Split = Literal["train", "dev", "test"]
Way = Literal["at_once", "by_parts"]  # of a problem with two worked solutions

# The models that the recipe makes, in the order of its tables: name in files and parameters -> name in figures.
RECIPE = {"base": "base", "zero": "GRPO only", "sft": "SFT", "grpo": "SFT + GRPO"}
# What is right without reading the question; in tables like a model, decoding "none" (`evaluation.chance_samples`).
CHANCE = {"guess": "uniform guess", "constant": "best constant"}

# By what of an answer or its problem a table of accuracies may be split.
GROUPS = ("capability", "family", "kind", "language", "source", "suite", "way")

# Short on purpose: every token of it is paid for in every prompt of a run.
SYSTEM_PROMPT = "Reason step by step in <think></think>, then give the result in <answer>\\boxed{}</answer>."


class Record(BaseModel, extra="forbid"):
    """Base of what is stored as one JSON object a line."""


class Turn(Record):
    """An earlier question of the same conversation and its gold answer."""

    question: str
    answer: str


class Problem(Record):
    """One question with a gold answer, from any source, before anybody has answered it."""

    id: str  # unique over all sources: "<source>/<its own id>"
    source: str  # "synthetic", "finqa", ...
    module: str  # the paper's grouping of sources, e.g. "reasoning business knowledge"
    language: Literal["en", "zh"]
    capability: Capability
    answer_kind: AnswerKind
    context: str = ""  # page, table (markdown) or code that the question is about
    history: list[Turn] = []  # earlier turns, oldest first; the context belongs to the first one
    question: str
    choices: dict[str, str] | None = None  # {"A": "option text"}
    labels: dict[str, str] | None = None  # {"0": "bearish"}
    gold: str
    alternatives: list[str] = []  # further golds; right against any of them is right
    split: Split
    group: str  # problems of one group (page, template instance) never sit in two splits
    family: str = ""  # template family (synthetic) or sub-task (real sources)
    level: int | None = None  # difficulty, 1 = easiest; None where the source states none
    flaw: str = ""  # what is known to be wrong with the record; such problems are not trained on
    reference: str = ""  # worked reasoning that the source itself supports (synthetic steps, FinQA's gold program)
    reference_by_parts: str = ""  # the same reasoning in smaller steps, where there is a second way
    rel_tol: float = 0.01  # how far a number may be off; 0 = an integer is itself or wrong

    @property
    def graded_against(self) -> dict:
        """What `grading.grade` holds an answer against, by its arguments: gold, kind, further golds and names."""
        names = ("gold", "answer_kind", "alternatives", "choices", "labels", "rel_tol")
        listed = grading.listed_options(self.question, self.answer_kind, self.labels)
        return {name: getattr(self, name) for name in names} | {"options": listed}


class Trace(Record):
    """One teacher's answer to one problem."""

    id: str  # "<problem id>#<sample>"
    problem: Problem
    teacher: str
    completion: str  # the text as it came, tags included
    reasoning: str
    answer: str | None  # as extracted by `grading.extract_answer`; None = no readable answer
    finish_reason: str = "stop"
    tokens: int | None = None  # completion tokens, where the teacher reports them
    fault: str | None = None  # planted by the scripted teacher; None for every other teacher
    way: Way | None = None  # `teacher.way_of` the reasoning


def render_question(problem: Problem) -> str:
    """The user turn that asks `problem`: its context, unless an earlier turn has it, its question and its options."""
    context = "" if problem.history else problem.context
    options = "\n".join(f"{letter}. {text}" for letter, text in (problem.choices or {}).items())
    return "\n\n".join(part for part in (context, problem.question, options) if part)


def messages(problem: Problem, system_prompt: str = SYSTEM_PROMPT) -> list[dict[str, str]]:
    """`problem` as a chat; earlier turns become real turns, and an empty `system_prompt` leaves the system turn out."""
    chat = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for number, turn in enumerate(problem.history):
        question = f"{problem.context}\n\n{turn.question}" if number == 0 and problem.context else turn.question
        chat += [{"role": "user", "content": question}, {"role": "assistant", "content": turn.answer}]
    return [*chat, {"role": "user", "content": render_question(problem)}]


def render_completion(reasoning: str, answer: str) -> str:
    """Reasoning and answer in Fin-R1's response format."""
    return f"<think>{reasoning}</think><answer>\\boxed{{{answer}}}</answer>"


def write_jsonl(path: Path, rows: Iterable[Record | dict]) -> None:
    """Write `rows` one JSON object a line, atomically. UTF-8, Chinese kept readable."""
    with replacing(path) as file:
        for row in rows:
            data = row.model_dump(mode="json") if isinstance(row, Record) else row
            file.write(json.dumps(data, ensure_ascii=False).encode() + b"\n")


def read_jsonl(path: Path, record: type[Record] | None = None, part: bool = False) -> Iterator:
    """Yield the rows of `path` as `record`, or as dicts; `part`: without a last line that is still being written.

    Raises `ValueError` at the first bad row, with its file, line and reason, and the command that makes the file.
    """
    read = TypeAdapter(record or dict[str, Any]).validate_json
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if part and not line.endswith(b"\n"):
                return
            try:
                row = read(line.removeprefix(b"\xef\xbb\xbf"))
            except ValidationError as error:
                where = f"{shown(path)}, line {number}: {told(error)}"
                raise Unreadable(f"{where}{making(path.parent, force=True)}") from None
            yield row


def told(error: Exception) -> str:
    """An error in one line: of pydantic's, the first field that is wrong, and why."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def hash_share(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on `key` and `seed` alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) / 2**64
