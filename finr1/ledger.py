"""The replication ledger: each claim of the paper, what a run did about it, what it got, and a finding by rule.

- a score is *reproduced* when it lies in this run's 95 % interval and *not reproduced* when it lies outside. It is
  *not attempted* when the run could not have met it whatever it found: other questions, another base model, too few
  items for an interval of at most `WIDEST` to either side, open questions that nobody graded. A run on synthetic
  problems attempts no score. A judge's error is taken out of scores and intervals; where it is not measured, the run's
  number is as judged, which is how the paper has its own, and says so.
- a number that no rule compares is *not attempted*, and the ledger says where a person finds the run's own.
- a setting is *followed* or *departed from*; where it asks for so many records, that many have to have been drawn.
- what the paper leaves open is *open*: there is nothing to hold a run against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finr1 import reported
from finr1.evaluation import change_text, estimate, percent, points
from finr1.judge import TAKEN_OUT
from finr1.params import STAGES

FILE = Path(__file__).with_name("ledger.yaml")
WIDEST = 0.05  # an interval wider than this to either side would "reproduce" nearly anything
UNREAD = 0.01  # share of answers that a judge may leave ungraded, its reply being no verdict
# The paper's models that a run makes itself; only the paper's base model makes them comparable.
RECIPE = {reported.BASE: "base", reported.ZERO: "zero", reported.SFT: "sft", reported.GRPO: "grpo"}

Finding = Literal["reproduced", "not reproduced", "not attempted", "followed", "departed from", "open"]


class Claim(BaseModel):
    """One claim; see the head of `ledger.yaml` for the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    part: Literal["data", "distillation", "filtering", "sft", "grpo", "evaluation", "results"]
    says: str = Field(min_length=1)
    place: str = Field(min_length=1)
    status: Literal["stated", "contradicted", "not stated", "inferred"]
    parameter: str | None = None
    expected: list[Any] | None = None
    above: float | None = None
    also: dict[str, list[Any]] = {}
    where: dict[str, list[Any]] = {}
    built_in: bool | None = None
    reported: list[str] = Field(default=[], max_length=2)
    by_hand: str = ""
    note: str = ""

    @property
    def is_count(self) -> bool:
        return bool(self.reported) and self.reported[0].startswith(("SOURCES", "RECORDS"))

    @property
    def number(self) -> float | None:
        """A share in [0, 1], a difference of shares, or a count of records; None for a claim without a number."""
        if not self.reported:
            return None
        first, *second = (look_up(place) for place in self.reported)
        return first if self.is_count else (first - sum(second)) / 100

    @property
    def drawn(self) -> list[str]:
        """The sources of which `number` training records have to be drawn; the project's names are in snake case."""
        if not self.is_count or self.by_hand:
            return []
        keys = self.reported[0].split("/")
        names = [keys[1]] if len(keys) > 1 else [row["source"] for row in reported.SOURCES]
        return [name.lower().replace("-", "_") for name in names]

    @property
    def shown(self) -> str:
        """The number as the page prints it (percent, points or a count); else the expected setting, or nothing."""
        if self.is_count:
            return f"{self.number:,.0f}"
        if self.number is not None:
            return points(self.number) if len(self.reported) == 2 else f"{percent(self.number)} %"
        return f"above {self.above:g}" if self.above is not None else _text((self.expected or [""])[0])

    @model_validator(mode="after")
    def _hold_together(self) -> Claim:
        if self.status == "not stated" and (self.reported or self.expected is not None or self.above is not None):
            raise ValueError(f"{self.says!r}: what is not stated has no number and no expected value")
        for parameter in (self.parameter, *self.where, *self.also):
            stage, _, name = (parameter or "").partition(".")
            if parameter is not None and (stage not in STAGES or name not in STAGES[stage].model_fields):
                raise ValueError(f"{self.says!r}: there is no parameter {parameter}")
        for place in self.reported:
            look_up(place)
        return self


def look_up(place: str) -> float:
    """A number of `finr1.reported`: RESULTS/<model>/<benchmark or mean>, SOURCES/<source>/<raw or kept>,
    ANSWER_CHECK/<prompt>/<judge>, RECORDS. Raises `ValueError` for a place that is not there.
    """
    if place == "RECORDS":
        return reported.RECORDS
    table, row, column = (*place.split("/"), "", "")[:3]
    try:
        return _table(table)[row][column]
    except KeyError:
        raise ValueError(f"{place}: no such place in finr1.reported") from None


