"""The families of synthetic problems. Their texts are in YAML; this module draws their numbers.

A draw returns the values for the braces in its texts. `turn` counts a family's problems: verdicts and labels follow it
in turn, so that no answer is commoner. Order and number of the draws make the problem of a seed: whoever changes a draw
changes every later one. `CODE_FAMILIES` are functions to write, too hard for the demo's model. Only the question states
a convention (how often interest is compounded). `calls` are the arguments of the unit tests and stand in no prompt.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from finr1.paths import data_beside
from finr1.records import AnswerKind, Capability, Split

WORDS = data_beside(__file__, "words.yaml")
Draw = Callable[[Random, Split, int], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """One family of problems: texts with braces, and the draw that fills them."""

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
    train_every: int = 1  # 2: the family takes part in every second round of the training split

    @property
    def language(self) -> str:
        return "en" if self.questions["train"][0].isascii() else "zh"


def product(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    """A two-digit number times a digit, and not a round one: hard to multiply at once, easy by tens and units.

    The products are added in two steps: in one, most slips of the trained model were sums such as 160 + 64 = 164.
    """
    tens, units, factor = rng.randrange(10, 100, 10), rng.randint(1, 9), rng.randint(3, 9)
    number, reached = tens + units, tens * factor
    parts = [f"{tens} * {factor} = {reached}", f"{units} * {factor} = {units * factor}"]
    for more in filter(None, (units * factor // 10 * 10, units * factor % 10)):
        parts.append(f"{reached} + {more} = {reached + more}")
        reached += more
    drawn = {"number": number, "factor": factor, "hundreds": number * 100}
    return drawn | {"product": number * factor, "parts": parts}


def product_and_sum(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    """A product, a round number to add, and three names for the variables."""
    drawn, more = product(rng, split, turn), rng.randint(2, 9) * 10
    names = dict(zip(("first", "second", "third"), rng.sample(WORDS["variables"][split], 3), strict=True))
    return drawn | names | {"more": more, "total": drawn["product"] + more}


def table(rng: Random, split: Split, turn: int) -> dict[str, Any]:
    """Units and prices of two months. The question asks for the first month."""
    drawn, other = product(rng, split, turn), product(rng, split, turn)
    cells = {"units": [drawn["number"], other["number"]], "prices": [drawn["factor"], other["factor"]]}
    months = rng.sample(WORDS["months"][split], 2)
    return drawn | cells | {"months": months, "name": rng.choice(WORDS["companies"][split])}


def clauses(rng: Random, split: Split, turn: int, kind: str) -> dict[str, Any]:
    """Four clauses of a rule. In every second problem one or two are broken, in the others all are kept."""
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
    """An event at a company, with a number that tells it from the same event elsewhere."""
    verdict, told = list(WORDS[kind].items())[turn % 3]
    name, done = rng.choice(WORDS["companies"][split]), rng.choice(told[split])
    return {"name": name, "event": done, "item": rng.randint(1, 9999), "verdict": verdict, "why": told["why"]}


def unit_tests(function: str, solution: str, calls: list[list]) -> str:
    """The gold for `sandbox.read_tests`: the arguments of each test, and the result that our own `solution` returns."""
    space: dict = {}
    exec(solution, space)
    tests = [{"call": call, "returns": space[function](*call)} for call in calls]
    return json.dumps({"function": function, "tests": tests})


def _returns(rng: Random, count: int, shortest: int, longest: int) -> list[list]:
    lengths = range(shortest, longest + 1)
    return [[[rng.randrange(-90, 110) / 1000 for _ in range(rng.choice(lengths))]] for _ in range(count)]


def npv(rng: Random, *_) -> dict[str, Any]:
    flows = [[rng.randrange(-200, 900) for _ in range(rng.randrange(1, 7))] for _ in range(5)]
    return {"cost": rng.randrange(50, 2000), "calls": [[rng.randrange(1, 200) / 1000, paid] for paid in flows]}


def loan_payment(rng: Random, *_) -> dict[str, Any]:
    rates = [0, *(rng.randrange(5, 150) / 1000 for _ in range(4))]
    calls = [[rng.randrange(1000, 90000), rate, rng.randrange(6, 361)] for rate in rates]
    return {"fee": rng.randrange(1, 300), "calls": calls}


def moving_average_zh(rng: Random, *_) -> dict[str, Any]:
    window, lengths = rng.randrange(2, 8), [rng.randrange(12, 20) for _ in range(4)]
    calls = [[[rng.randrange(8000, 12000) / 100 for _ in range(length)]] for length in lengths]
    return {"window": window, "limit": rng.randrange(1, 60) / 10, "calls": [*calls, [[100.5]]]}


DRAWS: dict[str, Draw] = {draw.__name__: draw for draw in (product, product_and_sum, table, position, ratio, npv,
                                                           loan_payment, moving_average_zh)}  # fmt: skip
DRAWS |= {
    "sharpe": lambda rng, *_: {
        "riskless": rng.randrange(1, 60) / 1000, "periods": rng.choice([4, 12, 52, 252]),
        "calls": _returns(rng, 5, 4, 12)},
    "drawdown": lambda rng, *_: {
        "start": rng.randrange(20, 900), "calls": [*_returns(rng, 4, 3, 11), [[0.01, 0.02]]]},
    "compound": lambda rng, *_: {
        "calls": [[rng.randrange(500, 9000), rng.randrange(5, 120) / 1000, rng.randrange(1, 25)] for _ in range(5)],
        "times": rng.choice([2, 4, 12]), "fee": rng.randrange(200), "tax": rng.randrange(1, 40)},
    "bond_price": lambda rng, *_: {
        "calls": [[rng.randrange(90) / 1000, rng.randrange(5, 110) / 1000, rng.randrange(1, 20)] for _ in range(5)],
        "face": rng.randrange(100, 6000, 100), "times": rng.choice([1, 2, 4])},
}  # fmt: skip
DRAWS |= {kind: partial(clauses, kind=kind) for kind in ("clauses", "clauses_zh")}
DRAWS |= {kind: partial(event, kind=kind) for kind in ("incidents", "news")}
FAMILIES, CODE_FAMILIES = (
    {name: Family(**texts | {"draw": DRAWS[texts["draw"]]}) for name, texts in data_beside(__file__, file).items()}
    for file in ("families.yaml", "code_problems.yaml")
)
