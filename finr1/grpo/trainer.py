"""From the parameters to TRL's `GRPOTrainer`: configuration, rewards, model, data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finr1 import rewards
from finr1.grpo.cpu import CPUSampler
from finr1.grpo.problems import check_rewards
from finr1.params import GRPOParams
from finr1.run import cache_dir

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer

    from finr1.judge.verifier import Verifier

TRAIN_FILE = "train.jsonl"  # the RL rows that the notebook has chosen by pass rate
PREFILL_TOKENS = 512  # of each prompt that go through the policy at once where it samples


def reward_functions(params: GRPOParams, verifier: Verifier | None = None) -> list:
    """`sum`: format and accuracy as two rewards that TRL adds up, as in the paper; `gated`: one that needs both.

    `verifier` decides what rules leave open; without one such a completion has no reward at all.
    With `soft_punish_cache`, DAPO's punishment of overlong completions comes on top (0 to -1; arXiv 2503.14476).
    """
    gated = params.reward == "gated"
    accuracy = rewards.gated_reward if gated else rewards.accuracy_reward
    if verifier is not None:
        accuracy = rewards.verified(verifier, gated)
    functions = [accuracy] if gated else [rewards.format_reward, accuracy]
    if params.soft_punish_cache:
        from trl.rewards import get_soft_overlong_punishment

        functions.append(get_soft_overlong_punishment(params.max_completion_length, params.soft_punish_cache))
    return functions


def start_model(params: GRPOParams) -> str:
    """Folder or hub id of the model that GRPO starts from: the SFT stage's, or the base model ("Zero")."""
    from finr1.models import resolve_model

    if params.sft_stage is None:
        return resolve_model(params.model_name_or_path, cache_dir())
    return str(params.inputs()["sft_stage"] / "model")


def sampled_by(params: GRPOParams, gpu: bool) -> Literal["vllm", "continuous batching", "copy", "policy"]:
    """Who samples: another engine, our bf16 copy of the policy (on a CPU), or the policy as TRL has it."""
    if params.use_vllm:
        return "vllm"
    if params.use_transformers_continuous_batching:
        return "continuous batching"
    return "copy" if not gpu and params.bf16 and params.peft != "qlora" else "policy"


def grpo_config(params: GRPOParams, stage_dir: Path) -> GRPOConfig:
    """TRL's configuration for these parameters."""
    from trl import GRPOConfig

    from finr1 import training

    return GRPOConfig(
        **training.trainer_arguments(params, stage_dir),
        loss_type=params.loss_type,
        importance_sampling_level=params.importance_sampling_level,
        beta=params.beta,
        use_bias_correction_kl=False,  # TRL's default multiplies the KL by the ratio (DeepSeek-V3.2); GRPO's has none
        epsilon=params.epsilon,
        epsilon_high=params.epsilon_high,  # None: epsilon, the paper's symmetric clip
        num_iterations=params.num_iterations,
        scale_rewards=params.scale_rewards,
        multi_objective_aggregation=params.multi_objective_aggregation,
        mask_truncated_completions=params.mask_truncated_completions,
        temperature=params.temperature,
        top_p=params.top_p,
        max_completion_length=params.max_completion_length,
        num_generations=params.num_generations,
        use_vllm=params.use_vllm,
        vllm_mode=params.vllm_mode,
        vllm_gpu_memory_utilization=params.vllm_gpu_memory_utilization,
        vllm_tensor_parallel_size=params.vllm_tensor_parallel_size,
        vllm_server_base_url=params.vllm_server_base_url,
        # TRL's default weighs each completion by policy / vLLM. vLLM's log-probabilities are those of the nucleus, so
        # with top_p < 1 that weight is near 0 for a long completion; the paper's objective has none.
        vllm_importance_sampling_correction=False,
        use_transformers_continuous_batching=params.use_transformers_continuous_batching,
        logging_nan_inf_filter=False,  # by default a NaN is logged as the mean of the losses before it
        log_completions=True,
        num_completions_to_print=0,
    )


def make_trainer(params: GRPOParams, stage_dir: Path) -> GRPOTrainer:
    """TRL's trainer for `start_model` and the rows `{prompt, solution, answer_kind, ...}` of `<stage>/train.jsonl`."""
    import torch
    from datasets import load_dataset
    from trl import GRPOTrainer

    from finr1 import training
    from finr1.completion_head import use_completion_head
    from finr1.generation.prefill import computable_in_pieces
    from finr1.grpo.callbacks import StopRules
    from finr1.grpo.observed import observed
    from finr1.models import load_tokenizer, whole_model

    dataset = load_dataset("json", data_files=str(stage_dir / TRAIN_FILE), split="train")
    if torch.cuda.is_available():  # before a local verifier is loaded: else every rank's would lie on the first GPU
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    verifier = check_rewards(params, dataset, stage_dir)
    config = grpo_config(params, stage_dir)  # first: ZeRO-3 loads the weights in shards only when it knows
    start = start_model(params)
    with config.main_process_first(local=False):  # an adapter is merged once, for all ranks and the reference model
        path = whole_model(start, stage_dir / "checkpoints" / "start_model")
    tokenizer = load_tokenizer(path)
    sampler = sampled_by(params, gpu=torch.cuda.is_available())
    paged = sampler == "continuous batching"
    if paged and params.attn_implementation is None and not torch.cuda.is_available():
        params = params.model_copy(update={"attn_implementation": "eager"})  # ours has no paged form
    model = training.load_policy(path, params)
    if paged:
        # For sampling, transformers changes to flash attention where it finds it, which refuses these fp32 weights
        # (`bf16` is refused with it); so it pages the attention that was loaded.
        model._supports_flash_attn = False
    trainer = observed(GRPOTrainer, params.pass_rate_between_epochs)(
        model=model,
        reward_funcs=reward_functions(params, verifier),
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=training.peft_config(params),
        rollout_func=CPUSampler(path) if sampler == "copy" else None,
    )
    use_completion_head(trainer)
    if sampler == "policy" and computable_in_pieces(model):
        # A whole generation batch of long pages at once can take more memory than the update.
        trainer.generation_config.prefill_chunk_size = PREFILL_TOKENS
    trainer.add_callback(StopRules(params))
    if params.peft != "full":  # `start_model` goes with the checkpoints: the new adapter stands on the old one
        trainer.model.peft_config["default"].base_model_name_or_path = start
    return trainer


def train(params: GRPOParams, stage_dir: Path) -> None:
    """Train, from the last checkpoint if there is one; save `model/` and every sampled group (`completions/`)."""
    from finr1 import training

    trainer = make_trainer(params, stage_dir)
    training.check_processes(trainer, params.num_processes, params.distributed)
    training.train_and_save(trainer, stage_dir, params.merge_adapter)
