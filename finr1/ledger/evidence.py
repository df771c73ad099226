"""What a run did and measured, and which of its numbers stands beside a claim.

A judge's error is taken out of scores and intervals. Where it is not measured, a score is as judged, which is how the
paper has its own, and says so. Open questions that nobody graded leave no score to compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finr1 import reported
from finr1.evaluation import (
    Sample,
    paired_table,
    results_table,
)
from finr1.judge import TAKEN_OUT, Verdict, steps_with_judge_error, with_judge_error
from finr1.ledger.claims import Claim
from finr1.manifest import read_manifest

UNREAD = 0.01  # share of answers that a judge may leave ungraded, its reply being no verdict
RECIPE = ("base", "zero", "sft", "grpo")  # models that only the paper's base model makes comparable


@dataclass(frozen=True)
class Evidence:
    """What a run did and measured, as far as it is complete."""

    parameters: Mapping[str, Mapping[str, Any]]  # stage -> its parameters
    metrics: Mapping[str, Mapping[str, Any]]  # stage -> its manifest's metrics
    samples: Sequence[Sample] = ()
    seed: int = 0
    verdicts: Sequence[Verdict] = ()  # of the judge that graded `samples`, where one did
    rows: list[dict] = field(init=False)  # a row a model and source, the judge's error taken out

    def __post_init__(self):
        rows = results_table(self.samples, by="source")
        object.__setattr__(self, "rows", with_judge_error(rows, self.samples, self.verdicts, self.seed))

    def setting(self, parameter: str) -> Any:
        """Value of <stage>.<name>; None where the stage did not run or knew no such parameter."""
        stage, _, name = parameter.partition(".")
        return self.parameters.get(stage, {}).get(name)

    def has(self, parameter: str) -> bool:
        stage, _, name = parameter.partition(".")
        return name in self.parameters.get(stage, {})


def read_evidence(
    stages: Mapping[str, Path], samples: Sequence[Sample], seed: int, verdicts: Sequence[Verdict] = ()
) -> Evidence:
    """`stages`: stage name -> folder; incomplete ones count as not run. `verdicts`: of the judge of `samples`."""
    manifests = {}
    for name, folder in stages.items():
        try:
            manifests[name] = read_manifest(folder)
        except FileNotFoundError:
            continue
    return Evidence(
        {name: manifest["parameters"] for name, manifest in manifests.items()},
        {name: manifest["metrics"] for name, manifest in manifests.items()},
        samples,
        seed,
        verdicts,
    )


@dataclass(frozen=True)
class Found:
    """A number of this run beside a claim; `missing` says why it cannot be held against it."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    how: str = ""
    missing: str = ""


def measured(claim: Claim, run: Evidence) -> Found:
    """What the run has to set against `claim.number`."""
    match claim.measure:
        case "accuracy":
            return _accuracy(*claim.of, run)
        case "difference":
            return _difference(*claim.of, run)
        case "mean":
            return _mean(*claim.of, run)
        case "raw_records":
            return _raw_records(*claim.of, run)
        case _:
            return _judge_error(*claim.of, run)


def _unlike(model: str, run: Evidence) -> str:
    """Why a score of this run's `model` cannot be held against the paper's; empty where it can.

    A model from outside the recipe is taken at its name.
    """
    base, cut = run.setting("06_benchmark.model_name_or_path"), run.setting("01_data.max_context_chars")
    if model in RECIPE and not same(base, reported.BASE):
        return f"another base model ({base})" if base else "the benchmark has not run"
    return f"contexts are cut to {cut} characters" if cut else ""


def _best(rows: Sequence[dict]) -> dict:
    """The greedy row where there is one: the paper states no decoding."""
    return min(rows, key=lambda row: row["decoding"] != "greedy")


def _accuracy(model: str, source: str, run: Evidence) -> Found:
    rows = [r for r in run.rows if (r["model"], r["source"]) == (model, source) and r["accuracy"] is not None]
    if not rows:
        return Found(missing=f"this run did not ask {model} anything of {source}")
    row = _best(rows)
    members = [s for s in run.samples if (s.model, s.source, s.decoding) == (model, source, row["decoding"])]
    if open_ones := _undecided(members):
        return Found(missing=open_ones)
    how = f"{row['decoding']}, {row['n']} items{_graded(row)}"
    return Found(row["accuracy"], row["low"], row["high"], row["n"], how, _unlike(model, run))


