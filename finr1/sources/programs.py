"""Gold programs of FinQA and ConvFinQA: read, executed, and told as worked reasoning.

A program such as `subtract(5829, 5735), divide(#0, 5735)` is how an annotator reached the answer (`#0` is the result
of step 0, `const_100` a constant, FinQA, Chen et al. 2021, section 4). Told step by step it gives reasoning without a
teacher, short and true: every equation holds for the numbers as they are printed, and the last word is the gold.

    >>> worked_reasoning("subtract(5829, 5735)", "94", "94.0", page, "what is the net change in net revenue?")
    'The table gives 5829 for 2015 net revenue and 5735 for 2014 net revenue.
    The difference is 5829 - 5735 = 94.
    So the answer is 94.'
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from finr1.sources.golds import clean_executed
from finr1.sources.pages import Page

_OPERATIONS = "add|subtract|multiply|divide|exp|greater|table_max|table_min|table_sum|table_average"
_STEP = re.compile(rf"({_OPERATIONS})\((.*?)\)(?=, (?:{_OPERATIONS})\(|$)")
_SIGN = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
_NAME = {"add": "sum", "subtract": "difference", "multiply": "product", "divide": "quotient"}
_MAX_TABLE_VALUES = 12  # a longer row does not make a short reasoning
MIN_STEPS = 3  # what the reasoning criteria ask for
_DIGITS = (5, 7, 10)  # significant digits to print; more only if rounding would carry the result away


@dataclass(frozen=True)
class Step:
    """One operation with its two arguments as written; for a table operation the first is the row's name."""

    operation: str
    first: str
    second: str


def parse_program(program: str) -> list[Step] | None:
    """The steps of `program`, [] for a bare number (ConvFinQA's look-up turns), None if it cannot be read."""
    program = program.strip()
    if to_number(program) is not None:
        return []
    found = list(_STEP.finditer(program))
    if not found or ", ".join(match[0] for match in found) != program:
        return None
    arguments = [match[2].rsplit(", ", 1) for match in found]
    if any(len(pair) != 2 for pair in arguments):
        return None
    return [Step(match[1], *pair) for match, pair in zip(found, arguments, strict=True)]


def to_number(text: str) -> float | None:
    """A program's literal or a table's cell as FinQA's evaluator reads it: `3.5%` is 0.035, `const_m1` is -1."""
    text = text.split("(")[0].replace("$", "").replace(",", "").strip()
    text = text.replace("const_m", "-").removeprefix("const_")
    factor = 100.0 if text.endswith("%") else 1.0
    text = text.removesuffix("%").replace("- ", "-").strip()
    return float(text) / factor if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", text) else None


def row_values(table: tuple[tuple[str, ...], ...], name: str) -> list[float] | None:
    """The numbers of the table row called `name`; None if there is no such row or a cell is no number."""
    row = next((row for row in table if row and row[0].strip().lower() == name.strip().lower()), None)
    values = [to_number(cell) for cell in row[1:]] if row else []
    return values if values and None not in values else None


def execute(program: str, table: tuple[tuple[str, ...], ...]) -> float | str | None:
    """The program's result, "yes"/"no" for a comparison; None if it cannot be executed."""
    steps = parse_program(program)
    if steps is None:
        return None
    results: list = []
    for step in steps:
        results.append(_execute_step(step, results, table))
        if results[-1] is None:
            return None
    return results[-1] if results else to_number(program)


def _execute_step(step: Step, results: list, table: tuple[tuple[str, ...], ...]) -> float | str | None:
    if step.operation.startswith("table_"):
        values = row_values(table, step.first)
        how = {"max": max, "min": min, "sum": sum, "average": lambda v: sum(v) / len(v)}
        return how[step.operation.removeprefix("table_")](values) if values else None
    first, second = (argument(text, results) for text in (step.first, step.second))
    if not isinstance(first, float) or not isinstance(second, float):
        return None
    return apply(step.operation, first, second)


def argument(text: str, results: list) -> float | str | None:
    """A step's argument: `#2` is an earlier result, anything else a literal."""
    if not text.startswith("#"):
        return to_number(text)
    number = int(text[1:]) if text[1:].isdigit() else len(results)
    return results[number] if number < len(results) else None


