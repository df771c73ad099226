"""Predicted against measured peak memory: short SFT and GRPO runs in child processes, on the CPU.

Peak resident memory is what the kernel counted for a child (`ru_maxrss`). GPUs are hidden: `benchmarks/gpu.py`
measures there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from finr1.params import GRPOParams, SFTParams, TrainingParams
from finr1.params.base import read_flat_yaml
from finr1.paths import cache_dir, repository_root
from finr1.plan.memory import grpo_memory, sft_memory
from finr1.plan.shapes import shape_of

_COMMON = {"max_steps": 2, "save_steps": 100, "run": "calibration", "warmup_steps": 0, "num_processes": 1}
_SFT_ROWS, _GRPO_COMPLETIONS, _LENGTH = 8, 16, 256
_STARTER = """
import resource, subprocess, sys
print(subprocess.call(sys.argv[1:], stdout=sys.stderr), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
CASES: dict[str, dict[str, Any]] = {
    "SFT full, bf16": {"peft": "full", "bf16": True},
    "SFT full, fp32": {"peft": "full", "bf16": False},
    "SFT full, bf16, checkpointing": {"peft": "full", "bf16": True, "gradient_checkpointing": True},
    "SFT LoRA, bf16": {"peft": "lora", "bf16": True},
    "GRPO full, bf16": {"peft": "full", "bf16": True},
    "GRPO LoRA, bf16": {"peft": "lora", "bf16": True},
}


def calibrate(folder: Path, model: str | None = None) -> list[dict[str, Any]]:
    """One row a case: predicted GiB, measured GiB, and the error of the prediction as a share of the measurement.

    `model` is a local folder; None: the embedded model. About a minute a case on two cores. Raises
    CalledProcessError when a child fails; its output is in `<folder>/<case>/train.log`.
    """
    from finr1.models import EMBEDDED_MODEL, resolve_model

    path = model or resolve_model(EMBEDDED_MODEL, cache_dir())
    rows = []
    for case, changes in CASES.items():
        stage_dir = folder / "".join(letter if letter.isalnum() else "_" for letter in case)
        stage_dir.mkdir(parents=True, exist_ok=True)
        params, predicted = (_sft if case.startswith("SFT") else _grpo)(path, folder, stage_dir, changes)
        params.to_yaml(stage_dir / "params.yaml")
        module = "finr1.sft" if case.startswith("SFT") else "finr1.grpo"
        measured = peak_gib([sys.executable, "-m", module, str(stage_dir)], stage_dir / "train.log")
        rows.append({"case": case, "predicted": predicted, "measured": measured, "error": predicted / measured - 1})
    return rows


def peak_gib(command: list[str], log: Path) -> float:
    """Peak resident memory of a command on the CPU, GiB; CalledProcessError when it fails.

    A bare interpreter starts it: on Linux a process counts as its own what its parent held when it was started.
    """
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with log.open("wb") as file:
        starter = [sys.executable, "-c", _STARTER, *command]
        done = subprocess.run(starter, stdout=subprocess.PIPE, stderr=file, cwd=repository_root(), env=env, check=True)
    status, peak = map(int, done.stdout.split())
    if status:
        raise subprocess.CalledProcessError(status, command, output=log.read_text("utf8")[-2000:])
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30  # bytes there, KiB elsewhere


def _sft(path: str, folder: Path, stage_dir: Path, changes: dict[str, Any]) -> tuple[SFTParams, float]:
    from finr1.records import write_jsonl

    values = {
        "model_name_or_path": path,
        "filtering_stage": str(folder / "rows"),
        "per_device_train_batch_size": _SFT_ROWS,
        "gradient_accumulation_steps": 1,
        "max_length": _LENGTH,
        "packing": False,
        "sample_steps": 0,
        "memory_probe": False,
    }
    params = _demo(SFTParams, values | changes)
    row = {"prompt": [{"role": "user", "content": "Count."}], "completion": [_said("one two three " * _LENGTH)]}
    write_jsonl(folder / "rows" / "sft.jsonl", [row] * (4 * _SFT_ROWS))  # cut to the same length, all of them
    return params, sum(sft_memory(shape_of(path), params, gpu=False).values())


def _grpo(path: str, folder: Path, stage_dir: Path, changes: dict[str, Any]) -> tuple[GRPOParams, float]:
    from finr1 import curation, synthetic
    from finr1.grpo import TRAIN_FILE
    from finr1.records import write_jsonl

    start = folder / "start" / "model"
    if not start.exists():
        start.parent.mkdir(parents=True)
        start.symlink_to(path)
    values = {
        "sft_stage": str(start.parent),
        "per_device_train_batch_size": _GRPO_COMPLETIONS,
        "gradient_accumulation_steps": 1,
        "num_generations": 8,
        "max_completion_length": 128,
    }
    params = _demo(GRPOParams, values | changes)
    rows = curation.rl_rows(synthetic.generate_problems(16, "train", seed=1))
    write_jsonl(stage_dir / TRAIN_FILE, rows)
    longest = max(len(row["prompt"][-1]["content"]) for row in rows) // 3  # characters a token, few in numbers
    return params, max(sum(p.values()) for p in grpo_memory(shape_of(path), params, None, longest).values())


def _demo(params_class: type[TrainingParams], values: dict[str, Any]) -> Any:
    demo = read_flat_yaml(repository_root() / "params" / "demo" / f"{params_class.stage}.yaml").values
    return params_class(**(demo | _COMMON | values))


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
