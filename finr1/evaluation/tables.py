"""From samples to the two tables of the benchmark: how good each model is, and how sure each step is.

Rows are plain dicts, so that they go to `metrics.json`, to a data frame and to the figures as they are. Shares are in
[0, 1]; only the renderings speak of percent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from finr1.evaluation.samples import MODELS, Sample
from finr1.evaluation.several import holm
from finr1.evaluation.statistics import (
    CONFIDENCE,
    cells,
    clustered_interval,
    decompose,
    decomposition_intervals,
    mcnemar,
    paired_bootstrap,
    sign_flips,
    smallest_detectable_difference,
)

GROUPS = ("capability", "family", "language", "source", "suite")  # by which a table may be split
DECODINGS = ("greedy", "sampled")
# What is compared: each step of the recipe, all of it, and the way without SFT beside it.
STEPS = (("base", "sft"), ("sft", "grpo"), ("base", "grpo"), ("base", "zero"), ("zero", "grpo"))
PARTS = ("format_part", "given_format_part", "without_format_part")


def by_values(samples: Iterable[Sample], *keys: str) -> dict[tuple, list[Sample]]:
    """Samples by the values of `keys`; models and decodings in the recipe's order, the rest sorted."""
    groups = defaultdict(list)
    for sample in samples:
        groups[tuple(getattr(sample, key) for key in keys)].append(sample)
    order = {name: rank for rank, name in enumerate((*MODELS, *DECODINGS))}
    return {key: groups[key] for key in sorted(groups, key=lambda key: [(order.get(v, 99), str(v)) for v in key])}


def _by_item(samples: Iterable[Sample], field: str) -> dict[str, list[float]]:
    """Problem id -> its samples' values of `field`; undecided ones (None) are left out. Sorted, for determinism."""
    values = defaultdict(list)
    for sample in samples:
        value = getattr(sample, field)
        if value is not None:
            values[sample.problem_id].append(float(value))
    return dict(sorted(values.items()))


def item_scores(samples: Iterable[Sample], field: str = "correct") -> dict[str, float]:
    """Problem id -> mean of `field` over its decided samples, in the order of the ids."""
    return {item: sum(values) / len(values) for item, values in _by_item(samples, field).items()}


def _share(samples: Sequence[Sample], field: str, confidence: float) -> tuple[float | None, float | None, float | None]:
    """Mean over items of `field` with its interval; three None when no sample was decided."""
    values = _by_item(samples, field)
    if not values:
        return None, None, None
    scores = [sum(v) / len(v) for v in values.values()]
    low, high = clustered_interval(scores, sum(map(len, values.values())), confidence)
    return float(np.mean(scores)), low, high


def _given_format(samples: Sequence[Sample], confidence: float) -> tuple[float | None, float | None, float | None, int]:
    """Accuracy of the answers in the format with its interval, and how many there are; each answer counts alike."""
    items = _by_item((s for s in samples if s.format), "correct").values()
    counts = [len(values) for values in items]
    if not counts:
        return None, None, None, 0
    low, high = clustered_interval([sum(v) / len(v) for v in items], sum(counts), confidence, counts)
    return sum(map(sum, items)) / sum(counts), low, high, sum(counts)


def _result_row(samples: Sequence[Sample], confidence: float) -> dict:
    accuracy, low, high = _share(samples, "correct", confidence)
    formatted, format_low, format_high = _share(samples, "format", confidence)
    lenient, lenient_low, lenient_high = _share(samples, "lenient_correct", confidence)
    given, given_low, given_high, in_format = _given_format(samples, confidence)
    tokens = [s.tokens for s in samples if s.tokens is not None]
    return {
        "n": len({s.problem_id for s in samples if s.correct is not None}),
        "samples": len(samples),
        "undecided": sum(s.correct is None for s in samples),
        "accuracy": accuracy, "low": low, "high": high,
        "format": formatted, "format_low": format_low, "format_high": format_high,
        "accuracy_given_format": given, "given_format_low": given_low, "given_format_high": given_high,
        "in_format": in_format,
        "lenient": lenient, "lenient_low": lenient_low, "lenient_high": lenient_high,
        "truncated": sum(s.finish_reason == "length" for s in samples) / len(samples),
        "missing": sum(s.answer is None for s in samples) / len(samples),
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
    }  # fmt: skip


def results_table(samples: Iterable[Sample], by: str | None = None, confidence: float = CONFIDENCE) -> list[dict]:
    """One row a model and decoding (and value of `by`, one of `GROUPS`).

    `n` items, `samples` answers, `undecided` ones that nobody could grade (in no accuracy); `accuracy`, `format` and
    `lenient` with intervals; `accuracy_given_format` over the `in_format` answers, with its own; the share `truncated`
    at the token limit and the share `missing` a readable answer; `mean_tokens`.

    Where answers are `undecided`, the accuracy is no plain one: of an open question rules call a missing answer wrong
    and leave most given ones undecided, so that the rest leans to the wrong ones. Whoever shows it says so.
    """
    keys = ("model", "decoding", *([by] if by else []))
    return [
        dict(zip(keys, key, strict=True)) | _result_row(group, confidence)
        for key, group in by_values(samples, *keys).items()
    ]


