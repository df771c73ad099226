"""Parameters of notebooks 04 and 05. TRL's own names wherever TRL has the thing."""

from __future__ import annotations

import importlib.util
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finr1.params.base import Params, Wrong
from finr1.params.fields import AboveZero, AtLeastTwo, Count, EndpointParams, NotNegative, Positive, Share, Text, TopP


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
        if self.warmup_steps > 1 and not self.warmup_steps.is_integer():
            yield "warmup_steps", "should be a whole number of steps, or a share below 1"
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
    pass_rate_samples: Positive
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
        if self.pass_rate_candidates and self.pass_rate_samples < 2:
            yield "pass_rate_samples", "no rate between 0 and 1 is possible; 2 or more would work"
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
