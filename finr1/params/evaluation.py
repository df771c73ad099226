"""Parameters of notebooks 06 and 07."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from finr1.params.base import Params
from finr1.params.endpoint import EndpointParams
from finr1.params.fields import ANY_KEY, API_KEY, RECIPE, Count, Positive, Text, TopP, key_variable


class BenchmarkParams(EndpointParams):
    """06_benchmark: the recipe's models, and any others, on the same items with the same decoding."""

    stage: ClassVar[str] = "06_benchmark"
    role: ClassVar[str] = "judge"
    data_stage: Text
    zero_stage: Text | None  # GRPO from the base model (the paper's Fin-R1-Zero)
    sft_stage: Text
    grpo_stage: Text
    paper_like_stage: Text | None  # 06 of a run whose 01 had track paper_like, on the same items
    model_name_or_path: Text  # the base model
    other_models: list[Text]  # NAME=FOLDER_OR_HUB_ID or NAME=MODEL@URL, see `evaluation.read_models`
    inference_backend: Literal["transformers", "vllm"]  # of every model that is no endpoint
    sampling: Literal["balanced", "paper"]  # paper: num_items of each benchmark, drawn by seed
    num_items: Annotated[int, Field(ge=2)]  # an interval needs two
    suite_items: Count  # questions in each capability suite at least; 0: what the benchmarks hold
    num_samples: Positive
    temperature: Annotated[float, Field(gt=0)]  # of the sampled answers; the greedy ones come besides
    top_p: TopP
    max_tokens: Positive
    batch_size: Positive
    judge_backend: Literal["rules", "endpoint", "transformers"]
    judge_model: Text | None
    judge_base_url: Text | None
    concurrency: Positive  # requests under way at once, at an endpoint
    judge_scope: Literal["undecided", "all"]  # what the judge grades, a study sample besides

    @field_validator("other_models")
    @classmethod
    def _names_and_places(cls, models: list[str]) -> list[str]:
        names = [entry.partition("=")[0].strip() for entry in models]
        for entry, name in zip(models, names, strict=True):
            if not name or not entry.partition("=")[2].strip():
                raise ValueError(f'"{entry}": should be NAME=FOLDER_OR_HUB_ID or NAME=MODEL@URL')
            if name in RECIPE or names.count(name) > 1:
                raise ValueError(f'"{entry}": the name is taken')
        return models

    def input_names(self) -> dict[str, str]:
        """The stages that are named, and those that trained a model of `other_models`."""
        places = {name.strip(): Path(place.strip()) for name, _, place in (m.partition("=") for m in self.other_models)}
        trained = [
            name for name, at in places.items() if at.name == "model" and at.parent.name in ("04_sft", "05_grpo")
        ]
        return super().input_names() | {f"other_models, {name}": str(places[name].parent) for name in trained}

    def requirements(self) -> Iterator[str]:
        yield from super().requirements()
        for entry in self.other_models:
            name, _, place = entry.partition("=")
            if "@http" in place and not any(os.environ.get(key) for key in (key_variable(name), *ANY_KEY)):
                yield (
                    f'other_models, "{entry}": neither {key_variable(name)} nor {API_KEY} is set; '
                    f"`export {API_KEY}=...` (any text for a server that asks for no key)"
                )


class ReportParams(Params):
    """07_report: everything that the run has made."""

    stage: ClassVar[str] = "07_report"
    data_stage: Text
    distillation_stage: Text
    filtering_stage: Text
    sft_stage: Text
    grpo_stage: Text
    benchmark_stage: Text
    ablation_stage: Text | None  # the folder of notebook 09; null: no section on it
