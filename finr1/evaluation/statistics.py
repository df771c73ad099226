"""How sure is a difference? Intervals and paired tests for accuracies that are measured on a few hundred items.

Everything works on *items*, the independent unit: several samples of one item first become that item's mean score.
The items are taken as drawn from one population (the same template families or the same benchmark); an interval says
nothing about another seed of the training, another prompt, or questions of another kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95  # the confidence level of every interval in the suite, unless a caller says otherwise
EMPTY = 1e-9  # a share below this is an empty cell that rounding did not make quite zero


class PairedDifference(NamedTuple):
    """Mean of `b - a` over the same items, with its interval."""

    difference: float
    low: float
    high: float
    n: int  # items

    @property
    def inside_noise(self) -> bool:
        """True when the interval contains zero: the data do not tell which of the two is better."""
        return self.low <= 0.0 <= self.high


class McNemar(NamedTuple):
    """Items that changed sides between two models, and the exact two-sided p-value."""

    gained: int  # wrong before, right now
    lost: int  # right before, wrong now
    p: float


class Cells(NamedTuple):
    """Accuracy taken apart by format; each field a share in [0, 1], None where nothing fell into the cell."""

    format: float
    accuracy_given_format: float | None
    accuracy_without_format: float | None


class Decomposition(NamedTuple):
    """A difference in accuracy split into parts that sum to it exactly; see `decompose`."""

    difference: float
    format_part: float
    given_format_part: float
    without_format_part: float


def wilson_interval(k: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval for a proportion `k / n`.

    Wilson (1927), J. Am. Stat. Assoc. 22:209. Unlike the textbook `p ± 1.96 se` it stays inside [0, 1] and does not
    collapse at 0 or n successes. `n` may be fractional (an effective sample size). Raises `ValueError` unless
    0 <= k <= n and n > 0.
    """
    from statsmodels.stats.proportion import proportion_confint

    if not (n > 0 and 0 <= k <= n):
        raise ValueError(f"wilson_interval needs 0 <= k <= n and n > 0, got k={k}, n={n}")
    low, high = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
    return (0.0 if k == 0 else float(low), 1.0 if k == n else float(high))  # there it is exact but for rounding


