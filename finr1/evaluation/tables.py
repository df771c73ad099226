"""Tables of samples: how good is each model, and how sure is each step? Rows are plain dicts, shares are in [0, 1]."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from finr1.evaluation import statistics
from finr1.evaluation.samples import Sample
from finr1.records import CHANCE, RECIPE

ORDER = {name: rank for rank, name in enumerate((*CHANCE, *RECIPE, "greedy", "sampled"))}
# What is compared: each step of the recipe, all of it, and the way without SFT beside it.
STEPS = (("base", "sft"), ("sft", "grpo"), ("base", "grpo"), ("base", "zero"), ("zero", "grpo"))
DETECTABLE = 1.959963984540054 + 0.8416212335729143  # z(0.975) + z(0.8): found with 80 % power at the 5 % level
PARTS = {  # of a difference, in words
    "format_part": "more or fewer answers in the format",
    "given_format_part": "right answers among these",
    "without_format_part": "right answers outside the format",
}


def by_values(samples: Iterable[Sample], *keys: str) -> dict[tuple, list[Sample]]:
    """Samples by the values of `keys`; models and decodings in the recipe's order, the rest sorted."""
    groups = defaultdict(list)
    for sample in samples:
        groups[tuple(getattr(sample, key) for key in keys)].append(sample)
    return {key: groups[key] for key in sorted(groups, key=lambda key: [(ORDER.get(v, 99), str(v)) for v in key])}


def headline_samples(samples: Sequence[Sample], source: str) -> list[Sample]:
    """The headline's samples: of `source` (else all), the families of which each item has two ways if there are any."""
    own = [sample for sample in samples if sample.source == source] or list(samples)
    # Of tweets some have two ways and some not. Their gold decides it, so to take these would be a choice by gold.
    one_way = {sample.family for sample in own if not sample.way}
    return [sample for sample in own if sample.family not in one_way] or own


def item_scores(samples: Iterable[Sample], field: str = "correct") -> pd.DataFrame:
    """By problem id, sorted: `mean`, `sum` and `size` of the field's values; undecided ones (None) are left out."""
    pairs = [(sample.problem_id, getattr(sample, field)) for sample in samples]
    values = pd.Series([value for _, value in pairs], index=[item for item, _ in pairs], dtype=float)
    return values.dropna().groupby(level=0).agg(["mean", "sum", "size"])


def results_table(samples: Iterable[Sample], by: str | None = None) -> list[dict]:
    """One row per model and decoding (and value of `by`, one of `GROUPS`).

    `n` items, `samples` answers, `undecided` ones that nobody could grade. They are in no accuracy; a missing answer is
    decided, so it then weighs more. With intervals: `accuracy`, `format`, `lenient`, and `accuracy_given_format` over
    the `in_format` answers. Shares: `truncated` at the token limit, `missing` a readable answer, and with a
    `false_step` of the `right` answers. `CHANCE` is exact on these items and has no interval.
    """
    keys, rows = ("model", "decoding", *([by] if by else [])), []
    for values, group in by_values(samples, *keys).items():
        correct, in_format = item_scores(group), item_scores(s for s in group if s.format)
        right = [s.false_steps > 0 for s in group if s.correct]
        tokens = [s.tokens for s in group if s.tokens is not None]
        counts = {
            "n": len(correct), "samples": len(group), "undecided": sum(s.correct is None for s in group),
            "in_format": int(in_format["size"].sum()), "right": len(right),
            "truncated": sum(s.finish_reason == "length" for s in group) / len(group),
            "missing": sum(s.answer is None for s in group) / len(group),
            "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
            "false_step": sum(right) / len(right) if right else None,
        }  # fmt: skip
        shares = {
            **_share(correct, "accuracy", "low", "high"),
            **_share(item_scores(group, "format"), "format", "format_low", "format_high"),
            **_share(in_format, "accuracy_given_format", "given_format_low", "given_format_high", by_answer=True),
            **_share(item_scores(group, "lenient_correct"), "lenient", "lenient_low", "lenient_high"),
        }
        if "none" in values:
            shares |= {"low": None, "high": None}
        rows.append(dict(zip(keys, values, strict=True)) | counts | shares)
    return rows


