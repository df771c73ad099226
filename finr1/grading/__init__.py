"""Grading: when is an answer right? Filter, reward and benchmark all ask here; the contract stands in README.md.

Here the answer that `extraction` finds is compared with the gold one, by what the other modules read in both.
"""

import contextlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from finr1 import sandbox
from finr1.grading.booleans import ASKS_WRONG, boolean_options, read_boolean, read_predicate
from finr1.grading.extraction import extract_answer, has_format, lenient_answer, normalise, plain
from finr1.grading.letters import read_letters
from finr1.grading.numbers import agreed, exactly, lone_quantity, matches, read_numbers
from finr1.grading.numerals import any_in, form

__all__ = ["extract_answer", "grade", "has_format", "is_correct", "lenient_answer", "listed_options"]

MAX_TEXT = 10_000  # characters of a text that are compared; a longer one is an essay for the judge
MAX_CHARS = 4000  # of an answer of any other kind
MAX_BLANKS = 50

KINDS = ("number", "percent", "boolean", "choice", "label", "text", "code")
# How else an alternative gold is read: FinQA mixes yes and no with numbers in the golds of one question.
_ALSO_READ_AS = {"number": "boolean", "percent": "boolean", "boolean": "number"}
_LABEL_LEAD = re.compile(f"(?:{any_in('label_lead')})*")
_LABEL_TAIL = re.compile(rf"(?:{any_in('label_tail')})*\Z")


def is_correct(completion: str, *, gold: str, answer_kind: str, **options) -> bool | None:
    """Whether `completion` gives the right answer: `extract_answer`, then `grade` with its `options`."""
    return grade(extract_answer(completion), gold, answer_kind, **options)


def grade(
    predicted: str | None,
    gold: str,
    answer_kind: str,
    *,
    alternatives: Sequence[str] = (),
    choices: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    rel_tol: float = 0.01,
) -> bool | None:
    """Whether `predicted` is right against `gold` or any of `alternatives`; None = rules cannot decide, ask a judge.

    `choices` maps option letters to their text, `labels` label keys to their names. `options` are what the question
    lists (`listed_options`): another word for yes, or a key it does not name, is then wrong. A number may be off by
    `rel_tol`; with 0 an integer has to be itself. Raises `ValueError` for a `gold` that is empty or cannot be read as
    its `answer_kind`. An alternative that cannot be read is left out. Code whose gold are unit tests is run in
    `finr1.sandbox`, some 0.1 s each; `SandboxUnavailable` where it can't be.
    """
    if answer_kind not in KINDS:
        raise ValueError(f"unknown answer_kind {answer_kind!r}; known: {', '.join(KINDS)}")
    results = [_against(predicted, gold, answer_kind, choices, labels, options, rel_tol)]
    for alternative in alternatives:
        for kind in (answer_kind, _ALSO_READ_AS.get(answer_kind, answer_kind)):
            with contextlib.suppress(ValueError):
                results.append(_against(predicted, alternative, kind, choices, labels, options, rel_tol))
                break
    return True if True in results else None if None in results else False


def _against(predicted, gold, kind, choices, labels, options, rel_tol) -> bool | None:
    """`predicted` against one gold, which may hold several blanks: `10000;-8000`, each in its place."""

    def one(predicted: str, gold: str, in_blank: bool) -> bool | None:
        if kind in ("number", "percent"):
            return _grade_number(predicted, gold, kind == "percent", in_blank, rel_tol)
        if kind in ("boolean", "choice", "label"):
            return _grade_closed(predicted, gold, kind, choices, labels, options)
        return _grade_written(predicted, gold, kind == "code")

    if not isinstance(gold, str) or not gold.strip():
        raise ValueError("the gold answer is empty")
    if len(gold) > MAX_CHARS and kind not in ("text", "code"):
        raise ValueError(f"the gold answer {gold[:80]!r} ... is too long for a {kind}")
    predicted = (predicted or "").strip()
    blanks = [] if kind == "code" or len(gold) > MAX_CHARS else _blanks(gold)
    if not 1 < len(blanks) <= MAX_BLANKS:
        return one(predicted, gold, False)
    if kind == "text" and one(predicted, gold, False):
        return True
    return _grade_blanks(predicted, blanks, one, undecided=None if kind == "text" and predicted else False)


def _blanks(text: str) -> list[str]:
    return [part.strip() for part in form("blanks").split(text.strip().rstrip(";；"))]


def _grade_blanks(predicted: str, golds: list[str], one: Callable, undecided: bool | None) -> bool | None:
    """Each blank in its place: wrong when one is, undecided when one is; `undecided` for another number of blanks."""
    given = _blanks(predicted) if len(predicted) <= MAX_CHARS else []
    if len(given) == 1:
        given = [part for part in form("other_blanks").split(predicted) if part.strip()]
    if len(given) != len(golds):
        for gold in golds:
            one("", gold, True)  # raises for a gold that cannot be read
        return undecided
    results = [
        one(_without_ordinal(p, place), _without_ordinal(g, place), True)
        for place, (p, g) in enumerate(zip(given, golds, strict=True), 1)
    ]
    return False if False in results else None if None in results else True


def _without_ordinal(text: str, place: int) -> str:
    match = form("ordinal").match(text)
    numbered = match and place in [unicodedata.digit(digit) for digit in match.groups() if digit]
    return text[match.end() :] if numbered else text


