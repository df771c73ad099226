"""How often a judge errs on the benchmark's answers, and accuracies without that error.

A judge grades the answers that rules leave undecided. It also grades a study sample of answers that rules decide, and
we assume that it errs on both alike. A judge that graded *all* can't be measured. `samples`: see `evaluation.Sample`.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from finr1.generation import AnswerStore, Backend, generate
from finr1.judge.model import check_request, read_check, sampling_of
from finr1.params import BenchmarkParams
from finr1.records import GROUPS, Problem, Record, hash_share

STUDY = 200  # answers decided by rules that the judge grades, too: both rates to some 5 points
TAKEN_OUT, LEFT_IN = "taken out", "left in"  # what a row's `judge_error` says
_KEY = ("model", "decoding", "problem_id", "sample")


class Verdict(Record):
    """The judge's verdict on one answer, beside that of the rules."""

    model: str
    decoding: Literal["greedy", "sampled"]
    problem_id: str
    sample: int
    judge: str  # its name
    verdict: bool | None  # None: its reply was neither 0 nor 1
    rules: bool | None  # None: rules cannot tell
    study: bool  # asked only to measure the judge; its verdict does not count


def judge_samples(
    samples: Sequence[Record], problems: Sequence[Problem], judge: Backend, params: BenchmarkParams, store: AnswerStore
) -> list[Verdict]:
    """The judge's verdicts on `samples`: on all, or on those that rules leave undecided and on a study sample.

    `params` say which (`judge_scope`), what the judge is called, and how it decodes. The study sample has up to `STUDY`
    answers, half of them right by rules. A missing answer is wrong unasked.
    """
    given = [s for s in samples if s.answer is not None]
    asked = [(s, False) for s in given if params.judge_scope == "all" or s.correct is None]
    for right in (True, False) if params.judge_scope == "undecided" else ():
        decided = sorted((s for s in given if s.correct is right), key=lambda s: hash_share(_name(s), params.seed))
        asked += [(s, True) for s in decided[: STUDY // 2]]
    by_id = {problem.id: problem for problem in problems}
    requests, verdicts = [check_request(_name(s), by_id[s.problem_id], s.answer) for s, _ in asked], []
    for (s, study), reply in zip(asked, generate(requests, sampling_of(params), judge, store), strict=True):
        said = {"judge": params.judge_model, "verdict": read_check(reply.text), "rules": s.correct, "study": study}
        verdicts.append(Verdict(**s.model_dump(include=set(_KEY)), **said))
    return verdicts


def _name(record: Record) -> str:
    """Names one answer of the benchmark, in a sample as in a verdict."""
    return " ".join(str(getattr(record, key)) for key in _KEY)


def apply_verdicts(samples: Iterable[Record], verdicts: Iterable[Verdict]) -> list[Record]:
    """`samples`, with the judge's verdict and `graded_by="judge"` where one counts and its reply could be read."""
    counted = [v for v in verdicts if not v.study and v.verdict is not None]
    said = {_name(v): {"correct": v.verdict, "graded_by": "judge"} for v in counted}
    return [s.model_copy(update=said.get(_name(s), {})) for s in samples]


def judge_line(verdicts: Sequence[Verdict]) -> str:
    """One line about the judge: how many answers it graded, and how often it says what rules say."""
    counted = sum(not v.study and v.verdict is not None for v in verdicts)
    parts = [f"{counted} answers graded by {verdicts[0].judge}" if verdicts else "no answer was given to a judge"]
    agreed = [(name, k, n) for name, (k, n) in _agreement(verdicts).items() if n]
    parts += [f"of {n} {name} by rules it calls {100 * k / n:.1f} % {name}" for name, k, n in agreed]
    if unread := sum(v.verdict is None for v in verdicts):
        parts.append(f"{unread} replies could not be read")
    return "; ".join(parts)


def with_judge_error(rows: Sequence[dict], samples: Sequence[Record], verdicts: Sequence[Verdict]) -> list[dict]:
    """`rows` (of `evaluation.results_table(samples, by)`) with the judge's error taken out where one graded.

    Such rows gain `as_judged`, the accuracy before, and `judge_error`. It is `LEFT_IN` where the study has no right or
    no wrong answer, or shows a judge no better than a coin. Accuracy and interval then stay as judged.
    """
    rates = _agreement(v for v in verdicts if v.study)
    measured = all(n for _, n in rates.values()) and sum(k / n for k, n in rates.values()) > 1
    corrected = []
    for row in rows:
        names = [(key, str(row[key])) for key in ("model", "decoding", *GROUPS) if key in row]
        own = [s for s in samples if s.correct is not None and all(str(getattr(s, key)) == v for key, v in names)]
        if any(s.graded_by == "judge" for s in own):
            row = row | {"as_judged": row["accuracy"], "judge_error": TAKEN_OUT if measured else LEFT_IN}
            row |= _corrected(own, *rates.values()) if measured else {}
        corrected.append(row)
    return corrected


def _agreement(verdicts: Iterable[Verdict]) -> dict[str, tuple[int, int]]:
    """For the answers that are right (wrong) by rules: how many the judge calls so, and how many it judged."""
    pairs = [(v.rules, v.verdict == v.rules) for v in verdicts if v.verdict is not None]
    agrees = {name: [a for rules, a in pairs if rules is right] for name, right in (("right", True), ("wrong", False))}
    return {name: (sum(members), len(members)) for name, members in agrees.items()}


def _corrected(samples: Iterable[Record], *rates: tuple[int, int]) -> dict[str, float]:
    """Accuracy of `samples` with the judge's error taken out, and its 95 % interval, by item.

    Rogan and Gladen (1978), Am. J. Epidemiol. 107:71: where the judge calls a share q right, it is
    (q + Sp - 1) / (Se + Sp - 1). The variance adds those of the items and of both rates (delta method). A rate's is
    that of its posterior under Jeffreys' prior, so that a judge tried on ten answers is not taken for perfect.
    """
    from scipy.stats import beta
    from statsmodels.stats.proportion import proportion_confint

    answers = [(s.problem_id, s.correct, s.graded_by == "judge") for s in samples]
    flags = [(item, right and not judged, right and judged, judged) for item, right, judged in answers]
    shares = pd.DataFrame(flags, columns=["item", "right by rules", "right by judge", "judged"]).groupby("item").mean()
    by_rules, by_judge, judged = shares.to_numpy().T
    (sensitivity, specificity), n = (k / m for k, m in rates), len(shares)
    better = sensitivity + specificity - 1  # than a coin; above 0 here
    right = (by_judge - judged * (1 - specificity)) / better
    value = float(by_rules.mean() + np.clip(right.mean(), 0, judged.mean()))
    slopes = (right.mean() / better, (judged.mean() - right.mean()) / better)
    variance = sum(slope**2 * beta.var(k + 0.5, m - k + 0.5) for slope, (k, m) in zip(slopes, rates, strict=True))
    half = 1.96 * (np.var(by_rules + right) / n + variance) ** 0.5
    least, most = proportion_confint(value * n, n, method="wilson")  # the items' variance is 0 where all score alike
    return {"accuracy": value, "low": float(max(0, min(value - half, least))),
            "high": float(min(1, max(value + half, most)))}  # fmt: skip
