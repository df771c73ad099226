"""The parameters of every notebook: `STAGES` as `finr1 run` runs them, and all `NOTEBOOKS`.

The files of `params/demo/` explain each parameter; comments here say what only the code has to know. Notebooks 04 and
05 use TRL's own names wherever TRL has the thing.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from finr1 import paths
from finr1.params.base import Params, Wrong, did_you_mean
from finr1.records import RECIPE

API_KEY = "FINR1_API_KEY"  # environment variable with the key of every endpoint that has none of its own

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
AtLeastTwo = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
TopP = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


def _known_source(name: str) -> str:
    from finr1.sources import SOURCES  # when a value is checked: an entry that was added to the table counts at once

    known = ("synthetic", *SOURCES)
    if name not in known:
        raise ValueError(f"should be one of {', '.join(known)}{did_you_mean(name, known)}")
    return name


SourceName = Annotated[str, AfterValidator(_known_source)]


def key_variable(model: str) -> str:
    """Environment variable with the key of one model or role: "DeepSeek-R1" -> FINR1_API_KEY_DEEPSEEK_R1.

    Where it is not set, the key of all endpoints is used.
    """
    return f"{API_KEY}_{''.join(char if char.isalnum() else '_' for char in model.strip()).upper()}"


def missing_key(model: str) -> str | None:
    """What to do where the environment holds no key for a model or role; None where it does."""
    own = key_variable(model)
    if any(os.environ.get(name) for name in (own, API_KEY, "OPENAI_API_KEY")):
        return None
    export = f"`export {API_KEY}=...` (any text for a server that asks for no key), or {own} for it only"
    return f"the environment variable {API_KEY} is not set; {export}"


class EndpointParams(Params):
    """What distillation, filtering, GRPO and the benchmark share: a model that is asked, perhaps behind an endpoint."""

    role: ClassVar[str]  # "teacher", "judge" or "verifier": the first word of its parameters

    @property
    def backend(self) -> str:
        """The value of `<role>_backend`: "endpoint", or what answers in its place."""
        return getattr(self, f"{self.role}_backend")

    @property
    def key_env(self) -> str:
        """Environment variable with this role's key: its own (FINR1_API_KEY_TEACHER) where set, else FINR1_API_KEY.

        Teacher, judge and verifier may sit with three providers, and none is to see the others' keys.
        """
        own = key_variable(self.role)
        return own if os.environ.get(own) else API_KEY

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        needed = {"endpoint": ("model", "base_url"), "transformers": ("model",), "vllm": ("model",)}
        for name in (f"{self.role}_{part}" for part in needed.get(self.backend, ())):
            if getattr(self, name) is None:
                example = "a URL such as http://HOST:PORT/v1" if name.endswith("url") else "a name, hub id or folder"
                yield name, f'{self.role}_backend = "{self.backend}" needs {example}'

    def missing(self) -> Wrong:
        yield from super().missing()
        if self.backend == "endpoint" and (advice := missing_key(self.role)):
            yield f"{self.role}_backend", advice


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


class TrainingParams(Params):
    """What SFT and GRPO share."""

    data_stage: Text
    filtering_stage: Text
    peft: Literal["lora", "qlora", "full"]
    lora_r: Positive
    lora_alpha: Positive
    learning_rate: AboveZero
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts"]
    warmup_steps: NotNegative  # below 1: share of all steps
    max_steps: int
    per_device_train_batch_size: Positive
    gradient_accumulation_steps: Positive
    bf16: bool
    gradient_checkpointing: bool
    merge_adapter: bool  # false: `model/` holds the adapter alone; everything that reads it merges it while loading
    save_steps: Positive
    num_processes: Positive  # over all nodes
    distributed: Literal["ddp", "fsdp2", "zero3"]  # a file of params/accelerate/
    eval_problems: AtLeastTwo  # an interval needs two
    eval_max_tokens: Positive

    @property
    def batch_size(self) -> int:
        """Rows in one optimiser step, over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.num_processes

    def conflicts(self) -> Wrong:
        if self.max_steps > 0 and self.warmup_steps > self.max_steps:
            yield "warmup_steps", f"max_steps = {self.max_steps} is less; 0 to that, or a share below 1, would work"
        if self.num_processes > 1 and self.distributed != "ddp" and self.peft == "qlora":
            yield "distributed", '4-bit weights are not split over processes; "ddp" would work'


class SFTParams(TrainingParams):
    """04_sft: supervised fine-tuning."""

    stage: ClassVar[str] = "04_sft"
    model_name_or_path: Text
    num_train_epochs: AboveZero  # counts when max_steps is -1
    max_length: Positive  # tokens of prompt and completion together
    sample_steps: Count

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        if self.max_steps == 0 or self.max_steps < -1:
            yield "max_steps", "should be 1 or more, or -1 to train num_train_epochs"


