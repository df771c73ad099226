"""Find the answer in a completion, and undress it: LaTeX, markdown, full-width forms and typographic signs.

`plain` keeps the meaning of numbers and operators; the readers of numbers, letters and booleans work on it. `normalise`
drops all that two equal texts may differ in. Every search is linear in the length of its input, and none looks at a
gold answer: a policy may write anything, 100,000 open braces too.
"""

import re
import unicodedata
from collections.abc import Mapping

from finr1.grading.numerals import TABLES, form, rewritten, scan

_OPEN, _CLOSE = "<think>", "</think>"
_ANSWER, _END = "<answer>", "</answer>"
_OPENINGS, _CLOSINGS = TABLES["thoughts"]
MAX_CHARS = 100_000  # a box that begins further from the end is not looked for
MAX_BRACES = 10_000  # with more of them than this only the last 20,000 characters are searched
LENIENT_CHARS = 4000

_SAME = str.maketrans(*TABLES["traditional"])
_SAME |= str.maketrans({other: sign for sign, others in TABLES["signs"].items() for other in others})
_COMMANDS = {name: meaning for meaning, names in TABLES["latex"].items() for name in names.split()}


def after_thought(completion: str) -> str:
    """What follows the last `</think>` (or its like): all without a think block, nothing if a block is never closed."""
    text = completion[max(completion.rfind(tag) + len(tag) if tag in completion else 0 for tag in _CLOSINGS) :]
    return "" if any(tag in text for tag in _OPENINGS) else text


def extract_answer(completion: str) -> str | None:
    """The answer that `completion` states, or None.

    Behind the thought (`after_thought`): the last complete answer block, in it the last balanced `\\boxed{}`, else the
    whole block. Without an answer block, and one that is never closed is none: the last balanced `\\boxed{}`.
    """
    text = after_thought(completion)
    _, tag, block = text[: max(0, text.rfind(_END))].rpartition(_ANSWER)
    block = block.partition(_END)[0]
    answer = _last_box(block if tag else text)
    if answer is None:
        bare = form("bare_box").findall(text[-MAX_CHARS:])  # \boxed 5
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
    for token in form("braces").finditer(text, max(0, first - 2), last + 1):
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
    letter, word = form("lone_letter"), form("lenient")
    names = re.compile("|".join(re.escape(name) for name in labels.values()), re.I) if labels else word
    patterns = {"choice": (letter,), "boolean": (word,), "label": (names,), "number": (), "percent": ()}
    lines = [] if answer_kind in ("choice", "boolean", "label") else text[-LENIENT_CHARS:].splitlines()
    for line in reversed(lines):
        if numbers := scan(line.lower()):
            return line[numbers[-1].start : numbers[-1].end].strip().rstrip(".")
    for pattern in patterns.get(answer_kind or "", (letter, names)):
        if words := pattern.findall(text):
            return words[-1]
    return None


def _command(match: re.Match[str]) -> str:
    name = match[1]
    newline = name[0] == "n" and name not in ("nu", "nabla", "notin")  # `\nmillion`: a literal `\n` before a word
    return _COMMANDS.get(name, f" {name[newline:]} ")


def _fraction(match: re.Match[str]) -> str:
    mixed = match.string[match.start() - 1 : match.start()].isdigit()  # 2\frac14 is 2 1/4
    return f"{' ' if mixed else ''}{match[1] or match[3]}/{match[2] or match[4]}"


def plain(text: str) -> str:
    """`text` in NFKC without LaTeX, markdown and typographic signs; `≈` and `⇒` become `=`, every dash becomes `-`."""
    if not text.isascii():
        text = form("thin_space").sub("", form("vulgar_fraction").sub(" ", text))
        text = form("superscript").sub(lambda match: "^" + match[0], text)
        text = re.sub(r"\d", lambda match: str(unicodedata.decimal(match[0])), text)  # the digits of any script
        longest = 3 * len(text) + 9  # one character may become eighteen: a way to make a short answer a long one
        text = unicodedata.normalize("NFKC", text)[:longest].translate(_SAME)
    if form("dress").search(text):
        text = form("markdown").sub("", re.sub(r"(?<=10)\s?\*\*\s?(?=\(?[-+]?[0-9])", "^", text))
        if "\\" in text or "$" in text or "{" in text:
            text = rewritten(text, "undress")
            text = form("latex_fraction").sub(_fraction, form("latex_fraction").sub(_fraction, text))
            text = rewritten(form("latex_command").sub(_command, text), "undress_rest")
        text = text.replace("=>", "=").replace("==", "=").replace("->", "→")
        text = text.replace("<=", "<").replace(">=", ">").replace("!=", "≠")
    return text.strip()


def normalise(text: str) -> str:
    """`text` after NFKC, without case, white space and punctuation; what makes the value of a number stays."""
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", plain(text)).casefold()
    text = re.sub(r"(?<=[0-9])\s++(?=%)", "", form("list_of_numbers").sub(r"\1|", text))
    pieces = form("punctuation").split(text)
    pieces[::2] = ["".join(c for c in piece if unicodedata.category(c)[0] not in "PZC") for piece in pieces[::2]]
    return "".join(pieces)
