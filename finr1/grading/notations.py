"""Other notations of numbers, written out as digits: 一百二十, twenty-five, `1.234,56`, `1'234`, △5, `5-`, 5元2角.

Only what has one reading is rewritten: `1.234` alone is not 1234, `1 750` are two numbers, and 五六百 is five or six.
"""

import re
from functools import partial

from finr1.grading.numerals import DIGIT_OF, POWER_OF, any_in, any_of, form, rewritten

MAX_TOKENS = 40  # of a number in words
_SIGNS, _WORDS = (any_of(name for name in DIGIT_OF | POWER_OF if name.isascii() is latin) for latin in (False, True))
_TOKEN = re.compile(f"{_SIGNS}|{_WORDS}")
_CHINESE = re.compile(rf"(?P<whole>(?![百佰千仟万亿])(?:{_SIGNS})+)(?:[点點](?P<part>[零〇一二三四五六七八九]+))?")
_ENGLISH = re.compile(
    rf"(?:(?:minus|negative)\s)?(?P<whole>(?:{_WORDS})(?:(?:\s|-|\sand\s)(?:{_WORDS})){{0,20}})"
    rf"(?:\spoint(?P<part>(?:\s(?:{_WORDS})){{1,20}}))?"
    r"(?![\s-](?:of|in|out|half|halves|thirds?|fourths?|fifths?|tenths?)\b)"
)
BOUND_BEFORE = re.compile(
    rf"(?P<not>\b(?:not?|never)\s|[不未]|没有)?(?<![a-z])(?:(?P<least>{any_in('least')})|{any_in('most')})"
    r"(?:[\s:约为是有需要达)]|(?:about|approximately|around|roughly|an?|the|total|of)\b)*\Z"
)
BOUND_AFTER = re.compile(  # with one word between: 5 shares or more
    r"(?:\s?[a-z]{1,12}(?=\s(?:or|and)\s)|\s?[\u4e00-\u9fff]{1,3}?(?=[及或]?以[上下内])"
    r"|个工作日(?=内))?(?:[,;]?\s)?\(?"
    rf"(?:(?P<least>{any_in('least_after')})|{any_in('most_after')})"
)


def _value(tokens: list[str]) -> int | None:
    """The number that words make (一亿二千万, two hundred and five); None where they make none."""
    powers = [POWER_OF.get(token, 0) for token in tokens]
    if not any(powers):
        first, *others = digits = [int(DIGIT_OF[token]) for token in tokens]
        tens = first >= 20 and len(digits) == 2 and 0 < others[0] < 10  # twenty-five; 五六 is five or six
        return sum(digits) if tens or not others else None
    power = max(powers)
    place = len(powers) - 1 - powers[::-1].index(power)
    head, tail = tokens[:place], tokens[place + 1 :]
    factor = _value(head) if head else 1 if power == 10 else None
    rest = _value(tail[tail[0] in "零〇" and len(tail) > 1 :]) if tail else 0
    if len(tail) == 1 and power >= 100 and not tail[0].isascii():
        rest *= power // 10  # 一万二
    return None if factor is None or rest is None else int(factor * power) + int(rest)


def _digits(match: re.Match[str], prose: bool = False) -> str:
    """The number of a `match` in digits, its last 万 or million kept; no number stays as it is, and 一 in `prose`."""
    text, end, tokens = match.string, match.end(), _TOKEN.findall(match["whole"])
    powers = [POWER_OF[token] for token in tokens if token in POWER_OF]
    dated = text.startswith(tuple("年月日号世"), end)
    if len(tokens) > MAX_TOKENS or prose and (dated or not powers or len(tokens) < 3):
        return match[0]
    if not powers and (len(tokens) > 3 or re.search("[零〇]..", match[0]) or text.startswith("折", end)):
        whole = "".join(str(DIGIT_OF[token]) for token in tokens)  # 二〇二四
    elif (value := _value(tokens)) is None:
        return match[0]
    elif POWER_OF.get(tokens[-1], 0) >= 10_000:
        whole = f"{value / powers[-1]:f}{' ' * tokens[-1].isascii()}{tokens[-1]}"
    else:
        whole = str(value)
    part = "".join(str(DIGIT_OF.get(token, "")) for token in _TOKEN.findall(match["part"] or ""))
    return match[0][: match.start("whole") - match.start()] + (f"{whole}.{part}" if part else whole)


def _without_groups(match: re.Match[str]) -> str:
    """`1.234,56` as 1234.56: a last part of other than three digits is the decimals."""
    *groups, last = re.split(r"[., '’_]", match[0])
    return "".join(groups) + (last if len(last) == 3 else f".{last}")


def written_out(text: str) -> str:
    """A plain lower-case text with its numbers in digits; a grouped one without its groups, a minus in front."""
    if not text.isascii():
        text = _CHINESE.sub(partial(_digits, prose=bool(re.search("[0-9]", text))), text)
    if english := _ENGLISH.match(text):  # nowhere else: `one of them`, `about ten`
        text = _digits(english) + text[english.end() :]
    return rewritten(form("groups").sub(_without_groups, text), "rewrites")
