"""Problems whose answer is a Python function, graded by unit tests in `finr1.sandbox`. SYNTHETIC, as all of this folder.

They stand apart from `FAMILIES`: a model of the demo's size can't write such code. A problem's convention (how often
interest is compounded, what is deducted) stands in its question only, so no formula learned by heart passes for all of
a family. A draw gives such constants and `calls`, the arguments of the tests, which stand in no prompt. `at_once` is a
solution that passes.
"""

import json
from random import Random
from typing import Any

from finr1.synthetic.families import load_families


def unit_tests(function: str, solution: str, calls: list[list]) -> str:
    """The gold that `sandbox.read_tests` reads: the arguments of each test with what our own `solution` returns."""
    space: dict = {}
    exec(solution, space)
    tests = [{"call": call, "returns": space[function](*call)} for call in calls]
    return json.dumps({"function": function, "tests": tests})


def _returns(rng: Random, count: int, shortest: int, longest: int) -> list[list]:
    lengths = range(shortest, longest + 1)
    return [[[rng.randrange(-90, 110) / 1000 for _ in range(rng.choice(lengths))]] for _ in range(count)]


def compound(rng: Random, *_) -> dict[str, Any]:
    calls = [[rng.randrange(500, 9000), rng.randrange(5, 120) / 1000, rng.randrange(1, 25)] for _ in range(5)]
    return {"times": rng.choice([2, 4, 12]), "fee": rng.randrange(200), "tax": rng.randrange(1, 40), "calls": calls}


def npv(rng: Random, *_) -> dict[str, Any]:
    flows = [[rng.randrange(-200, 900) for _ in range(rng.randrange(1, 7))] for _ in range(5)]
    return {"cost": rng.randrange(50, 2000), "calls": [[rng.randrange(1, 200) / 1000, paid] for paid in flows]}


def loan_payment(rng: Random, *_) -> dict[str, Any]:
    rates = [0, *(rng.randrange(5, 150) / 1000 for _ in range(4))]
    calls = [[rng.randrange(1000, 90000), rate, rng.randrange(6, 361)] for rate in rates]
    return {"fee": rng.randrange(1, 300), "calls": calls}


def sharpe(rng: Random, *_) -> dict[str, Any]:
    riskless, periods = rng.randrange(1, 60) / 1000, rng.choice([4, 12, 52, 252])
    return {"riskless": riskless, "periods": periods, "calls": _returns(rng, 5, 4, 12)}


def drawdown(rng: Random, *_) -> dict[str, Any]:
    return {"start": rng.randrange(20, 900), "calls": [*_returns(rng, 4, 3, 11), [[0.01, 0.02]]]}


def bond_price(rng: Random, *_) -> dict[str, Any]:
    calls = [[rng.randrange(90) / 1000, rng.randrange(5, 110) / 1000, rng.randrange(1, 20)] for _ in range(5)]
    return {"face": rng.randrange(100, 6000, 100), "times": rng.choice([1, 2, 4]), "calls": calls}


def moving_average_zh(rng: Random, *_) -> dict[str, Any]:
    window, lengths = rng.randrange(2, 8), [rng.randrange(12, 20) for _ in range(4)]
    calls = [[[rng.randrange(8000, 12000) / 100 for _ in range(length)]] for length in lengths]
    return {"window": window, "limit": rng.randrange(1, 60) / 10, "calls": [*calls, [[100.5]]]}


DRAWS = (compound, npv, loan_payment, sharpe, drawdown, bond_price, moving_average_zh)
CODE_FAMILIES = load_families("code_problems.yaml", {draw.__name__: draw for draw in DRAWS})
