"""Read what an answer states as numbers, whatever the form: equations, fractions, ratios, dates and years beside it.

A text that holds an unworked formula, or no number at all, reads as nothing: the grader then calls a prediction wrong
and a gold unreadable. Whether several numbers say the same is `matching`'s business.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

from finr1.grading.cleaning import normalise, plain
from finr1.grading.numerals import Quantity, scan
from finr1.grading.units import DOWN, UP

MAX_CHARS = 4000  # a longer "number" is an attack or an essay

_UNWORKED = re.compile(r"[<>≠√±∞]")
_DECIMAL_COMMA = re.compile(r"(?<![0-9.,])([0-9]+),([0-9]{1,2})(?![0-9.,])")
_STATEMENT = re.compile(r"[;\n。]|,(?![0-9])|\.\s|\s(?:and|or|so|thus|hence|therefore)\s")
_OPERATORS = frozenset("+-*/^~×÷·x")
_LISTED = re.compile(r"\b(?:or|and|vs|versus)\b(?!\s+(?:about|approximately|around|roughly)\b)|[或和与,;、]")
_AND_OR = frozenset(("or", "and", "&", "to", "或", "或者", "和", "与", "至", "到", "、", "vs"))
_YEAR_MARK = re.compile(r"(?:\b(?:in|for|of|during|fiscal|year|fy|since|from|to|by|through|until|end)|[于在自至])\s?\Z")
_MONTH = r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]{0,6}\.?"
_YEAR = r"((?:19|20)[0-9]{2})"
_DATE = re.compile(
    rf"{_MONTH}\s{{1,3}}[0-9]{{1,2}}(?:st|nd|rd|th)?(?![0-9.%])(?:\s?,?\s{{0,3}}{_YEAR}(?![0-9]))?"
    rf"|(?<![0-9]){_YEAR}年\s?[0-9]{{1,2}}月(?:\s?[0-9]{{1,2}}[日号])?"
    rf"|(?<![0-9.]){_YEAR}([-/.])[0-9]{{1,2}}\4[0-9]{{1,2}}(?![0-9])"
    rf"|(?<![0-9.])[0-9]{{1,2}}([-/.])[0-9]{{1,2}}\5{_YEAR}(?![0-9])"
)

# Numbers that only say how, how long or where: `rounded to 2 decimal places`, `over 5 years`, `see note 5`, `3-year`.
_DECIMALS = r"(?:decimals?(?: places?| points?| digits?)?|d\.?p\.?|significant (?:figures|digits))"
_PERIOD = r"[0-9]{1,3}[ -](?:year|quarter|month|week|day)s?"
_ASIDE = re.compile(
    rf"\b(?:rounded )?(?:to |with |at )?(?:the )?(?:nearest )?[0-9]{{1,2}}[ -]?{_DECIMALS}(?![a-z])"
    r"|(?:保留|精确到?)(?:小数点后)?[0-9]{1,2}位(?:小数)?"
    r"|\b(?:note|table|page|exhibit|row|column|line|step|item|section|footnote) [0-9]{1,3}(?![0-9.,]*[0-9%])"
    rf"|\b(?:over|during|within|across|last|past|next) (?:the )?(?:last |past |next |full )?{_PERIOD}(?: period)?\b"
    r"|(?<![0-9.,-])[0-9]{1,3}-(?:year|quarter|month|week|day)(?= [a-z])"
)


def _results(text: str) -> str:
    """`a = b = c` means c, in each statement of `text` that holds an equation."""
    statements = []
    for statement in _STATEMENT.split(text):
        parts = [part for part in statement.split("=") if re.search("[0-9]", part)]
        statements.append(parts[-1] if parts else statement)
    return " ; ".join(statements)


def _ratio(numerator: Quantity, denominator: Quantity, to_one: bool) -> Quantity | None:
    """`3/5` or `2.43:1` as one number; None for a division by zero."""
    if not denominator.value:
        return None
    return replace(
        denominator,
        value=numerator.value / denominator.value,
        decimals=numerator.decimals if to_one else None,
        start=numerator.start,
        core=numerator.core,
        literal=f"{numerator.literal}/{denominator.literal}",
        bracketed=False,
    )


def _sum(first: Quantity, second: Quantity, factor: Decimal, decimals: int | None) -> Quantity:
    """`2 1/4`, or `1亿2000万` with the factor that brings the second part to the scale of the first."""
    part = abs(second.value) * factor
    value = first.value - part if first.value < 0 else first.value + part
    unit = second if first.bare else first
    return replace(unit, value=value, decimals=decimals, start=first.start, end=second.end, literal=first.literal + "+")


def _joined(text: str, last: Quantity, number: Quantity) -> Quantity | None | bool:
    """`last` and `number` as one; False when they stay two, None when they are an unworked formula."""
    gap, raw = text[last.end : number.start].strip(), text[last.end : number.core].strip(" ()$€£¥")
    if last.is_year and (number.is_year or len(number.literal) == 2) and raw in ("-", "/"):
        return False  # 2014-2015, 2014/15
    if gap == "比" and last.is_year and number.is_year:
        return False  # 2015年比2014年
    ratio = text[last.end : number.core] in (":", " : ") or gap == "比"  # `2015: 94` has a label, not a ratio
    to_one = number.literal == "1" and (ratio or gap == "to" and "from" not in text[: last.start])
    if to_one or ratio or gap == "/":
        return _ratio(last, number, to_one) if last.bare and "/" not in last.literal else None
    again = "(" in text[last.end : number.core].partition("-")[0]  # -75% (-0.75) says one thing twice
    if raw and _OPERATORS.issuperset(raw.replace(" ", "")) and not again:
        return None
    if not text[last.end : number.core] and last.scale and number.scale and number.scale < last.scale:
        shift = number.scale / last.scale
        return _sum(last, number, shift, (number.decimals or 0) - shift.adjusted())
    return False


def _merge(text: str, found: list[Quantity]) -> list[Quantity]:
    """Put together what is one number in several pieces; nothing when an unworked formula remains."""
    merged = found[:1]
    for number in found[1:]:
        joined = _joined(text, merged[-1], number)
        if joined is None:
            return []
        if joined:
            whole = merged[-2] if len(merged) > 1 else None
            mixed = whole and whole.bare and whole.literal.isdigit() and 0 < joined.value < 1 and not whole.is_year
            if mixed and "/" in joined.literal and text[whole.end : joined.core].isspace():
                merged.pop()
                joined = _sum(whole, joined, Decimal(1), None)
            merged[-1] = joined
            continue
        between = text[merged[-1].end : number.core]
        if number.bracketed and between.strip(" $€£¥") == "(":  # `-8.7 ( 8.7 )` says one thing twice
            number = replace(number, value=abs(number.value).copy_sign(merged[-1].value))
        merged.append(replace(number, listed=bool(_LISTED.search(between))))
    return merged


def _without_years(text: str, found: list[Quantity]) -> list[Quantity]:
    """Leave out the years beside a number (`94 in 2015`); keep them when there is nothing else.

    A year that "or" joins to a number (`94 or 2015`) is a second answer and stays.
    """
    if not any(number.is_year for number in found):
        return found
    kept: list[Quantity] = []
    for index, number in enumerate(found):
        before = found[index - 1] if index else None
        after = found[index + 1] if index + 1 < len(found) else None
        if number.is_year:
            second = before and not before.is_year and text[before.end : number.start].strip() in _AND_OR
            if second or after and not after.is_year and text[number.end : after.start].strip() in _AND_OR:
                kept.append(number)
        elif not (before and before.is_year and text[before.end : number.core].strip() in ("-", "/")):
            kept.append(number)  # but not the 15 of 2014-15
    if not all(number.is_year for number in kept):
        return kept
    unmarked = [n for n in found if not _YEAR_MARK.search(text[max(0, n.start - 20) : n.core])]
    return unmarked or found


def _with_direction(text: str, found: list[Quantity]) -> list[Quantity]:
    """Note for each number whether a word such as "decrease" or "increase" stands beside it."""
    if not (DOWN.search(text) or UP.search(text)):
        return found
    directed = []
    for index, number in enumerate(found):
        low = found[index - 1].end if index else 0
        high = found[index + 1].start if index + 1 < len(found) else len(text)
        beside = f"{text[max(low, number.core - 40) : number.core]} | {text[number.end : min(high, number.end + 40)]}"
        direction = -1 if DOWN.search(beside) else 1 if UP.search(beside) else 0
        directed.append(replace(number, direction=direction))
    return directed


def read_numbers(text: str, decimal_comma: bool = False) -> list[Quantity]:
    """The numbers that `text` states, years beside them left out; an empty list when it cannot be read.

    `decimal_comma` reads `69,07` as 69.07 instead of as two numbers.
    """
    if len(text) > MAX_CHARS:
        return []
    text = plain(text).lower()
    if decimal_comma:
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    if "=" in text:
        text = _results(text)
    if _UNWORKED.search(text):
        return []
    found = scan(text)
    if len(found) > 1:
        undated = _DATE.sub(lambda date: f" {date[1] or date[2] or date[3] or date[6] or ''} ", text)
        undated = _ASIDE.sub(" ", undated)
        if undated != text and (left := scan(undated)):
            text, found = undated, left
        found = _without_years(text, _merge(text, found))
    return _with_direction(text, found)


_ABOUT = re.compile(
    r"(?:\s|[:~=]|(?:about|approximately|approx\.?|around|roughly|nearly|circa|the|answer|is|a|total|of)\b"
    r"|大约|约|约为|近|为|是|共计?|合计|总计|达到?|答案)*"
)


def lone_quantity(text: str) -> tuple[Quantity, str] | None:
    """The number and the noun behind it, if `text` is one number with a unit (`0.3333枚比特币`) and nothing else."""
    if len(text) > 100:
        return None
    text = plain(text).lower()
    found = _merge(text, scan(text))
    if len(found) != 1 or _UNWORKED.search(text) or not _ABOUT.fullmatch(text, 0, found[0].start):
        return None
    noun = normalise(text[found[0].end :])
    return (found[0], noun) if len(noun) <= 16 and len(text[found[0].end :].split()) <= 2 else None
