"""Supervised fine-tuning with TRL's `SFTTrainer`: full, LoRA or QLoRA, loss on the completion only.

`launch("finr1.sft", run)` starts this module in a process of its own; by hand it is
`python -m finr1.sft outputs/demo/04_sft`.
The paper states no hyperparameter of its SFT; `params/paper/04_sft.yaml` says where each value comes from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from finr1.params import SFTParams
from finr1.progress import EARLY_FILE
from finr1.records import Problem, read_jsonl
from finr1.run import cache_dir, child_main

if TYPE_CHECKING:
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer


EARLY_PROBLEMS = 3  # answered again and again in the early looks


def sft_config(params: SFTParams, stage_dir: Path) -> SFTConfig:
    """TRL's configuration for these parameters."""
    from trl import SFTConfig

    from finr1 import training

    return SFTConfig(
        **training.trainer_arguments(params, stage_dir),
        num_train_epochs=params.num_train_epochs,
        max_length=params.max_length,
        packing=params.packing,
        packing_strategy="bfd",  # whole rows, best fit first; each attends to itself alone
        completion_only_loss=True,  # the prompt is given, only the answer is learned
    )


def make_trainer(params: SFTParams, stage_dir: Path) -> SFTTrainer:
    """TRL's trainer for the rows `{prompt, completion}` of `<filtering stage>/sft.jsonl`."""
    from datasets import load_dataset
    from trl import SFTTrainer

    from finr1 import training
    from finr1.completion_head import use_completion_head
    from finr1.models import end_of_turn, load_tokenizer, resolve_model

    config = sft_config(params, stage_dir)  # first: ZeRO-3 loads the weights in shards only when it knows
    path = resolve_model(params.model_name_or_path, cache_dir())
    tokenizer = load_tokenizer(path)
    config.eos_token = end_of_turn(tokenizer)
    rows = load_dataset("json", data_files=str(params.inputs()["filtering_stage"] / "sft.jsonl"), split="train")
    trainer = SFTTrainer(
        model=training.load_policy(path, params),
        args=config,
        train_dataset=rows.select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
        peft_config=training.peft_config(params),
    )
    use_completion_head(trainer)
    return trainer


def extras(params: SFTParams, trainer: SFTTrainer, stage_dir: Path) -> list[TrainerCallback]:
    """The memory probe and the early looks at the first dev problems, where the parameters ask for them."""
    from finr1.callbacks import EarlyLook, MemoryProbe

    found = [MemoryProbe(trainer)] if params.memory_probe else []
    if params.sample_steps:
        problems = read_jsonl(params.inputs()["data_stage"] / "problems.jsonl", Problem)
        dev = [problem for problem in problems if problem.split == "dev"][:EARLY_PROBLEMS]
        look = EarlyLook(trainer, dev, stage_dir / EARLY_FILE, params.sample_steps, params.eval_max_tokens)
        found.append(look)
    return found


def early_answers(stage_dir: Path) -> list[dict]:
    """The early looks' rows {"step", "id", "text"}, step by step; none where `sample_steps` was 0."""
    path = stage_dir / EARLY_FILE
    return [json.loads(line) for line in path.read_text("utf8").splitlines()] if path.exists() else []


def train(params: SFTParams, stage_dir: Path) -> None:
    """Fine-tune, from the last checkpoint if there is one, and save `<stage>/model`."""
    from finr1 import training

    trainer = make_trainer(params, stage_dir)
    training.check_processes(trainer, params.num_processes, params.distributed)
    training.train_and_save(trainer, stage_dir, params.merge_adapter, extras(params, trainer, stage_dir))


if __name__ == "__main__":
    child_main(train, SFTParams)
