"""Find the answer in a completion, and tell whether the completion keeps to the response format.

Nothing here looks at a gold answer. All searches are linear: a completion may hold 100,000 open braces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from finr1.grading.cleaning import plain
from finr1.grading.numerals import scan

_OPEN, _CLOSE = "<think>", "</think>"
_ANSWER, _END = "<answer>", "</answer>"
_BRACE = re.compile(r"(\\++)(boxed\s{0,9}\{|[{}])?|[{}]")
MAX_CHARS = 100_000  # a box that begins further from the end is not looked for
MAX_BRACES = 10_000  # with more of them than this only the last 20,000 characters are searched
LENIENT_CHARS = 4000


def extract_answer(completion: str) -> str | None:
    """The answer that `completion` states, or None.

    Only text after the last `</think>` counts; all of it without a think block, none if a block is never closed.
    There: the last complete answer block, in it the last balanced `\\boxed{}`, else the whole block.
    Without an answer block: the last balanced `\\boxed{}`. An answer block that is never closed does not count.
    """
    text = completion.rpartition(_CLOSE)[2]
    if _OPEN in text:
        return None
    start = text.rfind(_ANSWER, 0, max(0, text.rfind(_END)))
    if start < 0:
        answer = _last_box(text)
    else:
        start += len(_ANSWER)
        block = text[start : text.index(_END, start)]
        box = _last_box(block)
        answer = block if box is None else box
    return None if answer is None else answer.strip()


def _last_box(text: str) -> str | None:
    """The content of the `\\boxed{}` that begins last among those whose braces balance; `\\{` is no brace."""
    first, last = text.find("boxed"), text.rfind("}")
    if first < 0 or last < first:
        return None
    many = text.count("{") + text.count("}") > MAX_BRACES
    first = max(first, last - (2 * MAX_BRACES if many else MAX_CHARS))
    open_braces: list[int] = []  # where the content of each open brace begins; -1 for a brace that opens no box
    best = (-1, -1)
    for token in _BRACE.finditer(text, max(0, first - 1), last + 1):
        slashes, brace = token[1], token[2] or ("" if token[1] else token[0])
        if brace.startswith("boxed"):
            open_braces.append(token.end())
        elif not brace or slashes and len(slashes) % 2:
            continue
        elif brace == "{":
            open_braces.append(-1)
        elif open_braces:
            start = open_braces.pop()
            if start > best[0]:
                best = (start, token.start(2) if slashes else token.start())
    return text[best[0] : best[1]] if best[0] >= 0 else None


def has_format(completion: str) -> bool:
    """Whether `completion` is one think block, then one answer block, neither empty, and else only white space."""
    text = completion.strip()
    if any(text.count(tag) != 1 for tag in (_OPEN, _CLOSE, _ANSWER, _END)):
        return False
    if not (text.startswith(_OPEN) and text.endswith(_END)):
        return False
    reasoning, _, rest = text[len(_OPEN) : -len(_END)].partition(_CLOSE)
    between, tag, answer = rest.partition(_ANSWER)
    return bool(tag and reasoning.strip() and answer.strip() and not between.strip())


_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-E](?![A-Za-z0-9'])(?!\s+[a-z])")
_WORD = re.compile(
    r"\b(?:bullish|bearish|neutral|positive|negative|non-?compliant|not compliant|compliant|yes|no|true|false)\b"
    r"|不合规|合规|正确|错误|不是|是(?!否)|否|利好|利空|中性|积极|消极|看涨|看跌",
    re.I,
)


def lenient_answer(
    completion: str, answer_kind: str | None = None, labels: Mapping[str, str] | None = None
) -> str | None:
    """A baseline for untrained models, never a reward: the answer wherever in the text it may stand.

    `extract_answer` first; else the last number (with its percent sign, currency and scale word), else the last
    stand-alone letter A to E, else the last word for yes, no or a label. A known `answer_kind` leaves out what cannot
    be meant; `labels` gives the words of label answers.
    """
    answer = extract_answer(completion)
    if answer:
        return answer
    text = plain(completion.rpartition(_CLOSE)[2][-LENIENT_CHARS:])
    names = re.compile("|".join(re.escape(name) for name in labels.values()), re.I) if labels else _WORD
    order = {"choice": (_LETTER,), "boolean": (_WORD,), "label": (names,), "number": (), "percent": ()}
    if answer_kind not in ("choice", "boolean", "label") and (number := _last_number(text)):
        return number
    for pattern in order.get(answer_kind or "", (_LETTER, names)):
        if words := pattern.findall(text):
            return words[-1]
    return None


def _last_number(text: str) -> str | None:
    """The last number of `text` with its sign and units; a full stop or bracket behind it is left out."""
    for line in reversed(text[-LENIENT_CHARS:].splitlines()):
        if numbers := scan(line.lower()):
            return line[numbers[-1].start : numbers[-1].end].strip().rstrip(".")
    return None
