"""Planned against measured memory: short SFT and GRPO trainings of the embedded model on the CPU.

`python benchmarks/plan_calibration.py [--model FOLDER]` runs notebooks 01 to 05 for a few cases with two steps each and
compares `finr1.plan` with the peak of the training process, which 04 and 05 keep in their manifests. A minute or two
for each case on two cores. `benchmarks/README.md` has a table.
"""

from __future__ import annotations

import argparse
import json
import os

from finr1.manifest import read_manifest
from finr1.models import EMBEDDED_MODEL, load_tokenizer, resolve_model
from finr1.params import STAGES
from finr1.paths import cache_dir
from finr1.pipeline import load_preset, run_stages
from finr1.plan import CHAT, shape_of, training_memory
from finr1.run import stage_folder

RUN = "calibration"
COMMON = (
    "01_data.num_train=200", "code_problems=0", "num_sft=64", "num_rl=64", "max_steps=2", "save_steps=100",
    "warmup_steps=0", "eval_problems=2", "gradient_accumulation_steps=1", "pass_rate_candidates=0",
    "04_sft.per_device_train_batch_size=8", "05_grpo.per_device_train_batch_size=16", "max_completion_length=128",
)  # fmt: skip
CASES = {
    "SFT full, bf16": ("04_sft", ["peft=full", "bf16=true"]),
    "SFT full, fp32": ("04_sft", ["peft=full", "bf16=false"]),
    "SFT full, bf16, checkpointing": ("04_sft", ["peft=full", "bf16=true", "gradient_checkpointing=true"]),
    "SFT LoRA, bf16": ("04_sft", ["peft=lora", "bf16=true"]),
    "GRPO full, bf16": ("05_grpo", ["peft=full", "bf16=true"]),
    "GRPO LoRA, bf16": ("05_grpo", ["peft=lora", "bf16=true"]),
}


def measure(case: str, model: str) -> tuple[float, float]:
    """(planned, measured) GiB of one case; the stages before it are made once for all cases."""
    stage, changes = CASES[case]
    own = [f"{stage}.{change}" for change in changes]
    plan = load_preset("demo", RUN, list(STAGES)[1:6], [*COMMON, f"model_name_or_path={model}", *own])
    run_stages([params for name, params in plan.items() if name <= stage])
    shape, params = shape_of(model), plan[stage]
    prompt = 2 * CHAT
    if stage == "04_sft":
        tokenizer = load_tokenizer(model)
        with (stage_folder(plan["03_filtering"]) / "sft.jsonl").open(encoding="utf8") as file:
            rows = [json.loads(line) for line in file]
        chats = [row["prompt"] + row["completion"] for row in rows]
        length = max(len(tokenizer.apply_chat_template(chat, return_dict=False)) for chat in chats)
    else:
        length = prompt + params.max_completion_length
    planned = sum(training_memory(shape, params, prompt, length, None).values())
    return planned, read_manifest(stage_folder(params))["peak_memory_gib"]["largest_child"]


def main() -> None:
    """Print one line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a local folder (default: the embedded model)")
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES), metavar="CASE")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # `benchmarks/gpu.py` measures there
    model = options.model or resolve_model(EMBEDDED_MODEL, cache_dir())
    lines = [f"{'case':32}{'planned':>10}{'measured':>10}{'error':>8}"]
    for case in options.only:
        planned, measured = measure(case, model)
        lines.append(f"{case:32}{planned:10.2f}{measured:10.2f}{planned / measured - 1:8.0%}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