def apply(operation: str, first: float, second: float) -> float | str | None:
    """`operation` on two numbers; None where it is undefined (division by zero, overflow, complex power)."""
    try:
        if operation == "greater":
            return "yes" if first > second else "no"
        if operation == "exp":
            result = first**second
        else:
            result = {"+": first + second, "-": first - second, "*": first * second}.get(_SIGN[operation])
            result = first / second if result is None else result
    except (ZeroDivisionError, OverflowError):
        return None
    return result if isinstance(result, float) and math.isfinite(result) else None


def matches(result: float | str | None, executed: str) -> bool:
    """Whether our result is the source's `exe_ans`, which is rounded to five decimals."""
    if result is None or isinstance(result, str):
        return result == executed
    stated = to_number(executed)
    return stated is not None and abs(result - stated) <= max(1.01e-5, 1e-9 * abs(stated))


def worked_reasoning(program: str, gold: str, executed: str, page: Page, question: str) -> str:
    """`program` told in short sentences, one a line, that end at `gold`.

    Empty where that cannot be done honestly: the program cannot be read, our own execution does not give the source's
    `executed` answer, or the last result is not `gold` as it is written.
    """
    if not matches(execute(program, page.table), clean_executed(executed)):
        return ""
    steps = parse_program(program)
    where = _where(_literals(program, steps), page, question)
    if not steps:
        return f"The question asks for a value that the page states.\n{where}\nSo the answer is {gold}."
    exact = execute(program, page.table)
    for digits in _DIGITS:
        told, shown = _tell(steps, page.table, digits)
        near = told and (shown == exact or (isinstance(exact, float) and math.isclose(shown, exact, rel_tol=5e-4)))
        if near and (ending := _ending(shown, gold)):
            lines = "\n".join(line for line in [where, *told, *ending] if line).splitlines()
            return "\n".join(lines) if len(lines) >= MIN_STEPS else ""
    return ""


def _tell(steps: list[Step], table: tuple[tuple[str, ...], ...], digits: int) -> tuple[list[str], float | str | None]:
    """A sentence a step, and the last printed result. Later steps go on from the *printed* results."""
    told: list[str] = []
    results: list = []
    for step in steps:
        if step.operation.startswith("table_"):
            sentence, result = _tell_table_step(step, row_values(table, step.first) or [], digits)
        else:
            first, second = (argument(text, results) for text in (step.first, step.second))
            sentence, result = _tell_step(step.operation, first, second, digits)
        if result is None:
            return [], None
        told.append(sentence)
        results.append(result)
    return told, results[-1]


def _tell_step(operation: str, first: float, second: float, digits: int) -> tuple[str, float | str | None]:
    result = apply(operation, first, second)
    if result is None:
        return "", None
    if operation == "greater":
        relation = "greater" if result == "yes" else "not greater"
        return f"{show(first)} is {relation} than {show(second)}.", result
    result = rounded(result, digits)
    if operation == "exp":
        return f"Raising {show(first)} to the power of {show(second)} gives {show(result)}.", result
    equation = f"{show(first)} {_SIGN[operation]} {_operand(second)} = {show(result)}"
    return f"The {_NAME[operation]} is {equation}.", result


def _tell_table_step(step: Step, values: list[float], digits: int) -> tuple[str, float | None]:
    if not values or len(values) > _MAX_TABLE_VALUES:
        return "", None
    told = f'The row "{step.first}" holds {", ".join(show(value) for value in values)}.'
    if step.operation in ("table_max", "table_min"):
        which, result = ("largest", max(values)) if step.operation == "table_max" else ("smallest", min(values))
        return f"{told}\nIts {which} value is {show(result)}.", result
    total = values[0]
    for value in values[1:]:
        before, total = total, rounded(total + value, digits + 5)
        told += f"\nAdding up, {show(before)} + {_operand(value)} = {show(total)}."
    if step.operation == "table_sum":
        return told, total
    average = rounded(total / len(values), digits)
    return f"{told}\nThe average is {show(total)} / {len(values)} = {show(average)}.", average


