"""Choices: which options does an answer name, by letter or by their own text?"""

import re
from collections.abc import Mapping

from finr1.grading.extraction import normalise, plain
from finr1.grading.numbers import exactly, lone_quantity
from finr1.grading.numerals import any_in, form

MAX_CHARS = 4000
MAX_OPTIONS = 60  # with more of them only their letters are read
MAX_SEGMENTS = 40  # lines, or parts between semicolons
DEFAULT_LETTERS = frozenset("ABCDEFGH")

_LEAD = re.compile(f"(?:{any_in('letter_lead')})*", re.I)
_ALONE = re.compile(
    rf"(?:{any_in('letter_before')})\s*\(?(?<![A-Za-z0-9])(?P<letters>[A-H]{{1,8}})(?![A-Za-z0-9])(?:{any_in('letter_after')})"
)


def _bare(text: str, known: frozenset[str]) -> frozenset[str]:
    """The letters of a text that is nothing but letters and what separates them: `ABD`, `A, B and D`, `(b)`."""
    pieces = [piece for piece in form("letter_separators").split(text) if piece]
    if not pieces or len(pieces) > len(known) or not known.issuperset("".join(pieces).upper()):
        return frozenset()
    run = max(pieces, key=len)
    if len(set(run.upper())) < len(run) or run.islower() and "".join(sorted(run)) != run:
        return frozenset()  # AA is a rating, `bad` is a word
    return frozenset("".join(pieces).upper())


def _by_text(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """The options whose own text `text` is; `options` maps letters to normalised texts."""
    wanted = normalise(text)
    return frozenset(letter for letter, option in options.items() if wanted and option == wanted)


def _spelled(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """The option whose own text `text` is, with its letter in front (`E. A+B+C` names one option, not four) or not."""
    match = form("letter_and_text").match(text)
    own = frozenset(match[1]) & _by_text(match[2], options) if match else frozenset()
    return own or _by_text(text, options)


def _segment(text: str, options: Mapping[str, str]) -> frozenset[str]:
    """The letters of one segment of an answer, whatever their dress; explanations behind them do not count."""
    known, rest = DEFAULT_LETTERS | options.keys(), text[_LEAD.match(text).end() :] or text
    for part in (text, rest):
        bare = _bare(part, known)
        if len(bare) == 1 and bare <= options.keys():
            return bare  # `A` is the letter, even where another option reads "A"
        if named := _spelled(part, options) or bare:
            return named
    reason = form("letter_reason")
    claim = reason.split(rest)[0]
    listed = normalise(claim)  # `A Net income B Total assets`
    several = [letter for letter, option in options.items() if option and letter.casefold() + option in listed]
    if len(several) > 1:
        return frozenset(several)
    if first := form("letter_then_text").match(rest):
        letter, explained = frozenset(first[1].upper()), first[2]
        claimed = _by_text(explained, options) | frozenset(form("further_letter").findall(reason.split(explained)[0]))
        return letter | claimed
    spans = ((run["letters"], run.start("letters")) for run in _ALONE.finditer(claim))
    runs = [run for run, at in spans if not form("letter_denied").search(claim, max(0, at - 40), at)]
    return frozenset("".join(run for run in runs if len(set(run)) == len(run)))


def read_letters(text: str, choices: Mapping[str, str] | None = None) -> frozenset[str]:
    """The letters of `choices` (without them A to H) that `text` names; empty for none, or one that is not on offer."""
    stated = {letter.strip().upper(): option for letter, option in (choices or {}).items()}
    offered, text = frozenset(stated) or DEFAULT_LETTERS, plain(text[:MAX_CHARS])[:MAX_CHARS]
    bare = _bare(text, offered)
    if len(bare) == 1:
        return bare
    if len(stated) > MAX_OPTIONS:
        stated = {}
    options = {letter: normalise(option) if len(option) <= MAX_CHARS else "" for letter, option in stated.items()}
    segments = [part for part in re.split(r"[\n;]", text, maxsplit=MAX_SEGMENTS) if part.strip()]
    letters = frozenset()
    if len(segments) > 1:  # an option may hold a semicolon
        letters = _spelled(text, options) or _spelled(text[_LEAD.match(text).end() :], options)
    letters = letters or frozenset().union(*(_segment(segment, options) for segment in segments))
    if not letters and (number := lone_quantity(text)):  # `2.50%` for the option `2.5%`
        numbers = {letter: lone_quantity(option) for letter, option in stated.items()}
        letters = frozenset(letter for letter, other in numbers.items() if other and exactly(number[0], other[0]))
    return letters if letters <= offered else frozenset()