def _table(name: str) -> dict[str, dict[str, float]]:
    """A table of `finr1.reported` as row -> column -> number."""
    tables = {
        "RESULTS": {row["model"]: row["scores"] | {"mean": row["mean"]} for row in reported.RESULTS},
        "SOURCES": {row["source"]: row for row in reported.SOURCES},
        "ANSWER_CHECK": {row["prompt"]: row for row in reported.ANSWER_CHECK},
    }
    return tables[name]


def read_claims(path: Path = FILE) -> list[Claim]:
    """The claims of `ledger.yaml` in their order. Raises pydantic's `ValidationError` for one that does not hold."""
    import yaml

    claims = []
    for shared in yaml.safe_load(path.read_text("utf8")):
        members = shared.pop("claims", [])
        if table := shared.pop("each", None):
            says, columns, but = shared.pop("says"), shared.pop("columns"), shared.pop("but", {})
            places = {f"{table}/{row}/{column}": (row, column) for row in _table(table) for column in columns}
            members = [
                {"says": says.format(row=row, column=column), "reported": [place], **but.get(place, {})}
                for place, (row, column) in places.items()
            ]
        claims += [Claim(**shared | claim) for claim in members]
    return claims


@dataclass(frozen=True)
class Evidence:
    """What a run did and measured, as far as it is complete. The judge's error is taken out of rows and steps."""

    manifests: Mapping[str, Mapping[str, Any]]  # stage -> its manifest
    rows: Sequence[Mapping] = ()  # of `evaluation.results_table`, by source
    steps: Sequence[Mapping] = ()  # of `evaluation.paired_table`, one source at a time, which is in "source"

    def setting(self, parameter: str) -> Any:
        """Value of <stage>.<name>; None where the stage did not run or knew no such parameter."""
        stage, _, name = parameter.partition(".")
        return self.manifests.get(stage, {"parameters": {}})["parameters"].get(name)

    def has(self, parameter: str | None) -> bool:
        stage, _, name = (parameter or "").partition(".")
        return name in self.manifests.get(stage, {"parameters": {}})["parameters"]

    def drawn(self, sources: Sequence[str]) -> int | None:
        """Training records that notebook 01 kept of `sources`; None where it did not count them."""
        metrics = self.manifests.get("01_data", {"metrics": {}})["metrics"]
        counts = metrics.get("train_records")
        return None if counts is None else sum(counts.get(source, 0) for source in sources)


@dataclass(frozen=True)
class Entry:
    """A claim held against a run, in words."""

    claim: Claim
    did: str
    got: str
    finding: Finding
    why: str


def hold(claim: Claim, run: Evidence) -> Entry:
    """The finding on one claim, by the rules above."""
    did = _shown_setting(claim.parameter, run) if run.has(claim.parameter) else ""
    where = claim.where | ({"01_data.source_names": claim.drawn} if claim.drawn else {})
    if claim.status != "not stated":
        for parameter, values in where.items():
            if not _meets(run.setting(parameter), values):
                return Entry(claim, did, "", "not attempted", _shown_setting(parameter, run))
    if claim.by_hand:
        return Entry(claim, did, "", "not attempted", f"by hand: {claim.by_hand}")
    if claim.reported and not claim.is_count:
        return _hold_score(claim, run)
    drawn = run.drawn(claim.drawn) if claim.drawn else None
    return Entry(claim, did, "" if drawn is None else f"{drawn:,}", *_on_setting(claim, run, drawn))


