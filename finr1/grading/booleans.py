"""Does an answer say yes or no? One at the head counts, a reason behind it does not; who says both says neither."""

import re
from collections.abc import Sequence

from finr1.grading.extraction import normalise, plain
from finr1.grading.numerals import TABLES, any_in, any_of, form

MAX_CHARS = 1500  # what follows is reason, not answer
MAX_QUESTION = 4000  # characters of a question in which its options are looked for
MAX_UNLED = 400  # characters of an answer that does not open with yes or no; a longer one is a page, not an answer
SHORT = 36  # bytes of an answer that has no room for a reason: a dozen Chinese characters

_READ = {  # word -> family, polarity
    word: (family, polarity)
    for family, sides in TABLES["booleans"].items()
    for polarity, words in zip((True, False), sides, strict=True)
    for word in words.split()
}
_SIDE = {word: (family, word.isascii()) for word, (family, _) in _READ.items()}  # in English or in Chinese
_ALONE = {"head": "(?<![a-z0-9_])", "tail": "(?![a-z0-9_])"}  # not \b: to it a Chinese character is a letter
_NEGATION = f"(?P<not>(?:{any_in('negations')}){{0,4}})"
_BOOLEAN = re.compile(f"{_NEGATION}(?P<word>{any_of(_READ, **_ALONE)})")
_STRONG = any_of(" ".join(TABLES["strong"]).split(), **_ALONE)
_PREDICATE = re.compile(f"(?P<copula>{any_in('copulas')})?{_NEGATION}(?P<word>{_STRONG})")
_LEAD = re.compile(f"(?:{any_in('boolean_lead')})*")
_VERDICT = any_of((word for word, (family, _) in _READ.items() if family != "yes"), **_ALONE)
_ASKED_WRONG = re.compile(rf"(?:{any_in('asked_wrong')}){_NEGATION}(?P<word>{_VERDICT})(?=\s*(?:的|行为|请|[?,.。]|$))")
ASKS_WRONG = "asked: "  # in front of an option: the question asks for a word of no, so that word is its yes


def _polarity(match: re.Match[str]) -> tuple[str, bool]:
    """Family and polarity of a match; every negation in front of the word turns it round."""
    family, polarity = _READ[match["word"]]
    negations = re.findall(r"n't|not|never|no longer|non|不|非|未|没|无", match["not"])
    return family, polarity ^ (len(negations) % 2 == 1)


def read_boolean(text: str, family: str | None = None, options: Sequence[str] = ()) -> tuple[str, bool] | None:
    """Family and polarity of the yes or no that `text` says; None when it says neither, or both.

    `family` is that of the gold: there a contradiction behind the head counts (`yes, it is not compliant`). Where the
    question's `options` hold a yes and a no of that family, one of its options has to be said, in its script.
    """
    text = text.strip().replace("×", "✗")  # `plain` would read a multiplication
    if len(text) > MAX_CHARS:
        text = text[:MAX_CHARS].rpartition(" ")[0] or text[:MAX_CHARS]  # half a word would be another word
    text = plain(text).lower().replace("\u2019", "'")
    parts = (part.strip() for part in form("boolean_clause").split(text) if not form("asked_whether").search(part))
    clauses = [part[_LEAD.match(part).end() :].strip() or part for part in parts if part]
    if not clauses or _names_both(text) or form("not_available").fullmatch(text) or form("dangling").search(text):
        return None
    head, opening = None, _BOOLEAN.match(clauses[0])
    if opening:  # counts when a reason or nothing stands behind it
        rest = clauses[0][opening.end() :]
        spoken = opening["word"] in ("yes", "yeah", "yep") and rest[:1].isspace()
        if spoken or form("boolean_tail").fullmatch(rest) or form("boolean_reason").match(rest):
            head, clauses[0] = opening, rest.strip()
    if not head and len(text) > MAX_UNLED:
        return None
    openings = [match for clause in clauses if (match := _BOOLEAN.match(clause))]
    exact = [match for match in openings if form("boolean_tail").fullmatch(match.string, match.end())]
    finals = [  # strong words that say something of the subject: behind `is`, or at the end of their clause
        match
        for clause in clauses
        for match in _PREDICATE.finditer(clause)
        if (match["copula"] or form("boolean_tail").fullmatch(clause, match.end()))
        and not form("undercut").search(clause, 0, match.start())
    ]
    of_family = [match for match in finals if _polarity(match)[0] == family]
    if head:
        said = [head, *(match for match in exact if _polarity(match)[0] in (_polarity(head)[0], family)), *of_family]
    else:
        said = exact or of_family or finals
    polarities, sides = {_polarity(match)[1] for match in said}, {_SIDE[match["word"]] for match in said}
    offered = [match for option in options if (match := _BOOLEAN.fullmatch(option))]
    closed = len({_polarity(match) for match in offered if _READ[match["word"]][0] == family}) == 2  # a yes and a no
    if len(polarities) != 1 or closed and sides.isdisjoint(_SIDE[match["word"]] for match in offered):
        return None
    return _polarity(said[0])