def clustered_interval(
    item_scores: Sequence[float],
    samples: int,
    confidence: float = CONFIDENCE,
    weights: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Interval for the mean of `item_scores` (one mean score in [0, 1] an item), `samples` answers in all.

    `weights`: answers of each item, where they differ and the mean is over answers; None: items count alike.

    Samples of one item are alike, so 100 items x 4 samples are worth between 100 and 400 answers. How many follows
    from the spread of the item scores, `p (1 - p) / var(mean)`, and Wilson's interval is taken at that effective
    size (Dean and Pagano 2015, J. Surv. Stat. Methodol. 3:484). With one sample an item it *is* Wilson's interval,
    and it neither leaves [0, 1] nor collapses when all items score alike, where a bootstrap over items would.
    Raises `ValueError` without items.
    """
    scores = np.asarray(item_scores, dtype=float)
    n = len(scores)
    if n == 0:
        raise ValueError("clustered_interval needs at least one item")
    share = np.full(n, 1 / n) if weights is None else np.asarray(weights, dtype=float) / np.sum(weights)
    p = float(share @ scores)
    variance = float(share**2 @ (scores - p) ** 2)
    effective = p * (1 - p) / variance if variance > 0 else n  # all alike: count every item once, the cautious end
    effective = min(max(effective, n), max(samples, n))
    return wilson_interval(min(p * effective, effective), effective, confidence)


def _bootstrap(columns: Sequence[np.ndarray], statistic, seed: int, resamples: int, confidence: float):
    """Percentile bootstrap over items; `columns` are (items,) each and are resampled together."""
    from scipy.stats import bootstrap

    result = bootstrap(
        tuple(columns),
        statistic,
        n_resamples=resamples,
        batch=1000,  # 1000 x items at a time: a few MB
        vectorized=True,
        paired=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return result.confidence_interval


def _paired(a: Sequence[float], b: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        shapes = f"{first.shape} and {second.shape}"
        raise ValueError(f"paired scores need two equally long rows of 2 or more items, got {shapes}")
    return first, second


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], seed: int, resamples: int = 10_000, confidence: float = CONFIDENCE
) -> PairedDifference:
    """Mean of `b - a` with a percentile bootstrap interval over items.

    `a[i]` and `b[i]` are two models' scores of the same item, so the difficulty of the item cancels: the interval is
    much narrower than the distance of two separate intervals suggests. Efron and Tibshirani (1993), chapter 13.
    Raises `ValueError` when the lengths differ or there are fewer than two items.
    """
    first, second = _paired(a, b)
    change = second - first
    interval = _bootstrap([change], lambda x, axis: x.mean(axis=axis), seed, resamples, confidence)
    return PairedDifference(float(change.mean()), float(interval.low), float(interval.high), len(change))


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """McNemar's test in its exact form, for one answer an item: do more items turn right than turn wrong?

    Under the null hypothesis the items that changed sides are coin flips, so the p-value is a binomial test of
    `gained` among them (McNemar 1947, Psychometrika 12:153). Raises `ValueError` on scores that are not 0 or 1.
    """
    from scipy.stats import binomtest

    first, second = _paired(a, b)
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ValueError("mcnemar needs one right (1) or wrong (0) answer an item; use paired_bootstrap for item means")
    gained = int(((first == 0) & (second == 1)).sum())
    lost = int(((first == 1) & (second == 0)).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(gained, lost, p)


def sign_flips(a: Sequence[float], b: Sequence[float], seed: int, resamples: int = 10_000) -> float:
    """Two-sided p-value of the mean of `b - a` when each item's sign is a coin flip: McNemar's idea for item means.

    For several answers an item, where there is no right or wrong to count (Fisher 1935; scipy's `permutation_test`).
    Raises `ValueError` when the lengths differ or there are fewer than two items.
    """
    from scipy.stats import permutation_test

    first, second = _paired(a, b)
    if (first == second).all():
        return 1.0
    result = permutation_test(
        (second - first,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def smallest_detectable_difference(n: int, spread: float, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """The smallest true difference that a paired comparison of `n` items finds with probability `power`.

    `(z_{confidence} + z_{power}) * spread / sqrt(n)`, where `spread` is the standard deviation of the items'
    differences; with one answer an item that is close to the square root of the share of items that change sides
    (Connor 1987, Biometrics 43:207; Miller 2024, arXiv 2411.00640). In the unit of `spread`. Raises `ValueError` for
    n < 1 or a negative spread.
    """
    from scipy.stats import norm

    if n < 1 or spread < 0:
        raise ValueError(f"smallest_detectable_difference needs n >= 1 and spread >= 0, got n={n}, spread={spread}")
    return float(norm.ppf((1 + confidence) / 2) + norm.ppf(power)) * spread / n**0.5


def cells(columns: np.ndarray) -> Cells:
    """`Cells` of a model from its items, (items, 3): shares of answers in the format, in it and right, and right."""
    f, both, right = (float(mean) for mean in np.asarray(columns, dtype=float).mean(axis=0))
    return Cells(f, both / f if f > EMPTY else None, (right - both) / (1 - f) if 1 - f > EMPTY else None)


def _split(f0, q0, r0, f1, q1, r1):
    """Kitagawa's three parts, for numbers or arrays; see `decompose`."""
    format_part = (f1 - f0) * ((q0 - r0) + (q1 - r1)) / 2
    given_part = (f0 + f1) / 2 * (q1 - q0)
    without_part = (1 - (f0 + f1) / 2) * (r1 - r0)
    return format_part, given_part, without_part


def decompose(base: Cells, new: Cells) -> Decomposition:
    """How much of a gain is obedience to the format, and how much is better answers?

    Accuracy is `A = f q + (1 - f) r`: `f` the share in the format, `q` the accuracy given the format, `r` without it.
    With `d` for new minus base and a bar for the mean of the two models,

        dA = df (q̄ - r̄)  +  f̄ dq  +  (1 - f̄) dr

    exactly: Kitagawa (1955), J. Am. Stat. Assoc. 50:1168; the same numbers are the Shapley values of f, q and r. An
    empty cell (a model that never, or always, keeps the format) takes the other model's value, so what cannot be told
    apart counts as format. The split is arithmetic, not cause: the items in the format differ between the models.
    """
    q0, q1 = base.accuracy_given_format, new.accuracy_given_format
    r0, r1 = base.accuracy_without_format, new.accuracy_without_format
    q0, q1 = (q1 if q0 is None else q0) or 0.0, (q0 if q1 is None else q1) or 0.0
    r0, r1 = (r1 if r0 is None else r0) or 0.0, (r0 if r1 is None else r1) or 0.0
    parts = _split(base.format, q0, r0, new.format, q1, r1)
    return Decomposition(sum(parts), *parts)


def _rates(right, count, other_right, other_count):
    """`right / count`; where the cell is empty the other model's rate, and 0 where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > EMPTY, right / count, np.where(other_count > EMPTY, other_right / other_count, 0.0))


def decomposition_intervals(
    base: np.ndarray, new: np.ndarray, seed: int, resamples: int = 10_000, confidence: float = CONFIDENCE
) -> list[tuple[float, float]]:
    """Bootstrap intervals over items of the three parts of `decompose`, in its order.

    `base` and `new` are (items, 3) as for `cells`, row i of both being the same item.
    """

    def parts(f0, both0, right0, f1, both1, right1, axis):
        f0, both0, right0, f1, both1, right1 = (x.mean(axis=axis) for x in (f0, both0, right0, f1, both1, right1))
        q0, q1 = _rates(both0, f0, both1, f1), _rates(both1, f1, both0, f0)
        miss0, miss1 = right0 - both0, right1 - both1
        r0, r1 = _rates(miss0, 1 - f0, miss1, 1 - f1), _rates(miss1, 1 - f1, miss0, 1 - f0)
        return np.stack(_split(f0, q0, r0, f1, q1, r1))

    columns = [np.asarray(side, dtype=float)[:, i] for side in (base, new) for i in range(3)]
    interval = _bootstrap(columns, parts, seed, resamples, confidence)
    return [(float(low), float(high)) for low, high in zip(interval.low, interval.high, strict=True)]
