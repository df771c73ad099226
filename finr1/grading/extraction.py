"""Find the answer in a completion, and undress it: LaTeX, markdown, full-width forms and typographic signs.

`plain` keeps the meaning of numbers and operators; the readers of numbers, letters and booleans work on it. `normalise`
drops all that two equal texts may differ in. Every search is linear in the length of its input, and none looks at a
gold answer: a policy may write anything, 100,000 open braces too.
"""

import re
import unicodedata
from collections.abc import Mapping

from finr1.grading.numerals import TABLES, any_in, rewritten, scan

_OPEN, _CLOSE = "<think>", "</think>"
_ANSWER, _END = "<answer>", "</answer>"
_OPENINGS, _CLOSINGS = TABLES["thoughts"]
_BRACE = re.compile(r"(\\++)((?:boxed|fbox)\s{0,9}\{|[{}])?|[{}]")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}([^\s{}\\]{1,60})")
MAX_CHARS = 100_000  # a box that begins further from the end is not looked for
MAX_BRACES = 10_000  # with more of them than this only the last 20,000 characters are searched
LENIENT_CHARS = 4000


def after_thought(completion: str) -> str:
    """What follows the last `</think>` (or its like): all without a think block, nothing if a block is never closed."""
    text = completion[max(completion.rfind(tag) + len(tag) if tag in completion else 0 for tag in _CLOSINGS) :]
    return "" if any(tag in text for tag in _OPENINGS) else text


def extract_answer(completion: str) -> str | None:
    """The answer that `completion` states, or None.

    Only text after the last `</think>` (or its like) counts; all of it without a think block, none if a block is never
    closed. There: the last complete answer block, in it the last balanced `\\boxed{}`, else the whole block.
    Without an answer block: the last balanced `\\boxed{}`. An answer block that is never closed does not count.
    """
    text = after_thought(completion)
    _, tag, block = text[: max(0, text.rfind(_END))].rpartition(_ANSWER)
    block = block.partition(_END)[0]
    answer = _last_box(block if tag else text)
    if answer is None:
        bare = _BARE_BOX.findall(text[-MAX_CHARS:])  # \boxed 5
        answer = block if tag else bare[-1].rstrip("$.,;") if bare else None
    return None if answer is None else answer.strip()


def _last_box(text: str) -> str | None:
    """The content of the `\\boxed{}` that begins last among those whose braces balance; `\\{` is no brace."""
    first, last = text.find("box"), text.rfind("}")
    if first < 0 or last < first:
        return None
    many = text.count("{") + text.count("}") > MAX_BRACES
    first = max(first, last - (2 * MAX_BRACES if many else MAX_CHARS))
    open_braces: list[int] = []  # where the content of each open brace begins; -1 for a brace that opens no box
    best = (-1, -1)
    for token in _BRACE.finditer(text, max(0, first - 2), last + 1):
        slashes, brace = token[1], token[2] or ("" if token[1] else token[0])
        if "box" in brace:
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
    once = all(text.count(tag) == 1 for tag in (_OPEN, _CLOSE, _ANSWER, _END))
    if not (once and text.startswith(_OPEN) and text.endswith(_END)):
        return False
    reasoning, _, rest = text[len(_OPEN) : -len(_END)].partition(_CLOSE)
    between, tag, answer = rest.partition(_ANSWER)
    return bool(tag and reasoning.strip() and answer.strip() and not between.strip())


