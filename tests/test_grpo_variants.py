"""The table of algorithms: each builds TRL's configuration; what the comparison makes of known completions."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from finr1.grpo import variants
from test_training import demo

from finr1 import curation, grpo, notebook_run, pipeline, plotting, synthetic
from finr1.params import STAGES, GRPOParams
from finr1.records import write_jsonl
from finr1.run import Run, read_manifest


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
    curve = result["curves"]["gated"]
    assert {step: (mean, groups) for step, (mean, _, _, groups) in curve.items()} == {1: (1.0, 2), 3: (1.625, 2)}
    assert all(0 <= low < mean < high <= 2 for mean, low, high, _ in curve.values())
    text = variants.render(json.loads(json.dumps(result)))  # as the notebook reads it back
    assert "+0.38 [" in text and "gated reward" in text


def test_several_comparisons_are_corrected_and_noise_is_called_so(stage):
    finished(stage, "grpo", [0.5, 0.25])
    finished(stage, "gated", [1.0, 0.0])
    finished(stage, "dapo", [0.75, 0.5])
    result = variants.compare(stage, ["grpo", "gated", "dapo"], [42], seed=0)
    _, gated, dapo = (row["difference"] for row in result["rows"])
    assert gated["inside_noise"] and not dapo["inside_noise"], "one problem up, one down; both up alike"
    assert dapo["p_holm"] == 2 * dapo["p"] == 1.0, "two groups: half of the signs' four flips are as far out"
    lines = variants.render(result).splitlines()
    assert [line.split()[-1] for line in lines[:2]] == ["tokens", "20.0"]
    assert lines[2].endswith("inside the noise") and lines[3].endswith("noise among so many")
    shown = plotting.variants(result)
    assert "n = 2 groups each" in shown.axes[0].get_xlabel()
    assert [line.get_markerfacecolor() for line in shown.axes[1].lines if line.get_marker() != "None"] == ["white"] * 2


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


@pytest.fixture
def whole_run(stage, outputs, monkeypatch):
    """`stage` as a part of a complete run, and the notebooks 05 and 07 as functions; what they saw, in order."""
    for name in STAGES:
        folder = outputs / "r" / name
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_text('{"outputs": {}, "outputs_sha256": "1"}')
    seen = []

    def execute(stage_name, params):
        run = Run(params)
        seen.append((stage_name, sorted(path.name for path in (stage / variants.FOLDER).glob("variants.*"))))
        run.path("model").write_text("weights")
        run.finish({}, outputs=["model"])
        return run.dir / f"{stage_name}.ipynb"

    monkeypatch.setattr(pipeline, "execute", execute)
    execute("05_grpo", demo(GRPOParams, num_generations=2, run="r"))
    execute("07_report", pipeline.load_preset("demo", "r", ["07_report"], [])["07_report"])
    rows = curation.rl_rows([p for p in synthetic.generate_problems(40, "train", seed=1) if p.answer_kind == "number"])
    write_jsonl(stage / grpo.TRAIN_FILE, rows[:2])
    seen.clear()
    monkeypatch.setattr(variants, "_is_made_with", lambda folder, params: True)
    finished(stage, "grpo", [0.5, 0.0])
    finished(stage, "dapo", [1.0, 0.25])
    return seen


COMMAND = ["variants", "r", "--steps", "4", "--batch", "8", "--only", "dapo"]


def test_notebook_and_report_show_the_comparison_and_nothing_is_made_again(whole_run, stage, capsys):
    from finr1.__main__ import main

    state = json.loads((stage / "state.json").read_text())
    state["peak_memory_gib"]["largest_child"] = 99.0  # the training's
    (stage / "state.json").write_text(json.dumps(state))
    (stage / "checkpoint").write_text("what --force would remove")
    assert main(COMMAND) == 0
    files = ["variants.json", "variants.pdf", "variants.png"]
    assert whole_run == [("05_grpo", files), ("07_report", files)]
    assert (stage / "checkpoint").exists() and read_manifest(stage)["sessions"] == 2
    assert read_manifest(stage)["peak_memory_gib"]["largest_child"] == 99.0
    assert "05_grpo.ipynb" in capsys.readouterr().out


def test_a_notebook_whose_inputs_changed_is_left_to_run(whole_run, stage, capsys):
    """Made again now, it would remove the comparison and train."""
    from finr1.__main__ import main

    (stage.parent / "04_sft" / "manifest.json").write_text('{"outputs": {}, "outputs_sha256": "2"}')
    assert main(COMMAND) == 0
    assert whole_run == [] and "left 05_grpo: changed: sft_stage" in capsys.readouterr().out
    assert (stage / variants.FOLDER / variants.TABLE).exists()


def test_a_renamed_run_is_left_as_it_is(whole_run, stage, capsys):
    from finr1.__main__ import main

    stage.parent.rename(stage.parent.with_name("s"))
    assert main(["variants", "s", *COMMAND[2:]]) == 0
    assert whole_run == [] and 'left 05_grpo: changed: run "r" -> "s"' in capsys.readouterr().out


def test_a_notebook_that_fails_is_an_exit_code(whole_run, monkeypatch, capsys):
    from finr1.__main__ import main

    def fail(stage_name, params):
        raise notebook_run.NotebookFailed("05_grpo failed in cell [9]")

    monkeypatch.setattr(pipeline, "execute", fail)
    assert main(COMMAND) == 1
    assert "05_grpo failed in cell [9]" in capsys.readouterr().err
