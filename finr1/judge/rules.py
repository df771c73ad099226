"""The rules judge: Fin-R1's seven criteria of good reasoning, each decided by a rule that a reader can check.

The paper has Qwen2.5-72B-Instruct give one point for each criterion and keeps only 7 of 7. Rules see less than a
model (they do not follow an argument), but they recompute every equation, cost nothing and cannot be talked to.
"""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from dataclasses import dataclass

from finr1 import grading
from finr1.records import Trace

CRITERIA = {
    "consistency": "every equation in the reasoning is true",
    "gold_terms": "the gold answer's own terms occur in the reasoning",
    "steps": "at least three steps",
    "coherence": "what the reasoning arrives at is the gold answer",
    "diversity": "no step is said twice",
    "relevance": "every step has to do with the question or with finance",
    "instructions": "one think block, one answer block, not cut off",
}
FINANCE_TERMS = frozenset(
    "asset assets average bank bond bonds bullish bearish neutral capital cash change cost costs credit debt deposit "
    "dividend earnings equity expense expenses fee finance financial fund gain growth income interest investment "
    "investor liability liabilities loan loss margin market million percent percentage portfolio price principal "
    "profit ratio rate return revenue risk sale sales share shares stock tax total value year years "
    "company limit rule environmental social governance nature people emissions "
    "股票 基金 利率 利息 利润 收入 成本 风险 资产 负债 上限 合规 公司 市场 投资 贷款 银行".split()
)
STOP_WORDS = frozenset("the and for that this with from was are not has have its his her they you what which".split())
_NUMBER = r"[$¥€]?\s*-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?\s*%?"
_EQUATION = re.compile(rf"(?<![\d.)])({_NUMBER}(?:\s*[-+*/×÷x−]\s*\(?\s*{_NUMBER}\s*\)?)+)\s*=\s*({_NUMBER})")
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@dataclass(frozen=True)
class Scores:
    """Seven verdicts on one trace; `total` counts the points, `reasons` says what cost one."""

    points: dict[str, bool]  # one entry for each name in CRITERIA
    reasons: dict[str, str]

    @property
    def total(self) -> int:
        return sum(self.points.values())


def check_answer(trace: Trace) -> bool | None:
    """Round one: does the trace's answer match a gold answer? None = rules cannot tell, ask a model."""
    problem = trace.problem
    return grading.grade(
        trace.answer,
        problem.gold,
        problem.answer_kind,
        alternatives=problem.alternatives,
        choices=problem.choices,
        labels=problem.labels,
    )


def score_reasoning(trace: Trace) -> Scores:
    """Round two: one point for each of `CRITERIA`, with the gold answer in sight, as in the paper."""
    sentences = split_steps(trace.reasoning)
    reasons = {
        "consistency": _wrong_equation(trace.reasoning),
        "gold_terms": _missing_gold(trace),
        "steps": "" if len(sentences) >= 3 else f"{len(sentences)} steps",
        "coherence": _other_conclusion(trace, sentences),
        "diversity": _repeated(sentences),
        "relevance": _unrelated(trace, sentences),
        "instructions": _broken_form(trace),
    }
    return Scores({name: not why for name, why in reasons.items()}, {name: why for name, why in reasons.items() if why})