def _grade_number(predicted: str, gold: str, percent: bool, in_blank: bool, rel_tol: float) -> bool:
    golds = agreed(read_numbers(gold, decimal_comma=True))
    if not golds:
        raise ValueError(f"the gold answer {gold[:80]!r} is not one number")
    # `69,07` is 69.07 where decimals are asked for; elsewhere `5,6` is two numbers, and a hedge
    comma = in_blank or any((number.decimals or 0) > 0 for number in golds)
    numbers = agreed(read_numbers(predicted, decimal_comma=comma)) if predicted else []
    bounds = {number.value for number in numbers if number.bound}  # `at least 5 (5)` is no value either
    read = [number for number in numbers if number.bound or number.value not in bounds]
    return any(matches(number, gold, percent, rel_tol) for number in read for gold in golds)


def _grade_closed(predicted: str, gold: str, kind: str, choices, labels, options) -> bool:
    """Yes or no, letters of options, a label: both answers are read, and have to be read alike."""
    if kind == "boolean":
        family, expected = read_boolean(gold) or (None, None)
        given = read_predicate(predicted, options)
        if given is None and (said := read_boolean(predicted, family, options)):
            asks_wrong = any(option.startswith(ASKS_WRONG) for option in options)  # 是否违规: 违规 is a yes
            given = said[1] != (asks_wrong and (said[0] == "yes") != (family == "yes"))
    elif kind == "choice":
        expected, given = read_letters(gold, choices) or None, read_letters(predicted, choices)
    else:
        expected = _read_label(gold, labels)
        given = _read_label(predicted, labels, options) if len(predicted) <= MAX_CHARS else None
    if expected is None:
        raise ValueError(f"the gold answer {gold[:80]!r} is no {kind}; known: {list(labels or choices or [])[:9]}")
    return bool(predicted) and given == expected


def listed_options(question: str, answer_kind: str, labels: Mapping[str, str] | None = None) -> list[str]:
    """The options that `question` lists; empty where it lists none. Labels: which of their keys and names it holds."""
    if answer_kind == "boolean":
        return boolean_options(question)
    if answer_kind != "label" or not labels:  # asked for every number of a thought: nothing to look for
        return []
    text = plain(question[-MAX_CHARS:]).lower()
    listed = [
        [term for term in label if re.search(rf"(?<![a-z0-9.]){re.escape(plain(term).lower())}(?![a-z0-9])", text)]
        for label in labels.items()
    ]
    return sorted({term for terms in listed for term in terms}) if sum(map(bool, listed)) > 1 else []


def _read_label(text: str, labels: Mapping[str, str] | None, options: Sequence[str] = ()) -> str | None:
    """The key of the label that `text` is, by key or name, alone or both: `1`, `bullish`, `1 (bullish)`."""
    text = text[:MAX_CHARS].strip()
    for key, name in (labels or {}).items():  # a key that a question with `options` does not name stands for nothing
        if text == name or text == key and (key in options or name not in options):
            return key
    inner = text[_LABEL_LEAD.match(text).end() :]
    bare = normalise(inner[: _LABEL_TAIL.search(inner, max(0, len(inner) - 40)).start()]) or normalise(text)
    if labels is None:
        return bare or None
    for key, name in labels.items():
        key_text, name_text = normalise(key), normalise(name)
        spelled = {name_text, key_text + name_text, name_text + key_text}
        if key in options or name not in options:
            spelled |= {key_text, f"{key_text}.0"} if key_text.isdigit() else {key_text}  # .0: from a float column
        if bare and bare in spelled - {""}:
            return key
    return None


def _grade_written(predicted: str, gold: str, code: bool) -> bool | None:
    """Texts as normalised; code by the gold's unit tests if it is some, else without white space at line ends."""
    if code and (tests := sandbox.read_tests(gold)) is not None:
        return bool(predicted) and not sandbox.first_failure(predicted, tests)
    if not code and max(len(predicted), len(gold)) > MAX_TEXT:
        return None if predicted else False
    if code:
        texts = [form("code_fence").sub("", text[: MAX_TEXT + 1].strip()).strip() for text in (predicted, gold)]
        given, expected = ([line.rstrip() for line in text.splitlines() if line.strip()] for text in texts)
    else:
        given, expected = map(normalise, (predicted, gold))
    if not expected and not code:
        raise ValueError(f"the gold answer {gold[:80]!r} holds no letter and no digit")
    return bool(given) if not given or given == expected else _grade_quantities(predicted, gold)


def _grade_quantities(predicted: str, gold: str) -> bool | None:
    """Two texts that are one number with a unit each, as numbers; None for any other pair."""
    readings = lone_quantity(predicted), lone_quantity(gold)
    if not all(readings):
        return None
    (number, noun), (expected, expected_noun) = readings
    if number.is_year or expected.is_year:  # 2016 lies within 1 % of 2015 and is another year
        both = number.is_year and expected.is_year and noun == expected_noun
        return number.value == expected.value if both else None
    if (number.bare and not noun) or (expected.bare and not expected_noun):  # perhaps a code or an identifier
        return exactly(number, expected) or None
    right = matches(number, expected, percent=False)
    same_noun = not noun or not expected_noun or noun == expected_noun
    return (True if same_noun else None) if right else False
