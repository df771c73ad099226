"""What do our settings of SFT and GRPO bring over plain TRL? Same model, data, seeds and hardware; one command.

`python benchmarks/training.py [--only sft|grpo] [--variants NAME ...] [--steps 8] [--json FILE]` prints two tables.
Each variant runs in a process of its own, one after the other; the first step of each is left out of its times. "plain
TRL" is TRL's trainer with TRL's defaults: only model, data, batch, lengths, learning rate and seed are given. Tokens
are those that are not padding. The learning curve is the loss (SFT) or the reward (GRPO) by step. The embedded model
earns no reward yet; for a curve of GRPO name a model after SFT:

    python benchmarks/training.py --only grpo --model outputs/demo/04_sft/model --variants "plain TRL" ours
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

from finr1.launch import recipe_script
from finr1.params import GRPOParams, SFTParams, read_flat_yaml
from finr1.paths import cache_dir, repository_root
from finr1.watch import PhaseTimes

STARTER = """
import resource, subprocess, sys
print(subprocess.call(sys.argv[1:], stdout=sys.stderr), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
SFT_DEMO = {"peft": "full", "learning_rate": 1e-4, "sample_steps": 0}
GRPO_DEMO = {"sft_stage": None, "stop_reward": None, "stop_dead_groups": None, "eval_steps": 0}
# name -> (changed parameters, arguments that a person would write into the recipe's configuration); None: plain TRL
SFT: dict[str, tuple[dict, dict] | None] = {
    "plain TRL": None,
    "ours": ({}, {}),
    "ours, fp32": ({"bf16": False}, {}),
    "ours, checkpointing": ({"gradient_checkpointing": True}, {}),
    # No parameter of ours: from the second epoch on, a killed run would go on in another order.
    "ours, length-sorted": ({}, {"train_sampling_strategy": "group_by_length"}),
    # A packed row is `max_length` tokens: two of them hold about what eight padded rows do.
    "ours, packing": ({"per_device_train_batch_size": 2}, {"packing": True}),
    "ours, LoRA": ({"peft": "lora", "learning_rate": 1e-3}, {}),
}
GRPO: dict[str, tuple[dict, dict] | None] = {
    "plain TRL": None,
    "ours": ({}, {}),
    "ours, fp32": ({"bf16": False}, {}),
    "ours, LoRA": ({"peft": "lora", "learning_rate": 3e-4}, {}),
    "ours, small generation batch": ({}, {"steps_per_generation": 1}),
}
STAGES = {"sft": (SFT, SFTParams, SFT_DEMO), "grpo": (GRPO, GRPOParams, GRPO_DEMO)}


def parameters(stage: str, name: str, folder: Path, options: argparse.Namespace) -> Any:
    """The demo's parameters with the benchmark's sizes and the variant's changes."""
    variants, params_class, changes = STAGES[stage]
    values = read_flat_yaml(repository_root() / "params" / "demo" / f"{params_class.stage}.yaml").values
    values |= {"run": "benchmark", "max_steps": options.steps + 1, "save_steps": 1000, "warmup_steps": 0}
    values |= {"model_name_or_path": options.model, "filtering_stage": str(folder / "rows")}
    values |= {"per_device_train_batch_size": options.batch}
    if stage == "grpo":
        values |= {"gradient_accumulation_steps": 2, "max_completion_length": options.tokens}
        values |= {"num_generations": min(values["num_generations"], options.batch)}
    return params_class(**(values | changes | (variants[name] or ({}, {}))[0]))


def write_rows(folder: Path, rows: int) -> None:
    """Synthetic problems for both stages, the same for all variants."""
    from finr1 import curation, synthetic, teacher
    from finr1.records import write_jsonl
    from finr1.rewards import TRAIN_FILE

    problems = synthetic.generate_problems(rows, "train", seed=42)
    write_jsonl(folder / "rows" / "sft.jsonl", curation.sft_rows(teacher.derived_traces(problems)))
    write_jsonl(folder / TRAIN_FILE, curation.rl_rows(problems))


def recipe(stage: str) -> ModuleType:
    """The cells tagged `recipe` of the stage's notebook, as `launch` writes them to `train.py`."""
    params_class = STAGES[stage][1]
    module = ModuleType("recipe")
    exec(recipe_script(params_class.stage, params_class), module.__dict__)
    return module


def ours(stage: str, params: Any, folder: Path, arguments: dict[str, Any]) -> Any:
    """The recipe's trainer without its memory probe; `arguments` are added to TRL's configuration."""
    cells, name = recipe(stage), "SFTConfig" if stage == "sft" else "GRPOConfig"
    setattr(cells, name, functools.partial(getattr(cells, name), **arguments))
    trainer = cells.make_trainer(params, folder)
    if stage == "sft":
        trainer.remove_callback(cells.MemoryProbe)
    return trainer


def plain(stage: str, params: Any, folder: Path) -> Any:
    """TRL's trainer as its documentation starts it; the stopwatch around GRPO's phases is ours."""
    import torch
    import trl
    from datasets import load_dataset

    same = (
        "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "seed",
        "lr_scheduler_type", "save_steps",
    )  # fmt: skip
    given = {name: getattr(params, name) for name in same} | {
        "output_dir": str(folder / "checkpoints"), "report_to": "none", "disable_tqdm": True, "logging_steps": 1,
        "use_cpu": not torch.cuda.is_available(), "data_seed": params.seed,
    }  # fmt: skip
    if stage == "sft":
        rows = load_dataset("json", data_files=str(folder / "rows" / "sft.jsonl"), split="train")
        rows = rows.select_columns(["prompt", "completion"])
        return trl.SFTTrainer(
            params.model_name_or_path, trl.SFTConfig(**given, max_length=params.max_length), train_dataset=rows
        )
    config = trl.GRPOConfig(
        **given, num_generations=params.num_generations, max_completion_length=params.max_completion_length
    )
    cells = recipe("grpo")
    return trl.GRPOTrainer(
        params.model_name_or_path,
        reward_funcs=[cells.format_reward, cells.accuracy_reward],
        args=config,
        train_dataset=load_dataset("json", data_files=str(folder / "train.jsonl"), split="train"),
        callbacks=[PhaseTimes()],
    )


def child(stage: str, name: str, folder: Path, options: argparse.Namespace) -> None:
    """Train one variant and write `result.json`: by step seconds, tokens, loss, reward, phases."""
    import torch
    from transformers import TrainerCallback

    write_rows(folder, options.rows)
    variant = STAGES[stage][0][name]
    params = parameters(stage, name, folder, options)
    trainer = plain(stage, params, folder) if variant is None else ours(stage, params, folder, variant[1])
    times = []

    class Stopwatch(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            self.started = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            times.append(time.perf_counter() - self.started)

    trainer.add_callback(Stopwatch())
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    tokens = [row["num_tokens"] for row in log]
    result = {
        "seconds": times[1:],
        "tokens": [after - before for before, after in zip(tokens, tokens[1:], strict=False)],
        "curve": [row["loss" if stage == "sft" else "reward"] for row in log],
        "phases": {key: mean(row[key] for row in log[1:]) for key in log[-1] if key.startswith("time/")},
    }
    if torch.cuda.is_available():
        result["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    (folder / "result.json").write_text(json.dumps(result))


def peak_gib(command: list[str], log: Path) -> float:
    """Peak resident memory of a command on the CPU, GiB; CalledProcessError when it fails.

    A bare interpreter starts it: on Linux a process counts as its own what its parent held when it was started.
    """
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with log.open("wb") as file:
        starter = [sys.executable, "-c", STARTER, *command]
        done = subprocess.run(starter, stdout=subprocess.PIPE, stderr=file, cwd=repository_root(), env=env, check=True)
    status, peak = map(int, done.stdout.split())
    if status:
        raise subprocess.CalledProcessError(status, command, output=log.read_text("utf8")[-2000:])
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30  # bytes there, KiB elsewhere


def measure(stage: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a variant, each run by a child."""
    rows = []
    for name in (name for name in STAGES[stage][0] if name in options.variants):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            sizes = [f"--{key}={getattr(options, key)}" for key in ("model", "steps", "batch", "tokens", "rows")]
            command = [sys.executable, str(Path(__file__).resolve()), "--child", stage, name, str(folder), *sizes]
            try:
                peak = peak_gib(command, folder / "log")
            except subprocess.CalledProcessError as error:  # out of memory, most likely: the others still count
                if not rows:
                    raise  # nothing to compare with
                print(f"  {stage}, {name} FAILED: {error}\n{error.output}", file=sys.stderr, flush=True)
                continue
            result = json.loads((folder / "result.json").read_text())
        seconds = mean(result["seconds"])
        rate = mean(result["tokens"]) / seconds
        rows.append({"variant": name, "s/step": seconds, "tokens/s": rate, "peak GiB": peak})
        rows[-1] |= {key.partition("/")[2]: value for key, value in result["phases"].items()}
        rows[-1] |= {"curve": result["curve"]}
        print(f"  {stage}, {name}: {seconds:.2f} s a step", file=sys.stderr, flush=True)
    return rows


def table(stage: str, rows: list[dict[str, Any]]) -> str:
    """Text; the ratio is of tokens/s (SFT) or steps (GRPO) to plain TRL's."""
    measured = "tokens/s" if stage == "sft" else "s/step"
    base = next((row[measured] for row in rows if row["variant"] == "plain TRL"), float("nan"))
    names = [name for name in rows[0] if name not in ("variant", "curve")]
    lines = [f"{stage.upper():34}" + "".join(f"{name:>10}" for name in [*names, "x plain"]) + "   curve"]
    for row in rows:
        ratio = row[measured] / base if stage == "sft" else base / row[measured]
        numbers = "".join(f"{row.get(name, float('nan')):10.2f}" for name in names)
        curve = " ".join(f"{value:.3f}" for value in row["curve"])
        lines.append(f"{row['variant']:34}{numbers}{ratio:10.2f}   {curve}")
    return "\n".join(lines)


def main() -> None:
    from finr1.models import EMBEDDED_MODEL, resolve_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(STAGES))
    every = list(SFT | GRPO)
    parser.add_argument("--variants", nargs="+", choices=every, default=every, metavar="NAME", help=", ".join(every))
    parser.add_argument("--model", help="a local folder (default: the embedded model)")
    parser.add_argument("--steps", type=int, default=8, help="SFT's measured steps; GRPO takes a third of them")
    parser.add_argument("--batch", type=int, default=8, help="rows of a micro-batch; GRPO takes twice as many")
    parser.add_argument("--tokens", type=int, default=48, help="longest completion of GRPO")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    parser.add_argument("--child", nargs=3, metavar=("STAGE", "VARIANT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.model = options.model or resolve_model(EMBEDDED_MODEL, cache_dir())
    if options.child:
        child(options.child[0], options.child[1], Path(options.child[2]), options)
        return
    found = {}
    for stage in [options.only] if options.only else list(STAGES):
        scale = {"steps": max(2, options.steps // 3), "batch": 2 * options.batch} if stage == "grpo" else {}
        if not set(options.variants) & set(STAGES[stage][0]):
            continue
        found[stage] = measure(stage, argparse.Namespace(**(vars(options) | scale)))
        print(table(stage, found[stage]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
