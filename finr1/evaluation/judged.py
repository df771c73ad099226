"""A model as the judge of answers: what it says is kept, and how often it says what rules say is counted.

Rules leave some answers undecided (open questions, texts). `judge_samples` asks a judge for those, or for all, and for
a study sample of answers that rules have decided: what it says there is how often it is right, which `judge_error`
takes out of the accuracies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from finr1.curation import hash_share
from finr1.evaluation.samples import Decoding, Sample
from finr1.evaluation.statistics import wilson_interval
from finr1.judge.model import JUDGE_SAMPLING, check_request, read_verdict
from finr1.records import Problem, Record, Trace

if TYPE_CHECKING:
    from finr1.generation import AnswerStore, Backend

TAKEN_OUT = "taken out"  # what a row's `judge_error` says where it is
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
    """`samples` with the judge's verdict where one counts, marked `graded_by="judge"`; the others as they are.

    A reply that could not be read says nothing: what rules say stays, which may be None.
    """
    said = [v for v in verdicts if not v.study and v.verdict is not None]
    known = {(v.model, v.decoding, v.problem_id, v.sample): v.verdict for v in said}
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


def judge_line(verdicts: Sequence[Verdict]) -> str:
    """One line about the judge: how many answers it graded, and how often it says what rules say."""
    measured = agreement(verdicts)
    counted = [v for v in verdicts if not v.study and v.verdict is not None]
    parts = [f"{len(counted)} answers graded by {verdicts[0].judge}" if verdicts else "no answer was given to a judge"]
    for name, k, n in (("right", measured.right, measured.right_n), ("wrong", measured.wrong, measured.wrong_n)):
        if n:
            low, high = wilson_interval(k, n)
            parts.append(
                f"of {n} {name} by rules it calls {100 * k / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] {name}"
            )
    unread = sum(v.verdict is None for v in verdicts)
    return "; ".join([*parts, *([f"{unread} replies could not be read"] if unread else [])])