class GRPOParams(EndpointParams, TrainingParams):
    """05_grpo: group relative policy optimisation."""

    stage: ClassVar[str] = "05_grpo"
    role: ClassVar[str] = "verifier"
    sft_stage: Text | None  # null: from the base model, without SFT (the paper's "Zero")
    model_name_or_path: Text  # that base model
    reward_funcs: Annotated[list[Text], Field(min_length=1)]  # functions of the recipe's cells, by name
    reward_weights: list[float]  # one for each
    verifier_backend: Literal["rules", "endpoint", "transformers"]
    verifier_model: Text | None
    verifier_base_url: Text | None
    verifier_concurrency: Positive
    loss_type: Literal["grpo", "dapo", "dr_grpo", "cispo"]
    importance_sampling_level: Literal["token", "sequence"]
    beta: NotNegative
    epsilon: AboveZero
    epsilon_high: AboveZero | None
    num_iterations: Positive
    scale_rewards: Literal["group", "batch", "none"]
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"]
    mask_truncated_completions: bool
    soft_punish_cache: Count
    temperature: AboveZero
    top_p: TopP
    max_completion_length: Positive
    num_generations: AtLeastTwo
    use_vllm: bool
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)]
    pass_rate_candidates: Count
    pass_rate_samples: AtLeastTwo  # of one there is no rate between 0 and 1
    stop_window: Positive
    stop_reward: Share | None
    stop_kl: AboveZero | None
    stop_dead_groups: Share | None

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        yield from self._algorithm_conflicts()
        if self.max_steps <= 0:
            yield "max_steps", "should be 1 or more"
        if self.save_steps % self.num_iterations:
            multiple = f"a multiple of num_iterations = {self.num_iterations} would work"
            yield "save_steps", f"no exact resume between two uses of the same completions; {multiple}"
        if 0 < self.pass_rate_candidates < (needed := self.batch_size // self.num_generations):
            advice = f"{4 * needed} or more would work, or 0 for no selection"
            yield "pass_rate_candidates", f"one step draws {needed} problems; {advice}"
        if self.batch_size % self.num_generations:
            work = [str(number) for number in range(2, self.batch_size + 1) if self.batch_size % number == 0]
            work = work if len(work) <= 12 else [*work[:6], "...", *work[-5:]]
            advice = f"{', '.join(work)} would work" if work else "raise gradient_accumulation_steps"
            factors = "per_device_train_batch_size x gradient_accumulation_steps x num_processes"
            problem = f"the generation batch {factors} = {self.batch_size} is not divisible by it"
            yield "num_generations", f"{problem}; {advice}"

    def missing(self) -> Wrong:
        yield from super().missing()
        if self.use_vllm and importlib.util.find_spec("vllm") is None:
            yield "use_vllm", "vllm is not installed; with a GPU `pip install 'finr1[gpu]'`, else false would work"

    def _algorithm_conflicts(self) -> Wrong:
        """What TRL would take without a word, or with a warning in its log, and train something else."""
        loss, rewards = self.loss_type, len(self.reward_funcs)
        if len(self.reward_weights) != rewards:
            yield "reward_weights", f"one for each of the {rewards} reward_funcs; {[1.0] * rewards} would work"
        if loss == "cispo" and (self.epsilon_high or 0) <= 1:
            yield "epsilon_high", 'loss_type = "cispo" caps the weight itself there; 5.0 would work (ScaleRL)'
        if self.importance_sampling_level == "sequence" and loss != "grpo":
            told = f'loss_type = "{loss}" would weigh each completion by its length; loss_type = "grpo" is GSPO'
            yield "importance_sampling_level", told
        if self.multi_objective_aggregation == "normalize_then_sum":
            if rewards < 2 and not self.soft_punish_cache:
                two = 'reward_funcs = ["format_reward", "accuracy_reward"] would work'
                yield "multi_objective_aggregation", f"needs two rewards; {two}"
            if self.scale_rewards != "group":
                told = 'multi_objective_aggregation = "normalize_then_sum" scales by itself; "group" would work'
                yield "scale_rewards", told
        if self.stop_kl is not None and not self.beta:
            yield "stop_kl", "with beta = 0 no KL is computed; null, or beta = 0.001 would work"
        if self.soft_punish_cache >= (longest := self.max_completion_length):
            advice = f"{longest // 5} would work, or 0 for none"
            yield "soft_punish_cache", f"max_completion_length = {longest} is all there is; {advice}"


class BenchmarkParams(EndpointParams):
    """06_benchmark: the recipe's models, and any others, on the same items with the same decoding."""

    stage: ClassVar[str] = "06_benchmark"
    role: ClassVar[str] = "judge"
    data_stage: Text
    zero_stage: Text | None
    sft_stage: Text
    grpo_stage: Text
    paper_like_stage: Text | None
    model_name_or_path: Text
    other_models: list[Text]  # NAME=FOLDER_OR_HUB_ID or NAME=MODEL@URL, see notebook 06
    inference_backend: Literal["transformers", "vllm"]
    sampling: Literal["balanced", "paper"]
    num_items: AtLeastTwo  # an interval needs two
    suite_items: Count
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