def _hold_score(claim: Claim, run: Evidence) -> Entry:
    """An accuracy (one reported place), or the paired difference of two models on one benchmark (two places)."""
    _, models, benchmarks = zip(*(place.split("/") for place in claim.reported), strict=True)
    after, *before = (RECIPE.get(model, model) for model in models)
    source = reported.SOURCE_NAMES[benchmarks[0]]
    asked = [row for row in run.rows if row["source"] == source and row["model"] in (after, *before)]
    if {row["model"] for row in asked} != {after, *before}:
        names = " and ".join((*before, after))
        return Entry(claim, "", "", "not attempted", f"this run did not ask {names} anything of {source}")
    measured = [row for row in asked if row["accuracy"] is not None]
    if before:
        pair = (source, before[0], after)
        measured = [row for row in run.steps if (row["source"], row["before"], row["after"]) == pair]
    if not measured:
        why = _undecided(asked) or "fewer than two items have an answer of both models"
        return Entry(claim, "", "", "not attempted", why)
    row = min(measured, key=lambda row: row["decoding"] != "greedy")  # the paper states no decoding
    if why := _undecided([other for other in asked if other["decoding"] == row["decoding"]]):
        return Entry(claim, "", "", "not attempted", why)
    did = f"{row['decoding']}, {row['n']} items{', paired' if before else ''}"
    if "judge_error" in row:
        taken_out = row["judge_error"] == TAKEN_OUT
        did += ", judged, its error taken out" if taken_out else ", as judged, its error not included"
    value = row["difference" if before else "accuracy"]
    got = change_text(row) if before else estimate(value, row["low"], row["high"])
    if why := _unlike(after, run):
        return Entry(claim, did, got, "not attempted", why)
    if max(row["high"] - value, value - row["low"]) > WIDEST:
        why = f"{row['n']} items are too few: the interval is wider than {100 * WIDEST:g} points"
        return Entry(claim, did, got, "not attempted", why)
    if row["low"] <= claim.number <= row["high"]:
        return Entry(claim, did, got, "reproduced", "inside this run's interval")
    return Entry(claim, did, got, "not reproduced", "outside this run's interval")


def _undecided(rows: Sequence[Mapping]) -> str:
    """Why an accuracy of `rows` is none of all answers; empty where it is, a few unread replies of a judge aside.

    Of an open question rules call a missing answer wrong and leave a given one undecided: the rest leans to the wrong.
    """
    left, n = (sum(row[key] for row in rows) for key in ("undecided", "samples"))
    if not any("judge_error" in row for row in rows):
        return f"rules leave {left} of {n} answers undecided; no judge" if left else ""
    return f"{left} of {n} answers are undecided after the judge" if left > UNREAD * n else ""


def _unlike(model: str, run: Evidence) -> str:
    """Why a score of this run's `model` cannot be held against the paper's; empty where it can.

    A model from outside the recipe is taken at its name.
    """
    base, cut = run.setting("06_benchmark.model_name_or_path"), run.setting("01_data.max_context_chars")
    if model in RECIPE.values() and not _equal(base, reported.BASE):
        return f"another base model ({base})" if base else "the benchmark has not run"
    return f"contexts are cut to {cut} characters" if cut else ""


def _on_setting(claim: Claim, run: Evidence, drawn: int | None) -> tuple[Finding, str]:
    if claim.status in ("not stated", "contradicted"):
        return "open", "" if claim.status == "not stated" else "the sources disagree"
    if claim.built_in is not None:
        return ("followed", "built in") if claim.built_in else ("departed from", "not built")
    if not run.has(claim.parameter):
        return "not attempted", "the stage has not run"
    value = run.setting(claim.parameter)
    if claim.above is not None:
        follows = isinstance(value, int | float) and value > claim.above
    else:
        follows = any(_equal(value, expected) for expected in claim.expected or [])
    other = [_shown_setting(name, run) for name, values in claim.also.items() if not _meets(run.setting(name), values)]
    if not follows or other:
        return "departed from", ", ".join(other)
    if not claim.drawn:
        return "followed", ""
    if drawn is None:
        return "not attempted", "this run did not count its training records by source"
    return ("followed", "") if drawn >= claim.number else ("departed from", "fewer training records were drawn")


def _equal(value: Any, expected: Any) -> bool:
    """Equal; names of models by their last part, lists as sets."""
    if isinstance(value, str) and isinstance(expected, str):
        return value.rpartition("/")[2].casefold() == expected.rpartition("/")[2].casefold()
    if isinstance(value, list) and isinstance(expected, list):
        return set(value) == set(expected)
    return value == expected


def _meets(value: Any, values: Sequence[Any]) -> bool:
    """One of `values`; a list has to hold all of them."""
    return set(values) <= set(value) if isinstance(value, list) else value in values


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _shown_setting(parameter: str, run: Evidence) -> str:
    return f"{parameter.partition('.')[2]} = {_text(run.setting(parameter))}"


def tally(entries: Sequence[Entry]) -> dict[Finding, int]:
    """Finding -> number of claims, all findings, in the order of the type."""
    counted = Counter(entry.finding for entry in entries)
    return {finding: counted[finding] for finding in get_args(Finding)}
