"""What a run did and got, held against each claim, with a verdict by rule.

- a number is *reproduced* when it lies in this run's 95 % interval and *not reproduced* when it lies outside. It is
  *not attempted* when the run could not have met it whatever it found: other questions, another base model, too few
  items for an interval of at most `WIDEST` to either side, open questions that nobody graded. A run on synthetic
  problems attempts no number. A judge's error is taken out of scores and intervals; where it is not measured, the run's
  number is as judged, which is how the paper has its own, and says so.
- a count has no interval: it is reproduced when it is equal as far as the paper prints it.
- a setting is *followed* or *departed from*; where it asks for so many records, that many have to have been drawn.
- what the paper leaves open is *open*: there is nothing to hold a run against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from finr1.evaluation import percent, points
from finr1.ledger.claims import Claim, read_claims
from finr1.ledger.evidence import Evidence, Found, measured, same

WIDEST = 0.05  # an interval wider than this to either side would "reproduce" nearly anything

Verdict = Literal["reproduced", "not reproduced", "not attempted", "followed", "departed from", "open"]


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
        follows = any(same(value, expected) for expected in claim.expected or [])
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
    return _text(wanted)
