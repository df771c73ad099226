"""The rules judge: Fin-R1's seven criteria of good reasoning, each decided by a rule that a reader can check.

The paper has Qwen2.5-72B-Instruct give one point for each criterion and keeps only 7 of 7. Rules see less than a
model (they do not follow an argument), but they recompute every equation, cost nothing and cannot be talked to.
"""

import re
from collections import Counter
from typing import NamedTuple

from finr1 import grading
from finr1.judge.steps import checked_steps, split_steps
from finr1.records import Trace

CRITERIA = {
    "consistency": "every equation in the reasoning is true",
    "gold_terms": "the gold answer's own terms occur in the reasoning",
    "steps": "at least three steps",
    "coherence": "what the reasoning arrives at is the gold answer",
    "diversity": "no step is said twice",
    "relevance": "every step has to do with the question or with finance",
    "instructions": "reasoning, then an answer where it was asked for; not cut off",
}
FINANCE_TERMS = frozenset(
    "asset assets average bank bond bonds bullish bearish neutral capital cash change cost costs credit debt deposit "
    "dividend earnings equity expense expenses fee finance financial fund gain growth income interest investment "
    "investor liability liabilities loan loss margin market million percent percentage portfolio price principal "
    "profit ratio rate return revenue risk sale sales share shares stock tax total value year years "
    "company limit rule environmental social governance nature people emissions "
    "股票 基金 利率 利息 利润 收入 成本 风险 资产 负债 上限 合规 公司 市场 投资 贷款 银行".split()
)
DECISIONS = ("non-compliant", "compliant", "不合规", "合规", "yes", "no", "true", "false")
STOP_WORDS = frozenset("the and for that this with from was are not has have its his her they you what which".split())


class Scores(NamedTuple):
    """One point for each of `CRITERIA` that a trace meets."""

    reasons: dict[str, str]  # of the criteria that it does not meet: what cost the point

    @property
    def points(self) -> dict[str, bool]:
        return {name: name not in self.reasons for name in CRITERIA}

    @property
    def total(self) -> int:
        return len(CRITERIA) - len(self.reasons)


def check_answer(trace: Trace) -> bool | None:
    """Round one: does the trace's answer match a gold answer? None = rules cannot tell, ask a model."""
    return _is_gold(trace.answer, trace)


def score_reasoning(trace: Trace) -> Scores:
    """Round two: one point for each of `CRITERIA`, with the gold answer in sight, as in the paper."""
    sentences = split_steps(trace.reasoning)
    wrong = [step for step, true in checked_steps(trace.reasoning).items() if not true]
    reasons = {
        "consistency": f"false: {wrong[0]}" if wrong else "",
        "gold_terms": _missing_gold(trace),
        "steps": "" if len(sentences) >= 3 else f"{len(sentences)} steps",
        "coherence": _other_conclusion(trace, sentences),
        "diversity": _repeated(sentences),
        "relevance": _unrelated(trace, sentences),
        "instructions": _broken_form(trace),
    }
    return Scores({name: why for name, why in reasons.items() if why})


def _terms(text: str) -> set[str]:
    """Words, numbers and pairs of Chinese characters, in lower case."""
    low = text.lower().replace(",", "")
    words = {word for word in re.findall(r"[a-z][a-z\-]{2,}", low) if word not in STOP_WORDS}
    numbers, pairs = re.findall(r"\d+(?:\.\d+)?", low), re.findall(r"(?=([\u4e00-\u9fff]{2}))", low)
    return words.union(numbers, pairs)


def _is_gold(text: str | None, trace: Trace) -> bool | None:
    return grading.grade(text, **trace.problem.graded_against)


def _numbers(text: str) -> list[str]:
    """Numbers as they are written, brackets for a minus included."""
    return [n.strip() for n in re.findall(r"\(\s?\$?\s?\d[\d,.]*\d?%?\s?\)|-?\$?\d[\d,]*(?:\.\d+)?\s?%?", text)]


def _missing_gold(trace: Trace) -> str:
    if trace.problem.answer_kind in ("number", "percent"):
        occurs = any(_is_gold(number, trace) for number in reversed(_numbers(trace.reasoning)[-500:]))
    else:
        golds, spoken = [trace.problem.gold, *trace.problem.alternatives], _terms(trace.reasoning)
        occurs = any(not _terms(gold) or _terms(gold) & spoken for gold in golds)
    return "" if occurs else f"{trace.problem.gold!r} does not occur"


def _other_conclusion(trace: Trace, sentences: list[str]) -> str:
    """The last step that states an answer must state the gold one."""
    for sentence in reversed(sentences[-2:]):
        if stated := _stated_answers(sentence, trace):
            agrees = any(_is_gold(answer, trace) is not False for answer in stated)
            return "" if agrees else f"arrives at {stated[-1]!r}"
    return "no conclusion is stated"


def _stated_answers(sentence: str, trace: Trace) -> list[str]:
    """What `sentence` may be saying as the answer; empty when it states none."""
    kind, choices, labels = trace.problem.answer_kind, trace.problem.choices or {}, trace.problem.labels or {}
    if kind in ("number", "percent"):
        numbers = _numbers(sentence)
        amounts = [number for number in numbers if not re.fullmatch(r"(19|20)\d\d", number)]
        # The sentence as a whole (the grader drops years and reads words of scale), the last amount, the last number.
        return [sentence, *amounts[-1:], *numbers[-1:]] if numbers else []
    if kind in ("text", "code"):
        return [sentence]
    names = [*choices.values(), *choices] if kind == "choice" else [*labels.values(), *DECISIONS]
    named = [
        (match.end(), len(name), name)
        for name in names
        for match in re.finditer(rf"(?<![a-z\-]){re.escape(name.lower())}(?![a-z])", sentence.lower())
    ]
    # The last one named; where one name ends another (不合规, 合规), the longer of the two.
    return [max(named)[2]] if named else []


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
        states_answer = problem.answer_kind not in ("text", "code") and _stated_answers(sentence, trace)
        if terms and not terms & known and not states_answer:
            strange.append(sentence)
        else:
            known |= terms
    # One stray line in a long text is how people think; in a short one it is off topic.
    return f"off topic: {strange[0][:40]}" if len(strange) > 0.2 * len(sentences) else ""


def _broken_form(trace: Trace) -> str:
    """Answer tags must be used well where they are used; a teacher that was asked for a box alone needs none."""
    if trace.finish_reason == "length":
        return "cut off"
    tagged = "<answer>" in trace.completion or "</answer>" in trace.completion
    if tagged and not grading.has_format(trace.completion):
        return "not one think block and one answer block"
    if not trace.reasoning:
        return "no reasoning apart from the answer"
    return "" if trace.answer else "no answer"
