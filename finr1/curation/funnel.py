"""The account of the curation, from raw records to training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from finr1.records import Problem, Trace


class Stage(BaseModel):
    """What is left after one step, by source, and what the step dropped, by reason."""

    stage: str
    kept: dict[str, int]
    dropped: dict[str, int] = {}


class Funnel(BaseModel):
    """The account from raw records to training rows."""

    stages: list[Stage] = []

    def add(
        self, stage: str, kept: Iterable[Problem | Trace] | Mapping[str, int], dropped: Mapping[str, int] | None = None
    ) -> None:
        """Append a stage: the records that are left (or their counts by source) and why others went."""
        if not isinstance(kept, Mapping):
            kept = Counter(item.problem.source if isinstance(item, Trace) else item.source for item in kept)
        reasons = {reason: count for reason, count in (dropped or {}).items() if count}
        self.stages.append(Stage(stage=stage, kept=dict(kept), dropped=reasons))

    def rows(self) -> list[dict[str, object]]:
        """One row a stage for a table or `plotting.funnel`: stage, count, each source, what was dropped."""
        sources = sorted({source for stage in self.stages for source in stage.kept})
        return [
            {
                "stage": stage.stage,
                "count": sum(stage.kept.values()),
                **{source: stage.kept.get(source, 0) for source in sources},
                "dropped": ", ".join(f"{reason} {count}" for reason, count in stage.dropped.items()),
            }
            for stage in self.stages
        ]

    def to_json(self) -> str:
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Funnel:
        return cls.model_validate_json(text)
