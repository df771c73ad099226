"""From samples to tables: how good each model is, how sure each step is, and what a score may hide.

Rows are plain dicts, so that they go to `metrics.json`, to a data frame and to the figures as they are. Shares are in
[0, 1]; only the renderings speak of percent.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from finr1 import grading
from finr1.evaluation.samples import MODELS, Sample
from finr1.evaluation.statistics import (
    CONFIDENCE,
    clustered_interval,
    decompose,
    decomposition_intervals,
    holm,
    mcnemar,
    paired_bootstrap,
    pass_at_k,
    sign_flips,
    smallest_detectable_difference,
)
from finr1.params import read_flat_yaml
from finr1.paths import resolve
from finr1.records import Problem

GROUPS = ("capability", "family", "language", "source", "suite")  # by which a table may be split
DECODINGS = ("greedy", "sampled")
# What is compared: each step of the recipe, all of it, and the way without SFT beside it.
STEPS = (("base", "sft"), ("sft", "grpo"), ("base", "grpo"), ("base", "zero"), ("zero", "grpo"))
PARTS = ("format_part", "given_format_part", "without_format_part")
TRACKS = ("clean", "paper_like")  # of notebook 01


def by_values(samples: Iterable[Sample], *keys: str) -> dict[tuple, list[Sample]]:
    """Samples by the values of `keys`; models and decodings in the recipe's order, the rest sorted."""
    groups = defaultdict(list)
    for sample in samples:
        groups[tuple(getattr(sample, key) for key in keys)].append(sample)
    order = {name: rank for rank, name in enumerate((*MODELS, *DECODINGS))}
    return {key: groups[key] for key in sorted(groups, key=lambda key: [(order.get(v, 99), str(v)) for v in key])}


def item_scores(samples: Iterable[Sample], field: str = "correct") -> pd.DataFrame:
    """By problem id, sorted: `mean`, `sum` and `size` of the field's values; undecided ones (None) are left out."""
    pairs = [(sample.problem_id, getattr(sample, field)) for sample in samples]
    values = pd.Series([value for _, value in pairs], index=[item for item, _ in pairs], dtype=float)
    return values.dropna().groupby(level=0).agg(["mean", "sum", "size"])


# ---- how good each model is -----------------------------------------------------------------------------------------


def results_table(samples: Iterable[Sample], by: str | None = None) -> list[dict]:
    """One row per model and decoding (and value of `by`, one of `GROUPS`).

    `n` items, `samples` answers, `undecided` ones that nobody could grade (in no accuracy); `accuracy`, `format` and
    `lenient` with intervals; `accuracy_given_format` over the `in_format` answers, with its own; the share `truncated`
    at the token limit and the share `missing` a readable answer; `mean_tokens`.

    Where answers are `undecided`, the accuracy is no plain one: of an open question rules call a missing answer wrong
    and leave most given ones undecided, so that the rest leans to the wrong ones. Whoever shows it says so.
    """
    keys = ("model", "decoding", *([by] if by else []))
    return [dict(zip(keys, key, strict=True)) | _result_row(group) for key, group in by_values(samples, *keys).items()]


def _result_row(samples: Sequence[Sample]) -> dict:
    correct, formatted, lenient = (item_scores(samples, field) for field in ("correct", "format", "lenient_correct"))
    in_format = item_scores(s for s in samples if s.format)
    tokens = [s.tokens for s in samples if s.tokens is not None]
    return {
        "n": len(correct),
        "samples": len(samples),
        "undecided": sum(s.correct is None for s in samples),
        **_share(correct, "accuracy", "low", "high"),
        **_share(formatted, "format", "format_low", "format_high"),
        **_share(in_format, "accuracy_given_format", "given_format_low", "given_format_high", by_answer=True),
        "in_format": int(in_format["size"].sum()),
        **_share(lenient, "lenient", "lenient_low", "lenient_high"),
        "truncated": sum(s.finish_reason == "length" for s in samples) / len(samples),
        "missing": sum(s.answer is None for s in samples) / len(samples),
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
    }


