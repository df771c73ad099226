"""SFT and GRPO share this beside TRL: the metrics file, memory, resuming, and saving a model."""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from accelerate.utils.memory import should_reduce_batch_size
from peft import PeftModel
from transformers import BitsAndBytesConfig, PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations import unset_hf_deepspeed_config
from transformers.trainer_callback import PrinterCallback, TrainerCallback, TrainerState

from finr1.child import SHARDS_ON_A_CPU
from finr1.manifest import peak_memory_gib, remove
from finr1.models import load_model, merge_adapter, native_dtype, not_finite, resolve_model
from finr1.params import GRPOParams, SFTParams
from finr1.paths import cache_dir
from finr1.progress import FIRST_STEP, METRICS_FILE, duration, newest_whole, read_metrics, rewind, seal


def logging_and_saving(params: SFTParams | GRPOParams, stage_dir: Path) -> dict[str, Any]:
    """Arguments of `SFTConfig` and `GRPOConfig` that change no result: checkpoints, logs, looks, device."""
    # TRL's default is a folder among the checkpoints, and these are deleted when the model is saved.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(stage_dir / "tensorboard"))
    looks, most = {}, min(params.eval_problems, params.batch_size // params.num_processes)
    if getattr(params, "eval_steps", 0):  # of dev problems: at the start, every few steps and at the end
        equal = next(size for size in range(most, 0, -1) if params.eval_problems % size == 0)  # batches are averaged
        looks = {"eval_strategy": "steps", "eval_steps": params.eval_steps, "per_device_eval_batch_size": equal,
                 "eval_on_start": newest_whole(stage_dir / "checkpoints") is None}  # fmt: skip
    return looks | {
        "output_dir": str(stage_dir / "checkpoints"),
        "save_steps": params.save_steps,
        "save_total_limit": 2,  # if the last one cannot be read, the one before it serves
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # else a NaN would be logged as the mean of the losses before it
        "report_to": params.report_to,
        "project": "finr1",
        "run_name": f"{params.run}/{params.stage}",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),  # bf16 autocast on a CPU has to be asked for
        "fp16": params.bf16 and native_dtype() == "float16",
    }


def start_model(params: SFTParams | GRPOParams) -> str:
    """Folder or hub id of the model that training starts from: the SFT stage's where GRPO names one, else the base."""
    if getattr(params, "sft_stage", None) is not None:
        return str(params.inputs()["sft_stage"] / "model")
    return resolve_model(params.model_name_or_path, cache_dir())


def load_policy(
    path: str, params: SFTParams | GRPOParams, quantization_config: BitsAndBytesConfig, **kwargs: Any
) -> PreTrainedModel:
    """The model to train: fp32 weights, autocast to 16 bits; a base in 16 bits for LoRA on a GPU, in 4 for QLoRA."""
    if os.environ.get(SHARDS_ON_A_CPU) and params.distributed == "fsdp2" and params.num_processes > 1:
        # accelerate splits models over GPUs only, so the processes on the CPU are said to be GPUs.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    half = native_dtype()
    if params.peft != "qlora":
        frozen_base = params.peft == "lora" and torch.cuda.is_available()
        return load_model(path, half if frozen_base and params.bf16 else "float32", **kwargs)
    quantization_config.bnb_4bit_compute_dtype = getattr(torch, half)
    model = load_model(path, half, quantization_config=quantization_config, **kwargs)
    for layer in model.modules():
        # With AVX512-BF16, bitsandbytes repacks it at the first forward in eval mode, for good: no gradients more.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model