def split_steps(text: str) -> list[str]:
    """Sentences and lines of `text`, English and Chinese; a decimal point does not end one."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|[。！？；\n]+", text) if re.search(r"\w", part)]


def false_equations(text: str) -> list[str]:
    """The equations `a op b ... = c` of `text` that are not true at the precision in which c is written."""
    return [f"{m[1].strip()} = {m[2].strip()}" for m in _EQUATION.finditer(text) if not _holds(m[1], m[2])]


def _holds(left: str, right: str) -> bool:
    stated, unit = _value(right)
    try:
        computed = _evaluate(left)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return True  # not arithmetic after all; nothing to recompute
    # Half a unit in the last place written, and the same for a ratio that is stated as a percentage.
    candidates = [computed, computed * 100] if "%" in right else [computed]
    return any(abs(value - stated) <= 0.5001 * unit + 1e-9 * abs(value) for value in candidates)


def _value(text: str) -> tuple[float, float]:
    """A written number and the value of one unit in its last place; a percent sign is left aside."""
    digits = re.sub(r"[^\d.\-]", "", text)
    return float(digits), 10.0 ** -len(digits.partition(".")[2])


def _evaluate(expression: str) -> float:
    """Value of an arithmetic expression of numbers; `x%` is x/100. Raises `ValueError` for anything else."""
    text = re.sub(r"[$¥€,\s]", "", expression).translate(str.maketrans("×÷x−", "*/*-"))
    if len(text) > 200:
        raise ValueError("too long to be a step of arithmetic")
    return _compute(ast.parse(re.sub(r"(\d+(?:\.\d+)?)%", r"(\1/100)", text), mode="eval").body)


def _compute(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_compute(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_compute(node.left), _compute(node.right))
    raise ValueError(f"not arithmetic: {ast.dump(node)}")


def _wrong_equation(reasoning: str) -> str:
    wrong = false_equations(reasoning)
    return f"false: {wrong[0]}" if wrong else ""


def _terms(text: str) -> set[str]:
    """Words, numbers and pairs of Chinese characters, in lower case."""
    low = text.lower().replace(",", "")
    words = {w for w in re.findall(r"[a-z][a-z\-]+", low) if len(w) > 2 and w not in STOP_WORDS}
    chinese = re.findall(r"[\u4e00-\u9fff]+", low)
    return words | set(re.findall(r"\d+(?:\.\d+)?", low)) | {r[i : i + 2] for r in chinese for i in range(len(r) - 1)}


def _missing_gold(trace: Trace) -> str:
    golds = [trace.problem.gold, *trace.problem.alternatives]
    spoken = _terms(trace.reasoning)
    if any(not _terms(gold) or _terms(gold) & spoken for gold in golds):
        return ""
    return f"{trace.problem.gold!r} does not occur"


def _other_conclusion(trace: Trace, sentences: list[str]) -> str:
    """The last step that states an answer must state the gold one (numbers: the last number of the last steps)."""
    problem = trace.problem
    found = None
    for sentence in reversed(sentences[-2:]):
        found = _stated_answer(sentence, trace)
        if found is not None:
            break
    if found is None:
        return "no conclusion is stated"
    verdict = grading.grade(
        found, problem.gold, problem.answer_kind,
        alternatives=problem.alternatives, choices=problem.choices, labels=problem.labels,
    )  # fmt: skip
    return f"arrives at {found!r}" if verdict is False else ""


def _stated_answer(sentence: str, trace: Trace) -> str | None:
    kind = trace.problem.answer_kind
    if kind in ("number", "percent"):
        numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?\s*%?", sentence)
        return numbers[-1].strip().rstrip(",") if numbers else None
    names = [
        *(trace.problem.labels or {}).values(),
        "non-compliant",
        "compliant",
        "不合规",
        "合规",
        "yes",
        "no",
        "true",
        "false",
    ]
    if kind == "choice":
        names = [*(trace.problem.choices or {}).values(), *(trace.problem.choices or {})]
    low = sentence.lower()
    found = [
        (m.start(), -len(n), n)
        for n in names
        for m in re.finditer(rf"(?<![a-z\-]){re.escape(n.lower())}(?![a-z])", low)
    ]
    if not found:
        return sentence if kind in ("text", "code") else None
    # The last one named; where one name contains another (不合规, 合规), the longer of the two.
    end = max(start - size for start, size, _ in found)
    return min((size, name) for start, size, name in found if start - size == end)[1]


def _repeated(sentences: list[str]) -> str:
    counts = Counter(re.sub(r"\W+", "", sentence.lower()) for sentence in sentences)
    # A long derivation may well state a short line twice; a third time, or twice in a short text, is padding.
    allowed = 1 if len(sentences) <= 20 else 2
    again = [key for key, count in counts.items() if count > allowed and len(key) > 3]
    return f"said {counts[again[0]]} times: {again[0][:40]}" if again else ""


def _unrelated(trace: Trace, sentences: list[str]) -> str:
    problem = trace.problem
    asked = " ".join([problem.context, *(f"{t.question} {t.answer}" for t in problem.history), problem.question])
    known = _terms(f"{asked} {problem.gold} {' '.join((problem.choices or {}).values())}") | FINANCE_TERMS
    # A step may build on the one before it, so what was related so far counts as known.
    strange = []
    for sentence in sentences:
        terms = _terms(sentence)
        states_answer = trace.problem.answer_kind != "text" and _stated_answer(sentence, trace) is not None
        if terms and not terms & known and not states_answer:
            strange.append(sentence)
        else:
            known |= terms
    # One stray line in a long text is how people think; in a short one it is off topic.
    return f"off topic: {strange[0][:40]}" if len(strange) > 0.2 * len(sentences) else ""


def _broken_form(trace: Trace) -> str:
    if trace.finish_reason == "length":
        return "cut off"
    if not grading.has_format(trace.completion):
        return "not one think block and one answer block"
    return "" if trace.answer else "no answer"
