"""The table of algorithms: each builds TRL's configuration; what the comparison makes of known completions."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from test_training import demo

from finr1 import curation, grpo, synthetic
from finr1.grpo import variants
from finr1.params import GRPOParams
from finr1.records import write_jsonl


@pytest.fixture
def stage(outputs):
    """A GRPO stage with two problems and the demo's parameters."""
    folder = outputs / "r" / "05_grpo"
    folder.mkdir(parents=True)
    numbers = [p for p in synthetic.generate_problems(40, "train", seed=1) if p.answer_kind == "number"]
    write_jsonl(folder / grpo.TRAIN_FILE, curation.rl_rows(numbers[:2]))
    demo(GRPOParams, num_generations=2).to_yaml(folder / "params.yaml")
    return folder


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_each_variant_reaches_trls_configuration(stage, name):
    params = variants.variant_params(stage, name, seed=7, steps=4, batch=8)
    config = grpo.grpo_config(params, stage)
    wanted = variants.VARIANTS[name].changes
    assert wanted and all(getattr(params, key) == value for key, value in wanted.items())
    assert all(getattr(config, key) == value for key, value in wanted.items() if hasattr(config, key))
    assert (config.generation_batch_size, config.num_iterations, config.seed) == (8, 2, 7)
    row = variants.VARIANTS[name].row()
    assert all(row.values()) and row["arXiv"][4] == "."


def finished(stage, name: str, right: list[float]) -> None:
    """A finished run: at steps 1 and 3 (each batch is used twice) both problems, a share `right` of four answers."""
    folder = stage / variants.FOLDER / f"{name}-42"
    (folder / "completions").mkdir(parents=True)
    variants.variant_params(stage, name, 42, 4, 8).to_yaml(folder / "params.yaml")
    rows = [json.loads(line) for line in (stage / grpo.TRAIN_FILE).open(encoding="utf8")]
    for step in (1, 2, 3, 4):
        table = [
            {"id": row["id"], "completion": [{"content": _text(row, i < 4 * share)}]}
            for row, share in zip(rows, right if step > 2 else [0.0, 0.0], strict=True)
            for i in range(4)
        ]
        pd.DataFrame(table).to_parquet(folder / "completions" / f"completions_{step:05d}.parquet")
    log = {"reward": 1.0, "frac_reward_zero_std": 0.5, "completions/mean_length": 20.0, "clip_ratio/region_mean": None}
    write_jsonl(folder / "metrics.jsonl", [log | {"step": step} for step in range(1, 5)])


def _text(row: dict, right: bool) -> str:
    return f"<think>I say so.</think><answer>\\boxed{{{row['solution'] if right else '-1'}}}</answer>"


def test_variants_are_measured_alike_and_held_against_the_papers(stage):
    finished(stage, "grpo", [0.5, 0.0])
    finished(stage, "gated", [1.0, 0.25])
    result = variants.compare(stage, ["grpo", "gated"], [42], seed=0)
    paper, gated = result["rows"]
    assert (paper["variant"], gated["variant"], result["seeds"]) == ("grpo", "gated", [42])
    assert (paper["accuracy"], gated["accuracy"]) == (0.25, 0.625) and paper["difference"] is None
    assert paper["completions"] == 8 and paper["groups"] == 2, "no first batch, no second use of a batch"
    assert gated["difference"]["difference"] == pytest.approx(0.375) and gated["difference"]["n"] == 2
    assert result["curves"]["gated"] == {1: 1.0, 3: 1.625}
    text = variants.render(json.loads(json.dumps(result)))  # as the notebook reads it back
    assert "+0.38 [" in text and "gated reward" in text


def test_a_finished_variant_is_not_trained_again(stage, monkeypatch, capsys):
    finished(stage, "grpo", [0.5, 0.5])
    trained = []

    def train(command, **settings):
        folder = stage / variants.FOLDER / command[-1].rpartition("/")[2]
        assert (folder / grpo.TRAIN_FILE).exists()
        trained.append((folder.name, GRPOParams.from_yaml(folder / "params.yaml").loss_type))
        (folder / "model").mkdir()

    monkeypatch.setattr(variants.subprocess, "run", train)
    variants.run_variants(stage, ["grpo", "cispo"], [42], steps=4, batch=8)
    assert trained == [("cispo-42", "cispo")] and "skip grpo, seed 42" in capsys.readouterr().out
    assert not (stage / variants.FOLDER / "cispo-42" / "model").exists()
    variants.run_variants(stage, ["grpo"], [42], steps=6, batch=8)
    assert trained[-1] == ("grpo-42", "grpo"), "other steps, another run"


def test_a_long_run_on_several_gpus_is_compared_in_a_short_one(stage, monkeypatch):
    """The large presets' warm-up is longer than a comparison, and their processes need a launcher."""
    large = {"max_steps": 300, "warmup_steps": 10, "num_processes": 2, "pass_rate_between_epochs": True}
    demo(GRPOParams, num_generations=2, **large).to_yaml(stage / "params.yaml")
    monkeypatch.setenv("RANK", "3")  # another launcher's
    started = []

    def train(command, env, **settings):
        started.append((command, env))
        Path(command[-1], "model").mkdir()

    monkeypatch.setattr(variants.subprocess, "run", train)
    variants.run_variants(stage, ["dapo"], [42], steps=8, batch=16)
    ((command, env),) = started
    params = GRPOParams.from_yaml(Path(command[-1]) / "params.yaml")
    assert (params.warmup_steps, params.batch_size, params.pass_rate_between_epochs) == (2, 16, False)
    assert "accelerate.commands.launch" in command and command[command.index("--num_processes") + 1] == "2"
    assert "RANK" not in env


def test_a_batch_that_can_not_be_made_up_is_refused(stage, capsys):
    from finr1.__main__ import main

    for batch in ("10", "6"):  # four completions are trained at once
        assert main(["variants", "r", "--batch", batch, "--steps", "8"]) == 2
        assert f"--batch {batch}: 4 completions" in capsys.readouterr().err


def test_the_command_says_what_it_needs(stage, capsys):
    from finr1.__main__ import main

    assert main(["variants", "nobody"]) == 2
    assert "run notebook 05 first" in capsys.readouterr().err
    for few in (["--steps", "2"], ["--steps", "5"], ["--steps", "4", "--batch", "2"]):
        assert main(["variants", "r", *few]) == 2
        assert "raise --steps or --batch" in capsys.readouterr().err


def test_the_command_writes_table_and_figure(stage, monkeypatch, capsys):
    """Both runs are there already, so nothing is trained."""
    from finr1.__main__ import main

    monkeypatch.setattr(variants, "_is_made_with", lambda folder, params: True)
    finished(stage, "grpo", [0.5, 0.0])
    finished(stage, "dapo", [1.0, 0.25])
    assert main(["variants", "r", "--steps", "4", "--batch", "4", "--only", "dapo"]) == 0
    assert "skip dapo, seed 42" in capsys.readouterr().out
    folder = stage / variants.FOLDER
    assert json.loads((folder / variants.TABLE).read_text())["rows"][1]["variant"] == "dapo"
    assert (folder / "variants.png").stat().st_size > 10_000
