"""Seeded financial problems with exact answers: the suite's embedded default. SYNTHETIC, not real records.

They let the whole recipe run offline in minutes and plant every fault knowingly. A number measured on them says what
the machinery does to a small model, and nothing about real financial skill. `families` holds problems of all of Fin-R1's
capabilities, `code_problems` functions to write; sentiment and ESG rest on some ten events a split, so their items are
less independent than an interval assumes.
"""

import hashlib
import random
import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from finr1.records import Problem, Split, Turn
from finr1.synthetic.code_problems import CODE_FAMILIES, unit_tests
from finr1.synthetic.families import COMPANIES, FAMILIES, WORDS, Family

__all__ = ["CODE_FAMILIES", "COMPANIES", "FAMILIES", "generate_code_problems", "generate_problems", "numbers_of"]


def numbers_of(problem: Problem) -> tuple[str, ...]:
    """Every number a reader of `problem` sees, sorted: with the family's name, the identity of the instance."""
    text = " ".join([problem.context, *(turn.question for turn in problem.history), problem.question])
    return tuple(sorted(re.findall(r"\d+", text)))


def generate_problems(
    count: int, split: Split, seed: int, max_level: int = 2, families: Collection[str] = (), partial: bool = False
) -> list[Problem]:
    """`count` distinct problems of `split`, families in turn, each with its levels up to `max_level` in turn.

    Splits share no instance, no wording and no name. The same arguments give the same problems, and a smaller `count`
    the first of them. `families`: only these. A family without a further instance raises `ValueError`; with `partial`
    it is left out, and the list may be shorter than `count`.
    """
    levels = {name: [n for n in family.levels if n <= max_level] for name, family in FAMILIES.items()}
    names = [name for name in FAMILIES if levels[name] and (not families or name in families)]
    kinds = [(name, levels[name][turn % len(levels[name])]) for turn in range(max_level) for name in names]
    return _in_turn(FAMILIES, kinds, count, split, f"{seed}:{split}", "synthetic", partial)


def generate_code_problems(count: int, split: Split, seed: int, partial: bool = False) -> list[Problem]:
    """As `generate_problems`, functions to write; gold: the unit tests as `sandbox.read_tests` reads them."""
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
    """Up to `count` distinct problems of `split`, drawn from `kinds` in turn.

    A hash of an instance's family and numbers decides its split: 60 % train, 20 % dev, 20 % test.
    """
    rng = random.Random(seed)
    problems: list[Problem] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = deque(kinds)
    while waiting and len(problems) < count:
        name, level = waiting[0]
        for _ in range(2000):
            problem = _problem(name, families[name], level, split, rng, f"{prefix}/{split}/{len(problems):05d}")
            numbers = numbers_of(problem)
            place = hashlib.sha256(f"{name}:{','.join(numbers)}".encode()).digest()[0]
            if (name, numbers) not in seen and split == ("train" if place < 154 else "dev" if place < 205 else "test"):
                seen.add((name, numbers))
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
    """One instance of `family`: its numbers drawn and its sentences filled with them."""
    drawn: dict = {}
    for names, options in family.draws.items():
        while isinstance(options, dict):
            options = next(options[key] for key in (level, split, drawn.get("answer")) if key in options)
        if options:
            drawn.update(zip(names.split(), rng.sample(options, len(names.split())), strict=True))
    values = WORDS[split] | drawn | family.derive(**drawn)

    def fill(text: str) -> str:
        return text.format_map(values)

    context = family.context[level] if isinstance(family.context, dict) else family.context
    steps = [fill(step) for step in (family.steps[level] if isinstance(family.steps, dict) else family.steps)]
    gold = unit_tests(family.gold, steps[0], family.calls(rng, drawn)) if family.calls else fill(family.gold)
    return Problem(
        id=identifier,
        source="synthetic",
        module="synthetic",
        language=family.language,
        capability=family.capability,
        answer_kind=family.answer_kind,
        context=fill(context),
        history=[Turn(question=fill(family.earlier[0]), answer=fill(family.earlier[1]))] if family.earlier else [],
        question=fill(family.wordings[{"train": rng.randrange(2), "dev": 2, "test": 3}[split]]),
        labels={label: label for label in family.labels} or None,
        gold=gold,
        rel_tol=0.0,  # the numbers are made to come out even
        split=split,
        group=identifier,
        family=name,
        level=level,
        reference=("" if family.language == "zh" else " ").join(steps),
    )