def _share(scores: pd.DataFrame, *names: str, by_answer: bool = False) -> dict[str, float | None]:
    """Mean over the items of `item_scores` (or over their answers) and its interval, under three names."""
    if scores.empty:
        return dict.fromkeys(names)
    means, counts = scores["mean"].to_numpy(), scores["size"].to_numpy()
    interval = clustered_interval(means, counts.sum(), counts if by_answer else None)
    mean = scores["sum"].sum() / counts.sum() if by_answer else means.mean()
    return dict(zip(names, (float(mean), *interval), strict=True))


def protocol_rows(graded: Mapping[str, Sequence[Sample]]) -> list[dict]:
    """`results_table` under each protocol, as one list of rows that name it."""
    return [{"protocol": name} | row for name, samples in graded.items() for row in results_table(samples)]


def repeated_table(samples: Iterable[Sample], problems: Sequence[Problem]) -> list[dict]:
    """pass@k and maj@k for k = 1, 2, 4, ... and the number of samples: one row per model, decoding and k.

    maj@k votes among the first k answers. Items without k decided answers drop out of both. Empty for single answers.
    """
    by_id = {problem.id: problem for problem in problems}
    rows = []
    for (model, decoding), group in by_values(samples, "model", "decoding").items():
        items = {item: members for (item,), members in by_values(group, "problem_id").items()}
        most = max(map(len, items.values()))
        decided = {
            item: sorted(members, key=lambda s: s.sample)
            for item, members in items.items()
            if len(members) == most and all(s.correct is not None for s in members)
        }
        if most == 1 or not decided:
            continue
        for k in [*(2**i for i in range(most.bit_length()) if 2**i < most), most]:
            passed = [pass_at_k(most, sum(bool(s.correct) for s in members), k) for members in decided.values()]
            votes = []
            for item, members in decided.items():
                place = majority([s.answer for s in members[:k]], by_id[item])
                votes.append(place is not None and bool(members[place].correct))
            row = {"model": model, "decoding": decoding, "k": k, "n": len(decided)}
            for name, values, answers in (("pass", passed, most), ("majority", votes, 1)):
                low, high = clustered_interval(values, len(values) * answers)
                row |= {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return rows


def majority(answers: Sequence[str | None], problem: Problem) -> int | None:
    """Place of the first answer of the largest group of equal answers; None where there is no answer at all.

    Two answers are equal when `grading` takes one for right with the other as the gold, so 25 %, 0.25 and "25.0%" vote
    together. Of groups of one size, the one that was there first wins.
    """

    def equal(first: str, second: str) -> bool:
        if first.strip() == second.strip():
            return True
        options = {"choices": problem.choices, "labels": problem.labels}
        try:
            return grading.grade(first, second, problem.answer_kind, **options) is True
        except ValueError:  # `second` cannot be read as an answer of this kind
            return False

    groups: list[list[int]] = []
    for place, answer in enumerate(answers):
        if answer is None:
            continue
        home = next((group for group in groups if equal(answer, answers[group[0]])), None)
        if home is None:
            groups.append([place])
        else:
            home.append(place)
    return max(groups, key=len)[0] if groups else None


def spread_table(runs: Mapping[str, Sequence[Sample]]) -> list[dict]:
    """Accuracy of each model and decoding over several runs (name -> samples) that differ in their seed.

    An interval over items does not hold this spread: data order, sampling and training start anew. `mean`, `sd` and
    Student's interval, which is wide for two or three runs, and rightly; None for a single run. `by_run`: each run's
    own accuracy. `between_over_within`: variance between the runs over the variance that their items explain; far
    above 1 says that the seed matters more than the choice of items. Where a judge graded only some of the runs there
    is no spread: it would be the judge's. Such a row has `mean` None, and `note` says so.
    """
    from statsmodels.stats.weightstats import DescrStatsW

    mixed = len({frozenset(sample.graded_by for sample in samples) for samples in runs.values()}) > 1
    answers = {run: [s for s in samples if s.correct is not None] for run, samples in runs.items()}
    groups = {run: by_values(samples, "model", "decoding") for run, samples in answers.items()}
    rows = []
    for key, pooled in by_values(itertools.chain(*answers.values()), "model", "decoding").items():
        scores = {run: item_scores(group[key])["mean"].to_numpy() for run, group in groups.items() if key in group}
        row = {"model": key[0], "decoding": key[1], "runs": len(scores)}
        row |= dict.fromkeys(("mean", "sd", "low", "high", "between_over_within"))
        if mixed and any(sample.graded_by == "judge" for sample in pooled):
            rows.append(row | {"by_run": {}, "note": "not compared: a judge graded some of the runs alone"})
            continue
        by_run = {run: float(values.mean()) for run, values in scores.items()}
        spread = DescrStatsW(list(by_run.values()))
        row["mean"] = float(spread.mean)
        if len(by_run) > 1:
            row["sd"] = float(spread.std_ddof(1))
            row["low"], row["high"] = map(float, spread.tconfint_mean(1 - CONFIDENCE))
            within = np.mean([values.var() / len(values) for values in scores.values()])
            row["between_over_within"] = float(row["sd"] ** 2 / within) if within else None
        rows.append(row | {"by_run": by_run})
    return rows


# ---- how sure each step is ------------------------------------------------------------------------------------------


def paired_table(samples: Iterable[Sample], seed: int) -> list[dict]:
    """`paired_row` for each of `STEPS`, and from every other model to the recipe's last, a decoding at a time.

    `p_holm` is `p` corrected for all rows of the table. A pair with fewer than two items that are decided for both has
    no row.
    """
    rows = []
    for (decoding,), group in by_values(samples, "decoding").items():
        models = {key[0]: members for key, members in by_values(group, "model").items()}
        for before, after in steps_between(list(models)):
            if row := paired_row(models[before], models[after], seed):
                rows.append({"before": before, "after": after, "decoding": decoding} | row)
    return _corrected(rows)


def _corrected(rows: Sequence[dict]) -> list[dict]:
    return [row | {"p_holm": p} for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True)]


