"""The pages of annual reports that FinQA and ConvFinQA ask about: cleaned, as text with a markdown table.

The published text is lower-cased and tokenised, with debris: a negative number stands twice (`-8.7 ( 8.7 )`), so does
a percentage (`23.6% ( 23.6 % )`), and quotation marks became their code points (`2019s`, `201c`). A `Page` holds the
parts; `context()` renders them with one sentence or table row a line, which is what `retrieved_context` selects from.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from finr1.records import Problem

ROW_BONUS, LENGTH_PENALTY = 2.0, 0.75  # of `retrieved_context`; chosen on FinQA's and ConvFinQA's dev splits

# A number and its repetition in brackets: "-8.7 ( 8.7 )", "$ -3 ( 3 )", "23.6% ( 23.6 % )", "3.2%-3.6% ( 3.2%-3.6 % )".
_TWICE = re.compile(r"(?<![\w.,])(-?(?P<number>[\w.,][^\s()]*?)?%?) \( (?P=number)(?: ?%)? \)")
_CODE_POINT = re.compile(r" 2019s\b|\b201c ?| ?\b201d\b|\b20ac(?=\d)")
_CHARACTER = {"2019s": "'s", "201c": '"', "201d": '"', "20ac": "€"}


@dataclass(frozen=True)
class Page:
    """A page: text before the table, the table's rows (header first), text after it."""

    pre: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]
    post: tuple[str, ...]

    @classmethod
    def of(cls, raw: dict | str) -> Page:
        """From a page as records hold it: the official lists, one text, or `text` and `table` as two texts."""
        if isinstance(raw, dict) and not isinstance(raw["table"], str):
            pre, table, post = raw["pre_text"] or [], raw["table"] or [], raw["post_text"] or []
        else:
            pre, table, post = _parts(raw if isinstance(raw, str) else f"{raw['text']}\n\n{raw['table']}")
        rows = tuple(tuple(clean_text(str(cell)) for cell in row) for row in table)
        return cls(_sentences(pre), rows, _sentences(post))

    def context(self) -> str:
        """The page as a model sees it; empty if the page is empty."""
        parts = ("\n".join(self.pre), markdown_table(self.table), "\n".join(self.post))
        return "\n\n".join(part for part in parts if part)


def _parts(text: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Sentences, table and sentences of a page flattened to one text whose table rows are lines of `cell | cell`."""
    lines = text.split("\n")
    rows = [number for number, line in enumerate(lines) if " | " in line]
    first, end = (rows[0], rows[-1] + 1) if rows else (len(lines), len(lines))
    table = [line.split(" | ") for line in lines[first:end] if " | " in line]
    if table:
        table[0] = ["" if cell.strip() == "-" else cell for cell in table[0]]  # one re-upload writes an empty header so
    pre, post = (re.split(r"(?<= \.)\s+|\n", "\n".join(part)) for part in (lines[:first], lines[end:]))
    return [line for line in pre if line.strip() != "Table:"], table, post


def clean_text(text: str) -> str:
    """`text` without doubled numbers and code-point debris; white space becomes single spaces.

    Left alone: `2013`, `2014` and `2022`, which may be a dash or a bullet but also a year.
    """
    text = " ".join(text.split())
    if "(" in text:  # most lines hold no debris, and there are many
        text = _TWICE.sub(lambda match: match[1] if match[1][:1] == "-" or match[1][-1:] == "%" else match[0], text)
        text = text.replace("% ( % )", "%")
    return _CODE_POINT.sub(lambda match: _CHARACTER[match[0].strip()], text) if "20" in text else text


def _sentences(lines: list[str]) -> tuple[str, ...]:
    cleaned = (clean_text(line) for line in lines)
    return tuple(line for line in cleaned if any(char.isalnum() for char in line))  # drops lines of dots and dashes


def markdown_table(rows: tuple[tuple[str, ...], ...]) -> str:
    """`rows` as a markdown table, the first row as its header; short rows are filled up with empty cells."""
    if not rows:
        return ""
    width = max(len(row) for row in rows)
    lines = [[cell.replace("|", "/") for cell in row] + [""] * (width - len(row)) for row in rows]
    lines.insert(1, ["---"] * width)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def retrieved_context(problem: Problem, max_chars: int) -> str:
    """The lines of the context that share the most words with the question, up to `max_chars` characters.

    For models whose window does not hold a page. A line's score is the sum of its shared words' inverse document
    frequency (Sparck Jones 1972), less for long lines and more for table rows. Neither gold nor evidence marks are
    looked at, so the right line may be missing: at 1,000 characters, all numbers of the gold program are still there
    for 77 % of FinQA's dev and 90 % of ConvFinQA's. Results are not comparable with the full-page benchmark. The
    table's header always stays, the order of the page too; what fits is returned unchanged.
    """
    if len(problem.context) <= max_chars:
        return problem.context
    lines = [line for line in problem.context.split("\n") if line]
    header = next((number for number, line in enumerate(lines) if line.startswith("| ")), None)
    kept = set() if header is None else {header, header + 1}
    room = max_chars - sum(len(lines[number]) + 1 for number in kept)
    query = _words(" ".join([turn.question for turn in problem.history] + [problem.question]))
    words = [_words(line) for line in lines]
    frequency = Counter(word for line in words for word in line)
    weight = {word: math.log(len(lines) / frequency[word]) for word in query & frequency.keys()}

    def score(number: int) -> float:
        shared = sum(weight[word] for word in words[number] & weight.keys())
        return shared * (ROW_BONUS if lines[number].startswith("|") else 1) / (1 + len(words[number])) ** LENGTH_PENALTY

    for number in sorted(range(len(lines)), key=lambda n: (-score(n), n)):
        if number not in kept and len(lines[number]) < room and score(number) > 0:
            kept.add(number)
            room -= len(lines[number]) + 1
    return "\n".join(lines[number] for number in sorted(kept))[:max_chars]


def shorten(problem: Problem, max_chars: int) -> Problem:
    """`problem` with its `retrieved_context`; worked reasoning that quotes a number which was cut away is dropped.

    Such reasoning would teach a model to invent figures. The answer stays, though the context may no longer give it.
    """
    context = retrieved_context(problem, max_chars)
    texts = (problem.context, context, problem.reference)
    whole, left, quoted = (set(re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))) for text in texts)
    reference = "" if (whole - left) & quoted else problem.reference
    return problem.model_copy(update={"context": context, "reference": reference})


def _words(text: str) -> set[str]:
    # A plural s and a possessive are cut so that "options" finds "option".
    return {word.removesuffix("'s").rstrip("s") for word in re.findall(r"[a-z0-9&'.]*[a-z0-9]", text.lower())}
