"""Read what an answer states as numbers, whatever the form: equations, fractions, ratios, dates and years beside it.

Then: is one number another, in its unit, tolerance and rounding as written? In `Decimal`: 14.5 is half-way to 15.
"""

import re
from dataclasses import replace
from decimal import Decimal

from finr1.grading.extraction import normalise, plain
from finr1.grading.notations import BOUND_AFTER, BOUND_BEFORE, written_out
from finr1.grading.numerals import Quantity, any_in, form, scan

MAX_CHARS = 4000  # a longer "number" is an attack or an essay

_ABOUT = re.compile(f"(?:{any_in('about')})*")
_OPERATORS = frozenset("+-*/^~×÷·x")
_AND_OR = frozenset(("or", "and", "&", "to", "或", "或者", "和", "与", "至", "到", "、", "vs"))


def _sum(first: Quantity, second: Quantity, factor: Decimal, decimals: int | None) -> Quantity:
    """`2 1/4`, or `1亿2000万` with the factor that brings the second part to the scale of the first."""
    part = abs(second.value) * factor
    value = first.value - part if first.value < 0 else first.value + part
    unit = second if first.bare else first
    return replace(unit, value=value, decimals=decimals, start=first.start, end=second.end, literal=first.literal + "+")


def _joined(text: str, last: Quantity, number: Quantity) -> Quantity | None | bool:
    """`last` and `number` as one; False when they stay two, None when they are an unworked formula."""
    gap, raw = text[last.end : number.start].strip(), text[last.end : number.core].strip(" ()$€£¥")
    if last.is_year and (raw == ":" or (number.is_year or len(number.literal) == 2) and raw in ("-", "/")):
        return False  # 2014-2015, 2014/15
    if gap == "比" and last.is_year and number.is_year:
        return False  # 2015年比2014年
    ratio = text[last.end : number.core] in (":", " : ") or gap == "比"  # `2015: 94` has a label, not a ratio
    to_one = number.literal == "1" and (ratio or gap == "to" and "from" not in text[: last.start])
    if to_one or ratio or gap == "/":
        if not (last.bare and number.value) or "/" in last.literal:
            return None
        literal, decimals = f"{last.literal}/{number.literal}", last.decimals if to_one else None
        span = {"start": last.start, "core": last.core, "bracketed": False}
        return replace(number, value=last.value / number.value, decimals=decimals, literal=literal, **span)
    again = "(" in text[last.end : number.core].partition("-")[0]  # -75% (-0.75) says one thing twice
    if raw and _OPERATORS.issuperset(raw.replace(" ", "")) and not again:
        return None
    if not text[last.end : number.core].strip() and last.scale and number.scale and number.scale < last.scale:
        shift = number.scale / last.scale
        return _sum(last, number, shift, (number.decimals or 0) - shift.adjusted())
    return False


def _merge(text: str, numbers: list[Quantity]) -> list[Quantity]:
    """Put together what is one number in several pieces; nothing when an unworked formula remains."""
    merged = numbers[:1]
    for number in numbers[1:]:
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
        if number.bracketed and between.rstrip(" $€£¥").endswith("("):  # `-8.7 ( 8.7 )` says one thing twice
            number = replace(number, value=abs(number.value).copy_sign(merged[-1].value))
        merged.append(replace(number, listed=bool(form("listed").search(between))))
    return merged


def _without_years(text: str, numbers: list[Quantity]) -> list[Quantity]:
    """Without the years beside a number (`94 in 2015`), but for one after "or", or where nothing else is left."""
    kept: list[Quantity] = []
    for before, number, after in zip([None, *numbers], numbers, [*numbers[1:], None], strict=False):
        if number.is_year:
            second = before and not before.is_year and text[before.end : number.start].strip() in _AND_OR
            if second or after and not after.is_year and text[number.end : after.start].strip() in _AND_OR:
                kept.append(number)
        elif not (before and before.is_year and text[before.end : number.core].strip() in ("-", "/")):
            kept.append(number)  # but not the 15 of 2014-15
    if not all(number.is_year for number in kept):
        return kept
    unmarked = [n for n in numbers if not form("year_mark").search(text[max(0, n.start - 20) : n.core])]
    return unmarked or numbers


def read_numbers(text: str, decimal_comma: bool = False) -> list[Quantity]:
    """The numbers that `text` states, years beside them left out; nothing when it cannot be read.

    `decimal_comma`: `69,07` is 69.07 and not two numbers. A word such as "decrease" beside a number is its direction.
    """
    if len(text) > MAX_CHARS:
        return []
    text = written_out(plain(text).lower())
    if decimal_comma:
        text = form("decimal_comma").sub(r"\1.\2", text)
    if "=" in text:  # `a = b = c` means c, in each statement
        parts = form("statement_end").split(text)
        sides = ([side for side in part.split("=") if re.search("[0-9]", side)] or [part] for part in parts)
        text = " ; ".join(statement[-1] for statement in sides)
    if form("unworked").search(text):
        return []
    numbers = scan(text)
    if len(numbers) > 1:
        undated = form("dates").sub(lambda date: f" {date[1] or date[2] or date[3] or date[4] or date[7] or ''} ", text)
        undated = form("asides").sub(" ", undated)
        if undated != text and (left := scan(undated)):
            text, numbers = undated, left
        numbers = _without_years(text, _merge(text, numbers))
    edges = [0, *(number.end for number in numbers)], [*(number.start for number in numbers[1:]), len(text)]
    read = []
    for number, low, high in zip(numbers, *edges, strict=False):
        beside = f"{text[max(low, number.core - 40) : number.core]} | {text[number.end : min(high, number.end + 40)]}"
        direction = -1 if form("down").search(beside) else 1 if form("up").search(beside) else 0
        read.append(replace(number, direction=direction, bound=_bound(text, number)))
    return read


