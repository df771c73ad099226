"""The lexicon behind TFNS's rationales by rule: words, the label they point to, and what we say they mean.

Chosen on the train split alone. It is a rule and not a teacher: it knows words, not companies.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Cue(NamedTuple):
    """Words (a regular expression over lower-case text) that point to a label, and their meaning for the stock."""

    label: str
    meaning: str
    pattern: str


_PRICE = r"(shares?|stocks?|futures|prices?|markets?|s&p|dow|nasdaq|oil) (are |is )?"
_FALL = (
    r"(falls?|fell|falling|drops?|dropped|slides?|slid|slips?|slipped|sinks?|sank|plunged?|plunges|plummets?|tumbles?|"
    r"tumbled|slumps?|slumped|tanks?|crash|crashes|crashed|declines?|lower|down)"
)
_RISE = (
    r"(rises?|rose|rising|gains?|gained|jumps?|jumped|soars?|soared|surged?|surges|climbs?|climbed|rally|rallies|rallied|"
    r"advances?|rebounds?|pops?|spikes?|higher|up)"
)
_FEW_WORDS = r"([\w'-]+ ){0,3}"
_PAYOUT = r"(outlook|guidance|forecast|dividend)"
CUES = (
    Cue(
        "bearish",
        "An analyst's downgrade is bad news",
        r"downgrade[sd]?( to \w+)?|cut to (sell|hold|neutral|underperform)",
    ),
    Cue("bearish", "A lower price target is bad news", r"(price )?(target|pt) (cut|lowered|trimmed|slashed)"),
    Cue("bearish", "Missing expectations is bad news", r"(eps )?miss(es|ed)?( by| on| estimates| expectations)?"),
    Cue(
        "bearish",
        "Taking back an outlook or a payout is bad news",
        rf"(cuts?|cutting|lowers?|pulls?|slashe[sd]|trims?|withdraws?|suspends?) {_FEW_WORDS}{_PAYOUT}",
    ),
    Cue("bearish", "A falling price is bad news", _PRICE + _FALL),
    Cue("bearish", "A drop in percent is bad news", r"down ?\d+(\.\d+)?%|-\d+(\.\d+)?%"),
    Cue(
        "bearish",
        "A fall or a weakness is bad news",
        r"falls|slips|slides|sinks|plunges|tumbles?|slumps?|plummets|weak|weaker|warns|sues|lower",
    ),
    Cue(
        "bearish",
        "Losses and cuts are bad news",
        r"net loss|wider loss|bigger loss|posts? ([\w'-]+ )?loss|bankruptcy|layoffs?|lays off|job cuts|recession fears|"
        r"sell-off|dumping",
    ),
    Cue(
        "bullish", "An analyst's upgrade is good news", r"upgrade[sd]?( to \w+)?|raised to (buy|overweight|outperform)"
    ),
    Cue("bullish", "A higher price target is good news", r"(price )?(target|pt) (raised|lifted|boosted|hiked)"),
    Cue(
        "bullish",
        "Beating expectations is good news",
        r"beats?( by| on| estimates| expectations)|eps beats|(tops|crushes) (estimates|expectations|earnings)",
    ),
    Cue(
        "bullish",
        "A raised outlook or payout is good news",
        rf"(raises?|raised|lifts?|hikes?|boosts?|increases) {_FEW_WORDS}{_PAYOUT}",
    ),
    Cue("bullish", "A rising price is good news", _PRICE + _RISE),
    Cue("bullish", "A rise in percent is good news", r"(up|ahead) ?\d+(\.\d+)?%|\+\d+(\.\d+)?%"),
    Cue(
        "bullish",
        "A rise or a strength is good news",
        r"rises|jumps|soars|climbs|surges|rallies|upbeat|solid|strong|tops|positive|higher|bounce",
    ),
    Cue(
        "bullish",
        "Optimism and new highs are good news",
        r"bullish|all-time highs?|record highs?|buyback|(rated|at|as|to) (a )?(buy|overweight|outperform)",
    ),
    Cue("neutral", "A declared dividend is routine", r"declares [\w$.]*( [\w$.]+)? ?dividend|ex-dividend"),
    Cue(
        "neutral",
        "A call or a presentation is routine",
        r"transcript|conference call|earnings call|slideshow|presentation|presents at|preview|webcast",
    ),
    Cue(
        "neutral",
        "A report alone is neither good nor bad news",
        r"reports (q[1-4]|fy|first|second|third|fourth)?[\w -]{0,14}results?",
    ),
    Cue(
        "neutral",
        "Asking or explaining is neither good nor bad news",
        r"should you|what (do|does|did|kind)|how (do|does|to|much)|here's (what|how)|is it|when will",
    ),
    Cue(
        "neutral",
        "Announcing a date or an event is routine",
        r"announces? (the )?(date|appointment)|to (host|present|release|report)|general announcement|news highlights",
    ),
)
_COMPILED = tuple((cue, re.compile(rf"(?<![\w$-])(?:{cue.pattern})(?![\w%-])")) for cue in CUES)


def found_cues(text: str) -> list[tuple[str, Cue]]:
    """(words, cue) for every cue of the lexicon that occurs in `text` (lower case, without links)."""
    text = text.replace("’", "'")
    return [(match[0], cue) for cue, pattern in _COMPILED if (match := pattern.search(text))]


def label_by_rule(text: str) -> str | None:
    """The one label that the cues of `text` point to, neutral if there is none; None if they disagree.

    Routine words yield to a cue of good or bad news.
    """
    labels = {cue.label for _, cue in found_cues(text)}
    labels = labels - {"neutral"} or labels or {"neutral"}
    return labels.pop() if len(labels) == 1 else None


def rationale(text: str, gold: str) -> str:
    """Three short sentences for `gold` by rule, or "" where the rule's label is another one or none."""
    if label_by_rule(text) != gold:
        return ""
    words, cue = next(((words, cue) for words, cue in found_cues(text) if cue.label == gold), ("", None))
    if cue is None:
        told = "The tweet names no rise or fall, no beat or miss, no upgrade or downgrade.\nThat moves no stock."
    else:
        told = f'The tweet says "{words}".\n{cue.meaning} for the stock.'
    return f"{told}\nSo the sentiment is {gold}."
