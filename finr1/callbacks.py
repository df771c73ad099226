"""What a training does besides training: a probe of the memory, and early looks at answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from finr1.records import Problem, messages

if TYPE_CHECKING:
    from trl import SFTTrainer


class MemoryProbe(TrainerCallback):
    """Forward and backward on the longest batch before the first step: what does not fit is known at once.

    The optimizer's two moments come with the first step; tensors of their size stand in for them. Gradients, random
    state and TRL's counters are put back, so the training is the same with and without the probe. Logs
    `memory_probe_gib` (see `memory_gib`) and `memory_probe_tokens` (padding included) as step 0.
    Raises `MemoryError` that names the parameters to change. DeepSpeed counts backward passes: no probe there.
    """

    def __init__(self, trainer: SFTTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        from accelerate.utils.memory import should_reduce_batch_size

        if self.trainer.is_deepspeed_enabled:
            return
        batch = self._longest_batch(args.per_device_train_batch_size)
        rows, length = batch["input_ids"].shape
        # On a CPU the system may end the process without a word: then this line is the last in the log.
        print(f"memory probe: {rows} x {length} tokens; if it ends here, {_advice(self.trainer)}", flush=True)
        try:
            self._step(batch, model, optimizer, passes=min(2, args.gradient_accumulation_steps))
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
            reason = str(error).partition("\n")[0]
            message = f"the longest batch ({rows} x {length} tokens) does not fit in memory: {_advice(self.trainer)}"
            raise MemoryError(f"{message} ({reason})") from error
        if state.global_step == 0:
            peak = memory_gib()["peak_memory_gib"]
            self.trainer.log({"memory_probe_gib": peak, "memory_probe_tokens": rows * length})

    def _longest_batch(self, size: int) -> dict:
        data = self.trainer.train_dataset
        lengths = [len(ids) for ids in data["input_ids"]]
        longest = sorted(range(len(lengths)), key=lambda i: -lengths[i])[:size]
        return self.trainer.data_collator([data[i] for i in longest])

    def _step(self, batch: dict, model, optimizer, passes: int) -> None:
        import torch

        trainer = self.trainer
        tokens = trainer._total_train_tokens
        learned = (batch["labels"] != -100).sum()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        moments = [] if optimizer.state else [torch.ones_like(weight) for weight in trained for _ in range(2)]
        with torch.random.fork_rng(devices=[trainer.args.device] if trainer.args.device.type == "cuda" else []):
            for _ in range(passes):  # the second finds the gradients of the first, as an accumulated step does
                trainer.training_step(trainer.model_wrapped, dict(batch), learned.to(trainer.args.device))
        trainer.model_wrapped.zero_grad()
        del moments
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = tokens


def _advice(trainer: SFTTrainer) -> str:
    """The parameters that make a step smaller, with their values now; those that are spent already left out."""
    args, found = trainer.args, []
    if args.per_device_train_batch_size > 1:
        found.append(
            f"lower per_device_train_batch_size (now {args.per_device_train_batch_size}) "
            "and raise gradient_accumulation_steps to keep the batch"
        )
    if not args.gradient_checkpointing:
        found.append("set gradient_checkpointing = True")
    if not hasattr(trainer.model, "peft_config"):
        found.append('set peft = "lora"')
    elif not getattr(trainer.model, "is_loaded_in_4bit", False):
        found.append('set peft = "qlora"')
    found.append(f"lower max_length (now {args.max_length})")
    return ", or ".join(found)


class EarlyLook(TrainerCallback):
    """Greedy answers of the model in training to a few problems: at step 0, every `steps` steps and at the end.

    Rows of `early_answers.jsonl`: {"step", "id", "text"}. Every process generates, as a model in shards needs; the
    first one writes. A resumed training drops the rows that it will write again.
    """

    def __init__(self, trainer: SFTTrainer, problems: Sequence[Problem], path: Path, steps: int, max_tokens: int):
        self.trainer, self.problems, self.path = trainer, problems, path
        self.steps, self.max_tokens = steps, max_tokens

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            keep_rows(self.path, state.global_step)
        if state.global_step == 0:
            self._look(0)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.steps == 0 or state.global_step == state.max_steps:
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        texts = self._answers()
        if self.trainer.is_world_process_zero():
            rows = zip(self.problems, texts, strict=True)
            self._write([{"step": step, "id": problem.id, "text": text} for problem, text in rows], "a")

    def _write(self, rows: list[dict], mode: str) -> None:
        with self.path.open(mode, encoding="utf8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def _answers(self) -> list[str]:
        import torch
        from transformers import GenerationConfig
        from trl.models.utils import unwrap_model_for_generation

        trainer, tokenizer = self.trainer, self.trainer.processing_class
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        greedy = GenerationConfig(max_new_tokens=self.max_tokens, do_sample=False, **ends)
        chats = [messages(problem) for problem in self.problems]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        ).to(trainer.args.device)
        checkpointing = {"gradient_checkpointing_kwargs": trainer.args.gradient_checkpointing_kwargs}
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator, **checkpointing) as model:
            model.eval()
            with torch.no_grad(), trainer.accelerator.autocast():
                output = model.generate(**batch, generation_config=greedy)
            model.train()
        return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def keep_rows(path: Path, step: int) -> None:
    """Drop the rows behind `step` from a JSONL file: a training that starts there writes them again.

    At step 0 nothing is kept. A last line that a kill has cut off goes, too.
    """
    if path.exists():
        lines = path.read_text("utf8").splitlines(keepends=True) if step else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept), "utf8")


def memory_gib() -> dict[str, float]:
    """GiB that this process holds now (between two steps) and its peak so far: on the GPU, where there is one.

    There it is what torch has allocated, elsewhere resident memory.
    """
    import psutil
    import torch

    from finr1.manifest import peak_memory_gib

    if torch.cuda.is_available():
        now, peak = torch.cuda.memory_allocated() / 2**30, torch.cuda.max_memory_allocated() / 2**30
    else:
        now, peak = psutil.Process().memory_info().rss / 2**30, peak_memory_gib()["notebook"]
    return {"memory_gib": round(now, 3), "peak_memory_gib": round(peak, 3)}