def _bound(text: str, number: Quantity) -> int:
    """1 where `text` says at least or more than `number`, -1 for at most or less, 0 for a value."""
    before = BOUND_BEFORE.search(text, max(0, number.start - 40), number.start)
    after = None if before else BOUND_AFTER.match(text, number.end)
    if not (before or after) or before and number.time and before[0].startswith("over"):  # a period: over 5 years
        return 0
    least = (before or after)["least"] is not None
    return 1 if least != bool(before and before["not"]) else -1


def lone_quantity(text: str) -> tuple[Quantity, str] | None:
    """The number and the noun behind it, if `text` is one number with a unit (`0.3333枚比特币`) and nothing else."""
    if len(text) > 100:
        return None
    digits = plain(text).lower()
    text = written_out(digits)
    numbers = _merge(text, scan(text))
    if len(numbers) != 1 or form("unworked").search(text) or not _ABOUT.fullmatch(text, 0, numbers[0].start):
        return None
    word = numbers[0].bare and not re.search("[0-9]", digits)  # 一汽 and 三星 are names
    if word or numbers[0].time and digits != text or _bound(text, numbers[0]):
        return None
    noun = normalise(text[numbers[0].end :])
    return (numbers[0], noun) if len(noun) <= 16 and len(text[numbers[0].end :].split()) <= 2 else None


def _conflict(a: Quantity, b: Quantity) -> bool:
    """Two currencies, two units of time, a share or a time beside money, or up beside down: different things."""
    currencies = {a.currency, b.currency} - {None}
    yuan_or_yen = "¥" in currencies and currencies <= {"¥", "CNY", "JPY"}
    if (len(currencies) == 2 and not yuan_or_yen) or (a.time and b.time and a.time != b.time):
        return True
    for one, other in ((a, b), (b, a)):
        if one.rate and not other.rate and (other.scale or other.currency):
            return True
        if one.time and not one.currency and other.currency and not other.time:
            return True
    return a.direction * b.direction < 0 or a.bound * b.bound < 0


def _readings(prediction: Quantity, gold: Quantity, percent: bool) -> list[Decimal]:
    """What `prediction` may mean in the unit in which `gold` is written; as it stands comes first."""
    values = [prediction.value]
    if percent and not (prediction.rate or gold.rate):
        values += [prediction.value / 100, prediction.value * 100]
    for ours, theirs in ((prediction.rate, gold.rate), (prediction.scale, gold.scale)):
        converted = [value * ours for value in values] if ours else values
        converted = [value / theirs for value in converted] if theirs else converted
        if ours or theirs:  # a unit that only one of them has may be meant or left out
            values = converted if ours and theirs else values + converted
    return values


def _rounds_to(value: Decimal, gold: Decimal, decimals: int | None) -> bool:
    """Whether `value` rounds to `gold` at its last written digit, half up or half to even."""
    if decimals is None:
        return value == gold
    half, distance = Decimal(5).scaleb(-decimals - 1), abs(value - gold)
    return distance < half or distance == half and (abs(value) < abs(gold) or int(gold.scaleb(decimals)) % 2 == 0)


def matches(prediction: Quantity, gold: Quantity, percent: bool, rel_tol: float = 0.01) -> bool:
    """Whether `prediction` lies within `rel_tol` of `gold` or rounds to it as `gold` is written.

    With `rel_tol` 0 nothing rounds to an integer. A year has no tolerance. A bound (`at least 5`) is no value, unless
    the gold is one. `percent`: a bare number may be a share or a percentage, whichever fits (answer_kind "percent").
    """
    if _conflict(prediction, gold) or prediction.bound and not gold.bound:
        return False
    target, readings = gold.value, _readings(prediction, gold, percent)
    if prediction.direction < 0 or gold.direction < 0:
        target, readings = abs(target), [abs(value) for value in readings]
    if not rel_tol and gold.decimals is not None and gold.decimals <= 0:
        return target in readings
    if not target:  # nothing is nothing in every unit: 40% is not 0, and 0.18 is not 0%
        readings = readings[:1] if percent and not (prediction.rate or gold.rate) else readings
        return all(_rounds_to(value, target, gold.decimals) for value in readings)
    margin = 0 if gold.is_year and not percent else Decimal(str(rel_tol)) * abs(target)
    return any(abs(value - target) <= margin or _rounds_to(value, target, gold.decimals) for value in readings)


def exactly(prediction: Quantity, gold: Quantity) -> bool:
    """Whether two numbers are equal without any tolerance, percent signs and scale words converted."""
    return not _conflict(prediction, gold) and gold.value in _readings(prediction, gold, False)


def agreed(numbers: list[Quantity]) -> list[Quantity]:
    """`numbers` if they all say the same as the first, otherwise nothing: several different numbers are no answer.

    The same is what is equal, or the coarser when the finer rounds to it. In a list (`5 or 5.4`) only the equal counts,
    unless one is another form of the other: `1/3 or 33.33%`, `$ 276818173 or $ 276.82 million`.
    """
    for number in numbers[1:]:
        pair = numbers[0], number
        another_form = None in [n.decimals for n in pair] or len({(n.scale, n.rate) for n in pair}) > 1
        rounding = another_form or not number.listed
        size = abs if min(n.direction for n in pair) < 0 else lambda value: value  # `-5% (down 5%)`
        if _conflict(*pair) or not any(
            size(value) == size(other.value)
            or (rounding and other.value and _rounds_to(value, other.value, other.decimals))
            for one, other in (pair, pair[::-1])
            for value in _readings(one, other, False)
        ):
            return []
    return numbers
