"""Seeded financial problems with exact answers: the suite's embedded default. SYNTHETIC, not real records.

They exist so that the whole recipe runs offline in minutes and so that every planted fault is known. A number measured
on them says that the machinery works and what it does to a small model; it says nothing about real financial skill.

Twenty families cover Fin-R1's capabilities: financial code, calculation (English and Chinese), compliance, risk, ESG,
multi-turn questions over a small table, and sentiment. Sixteen of them have level 1, one step with small numbers; at
level 2 come larger numbers, more steps and four more families. The splits never share

* an instance: the numbers of a problem decide its split (by hash), so a number tuple of a family is in one split only;
* a wording: train uses the first two wordings of a family, dev the third, test the fourth;
* a name or an event: companies, news, incidents, variables and table rows have lists of their own for each split.

What they do share is the form: the shape of a table or a program, the rule of a grade. Sentiment and ESG rest on some ten
events a split, so their items are less independent than an interval assumes. Those two and the grade have level 1 only.

`generate_code_problems` makes problems of another kind, apart from those: functions to write, graded by unit tests.

Each problem carries `reference`: a worked solution of three or more short steps whose equations are all true.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from finr1.records import AnswerKind, Capability, Problem, Split
from finr1.synthetic import calculations, decisions
from finr1.synthetic.code_problems import CODE_FAMILIES, generate_code_problems
from finr1.synthetic.wording import COMPANIES, Draft

__all__ = [
    "CODE_FAMILIES",
    "COMPANIES",
    "FAMILIES",
    "Draft",
    "Family",
    "generate_code_problems",
    "generate_problems",
    "numbers_of",
    "split_of",
]


@dataclass(frozen=True)
class Family:
    """One template family; `draw(rng, split, level)` makes a `Draft` at one of its `levels`."""

    draw: Callable[[random.Random, Split, int], Draft]
    capability: Capability
    answer_kind: AnswerKind
    language: str = "en"
    levels: tuple[int, ...] = (1, 2)


FAMILIES: dict[str, Family] = {
    "percent_of": Family(calculations.percent_of, "calculation", "number"),
    "profit": Family(calculations.profit, "calculation", "number"),
    "simple_interest": Family(calculations.simple_interest, "calculation", "number", levels=(2,)),
    "percent_change": Family(calculations.percent_change, "calculation", "percent", levels=(2,)),
    "currency": Family(calculations.currency, "calculation", "number"),
    "portfolio": Family(calculations.portfolio, "calculation", "number", levels=(2,)),
    "interest_zh": Family(calculations.interest_zh, "calculation", "number", "zh"),
    "profit_zh": Family(calculations.profit_zh, "calculation", "number", "zh"),
    "code_total": Family(calculations.code_total, "code", "number"),
    "code_branch": Family(decisions.code_branch, "code", "label"),
    "gift_rule": Family(decisions.gift_rule, "compliance", "boolean"),
    "position_rule": Family(decisions.position_rule, "compliance", "boolean"),
    "disclosure_zh": Family(decisions.disclosure_zh, "compliance", "boolean", "zh"),
    "risk_ratio": Family(decisions.risk_ratio, "risk", "label", levels=(1,)),
    "default_loss": Family(calculations.default_loss, "risk", "number"),
    "esg_topic": Family(decisions.esg_topic, "esg", "label", levels=(1,)),
    "emission_intensity": Family(calculations.emission_intensity, "esg", "number", levels=(2,)),
    "sentiment": Family(decisions.sentiment, "sentiment", "label", levels=(1,)),
    "table_change": Family(calculations.table_change, "multi_turn", "number"),
    "table_sum": Family(calculations.table_sum, "multi_turn", "number"),
}


def numbers_of(problem: Problem) -> tuple[str, ...]:
    """Every number a reader of `problem` sees, sorted: with the family's name, the identity of the instance."""
    text = " ".join([problem.context, *(turn.question for turn in problem.history), problem.question])
    return tuple(sorted(re.findall(r"\d+", text)))


def split_of(family: str, numbers: tuple[str, ...]) -> Split:
    """The one split in which an instance of `family` with these numbers may stand: 60 % train, 20 % dev, 20 % test."""
    digest = hashlib.sha256(f"{family}:{','.join(numbers)}".encode()).digest()
    return "train" if digest[0] < 154 else "dev" if digest[0] < 205 else "test"


def generate_problems(
    count: int, split: Split, seed: int, max_level: int = 2, families: Collection[str] = (), partial: bool = False
) -> list[Problem]:
    """`count` distinct problems of `split`, families in turn, each with its levels up to `max_level` in turn.

    `families`: of these alone. The same arguments give the same problems, and a smaller `count` the first of them.
    A family that has no further instance raises `ValueError`; with `partial` the others go on, and the list may end up
    shorter than `count`.
    """
    levels = {name: [n for n in family.levels if n <= max_level] for name, family in FAMILIES.items()}
    names = [name for name in FAMILIES if levels[name] and (not families or name in families)]
    rng = random.Random(f"{seed}:{split}")
    kinds = [(name, levels[name][turn % len(levels[name])]) for turn in range(max_level) for name in names]
    return in_turn(kinds, count, split, lambda kind, number: _problem(*kind, split, rng, number), partial)


def in_turn(
    kinds: Sequence[tuple], count: int, split: Split, draw: Callable[[tuple, int], Problem], partial: bool
) -> list[Problem]:
    """Up to `count` distinct problems of `split`, drawn from `kinds` in turn by `draw(kind, number)`.

    `partial`: what to do with a kind that has no further instance: leave it out, or raise `ValueError`.
    """
    problems: list[Problem] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = deque(kinds)
    while waiting and len(problems) < count:
        for _ in range(2000):
            problem = draw(waiting[0], len(problems))
            identity = (problem.family, numbers_of(problem))
            if identity not in seen and split_of(*identity) == split:
                seen.add(identity)
                problems.append(problem)
                waiting.rotate(-1)
                break
        else:
            if not partial:
                raise ValueError(
                    f"family {waiting[0][0]!r} has no further instance for split {split!r} after {len(problems)} problems"
                )
            waiting = deque(kind for kind in waiting if kind != waiting[0])
    return problems


def _problem(name: str, level: int, split: Split, rng: random.Random, number: int) -> Problem:
    family = FAMILIES[name]
    draft = family.draw(rng, split, level)
    wording = {"train": rng.randrange(2), "dev": 2, "test": 3}[split]
    space = "" if family.language == "zh" else " "
    return Problem(
        id=f"synthetic/{split}/{number:05d}",
        source="synthetic",
        module="synthetic",
        language=family.language,
        capability=family.capability,
        answer_kind=family.answer_kind,
        context=draft.context,
        history=draft.history,
        question=draft.wordings[wording],
        labels={label: label for label in draft.labels} or None,
        gold=draft.gold,
        split=split,
        group=f"synthetic/{split}/{number:05d}",
        family=name,
        level=level,
        reference=space.join(draft.steps),
    )
