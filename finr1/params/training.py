"""Parameters of notebooks 04 and 05. TRL's own names wherever TRL has the thing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from finr1.params.base import Params
from finr1.params.endpoint import EndpointParams
from finr1.params.fields import CheckOrder, Count, Positive, Scheduler, Share, Text, TopP


class TrainingParams(Params):
    """What SFT and GRPO share."""

    data_stage: Text
    filtering_stage: Text
    peft: Literal["lora", "qlora", "full"]
    lora_r: Positive
    lora_alpha: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    lr_scheduler_type: Scheduler
    warmup_steps: Annotated[float, Field(ge=0)]  # steps; below 1: share of all steps
    max_steps: int  # optimiser steps
    per_device_train_batch_size: Positive
    gradient_accumulation_steps: Positive
    bf16: bool
    gradient_checkpointing: bool
    merge_adapter: bool  # false: `model/` holds the adapter alone; everything that reads it merges it while loading
    save_steps: Positive
    num_processes: Positive  # over all nodes
    distributed: Literal["ddp", "fsdp2", "zero3"]  # how several processes share the work: params/accelerate/
    eval_problems: Annotated[int, Field(ge=2)]  # an interval needs two
    eval_max_tokens: Positive

    @property
    def batch_size(self) -> int:
        """Rows in one optimiser step, over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.num_processes

    def conflicts(self) -> Iterator[str]:
        if self.max_steps > 0 and self.warmup_steps > self.max_steps:
            yield (
                f"warmup_steps = {self.warmup_steps:g}: more than max_steps = {self.max_steps}; "
                f"0 to {self.max_steps} would work, or a share below 1"
            )
        if self.warmup_steps > 1 and not self.warmup_steps.is_integer():
            yield f"warmup_steps = {self.warmup_steps:g}: should be a whole number of steps, or a share below 1"
        if self.num_processes > 1 and self.distributed != "ddp" and self.peft == "qlora":
            yield f'distributed = "{self.distributed}": 4-bit weights are not split over processes; "ddp" would work'


class SFTParams(TrainingParams):
    """04_sft: supervised fine-tuning."""

    stage: ClassVar[str] = "04_sft"
    model_name_or_path: Text
    num_train_epochs: Annotated[float, Field(gt=0)]  # counts when max_steps is -1
    max_length: Positive  # tokens of prompt and completion together
    sample_steps: Count  # steps between looks at greedy answers of the model in training; 0: none

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.max_steps == 0 or self.max_steps < -1:
            yield f"max_steps = {self.max_steps}: should be 1 or more, or -1 to train num_train_epochs"


