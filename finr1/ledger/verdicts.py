"""What a run did and got, held against each claim, with a verdict by rule.

- a number is *reproduced* when it lies in this run's 95 % interval and *not reproduced* when it lies outside. It is
  *not attempted* when the run could not have met it whatever it found: other questions, another base model, too few
  items for an interval of at most `WIDEST` to either side. A run on synthetic problems attempts no number.
- a count has no interval: it is reproduced when it is equal as far as the paper prints it.
- a setting is *followed* or *departed from*; where it asks for so many records, that many have to have been drawn.
- what the paper leaves open is *open*: there is nothing to hold a run against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from finr1 import reported
from finr1.evaluation import Sample, paired_table, percent, points, results_table
from finr1.ledger.claims import Claim, read_claims
from finr1.manifest import read_manifest

WIDEST = 0.05  # an interval wider than this to either side would "reproduce" nearly anything
RECIPE = ("base", "zero", "sft", "grpo")  # models that only the paper's base model makes comparable

Verdict = Literal["reproduced", "not reproduced", "not attempted", "followed", "departed from", "open"]


@dataclass(frozen=True)
class Evidence:
    """What a run did and measured, as far as it is complete."""

    parameters: Mapping[str, Mapping[str, Any]]  # stage -> its parameters
    metrics: Mapping[str, Mapping[str, Any]]  # stage -> its manifest's metrics
    samples: Sequence[Sample] = ()
    seed: int = 0
    rows: list[dict] = field(init=False)  # a row a model and source

    def __post_init__(self):
        object.__setattr__(self, "rows", results_table(self.samples, by="source"))

    def setting(self, parameter: str) -> Any:
        """Value of <stage>.<name>; None where the stage did not run or knew no such parameter."""
        stage, _, name = parameter.partition(".")
        return self.parameters.get(stage, {}).get(name)

    def has(self, parameter: str) -> bool:
        stage, _, name = parameter.partition(".")
        return name in self.parameters.get(stage, {})


def read_evidence(stages: Mapping[str, Path], samples: Sequence[Sample], seed: int) -> Evidence:
    """`stages`: stage name -> folder; incomplete ones count as not run."""
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
    if model in RECIPE and not _same(base, reported.BASE):
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
    return Found(
        row["accuracy"], row["low"], row["high"], row["n"], f"{row['decoding']}, {row['n']} items",
        _unlike(model, run),
    )  # fmt: skip


def _difference(before: str, after: str, source: str, run: Evidence) -> Found:
    samples = [s for s in run.samples if s.source == source and s.model in (before, after)]
    if {s.model for s in samples} != {before, after}:
        return Found(missing=f"this run did not ask {before} and {after} anything of {source}")
    row = _best([r for r in paired_table(samples, run.seed) if (r["before"], r["after"]) == (before, after)])
    how = f"{row['decoding']}, {row['n']} items, paired"
    return Found(row["difference"], row["low"], row["high"], row["n"], how, _unlike(after, run))


def _mean(model: str, run: Evidence) -> Found:
    """Unweighted over the five; the interval by MOVER from theirs (Zou and Donner 2008, Stat. Med. 27:1693)."""
    parts = [_accuracy(model, source, run) for source in reported.SOURCE_NAMES.values()]
    if absent := next((part.missing for part in parts if part.value is None), ""):
        return Found(missing=absent)
    value = sum(part.value for part in parts) / len(parts)
    below, above = (
        sum((part.value - getattr(part, end)) ** 2 for part in parts) ** 0.5 / len(parts) for end in ("low", "high")
    )
    return Found(value, value - below, value + above, sum(p.n for p in parts), "five benchmarks", parts[0].missing)


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
    other = "" if _same(own, judge) else f"another judge ({own})"
    if not other and run.setting("01_data.source_names") != ["finqa"]:
        other = "other items than FinQA's"
    return Found(row["inaccurate"], row["low"], row["high"], row["n"], f"{row['n']} replies", other)


# ---- verdicts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A claim held against a run, in words."""

    claim: Claim
    did: str
    got: str
    verdict: Verdict
    why: str


def hold(claim: Claim, run: Evidence) -> Entry:
    """The verdict on one claim, by the rules above."""
    did = _did(claim, run)
    for parameter, values in claim.where.items():
        if claim.status != "not stated" and not _meets(run.setting(parameter), values):
            return Entry(claim, did, "", "not attempted", f"{_name(parameter)} = {_text(run.setting(parameter))}")
    if claim.measure:
        found = measured(claim, run)
        return Entry(claim, found.how or did, _got(claim, found), *_on_number(claim, found, run))
    drawn = _drawn(claim, run)
    return Entry(claim, did, "" if drawn is None else f"{drawn:,}", *_on_setting(claim, run))


