"""The steps of a thought, and which of them are true: every equation is recomputed, and every number has a source."""

import ast
import bisect
import operator
import re
from collections.abc import Sequence

from finr1.paths import data_beside

_TEXTS = data_beside(__file__, "steps.yaml")
_SCALES = _TEXTS.pop("scales")
_FORMS = {name: re.compile(form) for name, form in _TEXTS.items()}
_numbers = _FORMS["number"].findall
_SIDE = 200  # characters of one side of an equation that are read
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_CONSTANTS = (0, 1, 4, 12, 100, 360, 365, 1000, 1e6)  # quarters, months and days of a year; percent and scales
_WHOLES = 100  # numbers of which parts are looked for


def split_steps(text: str) -> list[str]:
    """The sentences and lines of `text`, in English or Chinese. A decimal point ends no sentence."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|[。！？；\n]+", text) if re.search(r"\w", part)]


def checked_steps(text: str, given: str | None = None) -> dict[str, bool]:
    """{step of `text`: whether it is true}. Equal steps count once, and trivial ones (0 + 5 = 5) do not count.

    A step is an equation `a op b ... = c`. It is true at the precision in which c is written; `≈` may be off by 1 %.
    With `given` (question and page) each number has to come from there or from an earlier equation, or be a part of
    such a number (20 and 4 of 24). A number from nowhere in a sentence is a false step. A number that is copied rightly
    is no step, nor is a true equation whose result is never used. The time is nearly linear in the length.
    """
    plain, place = _plain(text), 0
    parts, told = re.split("([=≈])", plain), []  # (where it ends, equation, its numbers, result, computed rightly)
    for before, sign, after in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
        place += len(before) + len(sign)
        left, right = _left_side(before[-_SIDE:]), _FORMS["result"].match(after[:_SIDE])
        if left and right:
            written, tolerance = right[1].strip(), 0.01 if sign == "≈" else 1e-9
            # A word of scale may stand on one side only, as in "2 million + 3 million = 5".
            bare = [re.sub(r"e\d+", "", side) for side in (left, written)]
            true = _is_true(left, written, tolerance) or _is_true(*bare, tolerance)
            told.append((place + right.end(), f"{left} {sign} {written}", _numbers(left), written, true))
    if given is None:
        return {said: true for _, said, numbers, _, true in told if not true or _is_work(numbers)}
    return _from_somewhere(plain, told, _numbers(_plain(given)))


def _plain(text: str) -> str:
    """`text` with scale words as powers of ten, and "1% of 2400 is 24" as an equation."""
    text = _FORMS["share"].sub(r"\1 * \2 = \3", _FORMS["share_zh"].sub(r"\2 * \1 = \3", text))
    return _FORMS["scale_word"].sub(lambda word: f"e{_SCALES[word[1].lower()]}", text)


def _from_somewhere(plain: str, equations: list[tuple], given: list[str]) -> dict[str, bool]:
    sentences = [part for part in _FORMS["sentence"].finditer(plain) if "=" not in part[0] and "≈" not in part[0]]
    told = [*equations, *((part.end(), "", _FORMS["stated"].findall(part[0]), "", True) for part in sentences)]
    results = {end for end, *_ in equations}  # a copy of an equation makes no use of its result
    said_later = [number for number in _FORMS["number"].finditer(plain) if number.end() not in results]
    last_said = {value: number.end() for number in said_later for value in _readings(number[0])}
    known, wholes, steps = sorted(_CONSTANTS), [], {}
    for end, said, numbers, result, true in [(0, "", given, "", True), *sorted(told)]:
        strange = [number for number in numbers if end and not _is_known(number, known, wholes if said else ())]
        if not said:
            steps |= {f"{number} from nowhere": False for number in strange}
        elif strange or not true:
            steps[f"{said} ({strange[0]} from nowhere)" if strange else said] = False
        elif _is_work(numbers) and any(last_said.get(value, 0) > end for value in _readings(result)):
            steps.setdefault(said, True)
        for value in [value for number in [*numbers, *[result] * bool(said)] for value in _readings(number)]:
            bisect.insort(known, value)  # a fault counts once, not again where it is carried on
            wholes += [value] * (len(wholes) < _WHOLES)
    return steps


def _is_work(numbers: list[str]) -> bool:
    """Whether an equation computes something: 0 + 5, 5 * 1 and 1 + 1 do not."""
    return sum(_readings(number)[0] not in (0, 1) for number in numbers) > 1


def _readings(number: str) -> list[float]:
    """The values that a written number may have: its digits, and these with its percent sign or power of ten."""
    digits, _, exponent = re.sub(r"[^\d.e]", "", number).partition("e")
    return [float(digits), float(digits) * (0.01 if "%" in number else 10.0 ** min(int(exponent or 0), 99))]


def _is_known(number: str, known: list[float], wholes: Sequence[float]) -> bool:
    """Whether `number` is in the sorted `known` (rounded, in percent), or a round number near a whole, or its rest."""
    digits, scaled = _readings(number)
    unit = 10.0 ** -len(re.sub(r"[^\d.]|e.*", "", number).partition(".")[2])
    for value, one in ((digits, unit), (scaled, unit * scaled / digits if digits else unit)):
        for hundredth in (1, 100):  # rounded, or cut off
            place = bisect.bisect_left(known, (value - 0.5001 * one) / hundredth)
            if place < len(known) and known[place] < (value + 0.9999 * one) / hundredth:
                return True
    for whole in wholes:  # 24 = 20 + 4, 24 + 6 = 30, 30 for 24
        part, rest, both, all_of = (sum(map(str.isdigit, f"{abs(value):.6f}".replace("0", "")))
                                    for value in (digits, whole - digits, whole + digits, whole))  # fmt: skip
        if part + rest == all_of or (both == 1 and digits < whole) or (part == 1 and whole < digits <= 1.25 * whole):
            return True
    return False


def _left_side(text: str) -> str:
    """The arithmetic at the end of `text`; empty without an operation, or where it is longer than a person's step."""
    run = _FORMS["left"].search(text)
    if not run or len(run[0]) == _SIDE:
        return ""
    left = re.split(r"[.,] ", run[0])[-1].lstrip(" ,.%)+*/×÷x−").rstrip()
    while left.startswith("(") and left.count("(") > left.count(")"):
        left = left[1:].lstrip()
    return left if _FORMS["operation"].search(left) and left.count("(") == left.count(")") else ""


def _is_true(left: str, right: str, tolerance: float) -> bool:
    """Whether `left` equals `right` to half a unit of its last digit; true where nothing can be computed."""
    digits, _, exponent = re.sub(r"[^\d.e\-]", "", right.replace("−", "-")).partition("e")
    arithmetic = re.sub(r"[$¥€,\s]", "", left).translate(str.maketrans("×÷x−", "*/*-"))
    arithmetic = re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", arithmetic)
    try:
        scale = 10.0 ** int(exponent or 0)
        stated, unit = float(digits) * scale, 10.0 ** -len(digits.partition(".")[2]) * scale
        computed = _compute(ast.parse(arithmetic, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return True
    values = [computed, computed * 100] if "%" in right else [computed]  # a ratio may be stated as a percentage
    return any(abs(value - stated) <= 0.5001 * unit + tolerance * abs(value) for value in values)


def _compute(node: ast.expr) -> float:
    """Value of an expression of numbers. Raises `ValueError` for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) is ast.USub:
        return -_compute(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_compute(node.left), _compute(node.right))
    raise ValueError(f"not arithmetic: {ast.dump(node)}")
