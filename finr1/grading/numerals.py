"""Find the numbers of a text: digits, sign, brackets and units of each, one at a time.

What they say together (fractions, dates, results of equations) is read in `numbers`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from finr1.grading.units import (
    CURRENCY_OF,
    LETTERS,
    PREFIX,
    PREFIX_CURRENCY,
    RATE_OF,
    SCALE_OF,
    SUFFIX,
    TIME_OF,
)

MAX_NUMBERS = 24
MAX_DIGITS = 400  # digits, and powers of ten: beyond it a value is no amount of anything


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a text. `value` is signed and as written: before percent sign and scale word."""

    value: Decimal
    decimals: int | None  # the last digit written stands for 10**-decimals; None = a fraction, which is exact
    start: int  # span in the text, signs and units included
    end: int
    core: int  # where the digits begin
    literal: str
    rate: Decimal | None = None  # what the percent sign multiplies with
    scale: Decimal | None = None  # what the scale word multiplies with
    currency: str | None = None
    time: str | None = None
    direction: int = 0  # -1 beside "decrease", +1 beside "increase"
    bracketed: bool = False
    times: bool = False
    listed: bool = False  # joined to the number before it by "or", "and" or a comma

    @property
    def bare(self) -> bool:
        return not (self.rate or self.scale or self.currency or self.time or self.times)

    @property
    def is_year(self) -> bool:
        """An integer of four digits from 1900 to 2099 with nothing beside it but perhaps 年."""
        looks = len(self.literal) == 4 and self.literal[:2] in ("19", "20") and self.literal.isdigit()
        return looks and not (self.rate or self.scale or self.currency or self.times)


_NUMBER = re.compile(
    r"(?P<power>10\s?\^\s?\(?\s?(?P<only>[-+]?[0-9]{1,9})\)?)"
    r"|(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?:e(?P<exponent>[-+]?[0-9]+)|\s{0,3}[*x×·]\s{0,3}10\s?\^\s?\(?\s?(?P<ten>[-+]?[0-9]+)\)?)?"
)
_IDENTIFIER = re.compile(r"[a-z]+[0-9]")  # what follows the digits of 4q15 or 0x10
_NOT = re.compile(r"(?:\bnot|n't|\bnever|不是|并非|不等于|而非)\s?(?:about|exactly|equal to|约|等于)?\s?\Z")
_CLOSING = re.compile(r"\s{0,4}\)")
_FISCAL = re.compile(r"(?<![a-z])[fc]y\Z")


def _value(match: re.Match[str]) -> tuple[Decimal, int] | None:
    """Value and written decimals of a number's digits; None when it is beyond `MAX_DIGITS`."""
    if match["power"]:
        digits, exponent = "1", match["only"]
    else:
        digits, exponent = match["digits"].replace(",", ""), match["exponent"] or match["ten"] or "0"
    if len(digits) > MAX_DIGITS or len(exponent) > 4 or abs(int(exponent)) > MAX_DIGITS:
        return None
    decimals = len(digits.partition(".")[2]) - int(exponent)
    return Decimal(digits).scaleb(int(exponent)), decimals


def _is_minus(text: str, position: int) -> bool:
    """Whether the dash at `position` is a sign, and not a hyphen, a range or a dash of prose."""
    before = text[max(0, position - 40) : position]
    if not before.strip():
        return True
    if before[-1].isspace():  # `of -5` is negative, `revenue - 5` and `10 - 5` are not
        spaced = text[position + 1 : position + 2].isspace()
        return not (before.rstrip()[-1].isascii() and before.rstrip()[-1].isalnum() and spaced)
    return not (before[-1].isascii() and before[-1].isalnum() or before[-1] in "%)")


def _prefix(text: str, core: int) -> tuple[str, int, str | None]:
    """Sign (`-`, `(` or nothing), start and currency of what stands in front of the digits at `core`."""
    window = text[max(0, core - 24) : core]
    match = PREFIX.search(window) if window else None
    if not match:
        return "", core, None
    start, found = core - len(match[0]), match[0]
    names = PREFIX_CURRENCY.findall(found)
    dash = found.find("-")
    minus = "负" in found or "negative" in found or "minus" in found
    if dash >= 0:  # behind a currency a dash can only be a sign
        minus = minus or bool(found[:dash].strip(" (+")) or _is_minus(text, start + dash)
    return "-" if minus else "(" if "(" in found else "", start, CURRENCY_OF[names[-1]] if names else None


def _suffix(text: str, position: int) -> tuple[dict, int, int]:
    """Units behind a number, where they end, and how many brackets they close that they have not opened."""
    units: dict = {}
    closed = 0
    while match := SUFFIX.match(text, position):
        closed += match[1].count(")") - match[1].count("(")
        kind, name = match.lastgroup, match[match.lastgroup]
        if kind == "rate":
            units.setdefault("rate", RATE_OF[name])
        elif kind == "currency":
            units.setdefault("currency", CURRENCY_OF[name])
        elif kind in ("scale", "letter"):
            factor = LETTERS[name] if kind == "letter" else SCALE_OF[name]
            units["scale"] = units.get("scale", Decimal(1)) * factor
        elif kind == "times":
            units["times"] = True
        else:
            units.setdefault("time", TIME_OF[name])
        position = match.end()
    bracket = _CLOSING.match(text, position)
    return units, bracket.end() if bracket else position, closed + bool(bracket)


def _quantity(text: str, match: re.Match[str], prefix: tuple[str, int, str | None]) -> Quantity | None:
    """The number that `match` found in `text` with its surroundings; None when it cannot be read."""
    value = _value(match)
    sign, start, currency = prefix
    if value is None or _NOT.search(text[max(0, start - 24) : match.start()]):
        return None
    units, end, closed = _suffix(text, match.end())
    if currency and units.get("currency", "CNY") == "CNY":  # 港币5.2亿元 is in 港币
        units["currency"] = currency
    if "分之" in text[start : match.start()]:
        units["rate"] = Decimal("0.01") if "百分之" in text[start : match.start()] else Decimal("0.001")
    bracketed = sign == "(" and closed > 0
    signed = -value[0] if sign == "-" or bracketed else value[0]
    return Quantity(signed, value[1], start, end, match.start(), match[0], bracketed=bracketed, **units)


def scan(text: str) -> list[Quantity]:
    """All numbers of `text` in order; nothing when one of them, or the whole, cannot be read."""
    found: list[Quantity] = []
    powers = 0
    for match in _NUMBER.finditer(text):
        powers += "^" in match[0]
        before = text[max(0, match.start() - 3) : match.start()]
        prefix = _prefix(text, match.start())
        attached = "a" <= before[-1:] <= "z" and prefix[1] == match.start() and not _FISCAL.search(before)
        if attached or _IDENTIFIER.match(text, match.end()):
            continue  # the 4 of q4 is a name, not a number
        quantity = _quantity(text, match, prefix)
        if quantity is None or len(found) == MAX_NUMBERS:
            return []
        found.append(quantity)
    return found if text.count("^") == powers else []
