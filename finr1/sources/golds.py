"""The golds of FinQA and ConvFinQA: one of two is chosen, and a program becomes reasoning in words (README.md)."""

import math
import operator
import re
from typing import Any

import numpy as np

from finr1 import grading
from finr1.records import AnswerKind
from finr1.sources.files import require
from finr1.sources.pages import Page

CONTRADICTORY = "contradictory golds"
_DIGITS = (5, 7, 10)  # significant digits to print; more only if rounding would carry the result away
_OPERATIONS = "add|subtract|multiply|divide|exp|greater|table_max|table_min|table_sum|table_average"
_STEP = re.compile(rf"({_OPERATIONS})\((.*?)\)(?=, (?:{_OPERATIONS})\(|$)")
_ARITHMETIC = {
    "add": (operator.add, "+", "The sum is {} + {} = {}."),
    "subtract": (operator.sub, "-", "The difference is {} - {} = {}."),
    "multiply": (operator.mul, "*", "The product is {} * {} = {}."),
    "divide": (operator.truediv, "/", "The quotient is {} / {} = {}."),
    "exp": (operator.pow, "**", "Raising {} to the power of {} gives {}."),
}

Table = tuple[tuple[str, ...], ...]
Step = tuple[str, str, str]  # an operation and its two arguments as written; of a table operation, a row's name first


def choose_golds(text: object, executed: object, question: str) -> dict[str, Any]:
    """Gold, alternatives, flaw and kind of a `Problem`: the text answer if it can be read, else the executed one.

    The other becomes an alternative. If the two contradict each other, both stay, and it is flawed. The executed
    one then comes first: the official evaluator compares with it. Raises `NoProblem` without a readable gold.
    """
    text, executed = clean_gold(text), clean_gold(executed, executed=True)
    require({"no gold": text or executed})
    kind = answer_kind(text, executed, question)
    contradictory = {"gold": executed, "alternatives": [text], "flaw": CONTRADICTORY}
    if executed and kind != "boolean" and text.lower() in ("yes", "no"):
        return contradictory | {"answer_kind": answer_kind("", executed, question)}
    readable = [gold for gold in (text, executed) if gold and agree(gold, gold, kind)]
    # a sentence is a fine answer but a poor gold
    readable.sort(key=lambda gold: len(re.findall(r"[a-z]{2,}", gold.lower())) > 2)
    require({"unreadable gold": readable})
    if len(readable) == 2 and not agree(text, executed, kind):
        # "what percent ...?" with the text answer 67.88 and the executed one 0.67877: only the sign is missing
        if kind != "number" or "percent" not in question.lower() or not agree(text, executed, "percent"):
            return contradictory | {"answer_kind": kind}
        kind = "percent"
    gold, *others = dict.fromkeys(readable)
    return {"gold": gold, "alternatives": others, "answer_kind": kind}


def clean_gold(value: object, executed: bool = False) -> str:
    """A gold as a short text: `94.0` -> "94". An executed gold is a number, even where a re-upload holds it as text."""
    if value is None:
        return ""
    if executed and re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", str(value)):
        value = float(str(value))
    if isinstance(value, float):
        return f"{value:.5f}".rstrip("0").rstrip(".")  # both sources round to five decimals
    text = " ".join(str(value).replace("\\n", " ").split()).rstrip("\\ ,.")
    return re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)  # ".3%" -> "0.3%"


def answer_kind(text: str, executed: str, question: str) -> AnswerKind:
    """Boolean for yes/no, percent if the text answer has the sign (or, without a text, the question asks for one)."""
    if (executed or text).lower() in ("yes", "no"):
        return "boolean"
    percent = "%" in text if text else "%" in executed or "percent" in question.lower() or "%" in question
    return "percent" if percent else "number"


def agree(first: str, second: str, kind: AnswerKind) -> bool:
    """Whether one is right with the other as gold (either may be more rounded); false if one cannot be read."""
    try:
        return bool(grading.grade(first, second, kind) or grading.grade(second, first, kind))
    except ValueError:
        return False


def parse_program(program: str) -> list[Step] | None:
    """The steps of `program`, [] for a bare number (ConvFinQA's look-up turns), None if it cannot be read."""
    program = program.strip()
    if to_number(program) is not None:
        return []
    # The last comma parts the arguments: a row's name may hold others.
    steps = [(operation, *arguments.rsplit(", ", 1)) for operation, arguments in _STEP.findall(program)]
    whole = ", ".join(f"{operation}({', '.join(pair)})" for operation, *pair in steps)
    return steps if steps and whole == program and all(len(step) == 3 for step in steps) else None


