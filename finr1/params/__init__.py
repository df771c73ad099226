"""The parameters of every notebook, one pydantic model each: `STAGES` as `finr1 run` runs them, and all `NOTEBOOKS`.

The files of `params/demo/` explain each parameter; comments here say what only the code has to know.
"""

import importlib.util
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator
from pydantic.types import NonNegativeFloat, PositiveFloat

from finr1 import paths
from finr1.generation.endpoint import DEFAULT_KEY_ENV as API_KEY  # the key of every endpoint that has none of its own
from finr1.generation.endpoint import read_extra, same_model
from finr1.params.base import ParameterError, Params, Wrong, did_you_mean, quoted, read_flat_yaml  # noqa: F401
from finr1.records import CHANCE, RECIPE

# The upper bounds are far above any use: they keep out what would hang, or end in a library's own words.
Count = Annotated[int, Field(ge=1, le=10**8)]
CountOrNone = Annotated[int, Field(ge=0, le=10**8)]  # 0: none
AtLeastTwo = Annotated[int, Field(ge=2, le=10**6)]
Width = Annotated[int, Field(ge=1, le=10**5)]  # of what is held in memory, or under way, at once
Temperature = Annotated[float, Field(ge=0.01, le=100)]  # below, logits overflow
Share = Annotated[float, Field(ge=0, le=1)]
TopP = Annotated[float, Field(gt=0, le=1)]
Text = Annotated[str, Field(min_length=1)]
# More for each request's body, a mapping or its JSON; a null in it removes a field.
Extra = Annotated[dict[str, Any] | None, BeforeValidator(lambda extra: read_extra(extra) or None)]


def _own_key(name: str) -> str:
    return f"{API_KEY}_{re.sub(r'[^a-zA-Z0-9]', '_', name.strip()).upper()}"


def key_variable(name: str) -> str:
    """FINR1_API_KEY_TEACHER, or FINR1_API_KEY_DEEPSEEK_R1 of "DeepSeek-R1", where that is set; else FINR1_API_KEY."""
    # With keys of their own, no provider sees another's.
    return _own_key(name) if os.environ.get(_own_key(name)) else API_KEY


def missing_key(name: str) -> str | None:
    """What to do where the environment holds no key for a model or role; None where it does."""
    if os.environ.get(key_variable(name)) or os.environ.get("OPENAI_API_KEY"):
        return None
    return f"{API_KEY} is not set (any text, for a server that asks for no key), nor {_own_key(name)} for it only"


def _unusable(name: str, model: str, called: str = "") -> Wrong:
    from finr1.models import why_unusable

    if advice := why_unusable(model):
        yield name, called + advice


def endpoint_of(place: str) -> dict[str, Any] | None:
    """Model, base_url and extra of `MODEL@URL` or `MODEL@URL {"max_tokens": null}`; None for a folder or hub id."""
    address, brace, extra = place.partition(" {")
    model, _, url = address.rpartition("@")
    if not url.startswith(("http://", "https://")):
        return None
    return {"model": model, "base_url": url.strip(), "extra": read_extra(brace and "{" + extra)}


class EndpointParams(Params):
    """What distillation, filtering, GRPO and the benchmark share: problems, and a model that may be at an endpoint."""

    data_stage: Text

    @property
    def key_env(self) -> str:
        """Environment variable with this role's key."""
        return key_variable(self.role)

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        backend = getattr(self, f"{self.role}_backend")
        model, url = ("model", "a name, hub id or folder"), ("base_url", "a URL such as http://HOST:PORT/v1")
        needed = {"endpoint": [model, url], "transformers": [model], "vllm": [model]}
        for part, what in needed.get(backend, ()):
            if getattr(self, f"{self.role}_{part}") is None:
                yield f"{self.role}_{part}", f'{self.role}_backend = "{backend}" needs {what}'

    def missing(self) -> Wrong:
        yield from super().missing()
        backend, model = (getattr(self, f"{self.role}_{part}") for part in ("backend", "model"))
        if backend == "endpoint" and (advice := missing_key(self.role)):
            yield f"{self.role}_backend", advice
        if backend in ("transformers", "vllm"):
            yield from _unusable(f"{self.role}_model", model)


