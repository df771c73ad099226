"""A training that is killed with SIGKILL, however often and wherever, ends as one that never was."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from test_distributed import StubRun, grpo_run, numbers, sft_run
from tiny_model import make_tiny_model

from finr1 import curation, synthetic, teacher
from finr1.paths import repository_root
from finr1.progress import read_metrics
from finr1.records import write_jsonl

HERE = Path(__file__).parent
STEPS = {"max_steps": 6, "save_steps": 2, "peft": "lora"}
CHANGES = {
    "sft": {},
    # bf16: samples from a copy; the two dev problems are looked at before each checkpoint
    "grpo": {"bf16": True, "max_completion_length": 8, "mask_truncated_completions": False, "eval_steps": 2,
             "load_best_model_at_end": True},
}  # fmt: skip


def at_random(seed: int, kills: int = 3) -> list[list]:
    """Points of one training of six steps, checkpoints after 2 and 4; a later step each time, so that all are met."""
    rng, anywhere = random.Random(seed), ["step_begin", "step_end", "half_a_line"]
    steps = sorted(rng.sample(range(1, 6), kills))
    saving = ["before_optimizer", "before_state", "half_a_state"]
    return [[rng.choice(anywhere + saving * (step in (2, 4))), step] for step in steps]


# Each list is one training: the points at which it is killed, one attempt after the other.
KILLS = {
    "never": [],
    "before any checkpoint": [["step_begin", 1]],
    "between checkpoints, twice": [["step_end", 3], ["step_begin", 5]],
    "right after a checkpoint": [["step_begin", 4]],
    "within a checkpoint": [["before_optimizer", 4], ["before_state", 4]],
    "within a checkpoint's last file": [["half_a_state", 4]],
    "within a line of metrics": [["half_a_line", 5]],
    "at random": at_random(seed=1),
    "at random, again": at_random(seed=2),
}
TRIED = {
    "sft": list(KILLS),
    "grpo": ["never", "between checkpoints, twice", "within a checkpoint", "within a line of metrics", "at random"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """{(stage, kind of kill): its run's folder}, all trained by one process that forks."""
    base = tmp_path_factory.mktemp("outputs") / "r"
    problems = synthetic.generate_problems(40, "train", seed=1)
    write_jsonl(base / "03_filtering" / "sft.jsonl", curation.sft_rows(teacher.derived_traces(problems)))
    write_jsonl(base / "01_data" / "problems.jsonl", synthetic.generate_problems(4, "dev", seed=1))
    make_tiny_model(base / "04_sft" / "model")
    cases = []
    for stage, make in (("sft", sft_run), ("grpo", grpo_run)):
        for place, (kind, kills) in enumerate(KILLS.items()):
            if kind not in TRIED[stage]:
                continue
            run: StubRun = make(base, f"{stage}_{place}", **STEPS, **CHANGES[stage])
            cases.append(
                {
                    "stage": {"sft": "04_sft", "grpo": "05_grpo"}[stage],
                    "kind": kind,
                    "kills": kills,
                    "folder": str(run.dir),
                }
            )
    (base / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, str(HERE / "killed_training.py"), str(base / "cases.json")]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(repository_root())]),
        "FINR1_OUTPUTS": str(base.parent),
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {(case["stage"][3:], case["kind"]): Path(case["folder"]) for case in cases}


@pytest.mark.slow
@pytest.mark.parametrize("stage, kind", [(s, kind) for s, kinds in TRIED.items() for kind in kinds if kind != "never"])
def test_a_killed_training_ends_as_an_unbroken_one(finished, stage, kind):
    import torch
    from safetensors.torch import load_file

    unbroken, killed = finished[stage, "never"], finished[stage, kind]
    expected, found = (numbers(read_metrics(folder)) for folder in (unbroken, killed))
    assert [row["step"] for row in expected if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in expected if "eval_accuracy" in row] == ([0, 2, 4, 6] if stage == "grpo" else [])
    losses = {row.get("loss") for row in expected}
    assert len(losses) > 3  # something was learned from, or nothing could differ
    summary = ("train_loss", "total_flos")  # of the last row: over this session's steps alone
    for a, b in zip(expected, found, strict=True):
        assert {k: v for k, v in a.items() if k not in summary} == {k: v for k, v in b.items() if k not in summary}
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (unbroken, killed))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not (killed / "checkpoints").exists()
