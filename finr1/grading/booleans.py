"""Booleans: does an answer say yes or no?

A yes or no at the head counts and a reason behind it does not, but an answer that says both says neither.
"""

import re

from finr1.grading.extraction import plain

MAX_CHARS = 1500  # what follows is reason, not answer
MAX_UNLED = 400  # characters of an answer that does not open with yes or no; a longer one is a page, not an answer
SHORT = 36  # bytes of an answer that has no room for a reason: a dozen Chinese characters

# family: (words for yes, words for no); negated forms (不合规, not true) come from `_NEGATION`
_WORDS = {
    "yes": ("yes yeah yep y 是的 是", "no nope n 否"),
    "true": (
        "true t correct right 正确的 正确 对的 对 真 √ ✓ ✔",
        "false f untrue incorrect wrong 错误的 错误 有误 错的 错 假 ✗ ✘ ✕ ×",
    ),
    "compliant": ("compliant 合规的 合规", "incompliant noncompliant 违规的 违规"),
}
_READ = {
    word: (family, polarity)
    for family, sides in _WORDS.items()
    for polarity, words in zip((True, False), sides, strict=True)
    for word in words.split()
}
_STRONG = ("true", "false", "untrue", "correct", "incorrect", "wrong", "compliant", "incompliant", "noncompliant")
_STRONG += ("正确的", "正确", "错误的", "错误", "合规的", "合规", "违规的", "违规")  # words that do not fill sentences


def _any_of(words: tuple[str, ...] | dict) -> str:
    # Not \b: to it a Chinese character is a letter, and the no of `no但` would be none.
    alone = "(?<![a-z0-9_]){}(?![a-z0-9_])"
    patterns = {word: alone.format(word) if word.isascii() and word.isalpha() else re.escape(word) for word in words}
    return "|".join(patterns[word] for word in sorted(words, key=len, reverse=True))


_NEGATION = (
    r"(?P<not>(?:(?:\b(?:is|are|was|does|do)n't|\bnot|\bnever|\bno longer|\bnon)"
    r"(?:[\s-]+(?:an?|fully|entirely|strictly|quite))?[\s-]+"
    r"|不是|并非|并不|不|非|未|没){0,4})"
)
_BOOLEAN = re.compile(f"{_NEGATION}(?P<word>{_any_of(_READ)})")
_PREDICATE = re.compile(
    r"(?P<copula>\b(?:is|are|was|were|be|as|deemed|considered|seems?|appears?|remains?)\s+"
    r"|(?<![于但还总可])是|(?<![因认])为|属于|算)?"
    rf"{_NEGATION}(?P<word>{_any_of(_STRONG)})"
)
_LEAD = re.compile(
    r"(?:\s|(?:the|my|our|final|correct|so|thus|hence|therefore|otherwise|else|i think|i believe|that|it|this)\b(?=.)"
    r"|(?:it's|that's|answer|statement|claim|verdict|conclusion|judge?ment|result|conduct|practice|transaction)\b(?=.)"
    r"|(?:is|are|would be|should be)\b(?=.)|因此|所以|综上|故|我认为|应该?|属于"
    r"|(?:正确|最终|最后)?(?:答案|结论|判断|结果)(?:应?[是为])?"
    r"|[该这此](?:种|个|项)?(?:说法|行为|做法|陈述|表述|交易|操作)"
    r"|(?!^)[是为](?=[不否对错正合违真假]))*"
)
_TAIL = re.compile(r"[\s☑✅👍]*(?:的|otherwise|indeed|statement|of course|了)?[\s☑✅👍]*")
_REASON = re.compile(
    r"\s*$|\s+(?:because|since|as|it|the|this|that|they|there|he|she|we|due|under|given|with|for|if)\b"
    r"|\s*(?:因为|由于|因|理由|原因|根据|按照|依据|该|这|其)"
)
_CLAUSE = re.compile(
    r"[,.;:!?/|\n()、。·\"“”「」【】\[\]]+|\s-\s|\b(?:and|or|but|also|vs|versus)\b"
    r"|以及|但是|还是|抑或|[和或但也又]"
)
# What a hedge is made of: with nothing else beside a yes and a no, neither is said.
_HEDGE = re.compile(
    r"\b(?:whether|either|neither|both|or|nor|and|if|then|unless|except|maybe|perhaps|possibly|probably|sometimes"
    r"|mostly|partly|but|also|otherwise|in some cases|depending)\b|在?某些情况下?|有时|可能|也许|或许|部分|一半|要么"
    r"|如果|若|则|否则|除非|不一定|还是|或者?|也|又|但是?|与否?|和"
)
_DANGLING = re.compile(r"(?:还是|或者?|抑或|\bor|\bvs\.?|\bversus|/)\W*\Z")  # the question's words, cut off
_NOTHING = re.compile(r"\W*n\s?[/.]\s?a\W*")  # not available: no answer, although it begins like a no
_QUESTION = re.compile(r"(?<!答案)(?<!结论)(?<!结果)是否|是不是|对不对|能否|可否|whether")