class OverviewParams(Params, stage="00_overview"):
    """00_overview: which preset the map shows, and what this run changes in it."""

    preset: Text
    changes: list[Text]  # [STAGE.]NAME=VALUE, in any stage; `finr1 run` puts those of its `--set` here


class DataParams(Params, stage="01_data"):
    """01_data: sources and sizes. A null `data_dir` becomes `$FINR1_DATA` where that is set and a source is real."""

    source_names: Annotated[list[str], Field(min_length=1)]  # what may be trained on
    benchmark_names: Annotated[list[str], Field(min_length=1)]  # what is held out for the benchmark
    data_dir: Text | None  # folder of the real records; null without $FINR1_DATA: the sources' public homes
    track: Literal["clean", "paper_like"]  # paper_like: test items stay in training, as the paper's raw counts imply
    sampling: Literal["balanced", "paper"]
    num_train: Count
    num_dev: Count
    num_test: Count
    code_problems: CountOrNone  # besides num_train
    dirt_share: Share  # besides num_train, too; the notebook plants among synthetic training problems only
    decontaminate_ngram: Count
    max_context_chars: Count | None
    engine: Literal["local", "ray"]

    def missing(self) -> Wrong:
        yield from super().missing()
        real = {*self.source_names, *self.benchmark_names} - {"synthetic"}
        if real and self.data_dir is not None and not paths.resolve(self.data_dir).is_dir():
            yield "data_dir", "no such folder"

    @field_validator("source_names", "benchmark_names")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        from finr1.sources import SOURCES  # when a value is checked: an entry that was added to the table counts

        known = ("synthetic", *SOURCES)
        for name in names:
            if name not in known:
                raise ValueError(f"{name} should be one of {', '.join(known)}{did_you_mean(name, known)}")
        return names

    @field_validator("data_dir")
    @classmethod
    def _from_environment(cls, data_dir: str | None, info: Any) -> str | None:
        real = {*info.data.get("source_names", ()), *info.data.get("benchmark_names", ())} - {"synthetic"}
        # Written into the parameters, so that other data is another fingerprint.
        return os.environ.get("FINR1_DATA") or None if data_dir is None and real else data_dir


class DistillationParams(EndpointParams, stage="02_distillation", role="teacher"):
    """02_distillation: who answers the training problems, and how often."""

    teacher_backend: Literal["scripted", "derived", "endpoint", "transformers", "vllm"]
    teacher_model: Text | None
    teacher_base_url: Text | None
    teacher_extra: Extra
    temperature: Annotated[float, Field(ge=0, le=100)]
    top_p: TopP
    max_tokens: Count
    num_samples: Width
    max_cost: PositiveFloat | None
    prompt_price: NonNegativeFloat
    completion_price: NonNegativeFloat
    concurrency: Width
    fault_rate: Share  # of the scripted teacher's answers
    by_parts_share: Share  # of the problems with two worked solutions

    @property
    def only_teacher(self) -> bool:
        """Whether a preset names this teacher at an endpoint: its traces may then be of no other model."""
        files = (paths.repository_root() / "params").glob(f"*/{self.stage}.yaml")
        presets = [read_flat_yaml(file).values for file in files]
        claimed = [str(p.get("teacher_model")) for p in presets if p.get("teacher_backend") == "endpoint"]
        return any(same_model(name, self.teacher_model or "") for name in claimed)

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            yield "max_cost", "needs prompt_price or completion_price above 0"


class FilteringParams(EndpointParams, stage="03_filtering", role="judge"):
    """03_filtering: who judges, and how many rows SFT and RL get."""

    distillation_stage: Text
    judge_backend: Literal["rules", "endpoint"]
    judge_model: Text | None
    judge_base_url: Text | None
    judge_extra: Extra
    judge_max_tokens: Count
    check_order: Literal["standard", "with_question", "inputs_last", "with_question_inputs_last", "chinese"]
    concurrency: Width
    study_items: CountOrNone
    min_score: Annotated[int, Field(ge=0, le=7)]
    num_sft: Count
    num_rl: Count
    rl_text: bool  # notebook 05 then needs a verifier


