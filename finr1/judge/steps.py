"""The steps of a thought, and which of them are true: every equation is recomputed, and every number has a source."""

import ast
import bisect
import contextlib
import operator
import re
from collections.abc import Sequence

from finr1.paths import data_beside

_TEXTS = data_beside(__file__, "steps.yaml")
_SCALES, _SIGNS, _SAME = _TEXTS.pop("scales"), _TEXTS.pop("same_sign"), str.maketrans(*_TEXTS.pop("same_letter"))
_FORMS = {name: re.compile(form) for name, form in _TEXTS.items()}
_numbers = _FORMS["number"].findall
_SIDE = 200  # characters of one side of an equation that are read
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
              ast.Pow: operator.pow}  # fmt: skip
_NO_ARITHMETIC = (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)
_CONSTANTS = (0, 1, 4, 12, 52, 60, 100, 360, 365, 1000, 1e6)  # quarters to days of a year; percent and scales
_WHOLES = 100  # numbers of which parts are looked for


def split_steps(text: str) -> list[str]:
    """The sentences and lines of `text`, in English or Chinese. A decimal point ends no sentence."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|[。！？；\n]+", text) if re.search(r"\w", part)]


def checked_steps(text: str, given: str | None = None) -> dict[str, bool]:
    """{step of the thought in `text`: whether it is true}. Equal steps count once, trivial ones (0 + 5 = 5) not at all.

    A step is an equation `a op b ... = c`. It is true at the precision in which c is written; behind `≈` final zeros
    may be rounded, by 1 % at most. With `given` (question and page) each number has to come from there or from an
    earlier equation, or be a part of such a number (20 and 4 of 24). A number from nowhere is a false step. A number
    that is copied rightly is no step, nor is a true equation whose result no later equation, no last sentence and no
    answer uses. The thought ends at `</think>`. The time is nearly linear in the length.
    """
    thought, _, answer = text.partition("</think>")
    plain, place = _plain(thought), 0
    parts, told = re.split("([=≈])", plain), []  # (where it ends, starts, equation, its numbers, result, true)
    for before, sign, after in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
        place += len(before) + len(sign)
        left, right = _left_side(before[-_SIDE:]), _FORMS["result"].match(after[:_SIDE])
        if not (left and right):
            continue
        written, start = right[1].strip(), place - len(sign) - len(before) + before.rindex(left)
        # A word of scale may stand on one side only, as in "2 million + 3 million = 5".
        both = (left, written), [re.sub(r"e\d+", "", side) for side in (left, written)]
        with contextlib.suppress(*_NO_ARITHMETIC):  # then it is read as a sentence
            true = any(_is_true(*sides, sign == "≈") for sides in both)
            told.append((place + right.end(), start, f"{left} {sign} {written}", _numbers(left), written, true))
    if given is None:
        return {said: true for *_, said, numbers, result, true in told if not true or _work(numbers, result)}
    return _from_somewhere(plain, told, _numbers(_plain(given)), _numbers(_plain(answer)))


def _plain(text: str) -> str:
    """`text` with one sign for each operation, scale words as powers of ten, and "1% of 2400 is 24" as an equation."""
    text = _FORMS["signs"].sub(lambda sign: _SIGNS[sign[1] or "=="], text.translate(_SAME))
    text = _FORMS["share"].sub(r"\1 * \2 = \3", _FORMS["share_zh"].sub(r"\2 * \1 = \3", text))
    return _FORMS["unit"].sub("", _FORMS["scale_word"].sub(lambda word: f"e{_SCALES[word[1].lower()]}", text))


def _from_somewhere(plain: str, equations: list[tuple], given: list[str], answer: list[str]) -> dict[str, bool]:
    pieces, place = [], 0  # what is no equation, each where it stood
    for end, start, *_ in equations:
        pieces += [plain[place:start], " " * (end - max(place, start))]
        place = end
    sentences = list(_FORMS["sentence"].finditer("".join([*pieces, plain[place:]])))
    told = [(part.end(), 0, "", _FORMS["stated"].findall(part[0]), "", True) for part in sentences]
    final = next((numbers for part in sentences[::-1] if (numbers := _numbers(part[0]))), [])
    used = {value: len(plain) for number in [*final, *answer] for value in _readings(number)}
    for end, _, _, numbers, _, _ in equations:
        for value in (value for number in numbers for value in _readings(number)):
            used[value] = max(end, used.get(value, 0))
    known, wholes, steps, done = sorted(_CONSTANTS), [], {}, set()
    for end, _, said, numbers, result, true in [(0, 0, "", given, "", True), *sorted([*equations, *told])]:
        strange = [number for number in numbers if end and not _is_known(number, known, wholes if said else ())]
        if not said:
            steps |= {f"{number} from nowhere": False for number in strange}
        elif strange or not true:
            steps[f"{said} ({strange[0]} from nowhere)" if strange else said] = False
        elif (work := _work(numbers, result)) and any(used.get(value, 0) > end for value in _readings(result)):
            steps |= {} if work in done else {said: True}
            done.add(work)
        for value in [value for number in [*numbers, *[result] * bool(said)] for value in _readings(number)]:
            bisect.insort(known, value)  # a fault counts once, not again where it is carried on
            wholes += [value] * (len(wholes) < _WHOLES)
    return steps


def _work(numbers: list[str], result: str) -> frozenset[float]:
    """What an equation computes from what, however it is written; empty where it finds nothing (0 + 5, 5 + 7 - 7)."""
    values = [value for number in numbers if (value := _readings(number)[0]) not in (0, 1)]
    found = _readings(result)[0]
    return frozenset() if len(values) < 2 or found in (0, 1, *values) else frozenset([*values, -1 - found])


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


def _is_true(left: str, right: str, about: bool) -> bool:
    """Whether `left` equals `right` to half a unit of its last digit; `about`: final zeros of an integer are rounded.

    Raises one of `_NO_ARITHMETIC` where nothing can be computed.
    """
    digits, _, exponent = re.sub(r"[^\d.e\-]", "", right.replace("−", "-")).partition("e")
    arithmetic = re.sub(r"[$¥€,\s]|(?<![\d.])0+(?=\d)", "", left).translate(str.maketrans("×÷x−", "*/*-"))
    arithmetic = re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", arithmetic).replace("^", "**")
    zeros = len(digits) - len(digits.rstrip("0")) if about and "." not in digits else 0
    scale = 10.0 ** int(exponent or 0)
    stated, unit = float(digits) * scale, 10.0 ** (zeros - len(digits.partition(".")[2])) * scale
    computed = _compute(ast.parse(arithmetic, mode="eval").body)
    for value in [computed, computed * 100] if "%" in right else [computed]:  # a ratio may be stated as a percentage
        off = abs(value - stated)
        if off <= 0.5001 * unit + 1e-9 * abs(value) and not (zeros and off > 0.01 * abs(value)):
            return True
    return False


def _compute(node: ast.expr) -> float:
    """Value of an expression of numbers. Raises `ValueError` for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) is ast.USub:
        return -_compute(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return float(_OPERATORS[type(node.op)](_compute(node.left), _compute(node.right)))
    raise ValueError(f"not arithmetic: {ast.dump(node)}")