def _columns(samples: Sequence[Sample], items: Sequence[str]) -> np.ndarray:
    """(items, 3): share in the format, share in the format and right, share right; decided samples only."""
    rows = defaultdict(list)
    for s in samples:
        if s.correct is not None:
            rows[s.problem_id].append((s.format, s.format and s.correct, s.correct))
    return np.array([np.mean(rows[item], axis=0) for item in items])


def _check_same_prompts(before: Sequence[Sample], after: Sequence[Sample]) -> None:
    """Raise `ValueError` unless both models saw the same items under the same prompts."""
    first = {s.problem_id: s.prompt_sha256 for s in before}
    second = {s.problem_id: s.prompt_sha256 for s in after}
    if first.keys() != second.keys():
        odd = sorted(first.keys() ^ second.keys())
        raise ValueError(f"paired models need the same items; {len(odd)} are with one model only, e.g. {odd[0]!r}")
    changed = sorted(item for item in first if first[item] != second[item])
    if changed:
        raise ValueError(f"paired models need the same prompts; {len(changed)} differ, e.g. that of {changed[0]!r}")


def decided_items(before: Iterable[Sample], after: Iterable[Sample]) -> list[str]:
    """Ids of the items that have a decided answer of both models; a comparison needs two."""
    late = item_scores(after)
    return [item for item in item_scores(before) if item in late]


def paired_row(before: Sequence[Sample], after: Sequence[Sample], seed: int, resamples: int = 10_000) -> dict:
    """The step from one model's samples to another's: difference in accuracy, its parts, and how sure it is.

    `n` of the `asked` items are decided for both; the others drop out. `p` is McNemar's with one answer an item (then
    `gained` and `lost` are counted, too), else that of `sign_flips`. The differences in `format` and `lenient` accuracy
    are None where fewer than two items have them. Raises `ValueError` when they saw different items or prompts, or
    fewer than two items are decided for both.
    """
    _check_same_prompts(before, after)
    a, b, items = item_scores(before), item_scores(after), decided_items(before, after)
    first, second = np.array([a[i] for i in items]), np.array([b[i] for i in items])
    accuracy = paired_bootstrap(first, second, seed, resamples)
    base, new = _columns(before, items), _columns(after, items)
    parts = decompose(cells(base), cells(new))
    asked = len({s.problem_id for s in before})
    row = accuracy._asdict() | {"inside_noise": accuracy.inside_noise, "asked": asked}
    for name, (low, high) in zip(PARTS, decomposition_intervals(base, new, seed, resamples), strict=True):
        row |= {name: getattr(parts, name), f"{name}_low": low, f"{name}_high": high}
    for field in ("format", "lenient_correct"):
        row |= _side_row(field, before, after, seed, resamples)
    row["detectable"] = smallest_detectable_difference(len(items), float(np.std(second - first, ddof=1)))
    single = len(before) == len({s.problem_id for s in before}) and len(after) == len({s.problem_id for s in after})
    if single:
        return row | mcnemar(first, second)._asdict() | {"test": "McNemar"}
    p = sign_flips(first, second, seed, resamples)
    return row | {"gained": None, "lost": None, "p": p, "test": "sign flips"}


def _side_row(field: str, before: Sequence[Sample], after: Sequence[Sample], seed: int, resamples: int) -> dict:
    """Difference in a verdict that is not the headline, with its interval; None on fewer than two items."""
    old, late = item_scores(before, field), item_scores(after, field)
    shared = [item for item in old if item in late]
    found = (None, None, None)
    if len(shared) > 1:
        found = paired_bootstrap([old[i] for i in shared], [late[i] for i in shared], seed, resamples)[:3]
    name = field.removesuffix("_correct")
    return dict(zip((f"{name}_difference", f"{name}_low", f"{name}_high"), found, strict=True))


def paired_table(samples: Iterable[Sample], seed: int, resamples: int = 10_000) -> list[dict]:
    """`paired_row` for each of `STEPS`, and from every other model to the recipe's last, a decoding at a time.

    `p_holm` is `p` corrected for all rows of the table. A pair with fewer than two items that are decided for both has
    no row.
    """
    rows = []
    for (decoding,), group in by_values(samples, "decoding").items():
        models = {key[0]: members for key, members in by_values(group, "model").items()}
        for before, after in steps_between(list(models)):
            if len(decided_items(models[before], models[after])) < 2:
                continue
            row = {"before": before, "after": after, "decoding": decoding}
            rows.append(row | paired_row(models[before], models[after], seed, resamples))
    corrected = holm([row["p"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def steps_between(models: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs to compare among `models`, which stand in the order of the recipe, others last."""
    recipe = [name for name in models if name in MODELS]
    others = [(name, recipe[-1]) for name in models if name not in MODELS] if recipe else []
    return [(before, after) for before, after in STEPS if before in recipe and after in recipe] + others


def protocol_rows(graded: dict[str, list[Sample]]) -> list[dict]:
    """`results_table` under each protocol, as one list of rows that name it."""
    return [{"protocol": name} | row for name, samples in graded.items() for row in results_table(samples)]