def steps_between(models: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs to compare among `models`, which stand in the order of the recipe, others last."""
    recipe = [name for name in models if name in MODELS]
    others = [(name, recipe[-1]) for name in models if name not in MODELS] if recipe else []
    return [(before, after) for before, after in STEPS if before in recipe and after in recipe] + others


def paired_row(before: Sequence[Sample], after: Sequence[Sample], seed: int) -> dict | None:
    """The step from one model's samples to another's: difference in accuracy, its parts, and how sure it is.

    `n` of the `asked` items are decided for both; the others drop out, and with fewer than two there is no row (None).
    `p` is McNemar's with one answer per item (then `gained` and `lost` are counted, too), else that of `sign_flips`.
    The differences in `format` and `lenient` accuracy are None where fewer than two items have them. Raises
    `ValueError` when the two saw different items or prompts.
    """
    shares = [_item_shares(side) for side in (before, after)]
    items = shares[0].index.intersection(shares[1].index)
    if len(items) < 2:
        return None
    _check_same_prompts(before, after)
    base, new = (side.loc[items].to_numpy() for side in shares)  # (items, 3) each
    first, second = base[:, 2], new[:, 2]
    accuracy = paired_bootstrap(first, second, seed)
    asked = len({s.problem_id for s in before})
    row = accuracy._asdict() | {"inside_noise": accuracy.inside_noise, "asked": asked}
    parts = decompose(base.mean(axis=0), new.mean(axis=0))
    for name, part, (low, high) in zip(PARTS, parts, decomposition_intervals(base, new, seed), strict=True):
        row |= {name: float(part), f"{name}_low": low, f"{name}_high": high}
    for name, field in (("format", "format"), ("lenient", "lenient_correct")):
        old, late = (item_scores(side, field)["mean"] for side in (before, after))
        shared = old.index.intersection(late.index)
        change = paired_bootstrap(old[shared], late[shared], seed)[:3] if len(shared) > 1 else (None, None, None)
        row |= zip((f"{name}_difference", f"{name}_low", f"{name}_high"), change, strict=True)
    row["detectable"] = smallest_detectable_difference(len(items), float(np.std(second - first, ddof=1)))
    if len(before) == len(after) == asked:
        return row | mcnemar(first, second)._asdict() | {"test": "McNemar"}
    return row | {"gained": None, "lost": None, "p": sign_flips(first, second, seed), "test": "sign flips"}


def _item_shares(samples: Sequence[Sample]) -> pd.DataFrame:
    """(items, 3) by problem id: share in the format, share in the format and right, share right; decided ones only."""
    rows = [(s.problem_id, s.format, s.format and s.correct, s.correct) for s in samples if s.correct is not None]
    frame = pd.DataFrame(rows, columns=["item", "format", "both", "right"]).set_index("item")
    return frame.astype(float).groupby(level=0).mean()


def _check_same_prompts(before: Sequence[Sample], after: Sequence[Sample]) -> None:
    """Raise `ValueError` unless both models saw the same items under the same prompts."""
    first, second = ({s.problem_id: s.prompt_sha256 for s in side} for side in (before, after))
    if odd := sorted(first.keys() ^ second.keys()):
        raise ValueError(f"paired models need the same items; {len(odd)} are with one model only, e.g. {odd[0]!r}")
    if changed := sorted(item for item in first if first[item] != second[item]):
        raise ValueError(f"paired models need the same prompts; {len(changed)} differ, e.g. that of {changed[0]!r}")


def contamination_table(clean: Sequence[Sample], paper_like: Sequence[Sample], seed: int) -> list[dict]:
    """The gap between a run that had the test items in its training pool and one that had not: one row per model.

    Paired over the same items, `difference` = paper_like - clean with its interval; the base model was trained on
    neither pool, so its gap shows what the comparison makes of nothing. A model with fewer than two items that are
    decided in both has no row. Raises `ValueError` when the two runs saw other items or prompts, share no model with
    such items, or a judge graded only one of them.
    """
    if {s.graded_by for s in clean} != {s.graded_by for s in paper_like}:
        raise ValueError("a judge graded one of the two runs alone; the gap would be the judge's")
    runs = [by_values(run, "model", "decoding") for run in (clean, paper_like)]
    rows = []
    for model, decoding in runs[0]:
        sides = [run.get((model, decoding), []) for run in runs]
        if row := paired_row(*sides, seed):
            for track, members in zip(TRACKS, sides, strict=True):
                [apart] = results_table(members)
                row |= {track: apart["accuracy"], f"{track}_low": apart["low"], f"{track}_high": apart["high"]}
            rows.append({"model": model, "decoding": decoding} | row)
    if not rows:
        raise ValueError("the two runs share no model and decoding with two decided items")
    return _corrected(rows)


def check_tracks(clean: Path, paper_like: Path) -> None:
    """Raise `ValueError` unless one benchmark is of a run with `track` clean and the other of one with paper_like.

    Both are folders of a finished notebook 06; the track is that of the notebook 01 that each was asked from.
    """
    for stage, wanted in zip((clean, paper_like), TRACKS, strict=True):
        data = resolve(read_flat_yaml(stage / "params.yaml").values["data_stage"])
        track = read_flat_yaml(data / "params.yaml").values["track"]
        if track != wanted:
            raise ValueError(f'{stage}: asked from {data}, whose track is "{track}"; here "{wanted}" is needed')
