"""The numbers of `evaluation.statistics` against textbooks, other libraries and simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from finr1.evaluation.statistics import (
    clustered_interval,
    decompose,
    decomposition_intervals,
    mcnemar,
    paired_bootstrap,
    wilson_interval,
)

# ---- intervals ------------------------------------------------------------------------------------------------------

NEWCOMBE = [  # Newcombe 1998, Statistics in Medicine 17:857, table I, score method without correction
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("k", "n", "low", "high"), [*NEWCOMBE, (8, 10, 0.4902, 0.9433)])
def test_wilson_agrees_with_the_textbook(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (8, 10), (0, 300), (300, 300), (150, 300)])
def test_wilson_agrees_with_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_one_answer_an_item_gives_wilsons_interval():
    scores = [1] * 30 + [0] * 70
    assert clustered_interval(scores, 100) == pytest.approx(wilson_interval(30, 100))


def test_answers_that_never_differ_within_an_item_are_worth_one_each():
    scores = [1] * 30 + [0] * 70  # 4 answers each, always alike
    assert clustered_interval(scores, 400) == pytest.approx(wilson_interval(30, 100))


def test_equal_items_do_not_collapse_the_interval():
    assert clustered_interval([0.5] * 50, 200) == pytest.approx(wilson_interval(25, 50))
    assert clustered_interval([0.0] * 50, 200)[1] > 0.05


def coverage(interval, truth: float, draws: int, rng) -> float:
    """Share of simulated benchmarks (60 items of very different difficulty x 4 answers) whose interval has `truth`."""
    hits = 0
    for _ in range(draws):
        items = rng.binomial(4, rng.beta(0.6, 1.4, size=60)) / 4  # mean 0.3
        low, high = interval(items)
        hits += low <= truth <= high
    return hits / draws


def test_clustered_interval_covers_where_pooled_answers_do_not():
    clustered = coverage(lambda items: clustered_interval(items, 240), 0.3, 400, np.random.default_rng(0))
    pooled = coverage(lambda items: wilson_interval(items.sum() * 4, 240), 0.3, 400, np.random.default_rng(0))
    assert 0.92 <= clustered <= 0.98
    assert pooled < 0.88  # what ignoring the clusters would cost


# ---- paired differences ---------------------------------------------------------------------------------------------


def test_paired_bootstrap_is_a_function_of_its_seed():
    rng = np.random.default_rng(1)
    a, b = rng.random(80), rng.random(80)
    first = paired_bootstrap(a, b, seed=7)
    assert first == paired_bootstrap(a, b, seed=7)
    assert first != paired_bootstrap(a, b, seed=8)
    assert first.difference == pytest.approx(b.mean() - a.mean())
    assert first.n == 80


def test_paired_bootstrap_is_close_to_the_normal_interval():
    change = np.array([1] * 40 + [-1] * 10 + [0] * 150)
    result = paired_bootstrap(np.zeros(200), change, seed=0)
    half = 1.96 * change.std() / 200**0.5
    assert (result.low, result.high) == pytest.approx((0.15 - half, 0.15 + half), abs=0.01)
    assert not result.inside_noise


def test_paired_bootstrap_covers_the_truth():
    rng, hits = np.random.default_rng(2), 0
    for draw in range(150):
        skill = rng.random(60)
        a, b = rng.binomial(1, 0.3 * skill), rng.binomial(1, 0.3 * skill + 0.2)
        result = paired_bootstrap(a, b, seed=draw)
        hits += result.low <= 0.2 <= result.high
    assert 0.88 <= hits / 150 <= 0.99


def test_two_equal_models_are_inside_the_noise():
    assert paired_bootstrap([0, 1, 1, 0], [0, 1, 1, 0], seed=0).inside_noise


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (10, 2, 2 * 79 / 4096),  # 2 * P(X <= 2), X ~ Binomial(12, 1/2)
        (5, 5, 1.0),  # as many gained as lost
        (0, 0, 1.0),  # nothing changed
        (6, 0, 2 / 64),
    ],
)
def test_mcnemar_is_the_exact_binomial_test(gained, lost, p):
    before, after = [0] * gained + [1] * lost + [1, 0], [1] * gained + [0] * lost + [1, 0]
    assert mcnemar(before, after) == (gained, lost, pytest.approx(p))


# ---- format against answers -----------------------------------------------------------------------------------------


def shares(f: float, q: float | None, r: float | None) -> np.ndarray:
    """In the format, in it and right, right: of a model with accuracy q in the format and r outside it."""
    return np.array([f, f * (q or 0), f * (q or 0) + (1 - f) * (r or 0)])


def test_the_parts_sum_to_the_difference_and_swap_their_sign():
    rng = np.random.default_rng(3)
    for _ in range(200):
        base, new = shares(*rng.random(3)), shares(*rng.random(3))
        assert decompose(base, new).sum() == pytest.approx(new[2] - base[2], abs=1e-12)
        assert decompose(new, base) == pytest.approx(-decompose(base, new), abs=1e-12)


def test_the_parts_are_shapley_values():
    base, new = (0.6, 0.2, 0.1), (0.9, 0.5, 0.3)

    def value(changed: list[int]) -> float:
        return shares(*(new[i] if i in changed else base[i] for i in range(3)))[2]

    orders = list(itertools.permutations(range(3)))
    steps = [[value(o[: o.index(i) + 1]) - value(o[: o.index(i)]) for o in orders] for i in range(3)]
    assert decompose(shares(*base), shares(*new)) == pytest.approx(np.mean(steps, axis=1))


@pytest.mark.parametrize(
    ("base", "new", "format_part"),
    [
        ((0.5, 0.4, 0.0), (1.0, 0.4, None), 0.2),  # the same skill, more obedience: all of it is format
        ((1.0, 0.2, None), (1.0, 0.5, None), 0.0),  # the format was there before: none of it is
        ((0.0, None, 0.0), (1.0, 0.4, None), 0.4),  # cannot be told apart: counts as format
        ((0.0, None, 0.1), (0.0, None, 0.3), 0.0),  # the format never came
    ],
)
def test_the_format_part_of_clear_cases(base, new, format_part):
    parts = decompose(shares(*base), shares(*new))
    assert parts[0] == pytest.approx(format_part)
    assert parts.sum() == pytest.approx(shares(*new)[2] - shares(*base)[2])


def test_intervals_of_the_parts_hold_the_parts_and_repeat():
    rng = np.random.default_rng(4)

    def model(f, q, r, items=120):
        formatted = rng.random(items) < f
        right = rng.random(items) < np.where(formatted, q, r)
        return np.stack([formatted, formatted & right, right], axis=1).astype(float)

    base, new = model(0.6, 0.2, 0.05), model(1.0, 0.5, 0.0)
    intervals = decomposition_intervals(base, new, seed=0)
    for part, (low, high) in zip(decompose(base.mean(axis=0), new.mean(axis=0)), intervals, strict=True):
        assert low <= part <= high
    assert intervals == decomposition_intervals(base, new, seed=0)
