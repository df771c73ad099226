"""The claims themselves: `claims.yaml`, whose numbers stand once, in `finr1.reported`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from finr1 import reported
from finr1.params import STAGES

FILE = Path(__file__).with_name("claims.yaml")

Status = Literal["stated", "contradicted", "not stated", "inferred"]
Part = Literal["data", "distillation", "filtering", "sft", "grpo", "evaluation", "results"]
Measure = Literal["accuracy", "difference", "mean", "raw_records", "judge_error"]


class Claim(BaseModel):
    """One claim; see the head of `claims.yaml` for the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    part: Part
    says: str = Field(min_length=1)
    place: str = Field(min_length=1)
    status: Status
    parameter: str | None = None
    expected: list[Any] | None = None
    above: float | None = None
    where: dict[str, list[Any]] = {}
    also: dict[str, list[Any]] = {}
    drawn: list[str] = []
    built_in: bool | None = None
    reported: list[str] = Field(default=[], max_length=2)
    measure: Measure | None = None
    of: list[str] = []
    note: str = ""

    @property
    def number(self) -> float | None:
        """A share in [0, 1], a difference of shares, or a count of records; None for a claim without a number."""
        if not self.reported:
            return None
        first, *second = (look_up(place) for place in self.reported)
        return first if self.is_count else (first - sum(second)) / 100

    @property
    def is_count(self) -> bool:
        return bool(self.reported) and self.reported[0].startswith(("SOURCES", "RECORDS"))

    @model_validator(mode="after")
    def _hold_together(self) -> Claim:
        if self.measure and not self.reported:
            raise ValueError(f"{self.says!r}: a measure needs a reported number")
        if self.status == "not stated" and (self.reported or self.expected is not None or self.above is not None):
            raise ValueError(f"{self.says!r}: what is not stated has no number and no expected value")
        if self.drawn and not self.is_count:
            raise ValueError(f"{self.says!r}: drawn records need a reported count")
        for parameter in (self.parameter, *self.where, *self.also):
            stage, _, name = (parameter or "").partition(".")
            if parameter is not None and (stage not in STAGES or name not in STAGES[stage].model_fields):
                raise ValueError(f"{self.says!r}: there is no parameter {parameter}")
        for place in self.reported:
            look_up(place)
        return self


def look_up(place: str) -> float:
    """A number of `finr1.reported`: RESULTS/<model>/<benchmark or mean>, SOURCES/<source>/<raw or kept>,
    ANSWER_CHECK/<row>/<judge>, RECORDS. Raises `ValueError` for a place that is not there.
    """
    table, *keys = place.split("/")
    try:
        match table:
            case "RESULTS":
                row = next(row for row in reported.RESULTS if row["model"] == keys[0])
                return row["mean"] if keys[1] == "mean" else row["scores"][keys[1]]
            case "SOURCES":
                return next(row for row in reported.SOURCES if row["source"] == keys[0])[keys[1]]
            case "ANSWER_CHECK":
                return reported.ANSWER_CHECK[int(keys[0])][keys[1]]
            case "RECORDS":
                return reported.RECORDS
    except (StopIteration, LookupError, ValueError):
        pass
    raise ValueError(f"{place}: no such place in finr1.reported")


def read_claims(path: Path = FILE) -> list[Claim]:
    """The claims of `claims.yaml` in their order. Raises pydantic's `ValidationError` for one that does not hold."""
    import yaml

    claims = []
    for block in yaml.safe_load(path.read_text("utf8")):
        shared = {name: value for name, value in block.items() if name != "claims"}
        claims += [Claim(**shared | claim) for claim in block["claims"]]
    return claims
