"""What a preset will cost on this machine, before anything is spent: tokens by its parameters, time by measurement."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path

from finr1.params import STAGES, Params
from finr1.paths import cache_dir, preset_names, repository_root

MEASURED_MODEL_PARAMETERS = 0.135e9  # of the embedded model, with which the rates are measured
CHARS_PER_TOKEN = 3.5  # English text under the embedded model's tokenizer
PROMPT_TOKENS = 75  # mean chat of a synthetic problem under that tokenizer, system turn included
ANSWER_TOKENS = 50  # mean worked solution of a synthetic problem
PAGE_CHARS = 4_000  # median page of FinQA


def machine() -> dict[str, str]:
    """CPU, memory, GPUs and free disk, as text."""
    import os
    import shutil

    import psutil
    import torch

    gib = 2**30
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "cores": f"{os.cpu_count()} ({torch.get_num_threads()} threads used)",
        "memory": f"{psutil.virtual_memory().total / gib:.0f} GiB, {psutil.virtual_memory().available / gib:.0f} free",
        "GPUs": ", ".join(f"{gpu.name} {gpu.total_memory / gib:.0f} GiB" for gpu in names) or "none",
        "free disk": f"{shutil.disk_usage(repository_root()).free / gib:.0f} GiB",
        "torch": torch.__version__,
    }


def measure_rates(seed: int, batch: int = 16, tokens: int = 16) -> dict[str, float]:
    """Tokens per second of the embedded model here: `sample` (bf16 decoding) and `train` (one step, bf16 autocast).

    The better of two rounds of each, on batches smaller than a run's: a lower bound. About 10 s on two cores.
    """
    import torch

    from finr1.models import EMBEDDED_MODEL, load_model, resolve_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = resolve_model(EMBEDDED_MODEL, cache_dir())
    ids = torch.randint(5, 40_000, (batch, PROMPT_TOKENS), generator=torch.Generator().manual_seed(seed)).to(device)
    model = load_model(path, "bfloat16").to(device)
    with torch.inference_mode():
        lengths = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        decode = partial(model.generate, ids, attention_mask=torch.ones_like(ids), **lengths)
        sample = batch * tokens / min(_seconds(decode), _seconds(decode))
    model = load_model(path, "float32").to(device)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(ids, labels=ids).loss
        loss.backward()
        model.zero_grad()

    return {"sample": sample, "train": ids.numel() / min(_seconds(step), _seconds(step))}


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def costs(preset: str, rates: dict[str, float]) -> list[dict]:
    """One row a stage that samples or trains: tokens, FLOPs and minutes on this machine.

    FLOPs: 2 N for a sampled token and 6 N for a trained one, N parameters (Kaplan et al. 2020, arXiv 2001.08361).
    """
    presets = read_preset(preset)
    sft, grpo, benchmark = presets["04_sft"], presets["05_grpo"], presets["06_benchmark"]
    context = presets["01_data"].max_context_chars
    pages = set(presets["01_data"].source_names) & {"finqa", "convfinqa"}
    prompt = PROMPT_TOKENS + ((context or PAGE_CHARS) / CHARS_PER_TOKEN if pages else 0)
    rows = min(presets["03_filtering"].num_sft, presets["01_data"].num_train)
    steps = sft.max_steps if sft.max_steps > 0 else sft.num_train_epochs * rows / sft.batch_size
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)
    benchmarks = len(presets["01_data"].benchmark_names) if benchmark.sampling == "paper" else 1
    answers = benchmark.num_items * benchmarks * (1 + benchmark.num_samples) * models
    tries = grpo.pass_rate_candidates * grpo.pass_rate_samples
    counts = {  # stage -> (sampled tokens, trained tokens)
        "04 look before and after": (2 * sft.eval_problems * sft.eval_max_tokens, 0),
        "04 SFT": (0, steps * sft.batch_size * (prompt + ANSWER_TOKENS)),
        "05 pass rates": (tries * grpo.max_completion_length, 0),
        "05 GRPO": (
            grpo.max_steps / grpo.num_iterations * grpo.batch_size * grpo.max_completion_length,
            grpo.max_steps * grpo.batch_size * (prompt + grpo.max_completion_length),
        ),
        "05 look before and after": (2 * grpo.eval_problems * grpo.eval_max_tokens, 0),
        "06 benchmark": (answers * benchmark.max_tokens, 0),
    }
    size = model_parameters(sft.model_name_or_path)
    scale = size / MEASURED_MODEL_PARAMETERS
    return [
        {
            "stage": stage,
            "sampled tokens": int(sampled),
            "trained tokens": int(trained),
            "petaFLOPs": size * (2 * sampled + 6 * trained) / 1e15,
            "minutes here": scale * (sampled / rates["sample"] + trained / rates["train"]) / 60,
        }
        for stage, (sampled, trained) in counts.items()
    ]


def read_preset(preset: str) -> dict[str, Params]:
    """The parameters of every stage of `params/<preset>`; raises `FileNotFoundError` for an unknown preset."""
    folder: Path = repository_root() / "params" / preset
    if not folder.is_dir():
        known = ", ".join(preset_names())
        raise FileNotFoundError(f"preset = {preset!r}: there is no such folder in params/; there are {known}")
    return {stage: params.from_yaml(folder / f"{stage}.yaml") for stage, params in STAGES.items()}


def model_parameters(name: str) -> float:
    """Number of parameters as a model's name states it ("...-7B-..."), else that of the embedded model."""
    stated = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z])", name.lower())
    return float(stated[1]) * {"b": 1e9, "m": 1e6}[stated[2]] if stated else MEASURED_MODEL_PARAMETERS


def advice(preset: str, here: dict[str, str]) -> list[str]:
    """What to know before this preset is run on this machine, in a few lines."""
    presets = read_preset(preset)
    sft, grpo = presets["04_sft"], presets["05_grpo"]
    size = model_parameters(sft.model_name_or_path)
    # fp32 weights, gradients and two Adam moments; LoRA trains a few per cent of that, QLoRA on 4-bit weights.
    bytes_per_parameter = {"full": 16, "lora": 4.5, "qlora": 1.0}
    need = max(size * bytes_per_parameter[sft.peft], size * bytes_per_parameter[grpo.peft]) / 2**30
    lines = [f"weights, gradients and optimizer need about {need:.1f} GiB in all; activations and logits come on top"]
    if here["GPUs"] == "none" and size > 1e9:
        lines.append("this machine has no GPU: a model of this size will not train here in reasonable time")
    if here["GPUs"] == "none":
        lines.append(
            "without a GPU: sampling uses a bf16 copy of the policy and eager attention, the fastest found on CPUs"
        )
    return lines
