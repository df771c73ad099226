"""The pages of annual reports that FinQA and ConvFinQA ask about: cleaned, as text with a markdown table."""

import re
from typing import NamedTuple, Self

# A number and its repetition in brackets: "-8.7 ( 8.7 )", "$ -3 ( 3 )", "23.6% ( 23.6 % )", "3.2%-3.6% ( 3.2%-3.6 % )".
_TWICE = re.compile(r"(?<![\w.,])(-?(?P<number>[\w.,][^\s()]*?)?%?) \( (?P=number)(?: ?%)? \)")
_CODE_POINT = re.compile(r" 2019s\b|\b201c ?| ?\b201d\b|\b20ac(?=\d)")
_CHARACTER = {"2019s": "'s", "201c": '"', "201d": '"', "20ac": "€"}


class Page(NamedTuple):
    """A page: text before the table, the table's rows (header first), text after it."""

    pre: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]
    post: tuple[str, ...]

    @classmethod
    def of(cls, raw: dict | str) -> Self:
        """From a page as records hold it: the official lists, one text, or `text` and `table` as two texts."""
        if isinstance(raw, dict) and not isinstance(raw["table"], str):
            pre, table, post = raw["pre_text"] or [], raw["table"] or [], raw["post_text"] or []
        else:
            pre, table, post = _parts(raw if isinstance(raw, str) else f"{raw['text']}\n\n{raw['table']}")
        rows = tuple(tuple(clean_text(str(cell)) for cell in row) for row in table)
        return cls(_sentences(pre), rows, _sentences(post))

    def context(self) -> str:
        """The page as a model sees it, with its table in markdown; empty if the page is empty."""
        width = max((len(row) for row in self.table), default=0)  # short rows are filled up with empty cells
        rows = [[cell.replace("|", "/") for cell in row] + [""] * (width - len(row)) for row in self.table]
        rows[1:1] = [["---"] * width] if rows else []
        table = [f"| {' | '.join(row)} |" for row in rows]
        return "\n\n".join("\n".join(lines) for lines in (self.pre, table, self.post) if lines)


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
    """`text` without doubled numbers and code points; those that may be years stay: `2013`, `2014`, `2022`."""
    text = " ".join(text.split())
    if "(" in text:  # most lines hold no debris, and there are many
        text = _TWICE.sub(lambda match: match[1] if match[1][:1] == "-" or match[1][-1:] == "%" else match[0], text)
        text = text.replace("% ( % )", "%")
    return _CODE_POINT.sub(lambda match: _CHARACTER[match[0].strip()], text) if "20" in text else text


def _sentences(lines: list[str]) -> tuple[str, ...]:
    cleaned = (clean_text(line) for line in lines)
    return tuple(line for line in cleaned if any(char.isalnum() for char in line))  # drops lines of dots and dashes
