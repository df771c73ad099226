"""The parameters of all notebooks but 04 and 05: `STAGES` as `finr1 run` runs them, and all `NOTEBOOKS`.

The YAML files of `params/demo/` explain each parameter; comments here say what only the code has to know.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from finr1 import paths
from finr1.params.base import Params, Wrong, did_you_mean
from finr1.params.fields import (
    AboveZero,
    AtLeastTwo,
    Count,
    EndpointParams,
    NotNegative,
    Positive,
    Share,
    SourceName,
    Text,
    TopP,
    missing_key,
)
from finr1.params.training import GRPOParams, SFTParams
from finr1.records import RECIPE


class OverviewParams(Params):
    """00_overview: which preset's plan is printed, and what this run changes in it."""

    stage: ClassVar[str] = "00_overview"
    preset: Text
    changes: list[Text]  # [STAGE.]NAME=VALUE, in any stage; `finr1 run` puts those of its `--set` here

    def missing(self) -> Wrong:
        if self.preset not in (known := paths.preset_names()):
            yield "preset", f"should be a folder of params/: {', '.join(known)}"


class DataParams(Params):
    """01_data: sources and sizes. A null `data_dir` becomes `$FINR1_DATA` where that is set and a source is real."""

    stage: ClassVar[str] = "01_data"
    source_names: Annotated[list[SourceName], Field(min_length=1)]  # what may be trained on
    benchmark_names: Annotated[list[SourceName], Field(min_length=1)]  # what is held out for the benchmark
    data_dir: Text | None  # folder of the real records; null without $FINR1_DATA: the sources' public homes
    track: Literal["clean", "paper_like"]  # paper_like: test items stay in training, as the paper's raw counts imply
    sampling: Literal["balanced", "paper"]
    num_train: Positive
    num_dev: Positive
    num_test: Positive
    code_problems: Count  # besides num_train
    decontaminate_ngram: Positive
    max_context_chars: Positive | None

    @field_validator("data_dir")
    @classmethod
    def _from_environment(cls, data_dir: str | None, info: Any) -> str | None:
        names = [*info.data.get("source_names", ()), *info.data.get("benchmark_names", ())]
        real = set(names) - {"synthetic"}
        # Written into the parameters, so that other data is another fingerprint.
        return os.environ.get("FINR1_DATA") or None if data_dir is None and real else data_dir

    def missing(self) -> Wrong:
        if self.data_dir is not None and not paths.resolve(self.data_dir).is_dir():
            yield "data_dir", "no such folder; name the folder of real records here or in FINR1_DATA"


class DistillationParams(EndpointParams):
    """02_distillation: who answers the training problems, and how often."""

    stage: ClassVar[str] = "02_distillation"
    role: ClassVar[str] = "teacher"
    data_stage: Text
    teacher_backend: Literal["scripted", "derived", "endpoint", "transformers", "vllm"]
    teacher_model: Text | None
    teacher_base_url: Text | None
    temperature: NotNegative
    top_p: TopP
    max_tokens: Positive
    num_samples: Positive
    max_cost: AboveZero | None
    prompt_price: NotNegative
    completion_price: NotNegative
    concurrency: Positive
    fault_rate: Share  # of the scripted teacher's answers

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        if self.teacher_backend not in ("scripted", "derived") and self.num_samples > 1 and self.temperature == 0:
            yield "num_samples", "temperature = 0 gives equal answers; 1, or a temperature above 0, would work"
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            yield "max_cost", "needs prompt_price or completion_price above 0"


class FilteringParams(EndpointParams):
    """03_filtering: who judges, and how many rows SFT and RL get."""

    stage: ClassVar[str] = "03_filtering"
    role: ClassVar[str] = "judge"
    data_stage: Text
    distillation_stage: Text
    judge_backend: Literal["rules", "endpoint"]
    judge_model: Text | None
    judge_base_url: Text | None
    check_order: Literal["standard", "with_question", "inputs_last", "with_question_inputs_last", "chinese"]
    concurrency: Positive
    study_items: Count
    min_score: Annotated[int, Field(ge=0, le=7)]
    num_sft: Positive
    num_rl: Positive
    rl_text: bool  # notebook 05 then needs a verifier


