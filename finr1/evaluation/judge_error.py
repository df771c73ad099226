"""What a judge gets wrong, taken out of accuracies and differences, and put into their intervals.

With a judge's two rates known from answers that rules decide, an accuracy is corrected by Rogan and Gladen's estimate
(1978, Am. J. Epidemiol. 107:71), and its interval holds three uncertainties: of the items, and of both rates.

That needs rules as the truth, so it is done only where the judge graded what rules leave undecided. A judge that graded
*all* answers was asked because rules are not trusted, say with forms of an answer: corrected by its disagreement with
rules, a score would be the rules' own again. Such scores stay as judged, with an interval over items alone; how often
judge and rules agree stands beside them (`judge_line`), and each row says in `judge_error` that nothing was taken out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finr1.evaluation.judged import TAKEN_OUT, Agreement, Verdict, agreement
from finr1.evaluation.samples import Sample
from finr1.evaluation.statistics import CONFIDENCE, holm, wilson_interval
from finr1.evaluation.tables import GROUPS, by_values, results_table

OVERRULED = "not measured: the judge graded answers that rules decide, and rules are no truth for it"
COIN = "not taken out: the judge is no better than a coin"


def unmeasured(verdicts: Sequence[Verdict]) -> str:
    """Why the judge's error cannot be taken out of a score, in words; empty where it can."""
    if any(v.rules is not None and v.verdict is not None and not v.study for v in verdicts):
        return OVERRULED
    measured = agreement(verdicts)
    if absent := [name for name in ("right", "wrong") if not getattr(measured, f"{name}_n")]:
        return f"not measured: rules call none of the studied answers {' or '.join(absent)}"
    return COIN if measured.sensitivity + measured.specificity <= 1 else ""


