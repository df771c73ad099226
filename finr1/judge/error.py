"""How often a judge errs, by the order of its prompt and on the benchmark's answers; and scores without that error.

On the benchmark a judge grades what rules leave undecided (open questions, texts) and a study sample of answers that
rules decide. The sample gives its two error rates. With them an accuracy is corrected by Rogan and Gladen's estimate
(1978, Am. J. Epidemiol. 107:71), and its interval holds three uncertainties: of the items, and of both rates. It is
assumed that the judge errs on undecided answers as on those of the sample, which may be easier.

That needs rules as the truth. A judge that graded *all* answers was asked because rules are not trusted, say with forms
of an answer: corrected by its disagreement with rules, a score would be the rules' own again. Such scores stay as
judged, and each row says so in `judge_error`.

Functions that take `samples` need records with the fields of `evaluation.Sample`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from finr1.generation import AnswerStore, Backend, SamplingParams, generate
from finr1.judge.model import CHECK_PROMPTS, JUDGE_SAMPLING, check_request, read_check
from finr1.records import Problem, Record, Trace, hash_share

REPEATS = 5  # of each item in the study of the prompts, as in the paper
STUDY = 200  # answers decided by rules that the judge grades, too: both rates to some 5 points
RESAMPLES = 10_000
TAKEN_OUT = "taken out"  # what a row's `judge_error` says where it is
_GROUPS = ("model", "decoding", "capability", "family", "language", "source", "suite")  # what a row may stand for
_ENDS = ("accuracy", "low", "high")
_KEY = ("model", "decoding", "problem_id", "sample")  # names one answer of the benchmark
_key_of = attrgetter(*_KEY)


class Verdict(Record):
    """What the judge said about one answer, beside what rules say."""

    model: str
    decoding: Literal["greedy", "sampled"]
    problem_id: str
    sample: int
    judge: str  # its name
    verdict: bool | None  # None: its reply was neither 0 nor 1
    rules: bool | None  # None: rules cannot tell
    study: bool  # asked only to measure the judge; its verdict does not count


class ErrorRates(NamedTuple):
    """How often the judge says what rules say, on answers that rules decide."""

    right: int  # right by rules, and by the judge
    right_n: int  # right by rules
    wrong: int  # wrong by rules, and by the judge
    wrong_n: int  # wrong by rules

    @property
    def shares(self) -> tuple[float, float]:
        """Sensitivity and specificity: shares of the right and of the wrong answers that the judge calls so."""
        return self.right / self.right_n, self.wrong / self.wrong_n

    def draws(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Both shares, `RESAMPLES` times, from their posteriors under Jeffreys' prior, Beta(k + 1/2, n - k + 1/2).

        A judge tried on ten answers is therefore not taken for perfect.
        """
        counts = ((self.right, self.right_n), (self.wrong, self.wrong_n))
        return [rng.beta(k + 0.5, n - k + 0.5, RESAMPLES) for k, n in counts]


def study_orders(
    traces: Sequence[Trace], known: Sequence[bool], backend: Backend, store: AnswerStore | None, seed: int
) -> list[dict]:
    """The paper's judge study on any judge: one row per order of the prompt, with shares over traces x `REPEATS`.

    `inaccurate`: a 0 or 1 that is not the known verdict. `irregular`: a reply that is neither. The paper has 100 FinQA
    items, 5 repeats and people's verdicts; it does not state the temperature, so the judge's repeats are sampled at 1.
    The interval is Wilson's over the replies, which are not independent within an item: read it as a lower bound.
    """
    sampling = SamplingParams(temperature=1.0, max_tokens=16, num_samples=REPEATS, seed=seed)
    expected = [verdict for verdict in known for _ in range(REPEATS)]
    rows = []
    for order in CHECK_PROMPTS:
        requests = [check_request(trace.id, trace.problem, trace.answer, order) for trace in traces]
        said = [read_check(reply.text) for reply in generate(requests, sampling, backend, store)]
        wrong, n = sum(v is not None and v != e for v, e in zip(said, expected, strict=True)), len(said)
        low, high = _wilson(wrong, n)
        row = {"order": order, "n": n, "inaccurate": wrong / n, "low": low, "high": high}
        rows.append(row | {"irregular": said.count(None) / n})
    return rows