def entries(run: Evidence, claims: Sequence[Claim] | None = None) -> list[Entry]:
    return [hold(claim, run) for claim in (read_claims() if claims is None else claims)]


def tally(rows: Sequence[Entry]) -> dict[Verdict, int]:
    """Verdict -> number of claims, all verdicts, in the order of the type."""
    counted = Counter(row.verdict for row in rows)
    return {verdict: counted[verdict] for verdict in get_args(Verdict)}


def as_rows(rows: Sequence[Entry]) -> list[dict[str, str]]:
    """The entries as text, a dict each, for a data frame."""
    return [
        {"part": row.claim.part, "claim": row.claim.says, "status": row.claim.status,
         "the paper": shown_number(row.claim), "this run": row.did, "got": row.got, "verdict": row.verdict}
        for row in rows
    ]  # fmt: skip


def _on_number(claim: Claim, found: Found, run: Evidence) -> tuple[Verdict, str]:
    if found.missing:
        return "not attempted", found.missing
    if found.low is None or found.high is None:  # a count
        if round(found.value, -1) == claim.number:  # the paper prints thousands with two decimals
            return "reproduced", "equal as printed"
        if run.setting("01_data.data_dir"):
            return "not attempted", "a folder of one's own need not be the source's release"
        return "not reproduced", "another number than printed"
    if max(found.high - found.value, found.value - found.low) > WIDEST:
        return "not attempted", f"{found.n} items are too few: the interval is wider than {100 * WIDEST:g} points"
    if found.low <= claim.number <= found.high:
        return "reproduced", "inside this run's interval"
    return "not reproduced", "outside this run's interval"


def _on_setting(claim: Claim, run: Evidence) -> tuple[Verdict, str]:
    if claim.status in ("not stated", "contradicted"):
        return "open", "" if claim.status == "not stated" else "the sources disagree"
    if claim.built_in is not None:
        return ("followed", "built in") if claim.built_in else ("departed from", "not built")
    if claim.parameter is None or not run.has(claim.parameter):
        return "not attempted", "the stage has not run"
    value = run.setting(claim.parameter)
    if claim.above is not None:
        follows = isinstance(value, int | float) and value > claim.above
    else:
        follows = any(_same(value, expected) for expected in claim.expected or [])
    other = [name for name, values in claim.also.items() if not _meets(run.setting(name), values)]
    if not follows or other:
        return "departed from", ", ".join(f"{_name(name)} = {_text(run.setting(name))}" for name in other)
    if not claim.drawn:
        return "followed", ""
    drawn = _drawn(claim, run)
    if drawn is None:
        return "not attempted", "this run did not count its training records by source"
    return ("followed", "") if drawn >= claim.number else ("departed from", "fewer training records were drawn")


def _drawn(claim: Claim, run: Evidence) -> int | None:
    """Training records that notebook 01 kept of the claim's sources; None where none are asked for or known."""
    counts = run.metrics.get("01_data", {}).get("train_records")
    return sum(counts.get(source, 0) for source in claim.drawn) if claim.drawn and counts is not None else None


def _name(parameter: str) -> str:
    return parameter.partition(".")[2]


def _meets(value: Any, values: Sequence[Any]) -> bool:
    """One of `values`; a list has to hold all of them."""
    return set(values) <= set(value) if isinstance(value, list) else value in values


def _same(value: Any, expected: Any) -> bool:
    """Equal; names of models by their last part, lists as sets."""
    if isinstance(value, str) and isinstance(expected, str):
        return value.rpartition("/")[2].casefold() == expected.rpartition("/")[2].casefold()
    if isinstance(value, list) and isinstance(expected, list):
        return set(value) == set(expected)
    return value == expected


def _did(claim: Claim, run: Evidence) -> str:
    if claim.parameter is None or not run.has(claim.parameter):
        return ""
    value = run.setting(claim.parameter)
    return f"{_name(claim.parameter)} = {_text(value)}"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _got(claim: Claim, found: Found) -> str:
    if found.value is None:
        return ""
    if found.low is None:
        return f"{found.value:,}"
    form = points if claim.measure == "difference" else percent
    return f"{form(found.value)} [{form(found.low)}, {form(found.high)}]"


def shown_number(claim: Claim) -> str:
    """The claim's number as the report prints it: percent, points or a count; the expected setting; or nothing."""
    if claim.number is not None:
        if claim.is_count:
            return f"{claim.number:,.0f}"
        return points(claim.number) if claim.measure == "difference" else f"{percent(claim.number)} %"
    if claim.above is not None:
        return f"above {claim.above:g}"
    wanted = (claim.expected or [""])[0]
    return ", ".join(wanted) if isinstance(wanted, list) else str(wanted)
