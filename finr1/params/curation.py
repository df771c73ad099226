"""Parameters of notebooks 01 to 03: sources, teacher, judge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from finr1 import paths
from finr1.params.base import Params
from finr1.params.endpoint import EndpointParams
from finr1.params.fields import CheckOrder, Count, Positive, Share, SourceName, Temperature, Text, TopP


class DataParams(Params):
    """01_data: sources and sizes. A null `data_dir` becomes `$FINR1_DATA` where that is set and a source is real."""

    stage: ClassVar[str] = "01_data"
    source_names: Annotated[list[SourceName], Field(min_length=1)]  # what may be trained on
    benchmark_names: Annotated[list[SourceName], Field(min_length=1)]  # what is held out for the benchmark
    data_dir: Text | None  # folder of the real records; null without $FINR1_DATA: the sources' public homes
    track: Literal["clean", "paper_like"]  # paper_like: test items stay in training, as the paper's raw counts imply
    sampling: Literal["balanced", "paper"]  # paper: its kept counts by source, and all test items
    num_train: Positive
    num_dev: Positive
    num_test: Positive
    max_level: Annotated[int, Field(ge=1, le=2)]  # difficulty of synthetic problems
    code_problems: Count  # synthetic functions to write, graded by unit tests, besides num_train
    decontaminate_ngram: Positive  # words in a row that a training problem may not share with a test problem
    max_context_chars: Positive | None  # longer contexts are cut to this; null: never

    @field_validator("data_dir")
    @classmethod
    def _from_environment(cls, data_dir: str | None, info: Any) -> str | None:
        names = [*info.data.get("source_names", ()), *info.data.get("benchmark_names", ())]
        real = set(names) - {"synthetic"}
        # Written into the parameters, so that other data is another fingerprint.
        return os.environ.get("FINR1_DATA") or None if data_dir is None and real else data_dir

    def requirements(self) -> Iterator[str]:
        if self.data_dir is not None and not paths.resolve(self.data_dir).is_dir():
            yield f'data_dir = "{self.data_dir}": no such folder; name the folder of real records here or in FINR1_DATA'


class DistillationParams(EndpointParams):
    """02_distillation: who answers the training problems, and how often."""

    stage: ClassVar[str] = "02_distillation"
    role: ClassVar[str] = "teacher"
    data_stage: Text
    teacher_backend: Literal["scripted", "derived", "endpoint", "transformers", "vllm"]
    teacher_model: Text | None
    teacher_base_url: Text | None
    temperature: Temperature
    top_p: TopP
    max_tokens: Positive
    num_samples: Positive  # answers per problem
    max_cost: Annotated[float, Field(gt=0)] | None  # stop asking an endpoint when so much is spent; null: no limit
    prompt_price: Annotated[float, Field(ge=0)]  # for a million prompt tokens
    completion_price: Annotated[float, Field(ge=0)]  # for a million completion tokens
    concurrency: Positive  # requests under way at once
    fault_rate: Share  # share of answers in which the scripted teacher plants a fault

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if (
            self.teacher_backend in ("endpoint", "transformers", "vllm")
            and self.num_samples > 1
            and self.temperature == 0
        ):
            yield (
                f"num_samples = {self.num_samples}: temperature = 0 gives the same answer each time; "
                "num_samples = 1 or a temperature above 0 would work"
            )
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            yield f"max_cost = {self.max_cost:g}: needs prompt_price or completion_price above 0"


class FilteringParams(EndpointParams):
    """03_filtering: who judges, and how many rows SFT and RL get."""

    stage: ClassVar[str] = "03_filtering"
    role: ClassVar[str] = "judge"
    data_stage: Text
    distillation_stage: Text
    judge_backend: Literal["rules", "endpoint"]
    judge_model: Text | None
    judge_base_url: Text | None
    check_order: CheckOrder
    concurrency: Positive  # requests under way at once
    study_items: Count  # traces on which the judge is tried with all five orders; 0: none
    min_score: Annotated[int, Field(ge=0, le=7)]  # of the seven criteria of reasoning
    num_sft: Positive
    num_rl: Positive
    rl_text: bool  # RL rows with free text as answer, too: notebook 05 then needs a verifier
