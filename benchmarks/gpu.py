"""SFT and GRPO on a CUDA GPU: plain TRL against ours, with MFU and peak memory, and whether the results are right.

`python benchmarks/gpu.py [--model DIR] [--steps 10]` prints a table in under 8 minutes with the embedded model
(135M parameters; a small model keeps a large GPU far from its peak, so read the MFU of a larger `--model`).
Without CUDA it says so and ends with code 2. Not yet run by us: no GPU was at hand.

MFU is model FLOPs (6 N and attention, see `finr1.plan.work`) for each second, over the peak given with `--tflops`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).resolve().parent
PEAKS = {"L40": 181, "RTX 4090": 165}  # bf16, dense, TFLOP/s: NVIDIA's data sheets; what TRL's table lacks
CHOSEN = {
    "sft": ("plain TRL", "ours", "ours, packing", "ours, LoRA"),
    "grpo": ("plain TRL", "ours"),
}
BUDGET_S = 7 * 60  # no further variant is started after this


def peak_tflops(device: str) -> float | None:
    """Peak of the device in bf16, TFLOP/s; None when its name is not known."""
    from trl.trainer.utils import get_peak_flops

    if flops := get_peak_flops(device, "bfloat16"):
        return flops / 1e12
    return next((float(value) for name, value in PEAKS.items() if re.search(rf"\b{name}\b", device)), None)


def check_greedy(model: str) -> str:
    """Greedy texts of one prompt, alone and within a batch, in fp32: the same, or how many of 16 tokens differ."""
    import torch

    from finr1.models import load_model, load_tokenizer

    tokenizer = load_tokenizer(model)
    loaded = load_model(model, "float32").to("cuda").eval()
    chats = [
        [{"role": "user", "content": text}] for text in ("What is 12 % of 250?", "Name a currency, please, and why.")
    ]

    def answers(some: list) -> list[list[int]]:
        batch = tokenizer.apply_chat_template(
            some, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        ).to("cuda")
        with torch.inference_mode():
            out = loaded.generate(**batch, max_new_tokens=16, min_new_tokens=16, do_sample=False)
        return out[:, batch["input_ids"].shape[1] :].tolist()

    alone, together = answers(chats[:1])[0], answers(chats)[0]
    different = sum(a != b for a, b in zip(alone, together, strict=True))
    return "greedy text alone = in a batch" if not different else f"WRONG: {different} of 16 greedy tokens differ"


def check_reward() -> str:
    """Our rewards of four texts whose rewards are known."""
    from training import recipe

    cells = recipe("grpo")
    good = "<think>3 x 4</think><answer>\\boxed{12}</answer>"
    texts = [good, good.replace("12", "13"), "\\boxed{12}", "no"]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    columns = {"solution": ["12"] * 4, "answer_kind": ["number"] * 4}
    columns |= {"alternatives": [[]] * 4, "choices": [""] * 4, "labels": [""] * 4}
    found = (cells.format_reward(completions), cells.accuracy_reward(completions, **columns))
    expected = ([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0])
    return "rewards as expected" if found == expected else f"WRONG: rewards {found}, expected {expected}"


def check_curves(rows: list[dict[str, Any]]) -> list[str]:
    """Lines about each SFT curve: finite, and falling from its first third to its last."""
    lines = []
    for row in rows:
        curve = row["curve"]
        third = max(1, len(curve) // 3)
        fine = all(math.isfinite(value) for value in curve) and mean(curve[-third:]) < mean(curve[:third])
        verdict = "" if fine else "  WRONG: not falling"
        lines.append(f"{row['variant']}: loss {curve[0]:.3f} -> {curve[-1]:.3f}{verdict}")
    return lines


def measure(stage: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One variant of `benchmarks/training.py` in a child on the GPU; its result with the peak of the GPU's memory."""
    from finr1.child import first_gpu

    with tempfile.TemporaryDirectory() as folder:
        sizes = [f"--{key}={getattr(options, key)}" for key in ("model", "steps", "batch", "tokens", "rows")]
        command = [sys.executable, str(HERE / "training.py"), "--child", stage, name, folder, *sizes]
        one_gpu = os.environ | {"CUDA_VISIBLE_DEVICES": first_gpu()}
        done = subprocess.run(command, capture_output=True, text=True, env=one_gpu)
        if done.returncode:
            return {"stage": stage, "variant": name, "error": done.stderr.strip().splitlines()[-1:]}
        result = json.loads((Path(folder) / "result.json").read_text())
    return {"stage": stage, "variant": name} | result


def describe(row: dict[str, Any], options: argparse.Namespace) -> str:
    """One line of the table."""
    from finr1.plan.shapes import shape_of
    from finr1.plan.work import forward_flops

    if "error" in row:
        return f"{row['stage']:6}{row['variant']:34} failed: {row['error']}"
    seconds, tokens = mean(row["seconds"]), mean(row["tokens"])
    text = f"{row['stage']:6}{row['variant']:34}{seconds:9.3f}{tokens / seconds:12.0f}{row['gpu_gib']:9.2f}"
    if row["stage"] == "sft" and options.tflops:
        passes = 2 if "LoRA" in row["variant"] else 3
        flops = passes * forward_flops(shape_of(options.model), tokens / options.batch) * tokens / seconds
        text += f"{flops / (options.tflops * 1e12):8.1%}"
    return text + "".join(f"  {key.partition('/')[2]} {value:.2f}" for key, value in row["phases"].items())


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 right, 1 something is WRONG, 2 no CUDA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a local folder (default: the embedded model)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128, help="longest completion of GRPO")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--tflops", type=float, help="peak in bf16 (default: by the device's name)")
    options = parser.parse_args(arguments)
    import torch

    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA GPU and torch built for it; on a CPU run benchmarks/training.py")
        return 2
    from finr1.models import EMBEDDED_MODEL, resolve_model
    from finr1.paths import cache_dir

    started = time.monotonic()
    device = torch.cuda.get_device_name()
    options.model = options.model or resolve_model(EMBEDDED_MODEL, cache_dir())
    options.tflops = options.tflops or peak_tflops(device)
    print(f"{device}, torch {torch.__version__}, peak {options.tflops or 'unknown: give --tflops'} TFLOP/s in bf16")
    lines = [check_reward(), check_greedy(options.model)]
    print(f"{'':6}{'':34}{'s/step':>9}{'tokens/s':>12}{'GiB':>9}{'MFU':>8}")
    rows = []
    for stage, names in CHOSEN.items():
        for name in names:
            if time.monotonic() - started < BUDGET_S:
                rows.append(measure(stage, name, options))
                print(describe(rows[-1], options), flush=True)
    lines += check_curves([row for row in rows if row["stage"] == "sft" and "curve" in row])
    lines += [f"WRONG: {row['variant']} failed" for row in rows if "error" in row]
    print("\n".join(lines))
    return 1 if any("WRONG" in line for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