def _polarity(match: re.Match[str]) -> tuple[str, bool]:
    """Family and polarity of a match; every negation in front of the word turns it round."""
    family, polarity = _READ[match["word"]]
    negations = re.findall(r"n't|not|never|no longer|non|不是|并非|并不|不|非|未|没", match["not"])
    return family, polarity ^ (len(negations) % 2 == 1)


def read_boolean(text: str, family: str | None = None) -> tuple[str, bool] | None:
    """Family and polarity of the yes or no that `text` says; None when it says neither, or both.

    `family` is that of the gold: there a contradiction behind the head counts (`yes, it is not compliant`).
    """
    text = text.strip().replace("×", "✗")  # `plain` would read a multiplication
    if len(text) > MAX_CHARS:
        text = text[:MAX_CHARS].rpartition(" ")[0] or text[:MAX_CHARS]  # half a word would be another word
    text = plain(text).lower().replace("\u2019", "'")
    clauses = [part.strip() for part in _CLAUSE.split(text) if part.strip() and not _QUESTION.search(part)]
    clauses = [clause[_LEAD.match(clause).end() :].strip() or clause for clause in clauses]
    if not clauses or _names_both(text) or _NOTHING.fullmatch(text) or _DANGLING.search(text):
        return None
    head, opening = None, _BOOLEAN.match(clauses[0])
    if opening:  # counts when a reason or nothing stands behind it
        rest = clauses[0][opening.end() :]
        spoken = opening["word"] in ("yes", "yeah", "yep") and rest[:1].isspace()
        if spoken or _TAIL.fullmatch(rest) or _REASON.match(rest):
            head, clauses[0] = _polarity(opening), rest.strip()
    if not head and len(text) > MAX_UNLED:
        return None
    openings = [match for clause in clauses if (match := _BOOLEAN.match(clause))]
    exact = [_polarity(match) for match in openings if _TAIL.fullmatch(match.string, match.end())]
    finals = [  # strong words that say something of the subject: behind `is`, or at the end of their clause
        _polarity(match)
        for clause in clauses
        for match in _PREDICATE.finditer(clause)
        if match["copula"] or _TAIL.fullmatch(clause, match.end())
    ]
    of_family = [said for said in finals if said[0] == family]
    if head:
        relevant = [said for said in exact if said[0] in (head[0], family)] + of_family
        return head if all(polarity == head[1] for _, polarity in relevant) else None
    said = exact or of_family or finals
    return said[0] if said and len({polarity for _, polarity in said}) == 1 else None


def _names_both(text: str) -> bool:
    """Whether `text` sets a yes beside its no and says no more, as an echo of the question does: `合规还是不合规`.

    Other words beside them do not help a short answer, unless they may belong to a noun: `the correct answer is false`.
    """
    said = [_polarity(match) for match in _BOOLEAN.finditer(text)]
    both = {family for family, polarity in said if (family, not polarity) in said}
    nothing_else = not re.sub(r"[\W_]+", "", _HEDGE.sub("", _BOOLEAN.sub("", text)))
    return bool(both) and (nothing_else or (len(text.encode()) <= SHORT and "compliant" in both))
