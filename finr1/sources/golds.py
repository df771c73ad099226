"""Which of a record's two golds to use: the annotator's text answer or the result of the gold program.

FinQA and ConvFinQA carry both, and some 6 % contradict each other (https://github.com/czyssrs/FinQA/issues/15).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from finr1 import grading
from finr1.records import AnswerKind

CONTRADICTORY = "contradictory golds"


@dataclass(frozen=True)
class Golds:
    """The gold as it stands in the problem, further golds, and what kind of answer they are."""

    gold: str
    alternatives: list[str]
    kind: AnswerKind
    flaw: str = ""


def choose_golds(text: object, executed: object, question: str) -> Golds | str:
    """The text answer if it can be read, else the executed one; the other becomes an alternative.

    Where the two contradict each other both stay, the executed one first (the official evaluator compares with it),
    under the flaw `CONTRADICTORY`. Returns a reason instead where there is no gold, or none that can be read.
    """
    text, executed = clean_gold(text), clean_executed(executed)
    if not text and not executed:
        return "no gold"
    kind = answer_kind(text, executed, question)
    if executed and kind != "boolean" and text.lower() in ("yes", "no"):
        return Golds(executed, [text], answer_kind("", executed, question), CONTRADICTORY)
    readable = [gold for gold in (text, executed) if gold and _is_readable(gold, kind)]
    readable.sort(key=_is_sentence)  # a sentence is a fine answer but a poor gold
    if not readable:
        return "unreadable gold"
    if len(readable) == 2 and not agree(text, executed, kind):
        # "what percent ...?" with the text answer 67.88 and the executed one 0.67877: only the sign is missing
        if kind != "number" or "percent" not in question.lower() or not agree(text, executed, "percent"):
            return Golds(executed, [text], kind, CONTRADICTORY)
        kind = "percent"
    return Golds(readable[0], [gold for gold in readable[1:] if gold != readable[0]], kind)


def clean_gold(value: object) -> str:
    """A gold as a short string: `94.0` -> "94", a literal `\\n` and double spaces removed."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5f}".rstrip("0").rstrip(".")  # both sources round to five decimals
    text = " ".join(str(value).replace("\\n", " ").split()).rstrip("\\ ,.")
    return re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)  # ".3%" -> "0.3%"


def clean_executed(value: object) -> str:
    """An executed answer as a short string; re-uploads that went through CSV hold it as text: "94.0" -> "94"."""
    try:
        return clean_gold(float(str(value)))
    except ValueError:
        return clean_gold(value)


def answer_kind(text: str, executed: str, question: str) -> AnswerKind:
    """Boolean for yes/no, percent if the text answer has the sign (or, without a text, the question asks for one)."""
    if (executed or text).lower() in ("yes", "no"):
        return "boolean"
    percent = "%" in text if text else "%" in executed or "percent" in question.lower() or "%" in question
    return "percent" if percent else "number"


def agree(first: str, second: str, kind: AnswerKind) -> bool:
    """Whether either is right when the other is the gold (the coarser of the two may be the more rounded one)."""
    return bool(grading.grade(first, second, kind) or grading.grade(second, first, kind))


def _is_readable(gold: str, kind: AnswerKind) -> bool:
    try:
        return grading.grade(gold, gold, kind) is True
    except ValueError:
        return False


def _is_sentence(gold: str) -> bool:
    return len(re.findall(r"[a-z]{2,}", gold.lower())) > 2
