"""Is one number another? Percent freedom, scale words, sign, currency, tolerance and rounding as written.

Every comparison is in `Decimal`: 14.5 lies exactly half-way to 15, whatever binary floats make of it.
"""

from __future__ import annotations

from decimal import Decimal

from finr1.grading.numbers import Quantity

_HUNDRED = Decimal(100)
_YUAN_OR_YEN = frozenset(("¥", "CNY", "JPY"))


def _conflict(a: Quantity, b: Quantity) -> bool:
    """Two currencies, two units of time, a share or a time beside money, or up beside down: different things."""
    currencies = {a.currency, b.currency} - {None}
    if len(currencies) == 2 and not ("¥" in currencies and currencies <= _YUAN_OR_YEN):
        return True
    if a.time and b.time and a.time != b.time:
        return True
    for one, other in ((a, b), (b, a)):
        if one.rate and not other.rate and (other.scale or other.currency):
            return True
        if one.time and not one.currency and other.currency and not other.time:
            return True
    return a.direction * b.direction < 0


def _readings(prediction: Quantity, gold: Quantity, percent: bool) -> list[Decimal]:
    """What `prediction` may mean in the unit in which `gold` is written; as it stands comes first."""
    x = prediction.value
    if prediction.rate and gold.rate:
        values = [x * prediction.rate / gold.rate]
    elif prediction.rate:
        values = [x, x * prediction.rate]
    elif gold.rate:
        values = [x, x / gold.rate]
    elif percent:
        values = [x, x / _HUNDRED, x * _HUNDRED]
    else:
        values = [x]
    if prediction.scale and gold.scale:
        return [value * prediction.scale / gold.scale for value in values]
    if prediction.scale:
        return values + [value * prediction.scale for value in values]
    if gold.scale:
        return values + [value / gold.scale for value in values]
    return values


def _rounds_to(value: Decimal, gold: Decimal, decimals: int | None) -> bool:
    """Whether `value` rounds to `gold` at its last written digit, half up or half to even."""
    if decimals is None:
        return value == gold
    half = Decimal(5).scaleb(-decimals - 1)
    distance = abs(value - gold)
    if distance != half:
        return distance < half
    return abs(value) < abs(gold) or int(gold.scaleb(decimals)) % 2 == 0


def matches(prediction: Quantity, gold: Quantity, percent: bool, rel_tol: Decimal) -> bool:
    """Whether `prediction` lies within `rel_tol` of `gold` or rounds to it as `gold` is written.

    `percent`: a bare number may be a share or a percentage, whichever fits (answer_kind "percent").
    """
    if _conflict(prediction, gold):
        return False
    target, readings = gold.value, _readings(prediction, gold, percent)
    if prediction.direction < 0 or gold.direction < 0:
        target, readings = abs(target), [abs(value) for value in readings]
    if not target:  # nothing is nothing in every unit: 40% is not 0, and 0.18 is not 0%
        readings = readings[:1] if percent and not (prediction.rate or gold.rate) else readings
        return all(_rounds_to(value, target, gold.decimals) for value in readings)
    return any(
        abs(value - target) <= rel_tol * abs(target) or _rounds_to(value, target, gold.decimals) for value in readings
    )


def exactly(prediction: Quantity, gold: Quantity) -> bool:
    """Whether two numbers are equal without any tolerance, percent signs and scale words converted."""
    return not _conflict(prediction, gold) and gold.value in _readings(prediction, gold, False)


def same(a: Quantity, b: Quantity) -> bool:
    """Whether two numbers of one answer say the same: exactly, or the coarser is the finer one rounded.

    In a list (`5 or 5.4`) only the exact counts, unless the second is the first in another form: `1/3 or 33.33%`,
    `$ 276818173 or $ 276.82 million`.
    """
    if _conflict(a, b):
        return False
    another_form = None in (a.decimals, b.decimals) or (a.scale, a.rate) != (b.scale, b.rate)
    rounding = another_form or not b.listed
    for one, other in ((a, b), (b, a)):
        for value in _readings(one, other, False):
            if value == other.value or rounding and other.value and _rounds_to(value, other.value, other.decimals):
                return True
    return False


def agreed(numbers: list[Quantity]) -> list[Quantity]:
    """`numbers` if they all say the same, otherwise nothing: several different numbers are no answer."""
    return numbers if all(same(numbers[0], number) for number in numbers[1:]) else []
