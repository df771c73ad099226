"""What SFT and GRPO share: adapters, the metrics file, resuming, and how a finished model is saved."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, TrainerCallback

from finr1.callbacks import keep_rows, memory_gib
from finr1.models import load_model, merge_adapter
from finr1.progress import METRICS_FILE, read_metrics

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, PreTrainedModel, Trainer

    from finr1.params import GRPOParams, SFTParams


class MetricsFile(TrainerCallback):
    """Appends each log of the trainer to `metrics.jsonl`, from which the notebook draws its curves.

    Adds `elapsed_s`, `tokens_per_s` (tokens of the steps since the last log, prompts included, by the time of these
    steps) and the first process's memory (`callbacks.memory_gib`).

    A resumed run first drops the rows that lie behind its checkpoint, so that every step stands there once, and goes on
    counting `num_tokens`, which TRL's SFT begins at 0 again.
    """

    def __init__(self, stage_dir: Path):
        self.path = stage_dir / METRICS_FILE

    def on_train_begin(self, args, state, control, **kwargs):
        self.tokens_before = 0
        if state.is_world_process_zero:
            keep_rows(self.path, state.global_step)
            rows = read_metrics(self.path.parent)
            logged = max((row.get("num_tokens", 0) for row in rows), default=0)
            self.tokens_before = logged - state.num_input_tokens_seen  # GRPO's count goes on, SFT's does not
        self.started, self.step_s, self.tokens = time.monotonic(), 0.0, state.num_input_tokens_seen

    def on_step_begin(self, args, state, control, **kwargs):
        self.step_started = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        self.step_s += time.monotonic() - self.step_started  # without looks at answers, checkpoints, data

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            row = {"step": state.global_step, "max_steps": state.max_steps, **logs}
            row["elapsed_s"] = round(time.monotonic() - self.started, 3)
            if self.step_s and "num_tokens" in logs:  # TRL's count, over all processes, since the process began
                row["tokens_per_s"] = round((logs["num_tokens"] - self.tokens) / self.step_s, 1)
                self.tokens, self.step_s = logs["num_tokens"], 0.0
            if "num_tokens" in logs:
                row["num_tokens"] += self.tokens_before
            row |= memory_gib()
            with self.path.open("a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")


def trainer_arguments(params: SFTParams | GRPOParams, stage_dir: Path) -> dict[str, Any]:
    """What `SFTConfig` and `GRPOConfig` are both given: size of a step, optimiser, precision, checkpoints, seed."""
    import torch

    return {
        "output_dir": str(stage_dir / "checkpoints"),
        "per_device_train_batch_size": params.per_device_train_batch_size,
        "gradient_accumulation_steps": params.gradient_accumulation_steps,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": params.lr_scheduler_type,
        "warmup_steps": params.warmup_steps,
        "max_steps": params.max_steps,
        "bf16": params.bf16,
        "use_cpu": not torch.cuda.is_available(),  # bf16 autocast on a CPU has to be asked for
        "gradient_checkpointing": params.gradient_checkpointing,
        "use_liger_kernel": params.use_liger_kernel,
        "save_steps": params.save_steps,
        "save_total_limit": 1,
        "logging_steps": 1,
        "seed": params.seed,
        "data_seed": params.seed,
        "report_to": "none",
        "disable_tqdm": True,
    }


def peft_config(params: SFTParams | GRPOParams) -> LoraConfig | None:
    """LoRA on every linear layer (QLoRA: the same on a 4-bit base); None for full fine-tuning."""
    if params.peft == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def load_policy(path: str, params: SFTParams | GRPOParams) -> PreTrainedModel:
    """The model to train: fp32 weights (bf16 is autocast), a bf16 base for LoRA on a GPU, an NF4 one for QLoRA."""
    import torch

    if params.peft != "qlora":
        frozen_base = params.peft == "lora" and params.bf16 and torch.cuda.is_available()
        return load_model(path, "bfloat16" if frozen_base else "float32", params.attn_implementation)
    model = load_model(path, "bfloat16", params.attn_implementation, quantization_config=quantization_config())
    for layer in model.modules():
        # On a CPU with AVX512-BF16, bitsandbytes repacks a 4-bit layer at its first forward in eval mode, for good,
        # into a form without gradients: what samples or looks at answers amid training would end the learning.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model


def quantization_config() -> BitsAndBytesConfig:
    """QLoRA's base (Dettmers et al. 2023, arXiv 2305.14314): NF4, double quantisation, bf16 compute."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def check_processes(trainer: Trainer, num_processes: int, distributed: str) -> None:
    """Raise `RuntimeError` when a launcher started another number of processes than was asked for.

    For several, training will raise it too when the model is not wrapped as `distributed` asks.
    """
    actual = trainer.accelerator.num_processes
    if actual != num_processes:
        raise RuntimeError(f"num_processes = {num_processes}, but {actual} are running: start this stage with `launch`")
    if num_processes > 1:
        trainer.add_callback(CheckWrapper(trainer, distributed))