def corrected_accuracy(
    samples: Sequence[Sample], measured: Agreement, seed: int, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Accuracy with the judge's error taken out, and its 95 % interval, for one model and decoding.

    With Se and Sp the judge's rates, q the share of judged answers that it calls right, their true share is
    `(q + Sp - 1) / (Se + Sp - 1)` (Rogan and Gladen 1978), cut to [0, 1]; answers graded by rules count as they are.
    The interval is a percentile bootstrap over items, each time with rates drawn from their posterior under Jeffreys'
    prior, Beta(k + 1/2, n - k + 1/2), so that a judge tried on ten answers is not taken for perfect. It assumes that
    the judge errs on undecided answers as on those of the study, which rules can decide and which may be easier.

    Raises `ValueError` when nothing is decided, the study has no right or no wrong answers, or the judge is no better
    than a coin.
    """
    if not (measured.right_n and measured.wrong_n):
        raise ValueError(
            "the judge's error is not known: the study needs answers that are right and ones that are wrong"
        )
    if measured.sensitivity + measured.specificity <= 1:
        raise ValueError(f"the judge is no better than a coin: {measured}")
    columns = _judged_columns(samples)
    rng = np.random.default_rng(seed)
    point = _rogan_gladen(columns.mean(axis=0), measured.sensitivity, measured.specificity)
    means = _resampled_means(columns, rng, resamples)
    values = _rogan_gladen(means.T, *_draw_rates(measured, rng, resamples))
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    n = len(columns)
    least, most = wilson_interval(point * n, n)  # a bootstrap collapses where all items score alike
    return float(point), float(min(low, least)), float(max(high, most))


def _draw_rates(measured: Agreement, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` pairs of sensitivity and specificity from their posteriors."""
    right, wrong = measured.right_n - measured.right, measured.wrong_n - measured.wrong
    return rng.beta(measured.right + 0.5, right + 0.5, size), rng.beta(measured.wrong + 0.5, wrong + 0.5, size)


def _resampled_means(columns: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """(resamples, 3): means of `columns` over items drawn with replacement.

    Few rows differ, so it is drawn how often each distinct one comes: the same distribution, a hundred times as fast.
    """
    distinct, counts = np.unique(columns, axis=0, return_counts=True)
    n = len(columns)
    return rng.multinomial(n, counts / n, size=resamples) @ distinct / n


def _judged_columns(samples: Sequence[Sample]) -> np.ndarray:
    """(items, 3): shares of an item's answers that are right by rules, right by the judge, and judged."""
    rows: dict[str, list[tuple[bool, bool, bool]]] = {}
    for s in samples:
        if s.correct is not None:
            judged = s.graded_by == "judge"
            rows.setdefault(s.problem_id, []).append((s.correct and not judged, s.correct and judged, judged))
    if not rows:
        raise ValueError("no answer is decided")
    return np.array([np.mean(row, axis=0) for _, row in sorted(rows.items())])


def _linear(means, sensitivity, specificity):
    """Rogan and Gladen's estimate, not cut to [0, 1]; `means` are right by rules, right by the judge, judged."""
    by_rules, by_judge, judged = means
    # A draw may have Se + Sp <= 1 where the study is tiny; there the data say nothing about the judged share.
    return by_rules + (by_judge - judged * (1 - specificity)) / np.maximum(sensitivity + specificity - 1, 1e-6)


def _rogan_gladen(means: np.ndarray, sensitivity, specificity):
    by_rules, _, judged = means
    return np.clip(_linear(means, sensitivity, specificity), by_rules, by_rules + judged)


def with_judge_error(
    rows: Sequence[dict], samples: Sequence[Sample], verdicts: Sequence[Verdict], seed: int
) -> list[dict]:
    """`results_table(samples, by)`'s rows with the judge's error taken out of accuracy and interval, where one graded.

    Such rows gain `as_judged`, the accuracy before, and `judge_error`: `TAKEN_OUT`, or why it could not be; there
    accuracy and interval stay as judged. Rows that rules graded alone stay as they are.
    """
    keys = ("model", "decoding", *(key for key in GROUPS if rows and key in rows[0]))
    groups, reason, measured = by_values(samples, *keys), unmeasured(verdicts), agreement(verdicts)
    found = []
    for row in rows:
        members = groups[tuple(row[key] for key in keys)]
        if any(_is_judged(s) for s in members):
            row = row | {"as_judged": row["accuracy"], "judge_error": reason or TAKEN_OUT}
            if not reason:
                row |= zip(("accuracy", "low", "high"), corrected_accuracy(members, measured, seed), strict=True)
        found.append(row)
    return found


def _is_judged(sample: Sample) -> bool:
    return sample.graded_by == "judge" and sample.correct is not None


def judge_table(samples: Sequence[Sample], verdicts: Sequence[Verdict], seed: int) -> list[dict]:
    """A row a model and decoding with judged answers: share judged, accuracy as judged, and corrected with interval.

    `corrected` and its interval are None where `judge_error` says that the error is not measured.
    """
    groups, rows = by_values(samples, "model", "decoding"), []
    for row in with_judge_error(results_table(samples), samples, verdicts, seed):
        if "judge_error" not in row:
            continue
        columns = _judged_columns(groups[row["model"], row["decoding"]])
        ends = ("accuracy", "low", "high")
        known = [row[key] if row["judge_error"] == TAKEN_OUT else None for key in ends]
        rows.append({"model": row["model"], "decoding": row["decoding"], "n": len(columns),
                     "judged share": float(columns[:, 2].mean()), "as judged": row["as_judged"],
                     **dict(zip(("corrected", "low", "high"), known, strict=True)),
                     "judge_error": row["judge_error"]})  # fmt: skip
    return rows


def steps_with_judge_error(
    steps: Sequence[dict], samples: Sequence[Sample], verdicts: Sequence[Verdict], seed: int, resamples: int = 10_000
) -> list[dict]:
    """`paired_table`'s rows with the judge's error taken out of difference, interval and p, as far as a judge graded.

    A judge that errs alike for both models does not leave their difference alone: a model that answers more often is
    forgiven more often. The difference of both corrected accuracies, not cut to [0, 1], over the same resampled items
    and with the same drawn rates; p is twice the smaller share of draws on one side of zero. `as_judged` is the
    difference before; the parts of the gain stay as judged. Where the error is not measured nothing changes but that
    `judge_error` says why.
    """
    if not any(_is_judged(sample) for sample in samples):
        return list(steps)
    if reason := unmeasured(verdicts):
        return [step | {"as_judged": step["difference"], "judge_error": reason} for step in steps]
    measured, rng = agreement(verdicts), np.random.default_rng(seed)
    rates, rows = _draw_rates(measured, rng, resamples), []
    for step in steps:
        change = _paired_columns(samples, step)
        values = _linear(_resampled_means(change, rng, resamples).T, *rates)
        low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        p = min(1.0, 2 * max(min((values <= 0).mean(), (values >= 0).mean()), 1 / resamples))
        corrected = float(_linear(change.mean(axis=0), measured.sensitivity, measured.specificity))
        row = {"as_judged": step["difference"], "difference": corrected, "low": float(low), "high": float(high)}
        row |= {"p": float(p), "test": "bootstrap", "inside_noise": bool(low <= 0 <= high), "judge_error": TAKEN_OUT}
        rows.append(step | row)
    return [row | {"p_holm": p} for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True)]


def _paired_columns(samples: Sequence[Sample], step: dict) -> np.ndarray:
    """(items, 3): `_judged_columns` of the later model minus those of the earlier one, over the items of both."""
    sides = []
    for model in (step["before"], step["after"]):
        members = [s for s in samples if (s.model, s.decoding) == (model, step["decoding"]) and s.correct is not None]
        items = sorted({s.problem_id for s in members})
        sides.append(dict(zip(items, _judged_columns(members), strict=True)))
    return np.array([sides[1][item] - sides[0][item] for item in sides[0] if item in sides[1]])