class GRPOParams(EndpointParams, TrainingParams):
    """05_grpo: group relative policy optimisation."""

    stage: ClassVar[str] = "05_grpo"
    role: ClassVar[str] = "verifier"
    sft_stage: Text | None  # null: from the base model, without SFT (the paper's "Zero")
    model_name_or_path: Text  # that base model
    reward_funcs: Annotated[list[Text], Field(min_length=1)]  # functions of the recipe's cells, by name
    reward_weights: list[float]  # one for each
    verifier_backend: Literal["rules", "endpoint", "transformers"]  # who decides what rules leave open; rules: nobody
    verifier_model: Text | None
    verifier_base_url: Text | None
    verifier_concurrency: Positive  # requests under way at once in each process; transformers: batch
    check_order: CheckOrder
    loss_type: Literal["grpo", "dapo", "dr_grpo", "cispo"]
    importance_sampling_level: Literal["token", "sequence"]
    beta: Annotated[float, Field(ge=0)]  # weight of the KL to the SFT policy
    epsilon: Annotated[float, Field(gt=0)]  # clip of the probability ratio: 1 - epsilon to 1 + epsilon_high
    epsilon_high: Annotated[float, Field(gt=0)] | None  # upper bound of the clip; null: epsilon, the symmetric clip
    num_iterations: Positive  # uses of each generation batch
    scale_rewards: Literal["group", "batch", "none"]
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"]
    mask_truncated_completions: bool  # leave completions that were cut off out of the loss (DAPO)
    soft_punish_cache: Count  # tokens before max_completion_length over which a reward falls to -1 (DAPO); 0: off
    temperature: Annotated[float, Field(gt=0)]
    top_p: TopP
    max_completion_length: Positive
    num_generations: Annotated[int, Field(ge=2)]  # completions per problem: the group
    use_vllm: bool
    vllm_mode: Literal["colocate", "server"]
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)]  # of the GPU, colocated
    vllm_server_base_url: Text | None
    pass_rate_candidates: Count  # problems tried with the SFT model to choose from; 0: no selection
    pass_rate_samples: Positive
    stop_window: Positive  # steps whose mean each stop rule looks at
    stop_reward: Share | None  # stop when the reward falls below this share of its best; null: never
    stop_kl: Annotated[float, Field(gt=0)] | None  # stop when the KL to the starting model is above this (nats a token)
    stop_dead_groups: Share | None  # stop when this share of the groups has no spread

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        yield from self._algorithm_conflicts()
        yield from self._generation_conflicts()
        if self.max_steps <= 0:
            yield f"max_steps = {self.max_steps}: should be 1 or more"
        if self.save_steps % self.num_iterations:
            yield (
                f"save_steps = {self.save_steps}: no exact resume between two uses of the same completions; "
                f"a multiple of num_iterations = {self.num_iterations} would work"
            )
        needed = self.batch_size // self.num_generations
        if 0 < self.pass_rate_candidates < needed:
            yield (
                f"pass_rate_candidates = {self.pass_rate_candidates}: one step draws {needed} problems; "
                f"{4 * needed} or more would work, or 0 for no selection"
            )
        if self.pass_rate_candidates and self.pass_rate_samples < 2:
            yield "pass_rate_samples = 1: no rate between 0 and 1 is possible; 2 or more would work"
        if self.batch_size % self.num_generations:
            work = [number for number in range(2, self.batch_size + 1) if self.batch_size % number == 0]
            advice = f"{_some(work)} would work" if work else "raise gradient_accumulation_steps"
            yield (
                f"num_generations = {self.num_generations}: the generation batch per_device_train_batch_size x "
                f"gradient_accumulation_steps x num_processes = {self.batch_size} is not divisible by it; {advice}"
            )

    def _generation_conflicts(self) -> Iterator[str]:
        if self.use_vllm and self.vllm_mode == "server" and self.vllm_server_base_url is None:
            yield 'vllm_server_base_url = None: vllm_mode = "server" needs a URL such as http://HOST:PORT'

    def requirements(self) -> Iterator[str]:
        yield from super().requirements()
        if self.use_vllm and importlib.util.find_spec("vllm") is None:
            yield (
                "use_vllm = True: vllm is not installed; on a machine with a GPU `pip install 'finr1[gpu]'`, "
                "else use_vllm = false"
            )

    def _algorithm_conflicts(self) -> Iterator[str]:
        """What TRL would take without a word, or with a warning in its log, and train something else."""
        if len(self.reward_weights) != len(self.reward_funcs):
            yield (
                f"reward_weights = {self.reward_weights}: one for each of the {len(self.reward_funcs)} reward_funcs; "
                f"{[1.0] * len(self.reward_funcs)} would work"
            )
        loss, level = self.loss_type, self.importance_sampling_level
        if loss == "cispo" and (self.epsilon_high or 0) <= 1:
            yield (
                f'epsilon_high = {self.epsilon_high}: loss_type = "cispo" caps the weight itself there; '
                "5.0 would work (ScaleRL)"
            )
        if level == "sequence" and loss != "grpo":
            yield (
                f'importance_sampling_level = "sequence": loss_type = "{loss}" would weigh each completion by its '
                'length; loss_type = "grpo" is GSPO'
            )
        if self.multi_objective_aggregation == "normalize_then_sum":
            if len(self.reward_funcs) < 2 and not self.soft_punish_cache:
                yield (
                    'multi_objective_aggregation = "normalize_then_sum": needs two rewards; reward_funcs = '
                    '["format_reward", "accuracy_reward"] would work'
                )
            if self.scale_rewards != "group":
                yield (
                    f'scale_rewards = "{self.scale_rewards}": multi_objective_aggregation = "normalize_then_sum" has '
                    'its own scaling, by group and then by batch; "group" would work'
                )
        if self.stop_kl is not None and not self.beta:
            yield f"stop_kl = {self.stop_kl:g}: with beta = 0 no KL is computed; null, or beta = 0.001 would work"
        if self.soft_punish_cache >= self.max_completion_length:
            yield (
                f"soft_punish_cache = {self.soft_punish_cache}: max_completion_length = {self.max_completion_length} "
                f"is all there is; {self.max_completion_length // 5} would work, or 0 for none"
            )


def _some(numbers: list[int]) -> str:
    shown = [str(number) for number in numbers]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:6], "...", *shown[-5:]])
