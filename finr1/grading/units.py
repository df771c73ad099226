"""What stands beside a number: percent signs, scale words, currencies, units of time, words of direction.

Tables first, then the patterns that `numbers` tries on either side of a number; all work on lower-case plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

RATES = {  # factor: names
    "0.01": "%|percent|per cent|percentage points|percentage point|pct|ppts|ppt|pp|个百分点|百分点",
    "0.001": "‰",
    "0.0001": "basis points|basis point|bps|bp|个基点|基点",
}
SCALES = {
    "0.01": "cents|cent|¢",
    "1e2": "hundred|百",
    "1e3": "thousand|thousands|千",
    "1e4": "万|萬",
    "1e5": "十万",
    "1e6": "million|millions|mln|mio|mil|mm|mn|百万",
    "1e7": "千万",
    "1e8": "亿|億",
    "1e9": "billion|billions|bln|bn|十亿",
    "1e10": "百亿",
    "1e11": "千亿",
    "1e12": "trillion|trillions|trn|tn|万亿",
}
LETTERS = {"k": Decimal("1e3"), "m": Decimal("1e6"), "b": Decimal("1e9")}  # only when they touch the number
CURRENCIES = {
    "USD": "us$|$|usd|us dollars|us dollar|u.s. dollars|u.s. dollar|dollars|dollar|美元|美金",
    "HKD": "hk$|hkd|hong kong dollars|hong kong dollar|港元|港币|港幣",
    "CNY": "rmb|cny|cnh|yuan|renminbi|人民币|人民幣|元",
    "JPY": "jpy|yen|日元|日圆|円",
    "EUR": "€|eur|euros|euro|欧元",
    "GBP": "£|gbp|pounds|pound|英镑",
    "TWD": "nt$|twd|新台币|台币",
    "SGD": "s$|sgd|singapore dollars|新加坡元|新元",
    "AUD": "au$|a$|aud|australian dollars|澳元|澳大利亚元",
    "CAD": "ca$|c$|cad|canadian dollars|加元|加拿大元",
    "BRL": "r$|brl|雷亚尔",
    "KRW": "₩|krw|韩元",
    "INR": "₹|inr|rs.|rs|rupees|rupee|卢比",
    "CHF": "chf|swiss francs|swiss franc|瑞士法郎",
    "RUB": "₽|rub|卢布",
    "THB": "฿|thb|泰铢",
    "¥": "¥",  # yuan or yen
}
TIMES = {
    "year": "years|year|yrs|yr|annum|年",
    "quarter": "quarters|quarter|qtrs|qtr|个季度|季度",
    "month": "months|month|mos|个月|月",
    "week": "weeks|week|wks|wk|个星期|星期|周",
    "day": "days|day|天|日",
    "hour": "hours|hour|hrs|hr|个小时|小时",
    "minute": "minutes|minute|mins|min|分钟",
    "second": "seconds|second|secs|sec|秒",
}


def _names(table: dict[str, str]) -> dict[str, str]:
    return {name: key for key, names in table.items() for name in names.split("|")}


RATE_OF = {name: Decimal(factor) for name, factor in _names(RATES).items()}
SCALE_OF = {name: Decimal(factor) for name, factor in _names(SCALES).items()}
CURRENCY_OF = _names(CURRENCIES)
TIME_OF = _names(TIMES)


def _any_of(names: Iterable[str], tail: str = "(?![a-z0-9])") -> str:
    """A pattern for any of `names`, longest first; a latin word may not run on into another letter or digit."""
    longest_first = sorted(names, key=len, reverse=True)
    return "|".join(re.escape(name) + (tail if "a" <= name[-1] <= "z" else "") for name in longest_first)


# One unit behind a number, with what may stand between: `7.2 (million)`, `5-day`, `$5 per year`, `5 (in millions)`.
SUFFIX = re.compile(
    rf"(\s{{0,4}}[()]?\s{{0,4}}(?:(?:in|of)\s)?)(?:(?P<rate>{_any_of(RATE_OF)})|(?P<currency>(?:{_any_of(CURRENCY_OF)})(?!\s?[.0-9]))"
    rf"|(?P<scale>{_any_of(SCALE_OF)})|(?<=[0-9.])(?P<letter>[kmb](?![a-z0-9]))"
    r"|(?P<times>x(?!\s?[.a-z0-9])|times(?!\s?[.a-z0-9])|-?fold(?![a-z])|倍)"
    rf"|-?(?:(?:per|an?|each|every)\s|[/每])?(?P<time>{_any_of(set(TIME_OF) - {'年'})}|年(?![化末初度均中底])))"
)
# Signs, brackets and currency in front of a number, however ordered: `-$`, `$-`, `($ `, `negative `, `hkd `, `人民币`.
PREFIX = re.compile(
    rf"(?:[-+(\s]|(?<![a-z])(?:negative|minus)\s|负|百分之|千分之|(?<![a-z])(?:{_any_of(CURRENCY_OF, tail='')}))+\Z"
)
PREFIX_CURRENCY = re.compile(_any_of(CURRENCY_OF, tail=""))

DOWN = re.compile(
    r"\b(?:decreas(?:e[sd]?|ing)|declin(?:e[sd]?|ing)|down|downwards?|loss(?:es)?|lost|reduc(?:e[sd]?|ing|tions?)"
    r"|dr(?:ops?|opped)|fell|falls?|fallen|lower(?:ed)?|deficit"
    r"|shr[aiu]nk(?:s|ing)?|contracted|contraction|dip(?:s|ped)?|slid|outflows?|negative growth)\b"
    r"|下降|减少|亏损|降低|下跌|下滑|减值|缩减|净亏|跌|降幅|缩水|回落|负增长|流出|下调"
)
UP = re.compile(
    r"\b(?:increas(?:e[sd]?|ing)|r[io]se[sn]?|gr[eo]w[sn]?|growth|gain(?:s|ed)?|up|upwards?|higher|profits?)\b"
    r"|增加|增长|上升|上涨|提高|提升|盈利"
)
