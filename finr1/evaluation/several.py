"""Several of everything: several comparisons (Holm), several seeds, several answers to one item (pass@k, majority)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from finr1 import grading
from finr1.evaluation.samples import Sample
from finr1.evaluation.statistics import CONFIDENCE, clustered_interval, smallest_detectable_difference
from finr1.records import Problem


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979, Scand. J. Stat. 6:65): all below 0.05 are real with 95 % together, not each."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def detectable_table(
    sizes: Iterable[int], changed: Iterable[float] = (0.1, 0.2, 1 / 3), comparisons: int = 1
) -> list[dict]:
    """What n items can show, before any is asked: a row a size, the smallest detectable difference by share of change.

    `changed` are shares of items that change sides between two models; see `smallest_detectable_difference` (80 %
    power, 5 % level, which is divided by `comparisons` as the first of Holm's steps does). Differences in [0, 1].
    """
    confidence = 1 - (1 - CONFIDENCE) / comparisons
    return [
        {"items": n}
        | {
            f"{share:.0%} change": smallest_detectable_difference(n, share**0.5, confidence=confidence)
            for share in changed
        }
        for n in sizes
    ]


def power_table(sizes: Iterable[int], differences: Iterable[float], changed: float = 0.2) -> list[dict]:
    """Probability that n paired items show a true difference (5 % level, two sides): a row a size.

    The normal approximation of McNemar's test (Connor 1987, Biometrics 43:207), power by statsmodels; `changed` is the
    share of items that change sides, and a difference above it is impossible (None).
    """
    from statsmodels.stats.power import normal_power

    return [
        {"items": n}
        | {
            f"{100 * d:g} points": None
            if d > changed
            else float(normal_power(d / (changed - d * d) ** 0.5, n, 1 - CONFIDENCE))
            for d in differences
        }
        for n in sizes
    ]


def seed_spread(values: Sequence[float]) -> dict:
    """Mean of one number over runs that differ in their seed, its standard deviation and Student's interval.

    This is the spread that an interval over items does not hold: data order, sampling and training start anew. With
    fewer than two runs there is no spread (None). Student's interval is wide for two or three runs, and rightly.
    """
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"runs": n, "mean": mean, "sd": None, "low": None, "high": None}
    sd = float(np.std(values, ddof=1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / n**0.5
    return {"runs": n, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def spread_table(runs: Mapping[str, Sequence[Sample]]) -> list[dict]:
    """Accuracy of each model and decoding over several runs (name -> samples): `seed_spread`, and each run's own.

    `between_over_within`: variance between the runs over the variance that their items alone explain; far above 1 says
    that the seed matters more than the choice of items. Where a judge graded some of the runs alone there is no spread:
    it would be the judge's. Such a row has `mean` None, and `note` says so.
    """
    graders = {run: frozenset(sample.graded_by for sample in samples) for run, samples in runs.items()}
    by_model: dict[tuple, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for run, samples in runs.items():
        for sample in samples:
            if sample.correct is not None:
                by_model[sample.model, sample.decoding][run].append(sample)
    rows = []
    for (model, decoding), members in by_model.items():
        judged = any(sample.graded_by == "judge" for samples in members.values() for sample in samples)
        if judged and len(set(graders.values())) > 1:
            nothing = dict.fromkeys(("mean", "sd", "low", "high", "between_over_within"))
            rows.append({"model": model, "decoding": decoding, "runs": len(members), **nothing, "by_run": {},
                         "note": "not compared: a judge graded some of the runs alone"})  # fmt: skip
            continue
        scores = {run: _item_means(samples) for run, samples in members.items()}
        accuracies = {run: float(np.mean(values)) for run, values in scores.items()}
        spread = seed_spread(list(accuracies.values()))
        within = float(np.mean([np.var(values) / len(values) for values in scores.values()]))
        ratio = spread["sd"] ** 2 / within if spread["sd"] is not None and within else None
        rows.append(
            {"model": model, "decoding": decoding, **spread, "between_over_within": ratio, "by_run": accuracies}
        )
    return rows


def pass_at_k(n: int, right: int, k: int) -> float:
    """Probability that one of k answers drawn from n, of which `right` are right, is right.

    1 - C(n - right, k) / C(n, k), unbiased for k <= n (Chen et al. 2021, arXiv 2107.03374, equation 1). Raises
    `ValueError` unless 1 <= k <= n and 0 <= right <= n.
    """
    if not (1 <= k <= n and 0 <= right <= n):
        raise ValueError(f"pass_at_k needs 1 <= k <= n and 0 <= right <= n, got n={n}, right={right}, k={k}")
    from math import comb

    return 1 - comb(n - right, k) / comb(n, k)


def majority(answers: Sequence[str | None], problem: Problem) -> int | None:
    """Place of the first answer of the largest group of equal answers; None where there is no answer at all.

    Two answers are equal when `grading` takes one for right with the other as the gold, so 25 %, 0.25 and "25.0%" vote
    together. Of groups of one size, the one that was there first wins.
    """
    groups: list[list[int]] = []
    for place, answer in enumerate(answers):
        if answer is None:
            continue
        home = next((g for g in groups if _equal(answer, answers[g[0]], problem)), None)
        if home is None:
            groups.append([place])
        else:
            home.append(place)
    return max(groups, key=len)[0] if groups else None


def _equal(first: str, second: str, problem: Problem) -> bool:
    if first.strip() == second.strip():
        return True
    try:
        return grading.grade(first, second, problem.answer_kind, choices=problem.choices, labels=problem.labels) is True
    except ValueError:  # `second` cannot be read as an answer of this kind
        return False


def repeated_table(samples: Iterable[Sample], problems: Sequence[Problem]) -> list[dict]:
    """pass@k and maj@k for k = 1, 2, 4, ... and the number of samples: a row a model, decoding and k, with intervals.

    maj@k votes among the first k answers. Items without k decided answers drop out of both. Empty for single answers.
    """
    by_id = {problem.id: problem for problem in problems}
    groups: dict[tuple, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        groups[sample.model, sample.decoding][sample.problem_id].append(sample)
    rows = []
    for (model, decoding), items in groups.items():
        most = max(map(len, items.values()))
        sizes = [] if most == 1 else [k for k in (2**i for i in range(most.bit_length())) if k < most] + [most]
        decided = {
            item: sorted(members, key=lambda s: s.sample)
            for item, members in items.items()
            if len(members) == most and all(s.correct is not None for s in members)
        }
        for k in sizes if decided else []:
            passed = [pass_at_k(most, sum(bool(s.correct) for s in members), k) for members in decided.values()]
            votes = [_vote(members[:k], by_id[item]) for item, members in decided.items()]
            row = {"model": model, "decoding": decoding, "k": k, "n": len(decided)}
            for name, values in (("pass", passed), ("majority", votes)):
                low, high = clustered_interval(values, len(values) * (most if name == "pass" else 1))
                row |= {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return rows


def _vote(members: Sequence[Sample], problem: Problem) -> bool:
    place = majority([s.answer for s in members], problem)
    return place is not None and bool(members[place].correct)


def _item_means(samples: Iterable[Sample]) -> list[float]:
    values = defaultdict(list)
    for sample in samples:
        values[sample.problem_id].append(float(sample.correct))
    return [sum(v) / len(v) for _, v in sorted(values.items())]
