"""Find the numbers of a lower-case plain text, one by one: digits, sign, brackets and units (`units.yaml`)."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from finr1.paths import data_beside

TABLES: dict = data_beside(__file__, "units.yaml") | data_beside(__file__, "words.yaml")
_REWRITES = {name: [(re.compile(pattern), new) for pattern, new in TABLES[name]]
             for name in ("rewrites", "undress", "undress_rest")}  # fmt: skip

RATE_OF, SCALE_OF, LETTERS, CURRENCY_OF, TIME_OF, DIGIT_OF, POWER_OF = (  # name -> factor, code or unit
    {name: Decimal(unit) if unit[0].isdigit() else unit for unit, names in TABLES[table].items() for name in names}
    for table in ("rates", "scales", "letters", "currencies", "times", "digits", "powers")
)


def any_in(name: str) -> str:
    """A pattern for any of the alternatives in the table `name`."""
    return "|".join(TABLES[name])


@functools.cache
def form(name: str) -> re.Pattern[str]:
    """The compiled pattern for any of the alternatives in the table `name`."""
    return re.compile(any_in(name))


def rewritten(text: str, name: str) -> str:
    """`text` with each pattern of the table `name` replaced, in its order."""
    for pattern, new in _REWRITES[name]:
        text = pattern.sub(new, text)
    return text


def any_of(names: Iterable[str], head: str = "", tail: str = "(?![a-z0-9])") -> str:
    """A pattern for any of `names`, longest first; a latin word may not run on into another letter or digit."""
    longest_first = sorted(names, key=len, reverse=True)
    return "|".join(head + re.escape(n) + tail if "a" <= n[-1] <= "z" else re.escape(n) for n in longest_first)


# One unit behind a number, with what may stand between: `7.2 (million)`, `5-day`, `$5 per year`, `5 (in millions)`.
SUFFIX = re.compile(
    rf"(\s{{0,4}}[()]?\s{{0,4}}(?:(?:in|of)\s)?)(?:(?P<rate>{any_of(RATE_OF)})|(?P<currency>(?:{any_of(CURRENCY_OF)})(?!\s?[.0-9]))"
    rf"|(?P<scale>{any_of(SCALE_OF)})|(?<=[0-9.])(?P<letter>[kmb](?![a-z0-9]))"
    r"|(?P<times>x(?!\s?[.a-z0-9])|times(?!\s?[.a-z0-9])|-?fold(?![a-z])|倍)"
    rf"|-?(?:(?:per|an?|each|every)\s|[/每])?(?P<time>{any_of(set(TIME_OF) - {'年'})}|年(?![化末初度均中底])))"
)
# Signs, brackets and currency in front of a number, however ordered: `-$`, `$-`, `($ `, `negative `, `hkd `, `人民币`.
PREFIX = re.compile(rf"(?:[-+(\s]|(?<![a-z])(?:negative|minus)\s|负|(?<![a-z])(?:{any_of(CURRENCY_OF, tail='')}))+\Z")
PREFIX_CURRENCY = re.compile(any_of(CURRENCY_OF, tail=""))

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
    bound: int = 0  # -1 beside "at most", +1 beside "at least"
    bracketed: bool = False
    times: bool = False
    listed: bool = False  # joined to the number before it by "or", "and" or a comma

    @property
    def bare(self) -> bool:
        return not (self.rate or self.scale or self.currency or self.time or self.times)

    @property
    def is_year(self) -> bool:
        """An integer of four digits from 1900 to 2099 with nothing beside it but perhaps 年."""
        digits = self.literal.removesuffix(".0")  # of a float column
        looks = len(digits) == 4 and digits[:2] in ("19", "20") and digits.isdigit()
        return looks and not (self.rate or self.scale or self.currency or self.times)


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
    start, signs = core - len(match[0]), match[0]
    names, dash = PREFIX_CURRENCY.findall(signs), signs.find("-")
    minus = "负" in signs or "negative" in signs or "minus" in signs
    if dash >= 0:  # behind a currency a dash can only be a sign
        minus = minus or bool(signs[:dash].strip(" (+")) or _is_minus(text, start + dash)
    return "-" if minus else "(" if "(" in signs else "", start, CURRENCY_OF[names[-1]] if names else None


def _suffix(text: str, position: int) -> tuple[dict, int, int]:
    """Units behind a number, where they end, and how many brackets they close that they have not opened."""
    units: dict = {}
    closed = 0
    while match := SUFFIX.match(text, position):
        closed += match[1].count(")") - match[1].count("(")
        kind, name = match.lastgroup, match[match.lastgroup]
        if kind in ("scale", "letter"):
            units["scale"] = units.get("scale", Decimal(1)) * (SCALE_OF | LETTERS)[name]
        else:
            meaning = {"rate": RATE_OF, "currency": CURRENCY_OF, "time": TIME_OF}.get(kind, {name: True})
            units.setdefault(kind, meaning[name])
        position = match.end()
    bracket = form("closing_bracket").match(text, position)
    return units, bracket.end() if bracket else position, closed + bool(bracket)


def scan(text: str) -> list[Quantity]:
    """All numbers of `text` in order; nothing when one of them, or the whole, cannot be read."""
    numbers: list[Quantity] = []
    powers = 0
    for match in form("number").finditer(text):
        core, powers = match.start(), powers + ("^" in match[0])
        before = text[max(0, core - 3) : core]
        sign, start, currency = _prefix(text, core)
        attached = "a" <= before[-1:] <= "z" and start == core and not form("fiscal_year").search(before)
        if attached or form("identifier").match(text, match.end()):
            continue  # the 4 of q4 is a name, not a number
        digits = "1" if match["power"] else match["digits"].replace(",", "")
        exponent = match["only"] or match["exponent"] or match["ten"] or "0"
        large = len(digits) > MAX_DIGITS or len(exponent) > 4 or abs(int(exponent)) > MAX_DIGITS
        if large or len(numbers) == MAX_NUMBERS or form("not_this_number").search(text[max(0, start - 24) : core]):
            return []
        units, end, closed = _suffix(text, match.end())
        if currency and units.get("currency", "CNY") == "CNY":  # 港币5.2亿元 is in 港币
            units["currency"] = currency
        bracketed, value = sign == "(" and closed > 0, Decimal(digits).scaleb(int(exponent))
        value = -value if sign == "-" or bracketed else value
        decimals = len(digits.partition(".")[2]) - int(exponent)
        numbers.append(Quantity(value, decimals, start, end, core, match[0], bracketed=bracketed, **units))
    return numbers if text.count("^") == powers else []
