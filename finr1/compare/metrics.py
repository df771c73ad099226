"""The same metric of two runs, with an interval and a test that fit how the two were measured.

- *paired*, where the items of one run are among those of the other (equal hash of the prompt): the difference is taken
  item by item, so that the difficulty of the items cancels. `evaluation.paired_bootstrap`, and McNemar's exact test or,
  with several answers an item, a permutation test that flips the sign of each item's difference.
- *unpaired*, where the items differ: shares by Newcombe's hybrid of the two runs' own intervals, means by Welch's
  interval, and a permutation test of the group labels. It covers the choice of items of both runs.

Neither covers another seed of the training: with one run a side nobody knows how much of a difference is luck of
training. The p-values of all rows are corrected together by Holm's method.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from finr1.compare.runs import GRADED_BY, ComparedRun, NotComparable, graders
from finr1.evaluation.statistics import (
    CONFIDENCE,
    clustered_interval,
    holm,
    mcnemar,
    paired_bootstrap,
    sign_flips,
)

METRICS: dict[str, Callable[[dict], float | None]] = {
    "accuracy": lambda sample: sample["correct"],
    "lenient": lambda sample: sample["lenient_correct"],
    "format": lambda sample: sample["format"],
    "cut off": lambda sample: sample["finish_reason"] == "length",
    "tokens": lambda sample: sample["tokens"],
}
ALL = "all"  # the value of `source` in a row over all sources
ALIKE, NOISE, UNSURE, HIGHER, LOWER = (
    "no difference", "inside the noise", "inside the noise once corrected", "B is higher", "B is lower"
)  # fmt: skip
RESAMPLES = 10_000

Items = dict[str, list[float]]  # hash of the prompt -> the values of its answers


def compare_metrics(a: ComparedRun, b: ComparedRun, seed: int = 0) -> list[dict[str, Any]]:
    """A row a model, decoding, source and metric that both runs have.

    Keys: model, decoding, source, metric; `a`, `b` (means), `n_a`, `n_b` (items), `shared` (items of both), `paired`;
    `difference` (b - a), `low`, `high`, `p`, `p_holm`, `verdict`. Shares are in [0, 1]. `seed` is that of bootstrap and
    permutations. Accuracy is left out where `graded_otherwise`. Raises NotComparable when the runs have no benchmark or
    no model in common.
    """
    sources = [sorted({sample["source"] for sample in run.samples}) for run in (a, b)]
    common = sorted(set(sources[0]) & set(sources[1]))
    if not common:
        asked = " and ".join(
            f"{run.label} asked {', '.join(names)}" for run, names in zip((a, b), sources, strict=True)
        )
        raise NotComparable(f"different benchmarks, with no source in common: {asked}")
    rows = []
    for model, decoding, source, first, second in _groups(a, b, common):
        other = graded_otherwise(a, b, [*first, *second])
        for metric, value in METRICS.items():
            if metric == "accuracy" and other:
                continue
            row = {"model": model, "decoding": decoding, "source": source, "metric": metric}
            measured = _compare(first, second, value, metric != "tokens", seed)
            # Other items of several sources are another mix of them: a difference of the whole would mean nothing.
            if measured and (source != ALL or measured["paired"] or len(common) == 1):
                rows.append(row | measured)
    if not rows:
        raise NotComparable("no model was asked with the same decoding in both runs")
    return _corrected(rows)


def graded_otherwise(a: ComparedRun, b: ComparedRun, samples: Sequence[dict]) -> bool:
    """Whether a judge graded some of `samples` and the two runs have not the same one: a difference would be its own.

    Answers that rules alone graded in both runs compare whatever a judge did with others.
    """
    return graders(a) != graders(b) and any(sample[GRADED_BY] == "judge" for sample in samples)


def _groups(a: ComparedRun, b: ComparedRun, sources: Sequence[str]) -> Iterator[tuple]:
    """(model, decoding, source, samples of a, samples of b); several sources together first, then each alone."""
    together = [ALL, *sources] if len(sources) > 1 else [ALL]
    both = [dict(_by(run.samples, "model", "decoding")) for run in (a, b)]
    for key in both[0]:
        for source in together if key in both[1] else []:
            kept = [[s for s in side[key] if s["source"] in (sources if source == ALL else [source])] for side in both]
            yield (*key, source, *kept)


def _by(samples: Sequence[dict], *keys: str) -> dict[tuple, list[dict]]:
    groups = defaultdict(list)
    for sample in samples:
        groups[tuple(sample[key] for key in keys)].append(sample)
    return groups


def _items(samples: Sequence[dict], value: Callable[[dict], float | None]) -> Items:
    """Undecided answers and those without a token count are left out."""
    items: Items = defaultdict(list)
    for sample in samples:
        if (number := value(sample)) is not None:
            items[sample["prompt_sha256"]].append(float(number))
    return dict(sorted(items.items()))


def _compare(
    first: Sequence[dict], second: Sequence[dict], value: Callable[[dict], float | None], is_share: bool, seed: int
) -> dict[str, Any] | None:
    """One row without its names; None where a side has fewer than the two items that an interval needs."""
    asked = [{sample["prompt_sha256"] for sample in side} for side in (first, second)]
    shared = asked[0] & asked[1]
    paired = len(shared) >= 2 and len(shared) == min(map(len, asked))
    a, b = _items(first, value), _items(second, value)
    if paired:  # undecided in one run: left out of both
        a, b = ({item: side[item] for item in a if item in b} for side in (a, b))
    if min(len(a), len(b)) < 2:
        return None
    row = {"paired": paired, "n_a": len(a), "n_b": len(b), "shared": len(shared)}
    measure = paired_difference if paired else unpaired_difference
    return row | measure(list(a.values()), list(b.values()), is_share, seed)


def _means(items: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([np.mean(answers) for answers in items])


def paired_difference(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], is_share: bool, seed: int
) -> dict[str, Any]:
    """Mean of `b - a` over the same items, `a[i]` and `b[i]` being the answers to item i."""
    first, second = _means(a), _means(b)
    found = paired_bootstrap(first, second, seed, RESAMPLES)
    single = is_share and all(len(answers) == 1 for answers in (*a, *b))
    p = mcnemar(first, second).p if single else sign_flips(first, second, seed, RESAMPLES)
    return {
        "a": float(first.mean()),
        "b": float(second.mean()),
        **_interval(found.difference, found.low, found.high),
        "p": p,
    }


def unpaired_difference(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], is_share: bool, seed: int
) -> dict[str, Any]:
    """Difference of the means of two independent sets of items.

    Shares: the square-and-add interval from each side's own, d - sqrt((p_b - l_b)^2 + (u_a - p_a)^2) and its mirror
    image: Newcombe (1998), Stat. Med. 17:873, method 10, which with several answers an item takes their clustered
    intervals (Zou and Donner 2008, Stat. Med. 27:1693). Else Welch's t interval over the items' means.
    """
    from scipy.stats import ttest_ind

    first, second = _means(a), _means(b)
    x, y = float(first.mean()), float(second.mean())
    if is_share:
        (low_a, high_a), (low_b, high_b) = (
            clustered_interval(means, sum(map(len, items))) for means, items in ((first, a), (second, b))
        )
        low = y - x - ((y - low_b) ** 2 + (high_a - x) ** 2) ** 0.5
        high = y - x + ((high_b - y) ** 2 + (x - low_a) ** 2) ** 0.5
    elif first.std() == second.std() == 0:
        low = high = y - x
    else:
        low, high = ttest_ind(second, first, equal_var=False).confidence_interval(CONFIDENCE)
    p = _permutation(first, second, seed)
    return {"a": x, "b": y, **_interval(y - x, low, high), "p": p}


def _interval(difference: float, low: float, high: float) -> dict[str, float]:
    return {"difference": difference, "low": float(low), "high": float(high)}


def _permutation(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    """Two-sided p-value of the difference of the means when the labels of the two groups mean nothing."""
    from scipy.stats import permutation_test

    result = permutation_test(
        (a, b), lambda x, y, axis: np.mean(y, axis=axis) - np.mean(x, axis=axis), permutation_type="independent",
        n_resamples=RESAMPLES, batch=1000, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def _corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`rows` with `p_holm` over all of them (Holm 1979, Scand. J. Stat. 6:65) and a verdict in words."""
    corrected = holm([row["p"] for row in rows])
    return [row | {"p_holm": p, "verdict": _verdict(row, p)} for row, p in zip(rows, corrected, strict=True)]


def _verdict(row: dict[str, Any], p_holm: float) -> str:
    if row["paired"] and row["low"] == row["high"] == 0:
        return ALIKE
    if row["low"] <= 0 <= row["high"]:
        return NOISE
    if p_holm > 1 - CONFIDENCE:
        return UNSURE
    return HIGHER if row["difference"] > 0 else LOWER


def stage_numbers(a: ComparedRun, b: ComparedRun) -> list[dict[str, Any]]:
    """Rows {stage, name, a, b} of the single numbers that differ: metrics of the stages, seconds by phase, GiB.

    One number a run has no interval: nothing is said about how sure such a difference is.
    """
    return [
        {"stage": stage, "name": name, "a": first[name], "b": second[name]}
        for stage in a.stages
        if stage in b.stages
        for first, second in [(_numbers(a.stages[stage]), _numbers(b.stages[stage]))]
        for name in first
        if name in second and first[name] != second[name]
    ]


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    found = dict(_flat(record["metrics"]))
    found |= {f"{name}, seconds": value for name, value in record["phases_s"].items()}
    return found | {
        f"peak memory of the {name.replace('_', ' ')}, GiB": v for name, v in record["peak_memory_gib"].items()
    }


def _flat(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} / ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value