class TrainingParams(Params):
    """What SFT and GRPO share."""

    data_stage: Text
    filtering_stage: Text
    peft: Literal["lora", "qlora", "full"]
    lora_r: Width
    learning_rate: PositiveFloat
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_restarts"]
    warmup_steps: NonNegativeFloat  # below 1: share of all steps
    max_steps: Annotated[int, Field(ge=-1, le=10**8)]  # -1: by epochs
    per_device_train_batch_size: Width
    gradient_accumulation_steps: Width
    bf16: bool
    gradient_checkpointing: bool
    merge_adapter: bool  # false: `model/` holds the adapter alone; everything that reads it merges it while loading
    save_steps: Count
    report_to: list[Literal["trackio", "tensorboard", "wandb", "mlflow", "swanlab"]]
    num_processes: Width  # over all nodes
    distributed: Literal["ddp", "fsdp2", "zero3"]  # a file of params/accelerate/
    eval_problems: AtLeastTwo  # an interval needs two
    eval_max_tokens: Count

    @property
    def batch_size(self) -> int:
        """Rows in one optimiser step, over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.num_processes

    def conflicts(self) -> Wrong:
        if self.max_steps == 0:
            yield "max_steps", "at least 1, or -1 for num_train_epochs, would work"
        if self.warmup_steps > 1 and self.warmup_steps % 1:
            yield "warmup_steps", "a whole number of steps, or a share below 1, would work"
        if self.seed + self.num_processes > 2**32:  # each process has a seed of its own
            yield "seed", f"at most {2**32 - self.num_processes} would work with num_processes = {self.num_processes}"
        if self.max_steps > 0 and self.warmup_steps > self.max_steps:
            yield "warmup_steps", f"max_steps = {self.max_steps} is less; 0 to that, or a share below 1, would work"
        if self.num_processes > 1 and self.distributed != "ddp" and self.peft == "qlora":
            yield "distributed", '4-bit weights are not split over processes; "ddp" would work'

    def missing(self) -> Wrong:
        yield from super().missing()
        if gone := [name for name in self.report_to if importlib.util.find_spec(name) is None]:
            yield "report_to", f"not installed: `pip install {' '.join(gone)}`, or leave it out"
        if self.num_processes > 1 and self.distributed == "zero3" and importlib.util.find_spec("deepspeed") is None:
            yield "distributed", '`pip install deepspeed`, or "fsdp2", would work'
        if self.num_processes > (cores := max(2, os.cpu_count() or 2)) * int(os.environ.get("NNODES") or 1):
            yield "num_processes", f"{cores} processors are here, and each process needs one"
        if getattr(self, "sft_stage", None) is None:
            yield from _unusable("model_name_or_path", self.model_name_or_path)


class SFTParams(TrainingParams, stage="04_sft"):
    """04_sft: supervised fine-tuning."""

    model_name_or_path: Text
    num_train_epochs: Annotated[float, Field(gt=0, le=10**6)]
    max_length: Annotated[int, Field(ge=64, le=10**8)]  # tokens of prompt and completion; a prompt has 50 and more
    sample_steps: CountOrNone


class GRPOParams(EndpointParams, TrainingParams, stage="05_grpo", role="verifier"):
    """05_grpo: group relative policy optimisation."""

    sft_stage: Text | None  # null: from the base model, without SFT (the paper's "Zero")
    model_name_or_path: Text  # that base model
    max_steps: Count
    reward_funcs: Annotated[list[Text], Field(min_length=1)]  # functions of the recipe's cells, by name
    reward_weights: list[float]  # one for each
    verifier_backend: Literal["rules", "endpoint", "transformers"]
    verifier_model: Text | None
    verifier_base_url: Text | None
    verifier_extra: Extra
    verifier_max_tokens: Count
    verifier_concurrency: Width
    loss_type: Literal["grpo", "dapo", "dr_grpo", "cispo"]
    importance_sampling_level: Literal["token", "sequence"]
    beta: NonNegativeFloat
    epsilon: PositiveFloat
    epsilon_high: PositiveFloat | None
    num_iterations: Width
    scale_rewards: Literal["group", "batch", "none"]
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"]
    mask_truncated_completions: bool
    soft_punish_cache: CountOrNone
    temperature: Temperature
    top_p: TopP
    max_completion_length: Count
    num_generations: AtLeastTwo
    use_vllm: bool
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)]
    pass_rate_candidates: CountOrNone
    pass_rate_samples: AtLeastTwo  # of one there is no rate between 0 and 1
    stop_window: Count
    stop_reward: Share | None
    stop_kl: PositiveFloat | None
    stop_dead_groups: Share | None
    stop_one_answer: Share | None
    eval_steps: CountOrNone  # 0: none; TRL takes no 0
    load_best_model_at_end: bool

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        size = self.batch_size
        if size % self.num_generations:
            work = ", ".join(str(number) for number in range(2, min(size, 1024) + 1) if size % number == 0)
            factors = "per_device_train_batch_size x gradient_accumulation_steps x num_processes"
            advice = f"{work} would work" if work else "raise gradient_accumulation_steps"
            yield "num_generations", f"{factors} = {size} is not divisible by it; {advice}"
        if self.save_steps % self.num_iterations:
            yield "save_steps", f"no exact resume; a multiple of num_iterations = {self.num_iterations} would work"
        if self.load_best_model_at_end and self.eval_steps != self.save_steps:
            yield "load_best_model_at_end", f"each look needs a checkpoint; eval_steps = {self.save_steps} would work"
        if len(self.reward_weights) != len(self.reward_funcs) or not any(self.reward_weights):
            yield "reward_weights", f"one for each of the {len(self.reward_funcs)} reward_funcs, not all 0"
        if self.soft_punish_cache > self.max_completion_length:
            yield "soft_punish_cache", f"at most max_completion_length = {self.max_completion_length} would work"
        # What TRL would take without a word, or with a warning in its log, and train something else.
        if self.loss_type == "cispo" and (self.epsilon_high or 0) <= 1:
            yield "epsilon_high", 'loss_type = "cispo" caps the weight itself there; 5.0 would work (ScaleRL)'
        if self.importance_sampling_level == "sequence" and self.loss_type != "grpo":
            yield "importance_sampling_level", 'completions would count by length; loss_type = "grpo" is GSPO'
        if self.use_vllm and self.peft == "qlora":
            yield "use_vllm", 'each sync would round the 4-bit base anew; peft = "lora", or false, would work'
        if self.stop_kl is not None and not self.beta:
            yield "stop_kl", "with beta = 0 no KL is computed; null, or beta = 0.001 would work"


class BenchmarkParams(EndpointParams, stage="06_benchmark", role="judge"):
    """06_benchmark: the recipe's models, and any others, on the same items with the same decoding."""

    zero_stage: Text | None
    sft_stage: Text
    grpo_stage: Text
    paper_like_stage: Text | None
    model_name_or_path: Text
    other_models: list[Text]  # NAME=FOLDER_OR_HUB_ID or NAME=MODEL@URL [EXTRA as JSON], see notebook 06
    inference_backend: Literal["transformers", "vllm"]
    sampling: Literal["balanced", "paper"]
    num_items: AtLeastTwo  # an interval needs two
    suite_items: CountOrNone
    num_samples: Width
    temperature: Temperature  # of the sampled answers; the greedy ones come besides
    top_p: TopP
    max_tokens: Count
    batch_size: Width
    judge_backend: Literal["rules", "endpoint", "transformers"]
    judge_model: Text | None
    judge_base_url: Text | None
    judge_extra: Extra
    judge_max_tokens: Count
    concurrency: Width
    judge_scope: Literal["undecided", "all"]

    @property
    def others(self) -> dict[str, str]:
        """{name: place} of `other_models`."""
        return {name.strip(): place.strip() for name, _, place in (m.partition("=") for m in self.other_models)}

    def conflicts(self) -> Wrong:
        yield from super().conflicts()
        named = len(self.others) == len(self.other_models) and not self.others.keys() & (RECIPE | CHANCE)
        if not named or not all(name and place and place[0] != "@" for name, place in self.others.items()):
            forms, taken = "NAME=FOLDER_OR_HUB_ID or NAME=MODEL@URL", ", ".join(RECIPE | CHANCE)
            yield "other_models", f"each should be {forms}, with a NAME of its own, none of {taken}"
        for place in self.others.values():
            try:
                endpoint_of(place)
            except ValueError as error:
                yield "other_models", f"after the URL {error}"

    def input_names(self) -> dict[str, str]:
        """The stages that are named, and those that trained a model of `other_models`."""
        made = {name: Path(at).parent for name, at in self.others.items() if Path(at).name == "model"}
        trained = {name: folder for name, folder in made.items() if folder.name in ("04_sft", "05_grpo")}
        return super().input_names() | {f"other_models, {name}": str(folder) for name, folder in trained.items()}

    def missing(self) -> Wrong:
        yield from super().missing()
        yield from _unusable("model_name_or_path", self.model_name_or_path)
        for name, place in self.others.items():
            if "@http" in place and (advice := missing_key(name)):
                yield "other_models", f"{name}: {advice}"
            elif "@http" not in place and f"other_models, {name}" not in self.input_names():
                yield from _unusable("other_models", place, f"{name}: ")


