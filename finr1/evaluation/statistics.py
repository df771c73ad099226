"""How sure is a difference? Intervals and paired tests for accuracies that are measured on a few hundred items.

All functions work on *items*, the independent unit: several samples of one item first become its mean score. An
interval covers the choice of items. It covers no other training seed, no other prompt, and no other kind of question.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95  # the confidence level of every interval in the suite
EMPTY = 1e-9  # a share below this is zero but for rounding
RESAMPLES = 10_000  # of bootstraps and permutation tests


class PairedDifference(NamedTuple):
    """Mean of `b - a` over the same items, with its interval."""

    difference: float
    low: float
    high: float
    n: int  # items

    @property
    def inside_noise(self) -> bool:
        """True when the interval contains zero: the data do not tell which model is better."""
        return self.low <= 0.0 <= self.high


def wilson_interval(k: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for `k / n` (1927, J. Am. Stat. Assoc. 22:209); `n` may be fractional."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(k, n, alpha=1 - CONFIDENCE, method="wilson")
    return (0.0 if k == 0 else float(low), 1.0 if k == n else float(high))  # there it is exact but for rounding


def clustered_interval(
    item_scores: Sequence[float], samples: int, weights: Sequence[float] | None = None
) -> tuple[float, float]:
    """95 % interval for the mean of `item_scores` (each in [0, 1]) over `samples` answers in all.

    `weights`: answers of each item, where the mean is over answers; None: items count alike. Samples of one item are
    alike, so 100 items x 4 samples are worth 100 to 400 answers: `p (1 - p) / var(mean)` of them. Wilson's interval is
    taken at that size (Dean and Pagano 2015, J. Surv. Stat. Methodol. 3:484). statsmodels has no such interval.
    """
    scores = np.asarray(item_scores, dtype=float)
    n = len(scores)
    share = np.full(n, 1 / n) if weights is None else np.asarray(weights, dtype=float) / np.sum(weights)
    p = float(share @ scores)
    variance = float(share**2 @ (scores - p) ** 2)
    effective = p * (1 - p) / variance if variance > 0 else n  # all alike: count every item once, the cautious end
    effective = min(max(effective, n), max(samples, n))
    return wilson_interval(min(p * effective, effective), effective)


def _bootstrap(columns: Sequence[np.ndarray], statistic, seed: int):
    """95 % percentile bootstrap over items; `columns` are (items,) each and are resampled together."""
    from scipy.stats import bootstrap

    how = {"n_resamples": RESAMPLES, "batch": 1000, "vectorized": True, "paired": True, "method": "percentile"}
    rng = np.random.default_rng(seed)
    return bootstrap(tuple(columns), statistic, **how, confidence_level=CONFIDENCE, rng=rng).confidence_interval


def paired_bootstrap(a: Sequence[float], b: Sequence[float], seed: int) -> PairedDifference:
    """Mean of `b - a` with a percentile bootstrap interval over items (Efron and Tibshirani 1993, chapter 13).

    `a[i]` and `b[i]` are two models' scores of one item, whose difficulty cancels. `ValueError` for fewer than two.
    """
    change = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    interval = _bootstrap([change], np.mean, seed)
    return PairedDifference(float(change.mean()), float(interval.low), float(interval.high), len(change))


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> tuple[int, int, float]:
    """(items that turned right, that turned wrong, p of McNemar's exact test of 1947); one answer per item."""
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    change = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return gained, lost, float(exact_test([[0, gained], [lost, 0]], exact=True).pvalue)


def sign_flips(a: Sequence[float], b: Sequence[float], seed: int) -> float:
    """Two-sided p of the mean of `b - a` when each item's sign is a coin flip (Fisher 1935): McNemar for means."""
    from scipy.stats import permutation_test

    change = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    if not change.any():
        return 1.0
    how = {"permutation_type": "samples", "n_resamples": RESAMPLES, "batch": 1000}
    return float(permutation_test((change,), np.mean, **how, rng=np.random.default_rng(seed)).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979, Scand. J. Stat. 6:65): in 95 % of such tables, none below 0.05 is an accident."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def decompose(base: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A gain in three parts: more answers in the format, better answers in it, better answers outside it.

    `base` and `new` are (3, ...): shares of a model's answers that are in the format, in it and right, and right.
    Accuracy is `A = f q + (1 - f) r`: `f` the share in the format, `q` the accuracy given the format, `r` without it.
    With `d` for new minus base and a bar for the mean, `dA = df (q̄ - r̄) + f̄ dq + (1 - f̄) dr` exactly (Kitagawa 1955,
    J. Am. Stat. Assoc. 50:1168). A model that never, or always, keeps the format lends the other's value for its empty
    cell; so a gain that cannot be split counts as format. The parts are arithmetic, not causes.
    """

    def rate(right, count, other_right, other_count):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(count > EMPTY, right / count, np.where(other_count > EMPTY, other_right / other_count, 0.0))

    (f0, both0, right0), (f1, both1, right1) = base, new
    q0, q1 = rate(both0, f0, both1, f1), rate(both1, f1, both0, f0)
    outside0, outside1 = right0 - both0, right1 - both1
    r0, r1 = rate(outside0, 1 - f0, outside1, 1 - f1), rate(outside1, 1 - f1, outside0, 1 - f0)
    format_part = (f1 - f0) * ((q0 - r0) + (q1 - r1)) / 2
    return np.stack([format_part, (f0 + f1) / 2 * (q1 - q0), (1 - (f0 + f1) / 2) * (r1 - r0)])


def decomposition_intervals(base: np.ndarray, new: np.ndarray, seed: int) -> list[tuple[float, float]]:
    """Bootstrap intervals over items of the three parts of `decompose`; `base` and `new` are (items, 3), row by row."""

    def parts(*columns, axis):
        means = [column.mean(axis=axis) for column in columns]
        return decompose(means[:3], means[3:])

    interval = _bootstrap([*np.transpose(base), *np.transpose(new)], parts, seed)
    return [(float(low), float(high)) for low, high in zip(interval.low, interval.high, strict=True)]
