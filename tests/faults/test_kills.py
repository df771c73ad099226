"""kill -9 at random moments, by a seed: a file is the old or the new one, and a run ends as one that was not killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from tiny_model import make_tiny_model

from finr1 import manifest
from finr1.params import STAGES

from .conftest import ROUNDS

WRITER = """
import sys
from pathlib import Path
from finr1.manifest import write_json
from finr1.records import write_jsonl
folder, n = Path(sys.argv[1]), int(sys.argv[2])
while True:
    n += 1
    write_jsonl(folder / "rows.jsonl", [{"n": n, "text": "x" * 1000}] * 300)
    write_json(folder / "state.json", {"n": n, "text": "x" * 100_000})
    (folder / "going").touch()
"""


def test_a_killed_writer_leaves_whole_files(tmp_path):
    rng, last = random.Random(1), 0
    for _ in range(ROUNDS):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(last)], cwd=ROOT)
        while not (tmp_path / "going").exists():
            assert writer.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        writer.kill()
        writer.wait()
        (tmp_path / "going").unlink()
        rows = [json.loads(line)["n"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
        state = json.loads((tmp_path / "state.json").read_text())["n"]
        assert len(rows) == 300 and set(rows) in ({state}, {state + 1}) and state > last
        last = rows[0]


SIZES = {
    "num_train": 60, "num_dev": 20, "num_test": 20, "num_sft": 16, "num_rl": 24, "code_problems": 0,
    "eval_problems": 2, "eval_max_tokens": 8, "04_sft.max_steps": 4, "04_sft.save_steps": 1,
    "max_completion_length": 8, "num_generations": 4, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1, "05_grpo.max_steps": 4, "05_grpo.save_steps": 1, "05_grpo.warmup_steps": 0,
    "pass_rate_candidates": 0, "06_benchmark.num_items": 6, "06_benchmark.max_tokens": 8,
    "06_benchmark.num_samples": 2, "06_benchmark.suite_items": 2,
}  # fmt: skip


def start_run(outputs: Path, model: Path, until: str) -> subprocess.Popen:
    changes = [f"--set={name}={value}" for name, value in (SIZES | {"model_name_or_path": model}).items()]
    command = [sys.executable, "-m", "finr1", "run", "--run", "x", "--until", until, *changes]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"FINR1_OUTPUTS": str(outputs)}, start_new_session=True)


def made(outputs: Path, stage: str) -> dict[str, str]:
    """{output: SHA-256} of a stage, without what tells of time and place."""
    described = manifest.read_manifest(outputs / "x" / stage)["outputs"]
    own = ("metrics.json", "metrics.jsonl", "trainer_state.json", "training_args.bin")
    return {name: entry["sha256"] for name, entry in described.items() if not name.endswith(own)}


@pytest.mark.slow
@pytest.mark.skipif(ROUNDS <= 2, reason="`make faults` kills whole runs, which takes minutes")
def test_a_run_killed_at_random_moments_of_each_stage_ends_as_an_unbroken_one(tmp_path, stages=tuple(STAGES)[:-1]):
    """Without 07: its report tells the time that all took."""
    model, rng = make_tiny_model(tmp_path / "model"), random.Random(2)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    assert start_run(unbroken, model, stages[-1]).wait() == 0
    for stage in stages:
        process = start_run(killed, model, stages[-1])
        while not (killed / "x" / stage / "state.json").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 6))
        if process.poll() is None:
            for victim in [*psutil.Process(process.pid).children(recursive=True), process]:
                victim.kill()
        process.wait()
    assert start_run(killed, model, stages[-1]).wait() == 0
    assert {stage: made(killed, stage) for stage in stages} == {stage: made(unbroken, stage) for stage in stages}