class ReportParams(Params, stage="07_report"):
    """07_report: everything that the run has made."""

    data_stage: Text
    distillation_stage: Text
    filtering_stage: Text
    sft_stage: Text
    grpo_stage: Text
    benchmark_stage: Text
    ablation_stage: Text | None


class MachineParams(OverviewParams, stage="11_machine"):
    """11_machine: which preset is planned for this machine, and with which changes."""


class UseParams(ReportParams, stage="08_use_the_model"):
    """08_use_the_model: what is asked, exported, served and pushed."""

    max_tokens: Count
    temperature: Annotated[float, Field(ge=0, le=100)]  # of the conversations; what is measured is greedy
    keep_loaded: bool
    num_items: AtLeastTwo
    export_dtype: Literal["bfloat16", "float16", "float32"]
    gguf_types: list[Literal["f16", "bf16", "q8_0", "q4_k_m"]]
    serve: list[Literal["vllm", "transformers"]]
    push_to_hub: Annotated[str, Field(pattern=r"^\w+([.-]\w+)*/\w+([.-]\w+)*$", max_length=96)] | None  # OWNER/NAME

    def missing(self) -> Wrong:
        from huggingface_hub import get_token

        if self.push_to_hub and not get_token():
            yield "push_to_hub", "no token of the hub: HF_TOKEN is not set, and nobody has run `hf auth login`"