def _share(scores: pd.DataFrame, *names: str, by_answer: bool = False) -> dict[str, float | None]:
    """Mean over the items of `item_scores` (or over their answers) and its interval, under three names."""
    if scores.empty:
        return dict.fromkeys(names)
    means, counts = scores["mean"].to_numpy(), scores["size"].to_numpy()
    interval = statistics.clustered_interval(means, counts.sum(), counts if by_answer else None)
    mean = scores["sum"].sum() / counts.sum() if by_answer else means.mean()
    return dict(zip(names, (float(mean), *interval), strict=True))


def paired_table(samples: Iterable[Sample], seed: int) -> list[dict]:
    """`paired_row` for each of `steps_between` the models, by decoding; `p_holm` is `p` corrected for all rows."""
    rows = []
    for (decoding,), group in by_values(samples, "decoding").items():
        models = {model: members for (model,), members in by_values(group, "model").items()}
        for before, after in steps_between(list(models)):
            if row := paired_row(models[before], models[after], seed):
                rows.append({"before": before, "after": after, "decoding": decoding} | row)
    return [row | {"p_holm": p} for row, p in zip(rows, statistics.holm([row["p"] for row in rows]), strict=True)]


def steps_between(models: Sequence[str]) -> list[tuple[str, str]]:
    """`STEPS` whose models are there, and from every other model to the recipe's last; `models` in its order."""
    recipe = [name for name in models if name in RECIPE]
    others = [(name, recipe[-1]) for name in models if name not in RECIPE] if recipe else []
    return [(before, after) for before, after in STEPS if before in recipe and after in recipe] + others


def paired_row(before: Sequence[Sample], after: Sequence[Sample], seed: int) -> dict | None:
    """The step from one model's samples to another's: difference in accuracy, its parts, and how sure it is.

    `n` of the `asked` items are decided for both; the others drop out. With fewer than two there is no row (None).
    `p` is McNemar's with one answer per item (`gained` and `lost` count the items), else that of `sign_flips`.
    `detectable`: the smallest true difference that so many items find (Miller 2024, arXiv 2411.00640). Raises
    `ValueError` when the two models saw different items or prompts.
    """
    asked, asked_after = ({(s.problem_id, s.prompt_sha256) for s in side} for side in (before, after))
    if odd := sorted(asked ^ asked_after):
        raise ValueError(f"paired models need the same items and prompts; {odd[0][0]!r} differs, or is with one alone")
    columns, shares = ["item", "format", "both", "right"], []
    for side in (before, after):  # by item: share in the format, in the format and right, right; decided ones only
        rows = [(s.problem_id, s.format, s.format and s.correct, s.correct) for s in side if s.correct is not None]
        shares.append(pd.DataFrame(rows, columns=columns).set_index("item").astype(float).groupby(level=0).mean())
    items = shares[0].index.intersection(shares[1].index)
    if len(items) < 2:
        return None
    base, new = (side.loc[items].to_numpy() for side in shares)  # (items, 3) each
    first, second = base[:, 2], new[:, 2]
    accuracy = statistics.paired_bootstrap(first, second, seed)
    row = accuracy._asdict() | {"inside_noise": accuracy.inside_noise, "asked": len(asked)}
    parts = statistics.decompose(base.mean(axis=0), new.mean(axis=0))
    for name, part, (low, high) in zip(PARTS, parts, statistics.decomposition_intervals(base, new, seed), strict=True):
        row |= {name: float(part), f"{name}_low": low, f"{name}_high": high}
    lenient = pd.concat([item_scores(side, "lenient_correct")["mean"] for side in (before, after)], axis=1).dropna()
    change = statistics.paired_bootstrap(*lenient.to_numpy().T, seed)[:3] if len(lenient) > 1 else (None, None, None)
    row |= zip(("lenient_difference", "lenient_low", "lenient_high"), change, strict=True)
    row["detectable"] = DETECTABLE * float(np.std(second - first, ddof=1)) / len(items) ** 0.5
    if len(before) == len(after) == len(asked):
        gained, lost, p = statistics.mcnemar(first, second)
        return row | {"gained": gained, "lost": lost, "p": p, "test": "McNemar"}
    return row | {"gained": None, "lost": None, "p": statistics.sign_flips(first, second, seed), "test": "sign flips"}
