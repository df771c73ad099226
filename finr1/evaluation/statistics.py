"""How sure is a difference? Intervals and paired tests for accuracies that are measured on a few hundred items.

Everything works on *items*, the independent unit: several samples of one item first become that item's mean score.
The items are taken as drawn from one population (the same template families or the same benchmark). An interval says
nothing about another seed of the training, another prompt, or questions of another kind.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95  # the confidence level of every interval in the suite
EMPTY = 1e-9  # a share below this is an empty cell that rounding did not make quite zero
RESAMPLES = 10_000  # of bootstraps and permutation tests


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


def wilson_interval(k: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval for `k / n` (1927, J. Am. Stat. Assoc. 22:209); `n` may be fractional."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(k, n, alpha=1 - CONFIDENCE, method="wilson")
    return (0.0 if k == 0 else float(low), 1.0 if k == n else float(high))  # there it is exact but for rounding


def clustered_interval(
    item_scores: Sequence[float], samples: int, weights: Sequence[float] | None = None
) -> tuple[float, float]:
    """95 % interval for the mean of `item_scores` (each item's mean score, in [0, 1]) over `samples` answers in all.

    `weights`: answers of each item, where the mean is over answers; None: items count alike. Samples of one item are
    alike, so 100 items x 4 samples are worth between 100 and 400 answers. How many follows from the spread of the item
    scores, `p (1 - p) / var(mean)`, and Wilson's interval is taken at that effective size (Dean and Pagano 2015,
    J. Surv. Stat. Methodol. 3:484). statsmodels has no interval for clustered proportions.
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
    """Of one answer per item: how many turned right, how many wrong, and the p of McNemar's exact test (1947)."""
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    change = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return gained, lost, float(exact_test([[0, gained], [lost, 0]], exact=True).pvalue)


def sign_flips(a: Sequence[float], b: Sequence[float], seed: int) -> float:
    """Two-sided p-value of the mean of `b - a` when each item's sign is a coin flip (Fisher 1935): McNemar's idea for
    the means of several answers per item.
    """
    from scipy.stats import permutation_test

    change = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    if not change.any():
        return 1.0
    how = {"permutation_type": "samples", "n_resamples": RESAMPLES, "batch": 1000}
    return float(permutation_test((change,), np.mean, **how, rng=np.random.default_rng(seed)).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979, Scand. J. Stat. 6:65): with 95 % confidence all of those below 0.05 are real."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def decompose(base: np.ndarray, new: np.ndarray) -> np.ndarray:
    """How much of a gain is obedience to the format, how much better answers in it, and how much outside it?

    `base` and `new` are (3, ...): shares of a model's answers that are in the format, in it and right, and right.
    Accuracy is `A = f q + (1 - f) r`: `f` the share in the format, `q` the accuracy given the format, `r` without it.
    With `d` for new minus base and a bar for the mean of the two models,

        dA = df (q̄ - r̄)  +  f̄ dq  +  (1 - f̄) dr

    exactly: Kitagawa (1955), J. Am. Stat. Assoc. 50:1168; the same numbers are the Shapley values of f, q and r. An
    empty cell (a model that never, or always, keeps the format) takes the other model's value, so a gain that cannot
    be told apart counts as format. The split is arithmetic, not cause: the items in the format differ between models.
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