class MetricsFile(TrainerCallback):
    """Appends each log of the trainer to `metrics.jsonl`, from which the notebook draws its curves.

    Adds `tokens_per_s` (prompts included, without looks and checkpoints) and the first process's `memory_gib`. A
    resumed run drops the rows after its checkpoint. It keeps counting `num_tokens`, which TRL's SFT starts at 0 again.
    Put callbacks that add to a log before this one, and callbacks that take time after it.
    """

    def __init__(self, stage_dir: Path):
        self.path = stage_dir / METRICS_FILE

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            rewind(self.path, Path(args.output_dir) / f"checkpoint-{state.global_step}")
            logged = max((row.get("num_tokens", 0) for row in read_metrics(self.path.parent)), default=0)
            self.tokens_before = logged - state.num_input_tokens_seen  # GRPO's count resumes, SFT's does not
            print(f"{FIRST_STEP}0/{args.gradient_accumulation_steps} micro-batches", flush=True)
        self.step_s, self.tokens, self.first = 0.0, state.num_input_tokens_seen, state.global_step

    def on_step_begin(self, args, state, control, **kwargs):
        self.step_started, self.parts = time.monotonic(), 0

    def on_substep_end(self, args, state, control, **kwargs):
        self.parts += 1  # micro-batches of this step; the first one's time holds the sampling, too
        if state.global_step == self.first and state.is_world_process_zero:
            left = (time.monotonic() - self.step_started) * (args.gradient_accumulation_steps / self.parts - 1)
            done = f"{self.parts}/{args.gradient_accumulation_steps} micro-batches"
            print(f"{FIRST_STEP}{done}, at most {duration(left)} to its end", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        self.step_s += time.monotonic() - self.step_started

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        row = {"step": state.global_step, "max_steps": state.max_steps, **logs, **memory_gib()}
        if "num_tokens" in logs:  # TRL's count, over all processes, since the process began
            if self.step_s:
                row["tokens_per_s"] = round((logs["num_tokens"] - self.tokens) / self.step_s, 1)
                self.tokens, self.step_s = logs["num_tokens"], 0.0
            row["num_tokens"] += self.tokens_before
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")


@contextmanager
def enough_memory(what: str, args: TrainingArguments) -> Iterator[None]:
    """Turn a lack of memory in the block into a MemoryError that names the parameters to change."""
    advice = (f"lower max_length (now {args.max_length}), lower per_device_train_batch_size and raise "
              'gradient_accumulation_steps, set gradient_checkpointing = True or peft = "lora" or "qlora"')  # fmt: skip
    # On a CPU the system may kill the process without a message: then this line is the last in the log.
    print(f"memory probe: {what}; if the log ends here, {advice}", flush=True)
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise MemoryError(f"{what} does not fit in memory: {advice} ({str(error).splitlines()[0]})") from error


def memory_gib() -> dict[str, float]:
    """GiB that this process holds now, and its peak so far: torch's allocations on a GPU, else resident memory."""
    if torch.cuda.is_available():
        now, peak = torch.cuda.memory_allocated() / 2**30, torch.cuda.max_memory_allocated() / 2**30
    else:
        now, peak = psutil.Process().memory_info().rss / 2**30, peak_memory_gib()["notebook"]
    return {"memory_gib": round(now, 3), "peak_memory_gib": round(peak, 3)}


def check_processes(trainer: Trainer, num_processes: int, distributed: str) -> None:
    """Raise `RuntimeError` where accelerate silently runs another number of processes, or another strategy."""
    accelerator = trainer.accelerator
    if (started := accelerator.num_processes) != num_processes:
        raise RuntimeError(f"num_processes = {num_processes}, but {started} run: start this stage with `launch`")
    actual = "ddp"
    if accelerator.distributed_type == DistributedType.FSDP:
        actual = f"fsdp{accelerator.state.fsdp_plugin.fsdp_version}"
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        actual = f"zero{accelerator.state.deepspeed_plugin.zero_stage}"
    if num_processes > 1 and actual != distributed:
        raise RuntimeError(f'distributed = "{distributed}", but accelerate runs {actual}')


class Guard(TrainerCallback):
    """Ends a training at a loss, gradient or weight that is absurd or not finite; marks each checkpoint as whole."""

    def __init__(self, trainer: Trainer, params: SFTParams | GRPOParams):
        self.trainer, self.params, self.limit = trainer, params, math.inf

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """No training multiplies its largest weight by ten: steps of Adam are about the learning rate."""
        trained = [getattr(p, "_local_tensor", p).detach() for p in model.parameters() if p.requires_grad]
        self.limit = 10 * max([1.0, *(float(weight.abs().max()) for weight in trained if weight.numel())])

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        if "loss" in logs:  # else it is the summary at the end, or a look
            checked = ("loss",) if args.fp16 else ("loss", "grad_norm")  # of fp16 the scaler skips such a step
            wrong = [name for name in checked if not math.isfinite(logs.get(name, 0.0))]
            trained = (pair for pair in model.named_parameters() if pair[1].requires_grad)
            self.refuse(f"{wrong[0]} is {logs[wrong[0]]}" if wrong else self.absurd(state), trained, self.limit)

    def absurd(self, state: TrainerState) -> str | None:
        """What no honest SFT does: a step far beyond any spike; at the end, a model that knows only common tokens."""
        if not isinstance(self.params, SFTParams):
            return None
        losses = [row["loss"] for row in state.log_history if "loss" in row]
        now, guess = losses[-1], math.log(len(self.trainer.processing_class))  # what a uniform guess costs, in nats
        end = fmean(losses[-max(1, len(losses) // 4) :]) if state.global_step == state.max_steps else 0.0
        absurd = now > losses[0] + 10 * guess or end > losses[0] + guess / 2
        return f"the loss went from {losses[0]:.3g} to {end or now:.3g} nats a token" if absurd else None

    def on_save(self, args, state, control, **kwargs):
        self.trainer.accelerator.wait_for_everyone()  # each process has written files of its own
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def refuse(self, wrong: str | None, weights: Iterable[tuple[str, torch.Tensor]], limit: float = math.inf) -> None:
        """Raise `FloatingPointError` with what to change, where something is `wrong` or a weight not below `limit`."""
        if not wrong and (name := not_finite(weights, limit)):
            above = f" or above {limit:.3g}, ten times those before" if limit < math.inf else ""
            wrong = f"the weight {name} is not finite{above}"
        if wrong:
            raise FloatingPointError(
                f"step {self.trainer.state.global_step}: {wrong}; no model is saved. Lower learning_rate (now "
                f"{self.params.learning_rate:g}), lengthen warmup_steps (now {self.params.warmup_steps:g}), or set "
                "bf16 to false; with a changed parameter the training starts again from step 0"
            )


def train_and_save(trainer: Trainer, params: SFTParams | GRPOParams, stage_dir: Path) -> None:
    """Train from the last checkpoint, if there is one, then write `<stage>/model` and drop the checkpoints."""
    trainer.remove_callback(PrinterCallback)  # its rows stand in `metrics.jsonl`; the log keeps its last messages
    checkpoints = Path(trainer.args.output_dir)
    trainer.add_callback(Guard(trainer, params))
    for weight in trainer.model.parameters() if trainer.args.fp16 else ():
        if weight.requires_grad:  # TRL puts a QLoRA adapter into bf16, whose gradients the scaler of fp16 does not take
            weight.data = weight.data.float()
    if trainer.args.device.type == "cpu":  # of several processes accelerate names it cpu:0, which torch.load refuses
        trainer.args.__dict__["_setup_devices"] = torch.device("cpu")
    trainer.train(resume_from_checkpoint=newest_whole(checkpoints, drop=trainer.accelerator.is_main_process))
    kind, state = trainer.accelerator.distributed_type, None
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):  # all processes gather what these have split
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if kind == DistributedType.DEEPSPEED:
        unset_hf_deepspeed_config()  # else one process alone would load the base model for merging in shards
    if trainer.accelerator.is_main_process:
        if (checkpoints / "completions").exists():  # TRL's record of every sampled group
            shutil.copytree(checkpoints / "completions", stage_dir / "completions", dirs_exist_ok=True)
        _save(trainer, params, stage_dir / "model", state)
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()  # ends the process group: its threads sometimes abort the exit


def _save(trainer: Trainer, params: SFTParams | GRPOParams, folder: Path, state: dict[str, torch.Tensor] | None):
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel) and params.merge_adapter:
        if state is None and {weight.dtype for weight in model.parameters()} == {torch.float32}:
            model = model.merge_and_unload()
        else:  # a base in 4 or 16 bits, or in shards: it is loaded again whole, and in fp32
            with tempfile.TemporaryDirectory() as adapter:
                model.save_pretrained(adapter, state_dict=state)
                model, state = merge_adapter(adapter), None
    elif isinstance(model, PeftModel):  # it was loaded from a folder that may be deleted with the checkpoints
        model.peft_config["default"].base_model_name_or_path = start_model(params)
    Guard(trainer, params).refuse(None, (state or dict(model.named_parameters())).items())
    temporary = folder.with_name("model.tmp")  # renamed at the end: the folder `model` is complete or absent
    remove(temporary)
    model.save_pretrained(temporary, state_dict=state)
    trainer.processing_class.save_pretrained(temporary)
    os.replace(temporary, folder)