class AblationParams(Params, stage="09_ablation"):
    """09_ablation: arms (named sets of changed parameters, see the notebook) times seeds."""

    num_seeds: Width
    preset: Text
    arms: Annotated[list[Text], Field(min_length=2)]  # the first is what the others are compared with
    changes: list[Text]  # [STAGE.]NAME=VALUE in every arm

    def conflicts(self) -> Wrong:
        if self.seeds[-1] >= 2**32:
            yield "seed", f"at most {2**32 - self.num_seeds} would work with num_seeds = {self.num_seeds}"

    @property
    def seeds(self) -> list[int]:
        """The seed of each training, data included."""
        return [self.seed + place for place in range(self.num_seeds)]

    def input_names(self) -> dict[str, str]:
        """The benchmark of each seed, which the notebook makes."""
        return {f"seed{seed}": f"outputs/{self.run}-{seed}/06_benchmark" for seed in self.seeds}


class CompareParams(Params, stage="10_compare"):
    """10_compare: two runs that have a benchmark. A run is a folder of outputs/, or a path."""

    run_a: Text
    run_b: Text

    def input_names(self) -> dict[str, str]:
        return {name: str(paths.run_folder(getattr(self, name)) / "06_benchmark") for name in ("run_a", "run_b")}


STAGES: dict[str, type[Params]] = {  # in the order in which the notebooks run
    params.stage: params
    for params in (OverviewParams, DataParams, DistillationParams, FilteringParams, SFTParams, GRPOParams,
                   BenchmarkParams, ReportParams)
}  # fmt: skip
# What a person runs once, besides: no stage of a run, but with parameters, a folder and a manifest like one.
NOTEBOOKS = STAGES | {params.stage: params for params in (UseParams, AblationParams, CompareParams, MachineParams)}
