"""What this machine is, and how fast it decodes and trains the embedded model."""

from __future__ import annotations

import time
from functools import partial

from finr1.models import EMBEDDED_MODEL
from finr1.paths import cache_dir, repository_root
from finr1.plan.shapes import shape_of
from finr1.plan.work import SYNTHETIC_PROMPT, Work

GIB = 2**30


def machine() -> dict[str, str]:
    """CPU, memory, GPUs and free disk, as text."""
    import os
    import shutil

    import psutil
    import torch

    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "cores": f"{os.cpu_count()} ({torch.get_num_threads()} threads used)",
        "memory": f"{psutil.virtual_memory().total / GIB:.0f} GiB, {psutil.virtual_memory().available / GIB:.0f} free",
        "GPUs": ", ".join(f"{gpu.name} {gpu.total_memory / GIB:.0f} GiB" for gpu in names) or "none",
        "free disk": f"{shutil.disk_usage(repository_root()).free / GIB:.0f} GiB",
        "torch": torch.__version__,
    }


def capacity() -> tuple[int, float]:
    """(number of GPUs, GiB of the smallest); without a GPU (0, GiB of main memory)."""
    import psutil
    import torch

    count = torch.cuda.device_count()
    if not count:
        return 0, psutil.virtual_memory().total / GIB
    return count, min(torch.cuda.get_device_properties(i).total_memory for i in range(count)) / GIB


def measure_rates(seed: int, batch: int = 16, tokens: int = 16) -> dict[str, float]:
    """Tokens per second of the embedded model here: `sample` (bf16 decoding) and `train` (one step, bf16 autocast).

    The better of two rounds of each, on batches smaller than a run's: a lower bound. About 10 s on two cores.
    """
    import torch

    from finr1.models import load_model, resolve_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = resolve_model(EMBEDDED_MODEL, cache_dir())
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40_000, (batch, SYNTHETIC_PROMPT), generator=generator).to(device)
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
    start = _now()
    work()
    return _now() - start


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()  # what was asked for is not yet done
    return time.perf_counter()


def minutes_here(work: Work, rates: dict[str, float]) -> float:
    """Minutes of this work at the measured rates, scaled by FLOPs a token: the embedded model is what was measured.

    Reading a prompt is counted as a third of training on it (one pass of three).
    """
    size = 2 * shape_of(EMBEDDED_MODEL).parameters
    seconds = work.written_flops / size / rates["sample"]
    seconds += (work.trained_flops + work.read_flops) / (3 * size) / rates["train"]
    return seconds / 60
