"""The families of synthetic problems: their texts stand in YAML, here is how their numbers are drawn.

A draw gives what stands in the braces of its families' texts. `turn` counts a family's problems: verdicts and labels
are taken in turn by it, so that no answer is commoner than another. The order and the number of a family's draws make
the problem of a seed: a changed draw changes every later problem of that seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from finr1.records import AnswerKind, Capability, Split


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf8"))


WORDS = _read("words.yaml")
Draw = Callable[[Random, Split, int], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """One template family: texts with braces, and the draw that fills them."""

    capability: Capability
    draw: Draw
    questions: Mapping[Split, Sequence[str]]
    gold: str
    at_once: Sequence[str]  # the worked solution, a sentence each
    by_parts: Sequence[str] = ()  # the same in smaller steps, where there is a second way
    answer_kind: AnswerKind = "number"
    labels: Sequence[str] = ()
    context: str = ""
    earlier: Mapping[Split, str] | None = None  # the question of the turn before
    earlier_answer: str = ""
    ending: str = ""  # of every question
    train_every: int = 1  # it takes part in every so-maniest round of the training split

    @property
    def language(self) -> str:
        return "en" if self.questions["train"][0].isascii() else "zh"


def load_families(name: str, draws: Mapping[str, Draw]) -> dict[str, Family]:
    """The families of a YAML file of this folder; `draw` names one of `draws` there."""
    return {family: Family(**texts | {"draw": draws[texts["draw"]]}) for family, texts in _read(name).items()}


def product(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    """A two-digit number that is not round, times one digit: hard at once, easy by tens and units."""
    tens, units, factor = rng.randrange(10, 100, 10), rng.randint(1, 9), rng.randint(3, 9)
    number = tens + units
    parts = [f"{tens} * {factor} = {tens * factor}", f"{units} * {factor} = {units * factor}"]
    parts.append(f"{tens * factor} + {units * factor} = {number * factor}")
    drawn = {"number": number, "factor": factor, "hundreds": number * 100}
    return drawn | {"product": number * factor, "parts": parts}


def product_and_sum(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    """A product and a round number on top; three names for the variables."""
    drawn, more = product(rng, split, turn), rng.randint(2, 9) * 10
    names = dict(zip(("first", "second", "third"), rng.sample(WORDS["variables"][split], 3), strict=True))
    return drawn | names | {"more": more, "total": drawn["product"] + more}


def table(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    """Units and prices of two months; the first is asked for."""
    drawn, other = product(rng, split, turn), product(rng, split, turn)
    cells = {"units": [drawn["number"], other["number"]], "prices": [drawn["factor"], other["factor"]]}
    months = rng.sample(WORDS["months"][split], 2)
    return drawn | cells | {"months": months, "name": rng.choice(WORDS["companies"][split])}


def clauses(rng: Random, split: Split, turn: int, kind: str) -> dict[str, Any]:
    """Four clauses of a rule: every second time one or two are broken, else all are kept."""
    words, names = WORDS[kind], rng.sample(WORDS[kind][split], 4)
    broken = rng.sample(range(4), rng.choice([1, 1, 2]) if turn % 2 else 0)
    states = [place in broken for place in range(4)]
    facts, parts = (
        [words[text][state].format(name) for name, state in zip(names, states, strict=True)]
        for text in ("facts", "parts")
    )
    drawn = {"amount": rng.randint(12, 99), "facts": rng.choice(words["between"]).join(facts), "parts": parts}
    return drawn | {"rule": words["rule"].format(*names), "verdict": words["verdicts"][any(states)]}


def position(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    limit, held = sorted(rng.sample(range(4, 91), 2), reverse=turn % 2 == 0)
    said = {"verdict": "no", "is": "is"} if held > limit else {"verdict": "yes", "is": "is not"}
    return {"limit": limit, "held": held} | said


def ratio(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    low, high, verdict, why = [
        (50, 300, "low", "below 30%"), (300, 600, "medium", "from 30% to 60%"), (600, 960, "high", "at least 60%"),
    ][turn % 3]  # fmt: skip
    return {"ratio": rng.randrange(low, high) / 10, "verdict": verdict, "why": why}


def event(rng: Random, split: Split, turn: int, kind: str) -> dict[str, Any]:
    """What a company did, with a number that sets it apart from the same event elsewhere."""
    verdict, told = list(WORDS[kind].items())[turn % 3]
    name, done = rng.choice(WORDS["companies"][split]), rng.choice(told[split])
    return {"name": name, "event": done, "item": rng.randint(1, 9999), "verdict": verdict, "why": told["why"]}


DRAWS = {draw.__name__: draw for draw in (product, product_and_sum, table, position, ratio)}
DRAWS |= {kind: partial(clauses, kind=kind) for kind in ("clauses", "clauses_zh")}
DRAWS |= {kind: partial(event, kind=kind) for kind in ("incidents", "news")}
FAMILIES = load_families("families.yaml", DRAWS)
