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
from collections.abc import Collection, Mapping, Sequence

from finr1.records import Problem, Split
from finr1.synthetic.code_problems import CODE_FAMILIES
from finr1.synthetic.families import COMPANIES, FAMILIES, Family

__all__ = ["CODE_FAMILIES", "COMPANIES", "FAMILIES", "generate_code_problems", "generate_problems", "numbers_of"]


def numbers_of(problem: Problem) -> tuple[str, ...]:
    """Every number a reader of `problem` sees, sorted: with the family's name, the identity of the instance."""
    text = " ".join([problem.context, *(turn.question for turn in problem.history), problem.question])
    return tuple(sorted(re.findall(r"\d+", text)))


def _split_of(family: str, numbers: tuple[str, ...]) -> Split:
    """The one split in which an instance of `family` with these numbers may stand: 60 % train, 20 % dev, 20 % test."""
    digest = hashlib.sha256(f"{family}:{','.join(numbers)}".encode()).digest()
    return "train" if digest[0] < 154 else "dev" if digest[0] < 205 else "test"


def generate_problems(
    count: int, split: Split, seed: int, max_level: int = 2, families: Collection[str] = (), partial: bool = False
) -> list[Problem]:
    """`count` distinct problems of `split`, families in turn, each with its levels up to `max_level` in turn.

    `families`: only these. The same arguments give the same problems, and a smaller `count` the first of them.
    A family that has no further instance raises `ValueError`; with `partial` it is left out, and the list may end up
    shorter than `count`.
    """
    levels = {name: [n for n in family.levels if n <= max_level] for name, family in FAMILIES.items()}
    names = [name for name in FAMILIES if levels[name] and (not families or name in families)]
    kinds = [(name, levels[name][turn % len(levels[name])]) for turn in range(max_level) for name in names]
    return _in_turn(FAMILIES, kinds, count, split, f"{seed}:{split}", "synthetic", partial)


def generate_code_problems(count: int, split: Split, seed: int, partial: bool = False) -> list[Problem]:
    """`count` distinct problems of `split`, families in turn; gold: the unit tests as `sandbox.read_tests` reads them.

    Instances and wordings are kept apart by split as in `generate_problems`, and `partial` is what it is there.
    """
    kinds = [(name, 2) for name in CODE_FAMILIES]
    return _in_turn(CODE_FAMILIES, kinds, count, split, f"code:{seed}:{split}", "synthetic/code", partial)


def _in_turn(
    families: Mapping[str, Family],
    kinds: Sequence[tuple[str, int]],  # (family, level)
    count: int,
    split: Split,
    seed: str,
    prefix: str,  # of the ids
    partial: bool,
) -> list[Problem]:
    """Up to `count` distinct problems of `split`, drawn from `kinds` in turn."""
    rng = random.Random(seed)
    problems: list[Problem] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = deque(kinds)
    while waiting and len(problems) < count:
        name, level = waiting[0]
        for _ in range(2000):
            problem = _problem(name, families[name], level, split, rng, f"{prefix}/{split}/{len(problems):05d}")
            identity = (name, numbers_of(problem))
            if identity not in seen and _split_of(*identity) == split:
                seen.add(identity)
                problems.append(problem)
                waiting.rotate(-1)
                break
        else:
            if not partial:
                raise ValueError(
                    f"family {name!r} has no further instance for split {split!r} after {len(problems)} problems"
                )
            waiting = deque(kind for kind in waiting if kind != waiting[0])
    return problems


def _problem(name: str, family: Family, level: int, split: Split, rng: random.Random, identifier: str) -> Problem:
    draft = family.draw(rng, split, level)
    wording = {"train": rng.randrange(2), "dev": 2, "test": 3}[split]
    return Problem(
        id=identifier,
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
        group=identifier,
        family=name,
        level=level,
        reference=("" if family.language == "zh" else " ").join(draft.steps),
    )
