"""A model as the judge of answers: what it says is kept, and what it gets wrong goes into the interval.

Rules leave some answers undecided (open questions, texts). `judge_samples` asks a judge for those, or for all, and for
a study sample of answers that rules have decided: what it says there is how often it is right. An accuracy of judged
answers is then corrected for that error (Rogan and Gladen 1978, Am. J. Epidemiol. 107:71), and its interval holds three
uncertainties: of the items, and of both rates of the judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from finr1.curation import hash_share
from finr1.evaluation.samples import Decoding, Sample
from finr1.evaluation.several import holm
from finr1.evaluation.statistics import CONFIDENCE, wilson_interval
from finr1.judge.model import JUDGE_SAMPLING, check_request, read_verdict
from finr1.records import Problem, Record, Trace

if TYPE_CHECKING:
    from finr1.generation import AnswerStore, Backend

STUDY = 200  # answers decided by rules that the judge grades, too: both rates to some 5 points


class Verdict(Record):
    """What the judge said about one answer, beside what rules say."""

    model: str
    decoding: Decoding
    problem_id: str
    sample: int
    judge: str  # its name
    verdict: bool | None  # None: its reply was neither 0 nor 1
    rules: bool | None  # None: rules cannot tell
    study: bool  # asked only to measure the judge; its verdict does not count


class Agreement(NamedTuple):
    """How often the judge says what rules say, on answers that rules decide."""

    right: int  # right by rules, and by the judge
    right_n: int  # right by rules
    wrong: int  # wrong by rules, and by the judge
    wrong_n: int  # wrong by rules

    @property
    def sensitivity(self) -> float | None:
        """Share of right answers that the judge calls right."""
        return self.right / self.right_n if self.right_n else None

    @property
    def specificity(self) -> float | None:
        """Share of wrong answers that the judge calls wrong."""
        return self.wrong / self.wrong_n if self.wrong_n else None


def judge_samples(
    samples: Sequence[Sample],
    problems: Sequence[Problem],
    backend: Backend,
    judge: str,
    scope: Literal["undecided", "all"],
    seed: int,
    store: AnswerStore | None = None,
) -> list[Verdict]:
    """The judge's verdicts on `samples`: of what rules leave undecided and a study sample, or of all with an answer.

    The prompt is the answer check of `finr1.judge`, which shows gold and given answer but not the question (the order
    with the fewest errors in the paper). Answers that are missing are wrong and need no judge.
    """
    from finr1.generation import generate

    by_id = {problem.id: problem for problem in problems}
    graded = [sample for sample in samples if sample.answer is not None]
    wanted = graded if scope == "all" else [s for s in graded if s.correct is None]
    study = [] if scope == "all" else _study(graded, seed)
    requests = [check_request(_trace(sample, by_id[sample.problem_id])) for sample in (*wanted, *study)]
    replies = generate(requests, JUDGE_SAMPLING, backend, store)
    return [
        Verdict(
            **sample.model_dump(include={"model", "decoding", "problem_id", "sample"}),
            judge=judge,
            verdict=read_verdict(reply.text),
            rules=sample.correct,
            study=place >= len(wanted),
        )
        for place, (sample, reply) in enumerate(zip((*wanted, *study), replies, strict=True))
    ]


def _study(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Up to `STUDY` answers that rules decide, as many right ones as wrong ones, by hash."""
    chosen = []
    for verdict in (True, False):
        members = [sample for sample in samples if sample.correct is verdict]
        members.sort(key=lambda s: hash_share(f"{s.model} {s.decoding} {s.problem_id} {s.sample}", seed))
        chosen += members[: STUDY // 2]
    return chosen


def _trace(sample: Sample, problem: Problem) -> Trace:
    name = f"{sample.model} {sample.decoding} {problem.id}#{sample.sample}"
    return Trace(
        id=name, problem=problem, teacher=sample.model, completion=sample.text, reasoning="", answer=sample.answer
    )


def apply_verdicts(samples: Iterable[Sample], verdicts: Iterable[Verdict]) -> list[Sample]:
    """`samples` with the judge's verdict where one counts, marked `graded_by="judge"`; the others as they are."""
    known = {(v.model, v.decoding, v.problem_id, v.sample): v.verdict for v in verdicts if not v.study}
    keys = [(s, (s.model, s.decoding, s.problem_id, s.sample)) for s in samples]
    return [
        s.model_copy(update={"correct": known[key], "graded_by": "judge"}) if key in known else s for s, key in keys
    ]


def agreement(verdicts: Iterable[Verdict]) -> Agreement:
    """`Agreement` of the judge with rules, over all verdicts on answers that both decide."""
    pairs = [(v.rules, v.verdict) for v in verdicts if v.rules is not None and v.verdict is not None]
    right = [verdict for rules, verdict in pairs if rules]
    wrong = [verdict for rules, verdict in pairs if not rules]
    return Agreement(sum(right), len(right), len(wrong) - sum(wrong), len(wrong))


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
    _checked(measured)
    columns = _judged_columns(samples)
    rng = np.random.default_rng(seed)
    point = _rogan_gladen(columns.mean(axis=0), measured.sensitivity, measured.specificity)
    n = len(columns)
    means = [columns[rng.integers(n, size=n)].mean(axis=0) for _ in range(resamples)]
    values = [_rogan_gladen(*row) for row in zip(means, *_draw_rates(measured, rng, resamples), strict=True)]
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    least, most = wilson_interval(point * n, n)  # a bootstrap collapses where all items score alike
    return float(point), float(min(low, least)), float(max(high, most))


def _checked(measured: Agreement) -> Agreement:
    if not (measured.right_n and measured.wrong_n):
        raise ValueError(
            "the judge's error is not known: the study needs answers that are right and ones that are wrong"
        )
    if measured.sensitivity + measured.specificity <= 1:
        raise ValueError(f"the judge is no better than a coin: {measured}")
    return measured


def _draw_rates(measured: Agreement, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` pairs of sensitivity and specificity from their posteriors."""
    right, wrong = measured.right_n - measured.right, measured.wrong_n - measured.wrong
    return rng.beta(measured.right + 0.5, right + 0.5, size), rng.beta(measured.wrong + 0.5, wrong + 0.5, size)


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


def _rogan_gladen(means: np.ndarray, sensitivity: float, specificity: float) -> float:
    by_rules, _, judged = means
    return float(np.clip(_linear(means, sensitivity, specificity), by_rules, by_rules + judged))


def judge_table(samples: Sequence[Sample], verdicts: Sequence[Verdict], seed: int) -> list[dict]:
    """A row a model and decoding with judged answers: share judged, accuracy as judged, and corrected with interval."""
    measured = agreement(verdicts)
    groups: dict[tuple, list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.model, sample.decoding), []).append(sample)
    rows = []
    for (model, decoding), members in groups.items():
        columns = _judged_columns(members)
        if columns[:, 2].any():
            estimate, low, high = corrected_accuracy(members, measured, seed)
            rows.append({"model": model, "decoding": decoding, "n": len(columns), "judged": float(columns[:, 2].mean()),
                         "as judged": float(columns[:, :2].sum(axis=1).mean()), "corrected": estimate, "low": low,
                         "high": high})  # fmt: skip
    return rows


def with_judge_error(rows: Sequence[dict], judged: Sequence[dict]) -> list[dict]:
    """`results_table`'s rows, accuracy and interval corrected as in `judge_table`; what was judged is `as_judged`."""
    found = {(row["model"], row["decoding"]): row for row in judged}
    corrected = []
    for row in rows:
        if better := found.get((row["model"], row["decoding"])):
            row = row | {"as_judged": row["accuracy"], "accuracy": better["corrected"]}
            row |= {end: better[end] for end in ("low", "high")}
        corrected.append(row)
    return corrected


def steps_with_judge_error(
    steps: Sequence[dict], samples: Sequence[Sample], verdicts: Sequence[Verdict], seed: int, resamples: int = 10_000
) -> list[dict]:
    """`paired_table`'s rows with the judge's error taken out of difference, interval and p, as far as a judge graded.

    A judge that errs alike for both models does not leave their difference alone: a model that answers more often is
    forgiven more often. The difference of both corrected accuracies, not cut to [0, 1], over the same resampled items
    and with the same drawn rates; p is twice the smaller share of draws on one side of zero. `as_judged` is the
    difference before; the parts of the gain stay as judged. Raises `ValueError` as `corrected_accuracy` does.
    """
    if not any(sample.graded_by == "judge" for sample in samples):
        return list(steps)
    measured, rng = _checked(agreement(verdicts)), np.random.default_rng(seed)
    rates, rows = _draw_rates(measured, rng, resamples), []
    for step in steps:
        change = _paired_columns(samples, step)
        n = len(change)
        means = np.array([change[rng.integers(n, size=n)].mean(axis=0) for _ in range(resamples)])
        values = _linear(means.T, *rates)
        low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        p = min(1.0, 2 * max(min((values <= 0).mean(), (values >= 0).mean()), 1 / resamples))
        corrected = float(_linear(change.mean(axis=0), measured.sensitivity, measured.specificity))
        row = {"as_judged": step["difference"], "difference": corrected, "low": float(low), "high": float(high)}
        rows.append(step | row | {"p": float(p), "test": "bootstrap", "inside_noise": bool(low <= 0 <= high)})
    return [row | {"p_holm": p} for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True)]


def _paired_columns(samples: Sequence[Sample], step: dict) -> np.ndarray:
    """(items, 3): `_judged_columns` of the later model minus those of the earlier one, over the items of both."""
    sides = []
    for model in (step["before"], step["after"]):
        members = [s for s in samples if (s.model, s.decoding) == (model, step["decoding"]) and s.correct is not None]
        items = sorted({s.problem_id for s in members})
        sides.append(dict(zip(items, _judged_columns(members), strict=True)))
    return np.array([sides[1][item] - sides[0][item] for item in sides[0] if item in sides[1]])


def judge_line(verdicts: Sequence[Verdict]) -> str:
    """One line about the judge: how many answers it graded, and how often it says what rules say."""
    measured, counted = agreement(verdicts), [v for v in verdicts if not v.study]
    parts = [f"{len(counted)} answers graded by {verdicts[0].judge}" if verdicts else "no answer was given to a judge"]
    for name, k, n in (("right", measured.right, measured.right_n), ("wrong", measured.wrong, measured.wrong_n)):
        if n:
            low, high = wilson_interval(k, n)
            parts.append(
                f"of {n} {name} by rules it calls {100 * k / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] {name}"
            )
    unread = sum(v.verdict is None for v in verdicts)
    return "; ".join([*parts, *([f"{unread} replies could not be read"] if unread else [])])
