"""The run folder: complete or not, resumed or afresh; and training in a child process that may die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, demo_values
from finished import finish

from finr1 import child, manifest
from finr1 import run as running
from finr1.__main__ import main
from finr1.child import stage_lock
from finr1.launch import TrainingFailed, clean_lines, last_error, launch
from finr1.manifest import read_manifest
from finr1.params import STAGES, DataParams, DistillationParams, ParameterError, SFTParams
from finr1.paths import Busy, Stopped
from finr1.progress import describe, duration, follow, seal, stopped
from finr1.run import Run

DATA = DataParams(**demo_values("01_data"))
DISTILLATION = DistillationParams(**demo_values("02_distillation"))

pytestmark = pytest.mark.usefixtures("outputs")


def changed(params, **values):
    return type(params)(**{**params.model_dump(), **values})


def is_locked(folder: Path) -> bool:
    """Whether a trainer is at work in the folder."""
    try:
        with stage_lock(folder):
            return False
    except RuntimeError:
        return True


def finished_data(rows: str = '{"id": 1}\n') -> Run:
    run = Run(DATA)
    run.path("rows.jsonl").write_text(rows, "utf8")
    run.finish({"rows": rows.count("\n")}, outputs=["rows.jsonl"])
    return run


# The folder.


def test_a_missing_input_names_parameter_value_notebook_and_command():
    with pytest.raises(ParameterError) as caught:  # the pipeline tells it like a wrong parameter
        Run(DISTILLATION)
    for words in (
        'data_stage = "outputs/demo/01_data"',
        "notebooks/01_data.ipynb",
        "python -m finr1 run --preset PRESET --run demo --until 01_data",
    ):
        assert words in str(caught.value)


def test_a_stage_without_manifest_is_no_input_even_if_its_files_are_there():
    Run(DATA).path("rows.jsonl").write_text("{}\n", "utf8")
    with pytest.raises(ParameterError, match="no manifest.json"):
        Run(DISTILLATION)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{}\n{}\n", "utf8")])
def test_an_input_whose_files_were_lost_or_changed_is_refused(damage):
    damage(finished_data().dir / "rows.jsonl")
    with pytest.raises(ParameterError, match="rows.jsonl was removed or changed .*--force 01_data"):
        Run(DISTILLATION)


def test_the_manifest_says_what_went_in_and_what_came_out():
    finished_data()
    run = Run(DISTILLATION)
    run.path("model/weights.bin").write_bytes(b"12")
    run.path("model/config.json").write_text("{}", "utf8")
    run.path("traces.jsonl").write_text('{"a": 1}\n{"a": 2}\n', "utf8")
    with run.phase("ask"):
        pass
    run.finish({"accuracy": 0.5, "undefined": float("nan")}, outputs=["traces.jsonl", "model"])
    record = read_manifest(run.dir)
    assert record["parameters"] == DISTILLATION.model_dump() and record["seed"] == 42
    assert record["inputs"]["data_stage"] == read_manifest(run.inputs["data_stage"])["outputs_sha256"]
    assert list(record["outputs"]) == ["traces.jsonl", "model/config.json", "model/weights.bin"]
    assert record["outputs"]["traces.jsonl"]["bytes"] == 18
    assert record["outputs"]["model/weights.bin"]["sha256"] == manifest.file_sha256(run.dir / "model" / "weights.bin")
    assert record["metrics"] == {"accuracy": 0.5, "undefined": None}
    assert set(record["phases_s"]) == {"ask"}
    assert record["versions"]["pydantic"] and record["hardware"]["cores"] >= 1
    assert record["peak_memory_gib"]["notebook"] > 0 and record["started"] <= record["finished"]


def test_finish_says_where_the_manifest_lies(capsys):
    run = finished_data()
    assert capsys.readouterr().out == f"01_data is complete: {run.dir / 'manifest.json'}\n"


def test_an_output_that_was_not_written_leaves_the_stage_incomplete():
    run = Run(DATA)
    with pytest.raises(FileNotFoundError, match="rows.jsonl"):
        run.finish({}, outputs=["rows.jsonl"])
    assert not (run.dir / "manifest.json").exists()


def test_looking_at_a_finished_stage_keeps_its_manifest_byte_for_byte(capsys):
    first = finished_data()
    before = (first.dir / "manifest.json").read_bytes(), (first.dir / "manifest.json").stat().st_mtime_ns
    again = Run(DATA)
    assert manifest.what_is_missing(first.dir) is None, "who only looks may stop at any cell"
    again.path("rows.jsonl").write_text('{"id": 1}\n', "utf8")  # its cells make the same again
    again.finish({"rows": 7}, outputs=["rows.jsonl"])
    assert before == ((first.dir / "manifest.json").read_bytes(), (first.dir / "manifest.json").stat().st_mtime_ns)
    again = Run(DATA)
    again.path("rows.jsonl").write_text('{"id": 2}\n', "utf8")  # they do not
    again.finish({"rows": 1}, outputs=["rows.jsonl"])
    record = read_manifest(first.dir)
    assert record["started"] == json.loads(before[0])["started"] and manifest.what_is_missing(first.dir) is None
    assert record["outputs_sha256"] != json.loads(before[0])["outputs_sha256"]


def test_a_finished_stage_is_not_destroyed_by_other_parameters_or_inputs(outputs):
    data = Run(DATA)
    with data.phase("work"):
        data.path("rows.jsonl").write_text("{}", "utf8")
    data.finish({}, outputs=["rows.jsonl"])
    run = Run(DISTILLATION)
    run.path("traces.jsonl").write_text("1\n", "utf8")
    run.finish({}, outputs=["traces.jsonl"])
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    with pytest.raises(ParameterError) as caught:
        Run(changed(DATA, num_train=9, num_dev=7))
    told = str(caught.value)
    assert f"{data.dir} is complete and stays; changed since: num_train 1600 -> 9, num_dev 200 -> 7. Name" in told
    assert (
        'another run (run = "demo_2", or --run), or replace this one (Run(params, overwrite=True), or --force' in told
    )
    assert before == {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    with pytest.raises(ParameterError, match="wrong parameters"):
        Run(changed(DATA, num_train=9))  # the refusal gave the folder's lock back, and took nothing
    Run(changed(DATA, num_train=9, run="mine")).finish({}, outputs=[])
    again = Run(changed(DATA, num_train=9), overwrite=True)
    assert again.state["phases"] == {}
    again.path("rows.jsonl").write_text("other\n", "utf8")
    again.finish({}, outputs=["rows.jsonl"])
    with pytest.raises(ParameterError, match="02_distillation is complete and stays; changed since: data_stage. "):
        Run(DISTILLATION)
    assert Run(DISTILLATION, overwrite=True).dir.exists() and not (run.dir / "traces.jsonl").exists()


@pytest.mark.parametrize(("left", "done"), [("checkpoints/checkpoint-3/x", "half trained"), ("model/x", "trained")])
def test_a_half_trained_stage_is_not_destroyed_either(sft, monkeypatch, left, done):
    run = Run(sft)
    run.path(left).touch()
    monkeypatch.setenv("FINR1_REPLACES", "True")  # `finr1 run` replaces what is complete, and asks for --force here
    with pytest.raises(ParameterError, match=f"04_sft is {done} and stays; changed since: lora_r 16 -> 8. "):
        Run(changed(sft, lora_r=8))
    (run.dir / "state.json").write_text("{", "utf8")
    with pytest.raises(ParameterError, match="changed since: what it was made with is not known"):
        Run(sft)
    assert (run.dir / left).exists()
    Run(changed(sft, lora_r=8), overwrite=True)
    assert not (run.dir / left).exists()


def test_overwrite_permits_and_does_not_ask_for_it():
    run = finished_data()
    Run(DATA, overwrite=True)
    assert (run.dir / "rows.jsonl").exists() and (run.dir / "manifest.json").exists()


def test_a_stale_notebook_writes_no_manifest_over_anothers_result(monkeypatch):
    stale = finished_data()
    with monkeypatch.context() as another:  # another kernel
        another.setattr(running, "_SESSION", "of another kernel")
        newer = Run(changed(DATA, num_train=9), overwrite=True)
        newer.path("rows.jsonl").write_text("other\n", "utf8")
        newer.finish({}, outputs=["rows.jsonl"])
    before = (stale.dir / "manifest.json").read_bytes()
    for late in (lambda: stale.finish({}, outputs=["rows.jsonl"]), stale.save_state):
        with pytest.raises(RuntimeError, match="01_data has since been made again: run this notebook from"):
            late()
    assert (stale.dir / "manifest.json").read_bytes() == before


def test_a_stage_whose_input_was_made_again_under_it_is_not_finished():
    finished_data()
    run = Run(DISTILLATION)
    finished_data('{"id": 2}\n')
    with pytest.raises(RuntimeError, match="01_data has since been made again"):
        run.finish({}, outputs=[])
    assert not (run.dir / "manifest.json").exists()


def test_other_parameters_remove_artefacts_but_neither_answers_nor_the_running_notebook():
    run = finished_data()
    run.path("model/weights.bin").write_bytes(b"1")
    run.path("teacher.answers.jsonl").write_text("{}\n", "utf8")
    run.path("01_data.ipynb").write_text("{}", "utf8")
    again = Run(changed(DATA, num_train=9), overwrite=True)
    left = sorted(path.name for path in again.dir.iterdir())
    assert left == ["01_data.ipynb", "kernel.lock", "params.yaml", "state.json", "teacher.answers.jsonl", "train.lock"]
    assert DataParams.from_yaml(again.dir / "params.yaml").num_train == 9


# What does not belong together.


def made(outputs: Path, stage: str, *inputs: str, run: str = "demo", text: str = "", **parameters) -> Path:
    """A complete stage of `run`, made from the stages `inputs` of the demo as they are now."""
    names = {"01_data": "data_stage", "02_distillation": "distillation_stage", "03_filtering": "filtering_stage",
             "04_sft": "sft_stage", "05_grpo": "grpo_stage"}  # fmt: skip
    folder = outputs / run / stage
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made.txt").write_text(f"{stage} {text}", "utf8")
    sha256 = {names[name]: read_manifest(outputs / "demo" / name)["outputs_sha256"] for name in inputs}
    return finish(folder, inputs=sha256, parameters=parameters)


@pytest.fixture
def recipe(outputs) -> Path:
    """01 to 05 of the demo, which belong together."""
    made(outputs, "01_data")
    made(outputs, "02_distillation", "01_data")
    made(outputs, "03_filtering", "01_data", "02_distillation")
    made(outputs, "04_sft", "01_data", "03_filtering")
    made(outputs, "05_grpo", "01_data", "03_filtering", "04_sft", sft_stage="outputs/demo/04_sft")
    return outputs


def params_of(stage: str, **values):
    return STAGES[stage](**demo_values(stage, run="new") | values)


AT_DEMO = {f"{name}_stage": f"outputs/demo/{stage}" for name, stage in
           {"data": "01_data", "distillation": "02_distillation", "filtering": "03_filtering", "sft": "04_sft",
            "grpo": "05_grpo"}.items()}  # fmt: skip


def at_demo(stage: str, **values):
    mine = {name: at for name, at in AT_DEMO.items() if name in STAGES[stage].model_fields}
    return params_of(stage, **mine | values)


def test_stages_that_belong_together_are_combined_without_a_word(recipe, capsys):
    made(recipe, "06_benchmark", "01_data", "04_sft", "05_grpo")
    for stage in list(STAGES)[2:]:
        more = {"benchmark_stage": "outputs/demo/06_benchmark"} if stage == "07_report" else {}
        run = Run(at_demo(stage, **more))
        assert run.strangers == [] and capsys.readouterr().out == ""


def test_rows_of_older_data_are_refused(recipe):
    made(recipe, "01_data", text="made anew")
    for stage, of in {"03_filtering": "02_distillation", "04_sft": "03_filtering", "05_grpo": "03_filtering"}.items():
        with pytest.raises(ParameterError, match=f"demo/{of} was not made from .*demo/01_data as it is now: name "):
            Run(at_demo(stage))


def test_a_gain_of_grpo_over_an_sft_model_that_it_did_not_start_from_is_refused(recipe):
    other = made(recipe, "04_sft", "01_data", "03_filtering", run="other", text="of another seed")
    with pytest.raises(ParameterError, match=f"demo/05_grpo was not made from {other} as it is now"):
        Run(at_demo("06_benchmark", sft_stage="outputs/other/04_sft"))
    zero = made(recipe, "05_grpo", "01_data", "03_filtering", run="zero", sft_stage=None)
    with pytest.raises(ParameterError, match=f"{zero} was not made from .*demo/04_sft"):
        Run(at_demo("06_benchmark", grpo_stage="outputs/zero/05_grpo"))
    assert Run(at_demo("06_benchmark", zero_stage="outputs/zero/05_grpo")).strangers == []


def test_models_of_other_data_are_measured_and_the_report_begins_with_that(recipe, capsys):
    newer = made(recipe, "01_data", text="made anew")
    run = Run(at_demo("06_benchmark"))
    told = [f"{recipe / 'demo' / stage} was not made from {newer} as it is now" for stage in ("04_sft", "05_grpo")]
    assert run.strangers == told and capsys.readouterr().out == "\n".join(told) + "\n"
    run.finish({}, outputs=[])
    assert read_manifest(run.dir)["strangers"] == told
    made(recipe, "02_distillation", "01_data", text="made anew")
    report = Run(at_demo("07_report", benchmark_stage="outputs/new/06_benchmark"))
    assert set(told) < set(report.strangers)
    assert any("03_filtering was not made from" in line and "02_distillation" in line for line in report.strangers)


def test_other_content_of_an_input_removes_artefacts_too():
    finished_data()
    Run(DISTILLATION).path("traces.jsonl").touch()
    finished_data()
    assert Run(DISTILLATION).path("traces.jsonl").exists(), "made again, but with the same content"
    finished_data('{"id": 2}\n')
    assert not Run(DISTILLATION).path("traces.jsonl").exists(), "nothing complete or trained is lost"


def test_phases_add_up_over_sessions_and_count_when_they_fail():
    for _ in range(2):
        run = Run(DATA)
        with pytest.raises(KeyError), run.phase("work"):
            time.sleep(0.02)
            raise KeyError
    assert run.state["phases"]["work"] >= 0.04


def test_no_key_of_the_environment_reaches_the_run_folder(monkeypatch, outputs):
    monkeypatch.setenv("FINR1_API_KEY", "sk-planted")
    monkeypatch.setenv("HF_TOKEN", "hf-planted")
    finished_data()
    texts = [path.read_bytes() for path in outputs.rglob("*") if path.is_file()]
    assert texts and not any(b"planted" in text for text in texts)


def test_a_folder_that_is_no_clone_has_no_commit(project):
    assert manifest.commit() is None


def test_what_jupyterlab_writes_into_an_open_notebook_is_no_uncommitted_change(project):
    """Outputs, counts and the kernel, as its autosave does, and settings that a person tries."""
    path = project / "notebooks" / "01_data.ipynb"
    path.parent.mkdir()
    cells = [{"cell_type": "code", "metadata": {"tags": ["settings"]}, "source": "run = 1", "outputs": []},
             {"cell_type": "code", "metadata": {}, "source": ["a = 1\n", "a"], "outputs": []}]  # fmt: skip
    path.write_text(json.dumps({"cells": cells, "metadata": {}}), "utf8")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "a"]):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    clean = manifest.commit()
    assert len(clean) == 40
    cells[1] |= {"outputs": [{"output_type": "display_data", "data": {}, "metadata": {}}], "execution_count": 3}
    cells[1] |= {"source": "a = 1\na"}
    cells[0] |= {"source": "run = 2"}
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": {"name": "theirs"}}}, indent=1), "utf8")
    assert subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=project).returncode == 1
    assert manifest.commit() == clean
    path.write_text(json.dumps({"cells": [*cells, cells[1]], "metadata": {}}), "utf8")
    assert manifest.commit() == f"{clean}-dirty", "a cell more"
    path.write_text("{", "utf8")
    assert manifest.commit() == f"{clean}-dirty", "no notebook"
    path.unlink()
    assert manifest.commit() == f"{clean}-dirty", "gone"
    subprocess.run(["git", "checkout", "-q", "."], cwd=project, check=True)
    (project / "pyproject.toml").write_text("a\n", "utf8")
    assert manifest.commit() == f"{clean}-dirty", "another file"


LOADED = ["finr1/plotting/paper.mplstyle", "finr1/plotting/style.py", "finr1/rewards.py", "finr1/rewards.yaml"]


def test_the_manifest_names_the_package_files_that_kernel_and_trainer_loaded(package):
    run = Run(DATA)
    run.path("train_files.json").write_text('{"finr1/sft.py": "a", "finr1/rewards.py": "of another time"}', "utf8")
    (package / "rewards.py").write_text("edited while the stage ran\n", "utf8")
    run.finish({}, outputs=[])
    files = read_manifest(run.dir)["code"]["files"]
    assert sorted(files) == sorted([*LOADED, "finr1/sft.py"])
    assert files["finr1/rewards.py"] == manifest.package_hashes()["finr1/rewards.py"], "what the kernel loaded"
    assert manifest.changed_files(files) == ["finr1/sft.py", "finr1/rewards.py"], "gone, and edited"


@pytest.mark.parametrize("edited", ["finr1/rewards.py", "the notebook"])
def test_changed_code_removes_old_figures_and_nothing_else_and_is_in_the_next_manifest(project, package, edited):
    run = finished_data()
    kept = ["model", "checkpoints", "metrics.jsonl", "train_files.json", "teacher.answers.jsonl"]
    for name in kept:
        run.path(name).write_text("{}", "utf8")
    run.path("figures/gone.png").touch()
    run.state["launched"] = {"train.py": "a"}
    run.save_state()
    before = read_manifest(run.dir)["code"]
    Run(DATA).finish({}, outputs=["rows.jsonl"])
    assert (run.dir / "figures" / "gone.png").exists() and read_manifest(run.dir)["code"] == before, "nothing changed"
    (project / "notebooks").mkdir()
    code = {"cell_type": "code", "metadata": {}, "source": "a = 1"}
    changed = project / "notebooks" / "01_data.ipynb" if edited == "the notebook" else package.parent / edited
    changed.write_text(json.dumps({"cells": [code]}), "utf8")
    manifest.package_hashes.cache_clear()  # as in a new kernel
    again = Run(DATA)
    assert sorted(path.name for path in again.dir.iterdir()) == sorted(
        [*kept, "kernel.lock", "manifest.json", "params.yaml", "rows.jsonl", "state.json", "train.lock"]
    )
    assert again.state["launched"] == {"train.py": "a"} and again.fingerprint == run.fingerprint
    again.finish({}, outputs=["rows.jsonl"])
    assert read_manifest(run.dir)["code"] != before


def test_a_process_keeps_the_hashes_of_what_it_loaded(package):
    before = manifest.package_hashes()
    (package / "rewards.py").write_text("2\n", "utf8")
    assert manifest.package_hashes() == before and manifest.changed_files(before) == ["finr1/rewards.py"]


def test_a_notebooks_hash_follows_its_code_and_nothing_else(project):
    def write(code: str, parameter: str = "run = 1", prose: str = "words") -> str:
        cells = [
            {"cell_type": "markdown", "metadata": {}, "source": [prose]},
            {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": [parameter], "outputs": []},
            {"cell_type": "code", "metadata": {}, "source": code, "outputs": []},
        ]
        (project / "notebooks").mkdir(exist_ok=True)
        (project / "notebooks" / "01_data.ipynb").write_text(json.dumps({"cells": cells}), "utf8")
        return manifest.notebook_code(project / "notebooks" / "01_data.ipynb")

    first = write("a = 1")
    assert write("a = 1", parameter="run = 2", prose="other words") == first
    assert write("a = 2") != first
    assert manifest.notebook_code(project / "none.ipynb") == {}
    recipe = {"notebook": write("def make_trainer():\n    return 1"), "files": {}}
    assert manifest.changed_code("01_data", recipe) == []
    write("def make_trainer():\n    return 2")
    assert manifest.changed_code("01_data", recipe) == ["cell `make_trainer` of its notebook"]
    write("a = 1")
    words = ["other cells of its notebook", "cell `make_trainer` of its notebook"]
    assert manifest.changed_code("01_data", recipe) == words


def test_one_trainer_at_a_time():
    run = Run(DATA)
    assert not is_locked(run.dir)
    with stage_lock(run.dir):
        assert is_locked(run.dir)
        with pytest.raises(RuntimeError, match=f"process {os.getpid()} is at work in .*01_data: wait or end it"):
            Run(changed(DATA, num_train=9))
    assert not is_locked(run.dir)


# The child.

# The recipe of a notebook, without TRL, which takes seconds to load: making this trainer is all its training.
RECIPE = """
import json, os, signal, sys, time
import finr1.child