def to_number(text: str) -> float | None:
    """A program's literal or a table's cell as FinQA's evaluator reads it: `3.5%` is 0.035, `const_m1` is -1."""
    text = text.split("(")[0].replace("$", "").replace(",", "").strip()
    text = text.replace("const_m", "-").removeprefix("const_")
    factor, text = (100.0 if text.endswith("%") else 1.0), text.removesuffix("%").replace("- ", "-").strip()
    return float(text) / factor if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", text) else None


def execute(program: str, table: Table) -> float | str | None:
    """The program's result, "yes"/"no" for a comparison; None if it cannot be executed."""
    steps = parse_program(program)
    try:
        return _run(steps, table)[0] if steps else to_number(program)
    except (ValueError, ArithmeticError):
        return None


def _run(steps: list[Step], table: Table, digits: int | None = None) -> tuple[float | str, list[str], str]:
    """The last result, a sentence a step, and all of it as a line of arithmetic (empty where a row is read last).

    With `digits`, later steps continue from the results *as printed*. `ValueError` or `ArithmeticError`: undefined.
    """
    results: dict[str, float | str] = {}
    parts: dict[str, str] = {}  # each step as a part of a longer line
    told = []
    for number, (operation, *arguments) in enumerate(steps):
        if operation.startswith("table_"):
            result, sentence = _over_row(operation, arguments[0], table, digits)
            line, part = "", show(result, operand=True)
        else:
            first, second = (results.get(text, to_number(text)) for text in arguments)
            if not isinstance(first, float) or not isinstance(second, float):
                raise ValueError(f"an argument of {arguments} is no number")
            one, other = (parts.get(text) or show(to_number(text), operand=True) for text in arguments)
            if operation == "greater":
                result, verb = ("yes", "is") if first > second else ("no", "is not")
                line = f"{one} {verb} greater than {other}"
                sentence = f"{show(first)} {verb} greater than {show(second)}."
            else:
                operate, sign, sentence = _ARITHMETIC[operation]
                result, line = rounded(operate(first, second), digits), f"{one} {sign} {other}"
                sentence = sentence.format(show(first), show(second, operand=operation != "exp"), show(result))
            part = f"({line})"
        results[f"#{number}"], parts[f"#{number}"] = result, part
        told.append(sentence)
    return result, told, line


def _over_row(operation: str, name: str, table: Table, digits: int | None) -> tuple[float, str]:
    row = next((row for row in table if row and row[0].strip().lower() == name.strip().lower()), ())
    values = [to_number(cell) for cell in row[1:]]
    # A longer row does not make a short reasoning.
    if not values or None in values or (digits and len(values) > 12):
        raise ValueError(f"no row of numbers called {name}")
    told = f'The row "{name}" holds {", ".join(show(value) for value in values)}.'
    if operation in ("table_max", "table_min"):
        end, word = (max(values), "largest") if operation == "table_max" else (min(values), "smallest")
        return end, f"{told}\nIts {word} value is {show(end)}."
    total = values[0]
    for value in values[1:]:
        before, total = total, rounded(total + value, digits and digits + 5)
        told += f"\nAdding up, {show(before)} + {show(value, operand=True)} = {show(total)}."
    if operation == "table_sum":
        return total, told
    average = rounded(total / len(values), digits)
    return average, f"{told}\nThe average is {show(total)} / {len(values)} = {show(average)}."


def rounded(value: float, digits: int | None) -> float:
    """`value` to `digits` significant digits (None: all), at least two decimals; `ValueError` for no finite number."""
    if not isinstance(value, float) or not math.isfinite(value):  # a power may be complex
        raise ValueError(f"{value} is no finite number")
    if value == 0 or digits is None:
        return value + 0.0  # no minus before a zero
    return round(value, max(2, digits - 1 - math.floor(math.log10(abs(value)))))


def show(value: float, operand: bool = False) -> str:
    """A number in plain decimals: 94.0 -> "94", 1e-05 -> "0.00001"; an operand below zero stands in brackets."""
    text = np.format_float_positional(value, precision=15, trim="-")
    return f"({text})" if operand and value < 0 else text


