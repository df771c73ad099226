"""Every notebook's parameters, with types and constraints: `STAGES` as `finr1 run` runs them, and all `NOTEBOOKS`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from finr1 import paths
from finr1.params.analyses import AblationParams, CompareParams
from finr1.params.base import Params
from finr1.params.curation import DataParams, DistillationParams, FilteringParams
from finr1.params.evaluation import BenchmarkParams, ReportParams
from finr1.params.fields import Text
from finr1.params.training import GRPOParams, SFTParams


class OverviewParams(Params):
    """00_overview: which preset's plan is printed, and what this run changes in it."""

    stage: ClassVar[str] = "00_overview"
    preset: Text
    changes: list[Text]  # [STAGE.]NAME=VALUE, in any stage; `finr1 run` puts those of its `--set` here

    def requirements(self) -> Iterator[str]:
        known = paths.preset_names()
        if self.preset not in known:
            yield f'preset = "{self.preset}": should be a folder of params/: {", ".join(known)}'


STAGES: dict[str, type[Params]] = {  # in the order in which the notebooks run
    params.stage: params
    for params in (OverviewParams, DataParams, DistillationParams, FilteringParams, SFTParams, GRPOParams,
                   BenchmarkParams, ReportParams)
}  # fmt: skip
# What a person runs once, besides: no stage of a run, but with parameters, a folder and a manifest like one.
NOTEBOOKS = STAGES | {params.stage: params for params in (AblationParams, CompareParams)}