finr1.child.train = lambda make_trainer, params, stage_dir: make_trainer(params, stage_dir)


def make_trainer(params, stage_dir):
    rows = stage_dir / "metrics.jsonl"
    steps = len(rows.read_text().splitlines()) if rows.exists() else 0
    with rows.open("a") as file:
        for step in range(steps + 1, 4):
            row = {"step": step, "max_steps": 3, "loss": 1 / step, "process": os.getpid()}
            file.write(json.dumps(row) + chr(10))
            file.flush()
            BODY
    (stage_dir / "model").mkdir(exist_ok=True)
"""


@pytest.fixture
def sft(project: Path, outputs: Path) -> SFTParams:
    """Parameters of 04_sft, with complete inputs."""
    params = SFTParams(**demo_values("04_sft"))
    for folder in params.inputs().values():
        finish(folder)
    write_recipe(project)
    return params


def write_recipe(project: Path, body: str = "pass") -> None:
    cell = {"cell_type": "code", "metadata": {"tags": ["recipe"]}, "source": RECIPE.replace("BODY", body)}
    (project / "notebooks").mkdir(exist_ok=True)
    (project / "notebooks" / "04_sft.ipynb").write_text(json.dumps({"cells": [cell]}), "utf8")


def test_launch_returns_the_childs_metrics_and_shows_them_live(sft, capsys):
    numbers_of_rows = []
    rows = launch(Run(sft), on_progress=lambda rows: numbers_of_rows.append(len(rows)))
    assert [row["step"] for row in rows] == [1, 2, 3] and numbers_of_rows[-1] == 3
    assert "step 3/3, loss 0.3333" in capsys.readouterr().out


def test_a_model_that_is_complete_is_not_trained_again(sft, capsys):
    rows = launch(Run(sft))
    assert launch(Run(sft)) == rows and "no training" in capsys.readouterr().out


def test_a_child_that_dies_leaves_its_own_error_and_running_again_resumes(project, sft):
    write_recipe(project, "assert (stage_dir / 'more_memory').exists(), 'batch of size 3 is odd'")
    run = Run(sft)
    with pytest.raises(TrainingFailed) as caught:
        launch(run)
    message = str(caught.value)
    assert "04_sft ended with exit code 1\nAssertionError: batch of size 3 is odd\n" in message
    assert "The end of" in message and "Traceback (most recent call last):" in message
    assert not (run.dir / "manifest.json").exists() and not (run.dir / "model").exists()
    run.path("more_memory").touch()
    rows = launch(Run(sft))
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["process"] != rows[1]["process"] == rows[2]["process"], "the first step is kept"


def test_only_the_last_sessions_log_is_searched_for_the_error(project, sft):
    write_recipe(project, "sys.exit('new words' if (stage_dir / 'second').exists() else 'old words')")
    run = Run(sft)
    with pytest.raises(TrainingFailed, match="old words"):
        launch(run)
    run.path("second").touch()
    with pytest.raises(TrainingFailed) as caught:
        launch(run)
    assert "old" not in str(caught.value) and "\nnew words\n" in str(caught.value)


def test_a_killed_child_is_told_from_one_that_failed(project, sft):
    write_recipe(project, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(TrainingFailed, match=r"was killed by SIGKILL \(out of memory\?\)"):
        launch(Run(sft))


@pytest.mark.parametrize("changed", ["rows.jsonl", "train.py", "finr1/rewards.py"])
def test_a_model_of_other_data_another_recipe_or_other_code_is_made_again_where_it_may(project, sft, capsys, changed):
    run = Run(sft)
    run.path("rows.jsonl").write_text("{}\n", "utf8")
    before = launch(run, reads=["rows.jsonl"])
    assert launch(run, reads=["rows.jsonl"]) == before
    if changed == "rows.jsonl":
        run.path("rows.jsonl").write_text("{}\n{}\n", "utf8")
    elif changed == "train.py":
        write_recipe(project, "steps += 1")
    else:
        run.path("train_files.json").write_text(json.dumps({changed: "of the file as it was"}), "utf8")
    script = (run.dir / "train.py").read_bytes()
    with pytest.raises(
        ParameterError, match=f"04_sft is trained and stays; changed since: {changed}. Name another run"
    ):
        launch(run, reads=["rows.jsonl"])
    assert (run.dir / "train.py").read_bytes() == script and run.state["launched"] and (run.dir / "model").exists()
    after = launch(Run(sft, overwrite=True), reads=["rows.jsonl"])
    assert len(after) == 3 and after[0]["process"] != before[0]["process"]
    assert f"changed: {changed}; training starts afresh" in capsys.readouterr().out


def test_finr1_run_trains_a_complete_stage_again_when_its_recipe_has_changed(project, sft, monkeypatch):
    run = Run(sft)
    before = launch(run)
    run.finish({}, outputs=["model"])
    write_recipe(project, "steps += 1")
    with pytest.raises(ParameterError, match="04_sft is complete and stays"):
        launch(Run(sft))
    monkeypatch.setenv("FINR1_REPLACES", "True")
    assert launch(Run(sft))[0]["process"] != before[0]["process"]


def test_an_interrupted_cell_leaves_no_trainer_behind_and_says_how_it_resumes(project, sft):
    def interrupt(rows):
        raise KeyboardInterrupt

    write_recipe(project, "time.sleep(60)")
    run = Run(sft)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 1; run the cell again to begin anew"):
        launch(run, on_progress=interrupt)
    assert not is_locked(run.dir)


def test_a_stopped_training_names_the_checkpoint_that_it_resumes_from(tmp_path):
    assert stopped(tmp_path).startswith("stopped before its first step; run the cell again to begin anew")
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 4}\n', "utf8")
    checkpoint = tmp_path / "checkpoints" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"best_model_checkpoint": null}', "utf8")
    seal(checkpoint)
    assert stopped(tmp_path) == "stopped at step 4; run the cell again to resume from checkpoint 3"


def test_a_first_step_is_followed_by_its_micro_batches(tmp_path, capsys):
    follow(tmp_path, lambda: True)
    (tmp_path / "train.log").write_text("first step: 0/4\nfirst step: 1/4 micro-batches, at most 0:01:00\nmore\n")
    follow(tmp_path, lambda: True)
    lines = ["starting, 0:00:00", "first step: 1/4 micro-batches, at most 0:01:00, 0:00:00"]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_training_that_another_process_has_started_can_be_watched(outputs, capsys):
    folder = outputs / "theirs" / "04_sft"
    folder.mkdir(parents=True)
    (folder / "train.py").touch()
    code = f"""