def boolean_options(question: str) -> list[str]:
    """What `question` itself offers: each yes and no that it sets side by side, and the predicates that it asks for.

    The predicates are those of the paragraph that lists a yes and a no, where one does: others quote somebody.
    """
    listed, asked, wrong = [], [], []
    for part in plain(question[:MAX_QUESTION].replace("×", "✗")).lower().split("\n\n"):
        predicates = [word for match in form("predicates").finditer(part) for word in match.groups() if word]
        predicates += ["可以", "能"] if {"能否", "可否", "能不能", "可不可以"} & {*predicates} else []
        wrong += [match[0] for match in _ASKED_WRONG.finditer(part) if _polarity(match)[1] is False]
        said = list(_BOOLEAN.finditer(part := form("or").sub("/", part)))
        pairs = [
            (one[0], other[0])
            for one, other in zip(said, said[1:], strict=False)
            if (form("or_alone").fullmatch(part, one.end(), other.start()) or _offered(one) and _offered(other))
            and (_polarity(one)[0], not _polarity(one)[1]) == _polarity(other)
        ]
        asked += predicates
        listed += [*(word for pair in pairs for word in pair), *predicates] if pairs else []
    return [*dict.fromkeys(listed or asked), *(f"{ASKS_WRONG}{asks}" for asks in wrong)]


def _offered(word: re.Match[str]) -> bool:
    """Whether a question asks to reply with this `word`: answer "compliant" if it is kept."""
    before = word.string[max(0, word.start() - 20) : word.start()]
    return bool(form("offered_by").search(before) or form("offered_if").match(word.string, word.end()))


def read_predicate(text: str, options: Sequence[str]) -> bool | None:
    """Whether `text` affirms or denies a predicate of `options`: 不符合 where the question asks 是否符合."""
    text, negation = plain(text[:MAX_CHARS]).lower(), form("predicate_negation")
    known = [option for option in options if not _BOOLEAN.fullmatch(option) and not negation.match(option)]
    for start in (0, _LEAD.match(text).end()):  # 属于 leads, or is what the question asks: 是否属于
        negated = negation.match(text, start)
        bare = normalise(text[negated.end() if negated else start :])
        if bare and any(option == bare or not bare.isascii() and option.startswith(bare) for option in known):
            return not negated
    return None


def _names_both(text: str) -> bool:
    """Whether `text` sets a yes beside its no and says no more, as an echo of the question does: `合规还是不合规`.

    Other words beside them do not help a short answer, unless they may belong to a noun: `the correct answer is false`.
    """
    said = [_polarity(match) for match in _BOOLEAN.finditer(text)]
    both = {family for family, polarity in said if (family, not polarity) in said}
    nothing_else = not re.sub(r"[\W_]+", "", form("hedges").sub("", _BOOLEAN.sub("", text)))
    return bool(both) and (nothing_else or (len(text.encode()) <= SHORT and "compliant" in both))