def worked_reasoning(program: str, gold: str, executed: object, page: Page, question: str) -> tuple[str, str]:
    """`program` told in short sentences, one a line, that end at `gold`: at once, and by parts.

    At once it is one line of arithmetic; by parts the cells are read first, and each operation is a step (empty where
    that makes no more steps). Both are empty where it cannot be done honestly: the program cannot be read or has no
    number of the page, our execution does not give `executed` (which is rounded), or the last result is not `gold`.
    """
    exact, stated = execute(program, page.table), clean_gold(executed, executed=True)
    if isinstance(exact, float):
        number = to_number(stated)
        stated = exact if number is not None and abs(exact - number) <= max(1.01e-5, 1e-9 * abs(number)) else None
    if exact is None or exact != stated:
        return "", ""
    steps = parse_program(program)
    where = _where(program, steps, page, question)
    if not steps:
        asked, *end = "The page states the value.", f"It is {program.strip()}.", f"So the answer is {gold}."
        return "\n".join([asked, *end]), "\n".join([asked, *where, *end])
    for digits in _DIGITS:
        try:
            shown, told, _ = _run(steps, page.table, digits)
        except (ValueError, ArithmeticError):
            continue
        near = shown == exact or (isinstance(exact, float) and math.isclose(shown, exact, rel_tol=5e-4))
        if near and (ending := _ending(shown, gold)):
            lines, line = "\n".join([*where, *told, *ending]).splitlines(), _run(steps, page.table)[2]
            if isinstance(exact, float):  # a percentage where `ending` turns it into one
                value = show(rounded(exact, digits)) if len(ending) == 1 else f"{show(rounded(exact * 100, 5))}%"
                line = f"It is {line} = {value}" if line else f"It is {value}"
            at_once = f"No single value on the page is the answer.\n{line}.\n{ending[-1]}"
            return (at_once, "\n".join(lines) if len(lines) > 3 else "") if len(lines) > 2 else ("", "")
    return "", ""


def _ending(shown: float | str, gold: str) -> list[str]:
    """The closing sentences; they turn a fraction into the percentage that the gold is written in.

    Empty where the last result is not the gold to its last written digit (rounded or cut off): the grader may let it
    pass within 1 %, but nobody should learn that 560 is 559.
    """
    answer = f"So the answer is {gold}."
    if isinstance(shown, str):
        return [f"The first value is {'' if shown == 'yes' else 'not '}greater, so the answer is {gold}."]
    written = re.search(r"\d*\.?\d+", gold)
    if written is None:
        return []
    unit, percent = 10.0 ** -len(written[0].partition(".")[2]), rounded(shown * 100, 5)
    off, off_as_percent = (abs(abs(value) - float(written[0])) for value in (shown, percent))
    if off < 0.999 * unit and not ("%" in gold and off_as_percent < off):
        return [answer]
    if "%" in gold and off_as_percent < 0.999 * unit:
        return [f"As a percentage that is {show(shown)} * 100 = {show(percent)}.", answer]
    return []


def _where(program: str, steps: list[Step], page: Page, question: str) -> list[str]:
    """Where on the page the program's numbers stand: row and column for the table, neighbouring words for the text.

    Of several places the one that shares most words with the question. For a look-up the row is read whole.
    """

    def shared(place: tuple) -> int:
        return len(set(question.lower().split()) & set(place[0].lower().split()))

    arguments = [text for operation, *pair in steps if "table" not in operation for text in pair]
    literals = [text for text in arguments if not text.startswith(("#", "const_"))] if steps else [program.strip()]
    told = []
    for literal in dict.fromkeys(literals):
        pattern = re.compile(rf"(?<![\w.-]){re.escape(literal)}(?![\w]|[.-]\d|%)")
        places = [(line, match) for line in page.pre + page.post for match in pattern.finditer(line)]
        if cells := _cells(literal, page.table):
            name, row = max(cells, key=shared)
            told += [*([row] if row and not steps else []), f"The table gives {literal} for {name}."]
        elif places:
            line, match = max(places, key=shared)
            words = [*line[: match.start()].split()[-6:], literal, *line[match.end() :].split()[:2]]
            told.append(f'The text says "{" ".join(words).replace(chr(34), "").strip(" .,;:")}".')
        else:
            told.append(f"Given: {literal}.")
    return list(dict.fromkeys(told))


def _cells(literal: str, table: Table) -> list[tuple[str, str]]:
    """Of each cell that holds `literal` its name, by row and (where there are several) column, and its row read out."""
    value, found = to_number(literal), []
    for row in table[1:]:
        heads = [*table[0][: len(row)], *[""] * (len(row) - len(table[0]))]
        named = [f"{text} ({head})" if head else text for text, head in zip(row, heads, strict=True)]
        read = f'The row "{row[0]}" holds {", ".join(named[1:])}.' if 2 < len(row) < 8 else ""
        for cell, head in zip(row[1:], heads[1:], strict=True):
            if value is not None and to_number(cell) == value and row[0]:
                found.append((f"{row[0]} ({head})" if head and len(row) > 2 else row[0], read))
    return found