def judge_samples(
    samples: Sequence[Record],
    problems: Sequence[Problem],
    backend: Backend,
    judge: str,
    scope: Literal["undecided", "all"],
    seed: int,
    store: AnswerStore | None = None,
) -> list[Verdict]:
    """The judge's verdicts on `samples`: on those that rules leave undecided and a study sample, or on all.

    The study sample has up to `STUDY` answers, as many right ones as wrong ones by rules. The prompt is the answer
    check without the question. A missing answer is wrong and needs no judge.
    """
    wanted, study = [s for s in samples if s.answer is not None], []
    if scope == "undecided":
        for right in (True, False):
            decided = [s for s in wanted if s.correct is right]
            decided.sort(key=lambda s: hash_share(" ".join(map(str, _key_of(s))), seed))
            study += decided[: STUDY // 2]
        wanted = [s for s in wanted if s.correct is None]
    by_id, verdicts = {problem.id: problem for problem in problems}, []
    requests = [
        check_request(f"{s.model} {s.decoding} {s.problem_id}#{s.sample}", by_id[s.problem_id], s.answer)
        for s in (*wanted, *study)
    ]
    replies = generate(requests, JUDGE_SAMPLING, backend, store)
    for place, (sample, reply) in enumerate(zip((*wanted, *study), replies, strict=True)):
        said = {"judge": judge, "verdict": read_check(reply.text), "rules": sample.correct}
        verdicts.append(Verdict(**sample.model_dump(include=set(_KEY)), **said, study=place >= len(wanted)))
    return verdicts


def apply_verdicts(samples: Iterable[Record], verdicts: Iterable[Verdict]) -> list[Record]:
    """`samples` with the judge's verdict where one counts, marked `graded_by="judge"`; the others as they are.

    A reply that could not be read says nothing: what rules say stays, which may be None.
    """
    said = {_key_of(v): v.verdict for v in verdicts if not v.study and v.verdict is not None}
    changes = ((s, {"correct": said.get(_key_of(s)), "graded_by": "judge"}) for s in samples)
    return [s if change["correct"] is None else s.model_copy(update=change) for s, change in changes]


def error_rates(verdicts: Iterable[Verdict]) -> ErrorRates:
    """The judge held against rules, over all verdicts on answers that both decide."""
    right = [v.verdict for v in verdicts if v.rules is True and v.verdict is not None]
    wrong = [v.verdict for v in verdicts if v.rules is False and v.verdict is not None]
    return ErrorRates(right.count(True), len(right), wrong.count(False), len(wrong))


def judge_line(verdicts: Sequence[Verdict]) -> str:
    """One line about the judge: how many answers it graded, and how often it says what rules say."""
    counted = sum(not v.study and v.verdict is not None for v in verdicts)
    parts = [f"{counted} answers graded by {verdicts[0].judge}" if verdicts else "no answer was given to a judge"]
    rates = error_rates(verdicts)
    for name, k, n in (("right", rates.right, rates.right_n), ("wrong", rates.wrong, rates.wrong_n)):
        if n:
            low, high = (100 * end for end in _wilson(k, n))
            parts.append(f"of {n} {name} by rules it calls {100 * k / n:.1f} % [{low:.1f}, {high:.1f}] {name}")
    if unread := sum(v.verdict is None for v in verdicts):
        parts.append(f"{unread} replies could not be read")
    return "; ".join(parts)


def with_judge_error(
    rows: Sequence[dict], samples: Sequence[Record], verdicts: Sequence[Verdict], seed: int
) -> list[dict]:
    """`rows` (of `evaluation.results_table(samples, by)`) with the judge's error taken out where one graded.

    Such rows gain `as_judged`, the accuracy before, and `judge_error`: `TAKEN_OUT`, or why it could not be; there
    accuracy and interval stay as judged. Rows that rules graded stay as they are.
    """
    reason, rates = _not_measured(verdicts), error_rates(verdicts)
    keys = [key for key in _GROUPS if rows and key in rows[0]]
    groups, corrected = _item_shares(samples, keys), []
    for row in rows:
        shares = groups.get(tuple(str(row[key]) for key in keys))
        if shares is not None and shares["judged"].any():
            row = row | {"as_judged": row["accuracy"], "judge_error": reason or TAKEN_OUT}
            row |= {} if reason else dict(zip(_ENDS, _corrected(shares, rates, seed), strict=True))
        corrected.append(row)
    return corrected


def judge_table(samples: Sequence[Record], verdicts: Sequence[Verdict], seed: int) -> list[dict]:
    """One row per model and decoding with judged answers: share judged, accuracy as judged, accuracy corrected.

    `corrected` and its interval are None where `judge_error` says that the error is not measured.
    """
    reason, rates, rows = _not_measured(verdicts), error_rates(verdicts), []
    for (model, decoding), shares in _item_shares(samples, ["model", "decoding"]).items():
        by_rules, by_judge, judged = map(float, shares.mean())
        if judged:
            accuracy, low, high = (None, None, None) if reason else _corrected(shares, rates, seed)
            rows.append({
                "model": model, "decoding": decoding, "n": len(shares), "judged share": judged,
                "as judged": by_rules + by_judge, "corrected": accuracy, "low": low, "high": high,
                "judge_error": reason or TAKEN_OUT,
            })  # fmt: skip
    return rows


def steps_with_judge_error(
    steps: Sequence[dict], samples: Sequence[Record], verdicts: Sequence[Verdict], seed: int
) -> list[dict]:
    """`steps` (of `evaluation.paired_table`) with the judge's error taken out of difference, interval and p.

    A judge that errs alike for both models changes their difference all the same: a model that answers more often is
    forgiven more often. The difference is that of both corrected accuracies, not cut to [0, 1], over the same resampled
    items and with the same drawn rates; p is twice the smaller share of draws on one side of zero. `as_judged` is the
    difference before; the parts of the gain stay as judged. Where the error is not measured nothing changes but that
    `judge_error` says why.
    """
    from statsmodels.stats.multitest import multipletests

    shares = _item_shares(samples, ["model", "decoding"])
    if not steps or not any(members["judged"].any() for members in shares.values()):
        return list(steps)
    if reason := _not_measured(verdicts):
        return [step | {"as_judged": step["difference"], "judge_error": reason} for step in steps]
    rates, rng = error_rates(verdicts), np.random.default_rng(seed)
    drawn, rows = rates.draws(rng), []
    for step in steps:
        before, after = (shares[step[side], step["decoding"]] for side in ("before", "after"))
        change = (after - before).dropna().to_numpy()  # of the items that are decided for both
        values = _rogan_gladen(_resampled_means(change, rng), *drawn)
        low, high = np.quantile(values, [0.025, 0.975])
        p = min(1.0, 2 * max(min((values <= 0).mean(), (values >= 0).mean()), 1 / RESAMPLES))
        row = {"as_judged": step["difference"], "difference": float(_rogan_gladen(change.mean(axis=0), *rates.shares))}
        row |= {"low": float(low), "high": float(high), "inside_noise": bool(low <= 0 <= high)}
        rows.append(step | row | {"p": float(p), "test": "bootstrap", "judge_error": TAKEN_OUT})
    corrected = multipletests([row["p"] for row in rows], method="holm")[1]
    return [row | {"p_holm": float(p)} for row, p in zip(rows, corrected, strict=True)]


def _not_measured(verdicts: Sequence[Verdict]) -> str:
    """Why the judge's error cannot be taken out of a score, in words; empty where it can."""
    if any(v.rules is not None and v.verdict is not None and not v.study for v in verdicts):
        return "not measured: the judge graded answers that rules decide, and rules are no truth for it"
    rates = error_rates(verdicts)
    if absent := [name for name, n in (("right", rates.right_n), ("wrong", rates.wrong_n)) if not n]:
        return f"not measured: rules call none of the studied answers {' or '.join(absent)}"
    return "not taken out: the judge is no better than a coin" if sum(rates.shares) <= 1 else ""


def _item_shares(samples: Iterable[Record], keys: Sequence[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """Values of `keys` -> one row per item: shares of its answers right by rules, right by the judge, and judged.

    Undecided answers are left out.
    """
    answers = []
    for s in samples:
        if s.correct is not None:
            judged = s.graded_by == "judge"
            values = (str(getattr(s, key)) for key in keys)
            answers.append((*values, s.problem_id, s.correct and not judged, s.correct and judged, judged))
    frame = pd.DataFrame(answers, columns=[*keys, "item", "right by rules", "right by judge", "judged"])
    items = frame.groupby([*keys, "item"], sort=False).mean()
    return {values: shares.droplevel(keys) for values, shares in items.groupby(level=keys, sort=False)} if keys else {}


def _corrected(shares: pd.DataFrame, rates: ErrorRates, seed: int) -> tuple[float, float, float]:
    """Accuracy with the judge's error taken out, and its 95 % interval, from the `_item_shares` of one group.

    A percentile bootstrap over items, each time with drawn rates.
    """
    rng, mean, n = np.random.default_rng(seed), shares.mean().to_numpy(), len(shares)
    means = _resampled_means(shares.to_numpy(), rng)
    point = float(_rogan_gladen(mean, *rates.shares, cut=True))
    low, high = np.quantile(_rogan_gladen(means, *rates.draws(rng), cut=True), [0.025, 0.975])
    least, most = _wilson(point * n, n)  # a bootstrap collapses where all items score alike
    return point, float(min(low, least)), float(max(high, most))


def _rogan_gladen(means: np.ndarray, sensitivity, specificity, cut: bool = False):
    """Accuracies with the judge's error taken out; `means` (..., 3) of the columns of `_item_shares`.

    Of the judged answers a share q is called right; then `(q + Sp - 1) / (Se + Sp - 1)` of them are right. With `cut`
    none or all of them at the most.
    """
    by_rules, by_judge, judged = np.moveaxis(means, -1, 0)
    # A draw may have Se + Sp <= 1 where the study is tiny; there the data say nothing about the judged share.
    right = (by_judge - judged * (1 - specificity)) / np.maximum(sensitivity + specificity - 1, 1e-6)
    return by_rules + (np.clip(right, 0, judged) if cut else right)


def _resampled_means(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, 3): means of `shares` (items, 3) over items drawn with replacement.

    Few rows differ, so it is drawn how often each distinct one comes: the same distribution, a hundred times as fast.
    """
    distinct, counts = np.unique(shares, axis=0, return_counts=True)
    n = len(shares)
    return rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n


def _wilson(k: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share `k / n`; `k` may be fractional."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(k, n, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))