class CheckWrapper(TrainerCallback):
    """Raises `RuntimeError` when the model that is trained is not wrapped as `distributed` asks.

    The trainer wraps it as it starts; a wrong setting of accelerate makes another wrapper without a word.
    """

    def __init__(self, trainer: Trainer, distributed: str):
        self.trainer, self.distributed = trainer, distributed

    def on_train_begin(self, args, state, control, **kwargs):
        from torch.distributed.fsdp import FSDPModule
        from torch.nn.parallel import DistributedDataParallel

        model = self.trainer.model_wrapped
        is_zero3 = type(model).__name__ == "DeepSpeedEngine" and model.zero_optimization_stage() == 3
        found = {
            "ddp": isinstance(model, DistributedDataParallel),
            "fsdp2": isinstance(model, FSDPModule),
            "zero3": is_zero3,
        }
        if not found[self.distributed]:
            raise RuntimeError(f'distributed = "{self.distributed}", but the model runs as {type(model).__name__}')


def train_and_save(
    trainer: Trainer, stage_dir: Path, merge: bool = True, callbacks: Sequence[TrainerCallback] = ()
) -> None:
    """Train from the last checkpoint, if there is one, then write `<stage>/model` and drop the checkpoints.

    `merge` folds an adapter into the weights that are saved; without it the folder holds the adapter alone.
    The model is written beside its place and renamed, so that the folder `model` is complete or absent.
    """
    trainer.remove_callback(PrinterCallback)  # printed, the rows of `metrics.jsonl` would bury the log's last words
    for callback in (MetricsFile(stage_dir), *callbacks):  # in this order: the others' time is no time of the steps
        trainer.add_callback(callback)
    checkpoints = Path(trainer.args.output_dir)
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(checkpoints))
    state = _gathered_state(trainer)
    if trainer.accelerator.is_main_process:
        if (checkpoints / "completions").exists():  # TRL's record of every sampled group
            shutil.copytree(checkpoints / "completions", stage_dir / "completions", dirs_exist_ok=True)
        _save(trainer, stage_dir / "model", merge, state)
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # ends the process group, whose threads would else abort the exit now and then


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint below `folder` that was written to its end; None without one.

    The trainer writes `trainer_state.json` last, so a checkpoint without a whole one is what a kill left behind.
    """
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return str(max(complete, key=lambda path: int(path.name.partition("-")[2]))) if complete else None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text("utf8"))
    except ValueError:
        return False
    return True


def _gathered_state(trainer: Trainer) -> dict[str, torch.Tensor] | None:
    """The whole model's tensors on the CPU of the first process, where FSDP2 or ZeRO-3 has split them; else None.

    Every process has to take part.
    """
    from accelerate.utils import DistributedType
    from transformers.integrations import unset_hf_deepspeed_config

    kind = trainer.accelerator.distributed_type
    if kind not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return None
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if kind == DistributedType.DEEPSPEED:
        unset_hf_deepspeed_config()  # else the base model for merging would be loaded in shards, by one process alone
    return state


def _save(trainer: Trainer, folder: Path, merge: bool, state: dict[str, torch.Tensor] | None = None) -> None:
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if merge and isinstance(model, PeftModel):
        model, state = _merge_adapter(model, state), None
    temporary = folder.with_name("model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=state)
    trainer.processing_class.save_pretrained(temporary)
    os.replace(temporary, folder)


def _merge_adapter(model, state: dict[str, torch.Tensor] | None):
    """Fold the adapter into fp32 weights; a base in 4 or 16 bits or in shards is loaded again whole for that."""
    import torch

    if state is None and {weight.dtype for weight in model.parameters()} == {torch.float32}:
        return model.merge_and_unload()
    with tempfile.TemporaryDirectory() as adapter:
        model.save_pretrained(adapter, state_dict=state)
        return merge_adapter(adapter)