class BenchmarkParams(EndpointParams):
    """06_benchmark: the recipe's models, and any others, on the same items with the same decoding."""

    stage: ClassVar[str] = "06_benchmark"
    role: ClassVar[str] = "judge"
    data_stage: Text
    zero_stage: Text | None
    sft_stage: Text
    grpo_stage: Text
    paper_like_stage: Text | None
    seed_stages: list[Text]
    model_name_or_path: Text
    other_models: list[Text]  # NAME=FOLDER_OR_HUB_ID or NAME=MODEL@URL, see `evaluation.read_models`
    inference_backend: Literal["transformers", "vllm"]
    sampling: Literal["balanced", "paper"]
    num_items: AtLeastTwo  # an interval needs two
    suite_items: Count
    prompts: Literal["training", "benchmark"]
    num_samples: Positive
    temperature: AboveZero  # of the sampled answers; the greedy ones come besides
    top_p: TopP
    max_tokens: Positive
    batch_size: Positive
    judge_backend: Literal["rules", "endpoint", "transformers"]
    judge_model: Text | None
    judge_base_url: Text | None
    concurrency: Positive
    judge_scope: Literal["undecided", "all"]

    @property
    def _others(self) -> dict[str, str]:
        """{name: place} of `other_models`."""
        return {name.strip(): place.strip() for name, _, place in (m.partition("=") for m in self.other_models)}

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
        made = {name: Path(at).parent for name, at in self._others.items() if Path(at).name == "model"}
        trained = {name: folder for name, folder in made.items() if folder.name in ("04_sft", "05_grpo")}
        return super().input_names() | {f"other_models, {name}": str(folder) for name, folder in trained.items()}

    def missing(self) -> Wrong:
        yield from super().missing()
        for name, place in self._others.items():
            if "@http" in place and (advice := missing_key(name)):
                yield "other_models", f"{name}: {advice}"


class ReportParams(Params):
    """07_report: everything that the run has made."""

    stage: ClassVar[str] = "07_report"
    data_stage: Text
    distillation_stage: Text
    filtering_stage: Text
    sft_stage: Text
    grpo_stage: Text
    benchmark_stage: Text
    ablation_stage: Text | None


class AblationParams(Params):
    """09_ablation: arms (named sets of changed parameters, see the notebook) times seeds."""

    stage: ClassVar[str] = "09_ablation"
    num_seeds: Positive
    preset: Text
    arms: Annotated[list[Text], Field(min_length=2)]  # the first is what the others are compared with
    changes: list[Text]  # [STAGE.]NAME=VALUE in every arm

    @property
    def seeds(self) -> list[int]:
        """The seed of each training, data included."""
        return [self.seed + place for place in range(self.num_seeds)]

    def input_names(self) -> dict[str, str]:
        """The benchmark of each seed, which the notebook makes."""
        return {f"seed{seed}": f"outputs/{self.run}-{seed}/06_benchmark" for seed in self.seeds}

    def conflicts(self) -> Wrong:
        if len(set(self.arms)) < len(self.arms):
            yield "arms", "each arm once"
        if any(change.partition("=")[0].rpartition(".")[2] == "seed" for change in self.changes):
            yield "changes", "seed and num_seeds name the seeds of all stages"


class CompareParams(Params):
    """10_compare: two runs that have a benchmark. A run is a folder of outputs/, or a path."""

    stage: ClassVar[str] = "10_compare"
    run_a: Text
    run_b: Text

    def input_names(self) -> dict[str, str]:
        """Both benchmarks."""
        return {name: str(paths.run_folder(getattr(self, name)) / "06_benchmark") for name in ("run_a", "run_b")}

    def missing(self) -> Wrong:
        known = sorted(path.parent.name for path in paths.outputs_root().glob("*/06_benchmark"))
        for name, run in (("run_a", self.run_a), ("run_b", self.run_b)):
            if not paths.run_folder(run).is_dir():
                there = f"runs with a benchmark: {', '.join(known) or 'none'}"
                yield name, f"no such run{did_you_mean(run, known)}; {there}"


STAGES: dict[str, type[Params]] = {  # in the order in which the notebooks run
    params.stage: params
    for params in (OverviewParams, DataParams, DistillationParams, FilteringParams, SFTParams, GRPOParams,
                   BenchmarkParams, ReportParams)
}  # fmt: skip
# What a person runs once, besides: no stage of a run, but with parameters, a folder and a manifest like one.
NOTEBOOKS = STAGES | {params.stage: params for params in (AblationParams, CompareParams)}