def _difference(before: str, after: str, source: str, run: Evidence) -> Found:
    samples = [s for s in run.samples if s.source == source and s.model in (before, after)]
    if {s.model for s in samples} != {before, after}:
        return Found(missing=f"this run did not ask {before} and {after} anything of {source}")
    steps = [r for r in paired_table(samples, run.seed) if (r["before"], r["after"]) == (before, after)]
    if not steps:
        return Found(missing=_undecided(samples) or "fewer than two items have an answer of both models")
    row = _best(steps_with_judge_error(steps, samples, run.verdicts, run.seed))
    if open_ones := _undecided([s for s in samples if s.decoding == row["decoding"]]):
        return Found(missing=open_ones)
    how = f"{row['decoding']}, {row['n']} items, paired{_graded(row)}"
    return Found(row["difference"], row["low"], row["high"], row["n"], how, _unlike(after, run))


def _undecided(samples: Sequence[Sample]) -> str:
    """Why an accuracy of `samples` is none of all of them; empty where it is, a few unread replies of a judge aside.

    Of an open question rules call a missing answer wrong and leave a given one undecided: the rest leans to the wrong.
    """
    left, n = sum(s.correct is None for s in samples), len(samples)
    if not any(s.graded_by == "judge" for s in samples):
        return f"rules leave {left} of {n} answers undecided; no judge" if left else ""
    return f"{left} of {n} answers are undecided after the judge" if left > UNREAD * n else ""


def _graded(row: Mapping[str, Any]) -> str:
    """How a judge's error stands in a number; empty where no judge graded."""
    if "judge_error" not in row:
        return ""
    return ", judged, its error taken out" if row["judge_error"] == TAKEN_OUT else ", as judged, its error not included"


def _mean(model: str, run: Evidence) -> Found:
    """Unweighted over the five; the interval by MOVER from theirs (Zou and Donner 2008, Stat. Med. 27:1693).

    MOVER takes the five as independent: where a judge graded several, what is unsure about it counts as if anew each.
    """
    parts = [_accuracy(model, source, run) for source in reported.SOURCE_NAMES.values()]
    if absent := next((part.missing for part in parts if part.value is None), ""):
        return Found(missing=absent)
    value = sum(part.value for part in parts) / len(parts)
    graded = dict.fromkeys(part.how.partition(" items")[2] for part in parts)
    how = "five benchmarks" + "; ".join(filter(None, graded))
    below, above = (
        sum((part.value - getattr(part, end)) ** 2 for part in parts) ** 0.5 / len(parts) for end in ("low", "high")
    )
    return Found(value, value - below, value + above, sum(p.n for p in parts), how, parts[0].missing)


def _raw_records(source: str, run: Evidence) -> Found:
    """The first row of the funnel: what lay in the folder of that source."""
    funnel = run.metrics.get("01_data", {}).get("funnel") or [{}]
    if not funnel[0].get(source):
        return Found(missing=f"this run took no records of {source}")
    folder = run.setting("01_data.data_dir")
    return Found(
        funnel[0][source], how=f"all records in {folder}" if folder else "all records of the source's public home"
    )


def _judge_error(judge: str, order: str, run: Evidence) -> Found:
    rows = [row for row in run.metrics.get("03_filtering", {}).get("study") or [] if row["order"] == order]
    if not rows:
        return Found(missing="this run did not study its judge")
    row, own = rows[0], run.setting("03_filtering.judge_model")
    other = "" if same(own, judge) else f"another judge ({own})"
    if not other and run.setting("01_data.source_names") != ["finqa"]:
        other = "other items than FinQA's"
    return Found(row["inaccurate"], row["low"], row["high"], row["n"], f"{row['n']} replies", other)


def same(value: Any, expected: Any) -> bool:
    """Equal; names of models by their last part, lists as sets."""
    if isinstance(value, str) and isinstance(expected, str):
        return value.rpartition("/")[2].casefold() == expected.rpartition("/")[2].casefold()
    if isinstance(value, list) and isinstance(expected, list):
        return set(value) == set(expected)
    return value == expected
