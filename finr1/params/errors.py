"""What is wrong with a parameter, said in words: the parameter, its value, and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

# pydantic's kinds of error whose own text speaks of "valid integers" and the like; all others keep theirs.
_SHOULD_BE = {
    "int_": "should be a whole number",
    "float_": "should be a number",
    "finite_number": "should be a finite number",
    "bool_": "should be true or false",
    "string_type": "should be text (for `papermill -p` of something that looks like a number: `-r NAME VALUE`)",
    "list_type": "should be a list, such as [first, second]",
}
_SECRET = re.compile(r"key|secret|password", re.IGNORECASE)


class ParameterError(ValueError):
    """One or more wrong parameters of one stage; `problems` holds a line or more for each."""

    def __init__(self, where: str, problems: Iterable[str]):
        self.problems = list(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"wrong parameters for {where}\n{lines}")


def describe(value: Any) -> str:
    """A value as an error shows it: text in double quotes, long ones cut."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def unknown(name: str, known: Iterable[str]) -> str:
    """The line for a parameter that does not exist. Its value is left out: it may be a key that somebody put there."""
    if _SECRET.search(name):
        return f"{name}: unknown parameter; keys are read from the environment alone and never are parameters"
    return f"{name}: unknown parameter{did_you_mean(name, known)}"


def problems_of(error: ValidationError, known: Iterable[str]) -> list[str]:
    """pydantic's errors as our lines, in the order of the fields."""
    lines: list[str] = []
    for entry in error.errors():
        name = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            lines.append(unknown(name, known))
        elif entry["type"] == "missing":
            lines.append(f"{name}: missing; every parameter must be given a value")
        elif entry["type"] == "value_error" and not name:  # a check across fields: it has named them already
            lines += str(entry["ctx"]["error"]).split("\n")
        else:
            lines.append(f"{name} = {describe(entry['input'])}: {_advice(entry)}")
    return lines


def _advice(entry: Any) -> str:
    kind = entry["type"]
    if kind == "value_error":
        return str(entry["ctx"]["error"])
    for prefix, advice in _SHOULD_BE.items():
        if kind.startswith(prefix):
            return advice
    advice = entry["msg"].removeprefix("Input ")
    if kind == "literal_error" and isinstance(entry["input"], str):
        advice += did_you_mean(entry["input"], re.findall(r"'([^']+)'", entry["ctx"]["expected"]))
    return advice