import json, time
from pathlib import Path
from finr1.child import stage_lock

with stage_lock(Path({str(folder)!r})):
    print("at work", flush=True)
    time.sleep(2)
    row = {{"step": 2, "max_steps": 9, "loss": 0.5, "reward": 1.25}}
    Path({str(folder)!r}, "metrics.jsonl").write_text(json.dumps(row) + "\\n")
    time.sleep(2)
"""
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout.readline() == "at work\n"
    assert main(["watch", "theirs"]) == 0
    trainer.wait()
    told = capsys.readouterr().out
    assert "04_sft trains" in told and "step 2/9, loss 0.5, reward 1.25, 0:00:0" in told and "stopped at step 2" in told
    assert main(["watch", "nobody"]) == 1 and "no training has been started there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [ParameterError("04_sft", ["x"]), TrainingFailed("<why>"), Stopped("at step 4"), Busy()]
)
def test_a_notebook_shows_the_message_of_our_errors_and_no_traceback(error):
    from IPython.core.interactiveshell import InteractiveShell

    shell, shown = InteractiveShell(), []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    shell.user_ns["error"] = error
    shell.run_cell("raise error")
    assert shown == [str(error)] and not isinstance(Stopped(), Exception)


def test_a_trainer_ends_with_the_notebook_that_started_it(project, sft, outputs):
    write_recipe(project, "time.sleep(60)")
    code = (
        "from finr1.params import SFTParams; from finr1.run import Run, launch\n"
        f"launch(Run(SFTParams(**{sft.model_dump()!r})))"
    )
    notebook = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    folder = outputs / "demo" / "04_sft"
    wait_until(lambda: (folder / "metrics.jsonl").exists())
    assert is_locked(folder)
    notebook.send_signal(signal.SIGKILL)
    notebook.wait()
    wait_until(lambda: not is_locked(folder))


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_script_that_lies_in_no_stages_folder_names_the_file_that_it_misses(project):
    text = "from finr1.child import child_main; from finr1.params import SFTParams; child_main(None, SFTParams)"
    (project / "train.py").write_text(text, "utf8")
    result = subprocess.run([sys.executable, "train.py"], cwd=project, capture_output=True, text=True)
    assert result.returncode == 1 and f"No such file or directory: '{project / 'params.yaml'}'" in result.stderr


@pytest.mark.parametrize("rank, visible", [(None, "2"), ("1", "2,3")], ids=["by hand", "by torchrun"])
def test_a_single_trainer_sees_a_single_gpu(sft, monkeypatch, rank, visible):
    """With two in sight, transformers' trainer would wrap the model in DataParallel."""
    run, seen = Run(sft), []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("RANK", rank) if rank else monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr("sys.argv", [str(run.dir / "train.py")])
    monkeypatch.setattr(child, "train", lambda *_: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    child.child_main(lambda params, stage_dir: None, SFTParams)
    assert seen == [visible]


@pytest.mark.slow
def test_two_processes_are_two_and_their_own_error_comes_through(project, sft):
    """torchrun's closing traceback speaks of itself; the reason stands further up."""
    body = """(stage_dir / f"rank{os.environ['RANK']}").touch()
            while len(list(stage_dir.glob("rank?"))) < 2:
                time.sleep(0.05)
            int("no number")"""
    write_recipe(project, body)
    shutil.copytree(ROOT / "params" / "accelerate", project / "params" / "accelerate")
    with pytest.raises(TrainingFailed) as caught:
        launch(Run(changed(sft, num_processes=2)))
    assert "\nValueError: invalid literal for int() with base 10: 'no number'\n" in str(caught.value)


@pytest.mark.parametrize(
    ("log", "expected", "reason"),
    [
        (
            "Traceback (most recent call last):\n  File\nValueError: a\n\nDuring handling\n"
            "Traceback (most recent call last):\n  File\nKeyError: b\n",
            "KeyError: b",
            "the outermost of a chain",
        ),
        ("\x1b[31mTraceback (most recent call last):\x1b[0m\n  x\n\x1b[1mOSError: c\x1b[0m\n", "OSError: c", "colours"),
        ("[rank1]: Traceback (most recent call last):\n[rank1]:   F\n[rank1]: OSError: d\n", "OSError: d", "torchrun"),
        ("1%\r50%\r100%\nkilled\n", "killed", "no traceback: the last line, progress bars as they end"),
        ("Traceback (most recent call last):\n  a\n^^^^^^\nValueError: e\n", "ValueError: e", "two that interleave"),
        ("", "(it wrote no log)", "nothing at all"),
    ],
)
def test_the_last_error_of_a_log_is_found(log, expected, reason):
    assert last_error(clean_lines(log)) == expected, reason


def test_progress_reads_as_a_person_would_say_it():
    assert describe([], 3) == "starting, 0:00:03"
    assert describe([], 3, start="first step: 1/4 micro-batches") == "first step: 1/4 micro-batches, 0:00:03"
    row = {"step": 2, "max_steps": 9, "loss": 0.12345}
    assert describe([row], 61) == "step 2/9, loss 0.1235, 0:01:01"
    assert describe([row], 61, pace=30) == "step 2/9, loss 0.1235, 0:01:01, 0:03:30 left"
    assert [duration(seconds) for seconds in (59.6, 3599, 7500)] == ["0:01:00", "0:59:59", "2:05:00"]