_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-E](?![A-Za-z0-9'])(?!\s+[a-z])")
_WORD = re.compile(any_in("lenient"), re.I)


def lenient_answer(
    completion: str, answer_kind: str | None = None, labels: Mapping[str, str] | None = None
) -> str | None:
    """A baseline for untrained models, never a reward: the answer wherever in the text it may stand.

    `extract_answer` first; else the last number with its units, else the last stand-alone letter A to E, else the last
    word for yes, no or one of `labels`. A known `answer_kind` leaves out what cannot be meant.
    """
    if answer := extract_answer(completion):
        return answer
    text = plain(completion.rpartition(_CLOSE)[2][-LENIENT_CHARS:])
    names = re.compile("|".join(re.escape(name) for name in labels.values()), re.I) if labels else _WORD
    patterns = {"choice": (_LETTER,), "boolean": (_WORD,), "label": (names,), "number": (), "percent": ()}
    lines = [] if answer_kind in ("choice", "boolean", "label") else text[-LENIENT_CHARS:].splitlines()
    for line in reversed(lines):
        if numbers := scan(line.lower()):
            return line[numbers[-1].start : numbers[-1].end].strip().rstrip(".")
    for pattern in patterns.get(answer_kind or "", (_LETTER, names)):
        if words := pattern.findall(text):
            return words[-1]
    return None


_DRESS = re.compile(r"[\\{}*`_^$<>#~=!]|->")

_SAME = str.maketrans(*TABLES["traditional"])
_SAME |= str.maketrans({other: sign for sign, others in TABLES["signs"].items() for other in others})
_SUPERSCRIPT = re.compile(r"(?<=[0-9])[⁺⁻⁰¹²³⁴-⁹]+")
_VULGAR = re.compile(r"(?<=[0-9])(?=[¼-¾⅐-⅞])")  # 5½ is 5 1/2, not 51/2
_THIN_SPACE = re.compile(r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")

_MARKDOWN = re.compile(any_in("markdown"), re.M | re.I)
_FRACTION = re.compile(r"\\[dtc]?frac\s{0,9}(?:\{([^{}]{1,60})\}\s{0,9}\{([^{}]{1,60})\}|([0-9])\s?([0-9]))")
_COMMAND = re.compile(r"\\([A-Za-z]{1,30})")
_COMMANDS = {name: meaning for meaning, names in TABLES["latex"].items() for name in names.split()}


def _command(match: re.Match[str]) -> str:
    name = match[1]
    newline = name[0] == "n" and name not in ("nu", "nabla", "notin")  # `\nmillion`: a literal `\n` before a word
    return _COMMANDS.get(name, f" {name[newline:]} ")


def _fraction(match: re.Match[str]) -> str:
    mixed = match.string[match.start() - 1 : match.start()].isdigit()  # 2\frac14 is 2 1/4
    return f"{' ' if mixed else ''}{match[1] or match[3]}/{match[2] or match[4]}"


def _without_latex(text: str) -> str:
    text = rewritten(text, "undress")
    text = _FRACTION.sub(_fraction, _FRACTION.sub(_fraction, text))
    return rewritten(_COMMAND.sub(_command, text), "undress_rest")


def plain(text: str) -> str:
    """`text` in NFKC without LaTeX, markdown and typographic signs; `≈` and `⇒` become `=`, every dash becomes `-`."""
    if not text.isascii():
        text = _THIN_SPACE.sub("", _VULGAR.sub(" ", text))
        text = _SUPERSCRIPT.sub(lambda match: "^" + match[0], text)
        text = re.sub(r"\d", lambda match: str(unicodedata.decimal(match[0])), text)  # the digits of any script
        longest = 3 * len(text) + 9  # one character may become eighteen: a way to make a short answer a long one
        text = unicodedata.normalize("NFKC", text)[:longest].translate(_SAME)
    if _DRESS.search(text):
        text = _MARKDOWN.sub("", re.sub(r"(?<=10)\s?\*\*\s?(?=\(?[-+]?[0-9])", "^", text))
        if "\\" in text or "$" in text or "{" in text:
            text = _without_latex(text)
        text = text.replace("=>", "=").replace("==", "=").replace("->", "→")
        text = text.replace("<=", "<").replace(">=", ">").replace("!=", "≠")
    return text.strip()


# Between digits and in front of them a sign is part of the value: 1.5 is not 15 and -5 is not 5.
_PUNCTUATION = re.compile(r"((?<=[0-9])[.:/](?=[0-9])|-(?=[.$]?[0-9])|(?<=[0-9])%)")
# Numbers of a list stay apart: (I), (II), (IV) is not (III), (IV).
_LIST = re.compile(r"(?<![a-z0-9])([ivx]{1,5})[^\w%+×÷=<>-]+(?=[ivx]{1,5}(?![a-z0-9]))|(?<=[0-9])[\s,;、]+(?=[0-9])")


def normalise(text: str) -> str:
    """`text` after NFKC, without case, white space and punctuation; what makes the value of a number stays."""
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", plain(text)).casefold()
    text = re.sub(r"(?<=[0-9])\s++(?=%)", "", _LIST.sub(r"\1|", text))
    pieces = _PUNCTUATION.split(text)
    pieces[::2] = ["".join(c for c in piece if unicodedata.category(c)[0] not in "PZC") for piece in pieces[::2]]
    return "".join(pieces)