def _ending(shown: float | str, gold: str) -> list[str] | None:
    """The closing sentences; they turn a fraction into the percentage that the gold is written in.

    None where the last result is not the gold to its last written digit (rounded or cut off): the grader may let it
    pass within 1 %, but nobody should learn that 560 is 559.
    """
    answer = f"So the answer is {gold}."
    if isinstance(shown, str):
        return [f"The first value is {'' if shown == 'yes' else 'not '}greater, so the answer is {gold}."]
    written = re.search(r"\d*\.?\d+", gold)
    if written is None:
        return None
    stated, unit = float(written[0]), 10.0 ** -len(written[0].partition(".")[2])
    percent = rounded(shown * 100, 5)
    if abs(abs(shown) - stated) < 0.999 * unit and not (
        "%" in gold and abs(abs(percent) - stated) < abs(abs(shown) - stated)
    ):
        return [answer]
    if "%" in gold and abs(abs(percent) - stated) < 0.999 * unit:
        return [f"As a percentage that is {show(shown)} * 100 = {show(percent)}.", answer]
    return None


def _where(literals: list[str], page: Page, question: str) -> str:
    """Where on the page the program's numbers stand: row and column for the table, neighbouring words for the text."""
    sentences = page.pre + page.post
    labels = {literal: _cell_label(literal, page.table, question) for literal in literals}
    quotes = {literal: _neighbours(literal, sentences, question) for literal in literals if not labels[literal]}
    cells = [f"{literal} for {label}" for literal, label in labels.items() if label]
    unseen = [literal for literal, words in quotes.items() if not words]
    told = [f"The table gives {_listed(cells)}."] if cells else []
    told += [f'The text says "{words}".' for words in dict.fromkeys(quotes.values()) if words]
    told += [f"Given: {_listed(unseen)}."] if unseen else []
    return " ".join(told)


def _literals(program: str, steps: list[Step]) -> list[str]:
    if not steps:
        return [program.strip()]
    told = [text for step in steps if "table" not in step.operation for text in (step.first, step.second)]
    return list(dict.fromkeys(text for text in told if not text.startswith(("#", "const_"))))


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _cell_label(literal: str, table: tuple[tuple[str, ...], ...], question: str) -> str:
    """Row name (and column name, where there are several) of the cell that holds `literal`; "" if none does.

    Of several such cells the one whose names share most with the question.
    """
    value = to_number(literal)
    labels = []
    for row in table[1:]:
        for column, cell in enumerate(row[1:], 1):
            if value is not None and to_number(cell) == value and row[0]:
                name = table[0][column] if len(row) > 2 and column < len(table[0]) else ""
                labels.append(f"{row[0]} ({name})" if name else row[0])
    return max(labels, key=lambda label: _overlap(label, question), default="")


def _neighbours(literal: str, sentences: tuple[str, ...], question: str) -> str:
    """The words around `literal` in the sentence that shares most with the question; "" if none holds it."""
    for_literal = re.compile(rf"(?<![\w.-]){re.escape(literal)}(?![\w]|[.-]\d|%)")
    places = [(sentence, match) for sentence in sentences for match in for_literal.finditer(sentence)]
    if not places:
        return ""
    sentence, match = max(places, key=lambda place: _overlap(place[0], question))
    before, after = sentence[: match.start()].split()[-6:], sentence[match.end() :].split()[:2]
    return " ".join([*before, literal, *after]).replace('"', "").strip(" .,;:")


def _overlap(text: str, question: str) -> int:
    return len(set(text.lower().split()) & set(question.lower().split()))


def rounded(value: float, digits: int) -> float:
    """`value` to `digits` significant digits, but never to fewer than two decimals."""
    if value == 0:
        return 0.0
    return round(value, max(2, digits - 1 - math.floor(math.log10(abs(value)))))


def show(value: float) -> str:
    """A number in plain decimals: 94.0 -> "94", 1e-05 -> "0.00001"."""
    text = f"{value:.15f}".rstrip("0").rstrip(".") if abs(value) < 1 else repr(value).removesuffix(".0")
    return f"{value:.0f}" if "e" in text else text


def _operand(value: float) -> str:
    return f"({show(value)})" if value < 0 else show(value)
