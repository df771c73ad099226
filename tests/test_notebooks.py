"""Every notebook end to end on a tiny random model: the artefacts, the skips, the repeats and the failures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from loopback import Loopback
from test_report_browser import browser  # noqa: F401
from test_site import build, faults_of, look
from tiny_model import make_tiny_model

from finr1 import judge, rollouts
from finr1.launch import recipe_script
from finr1.params import NOTEBOOKS as ALL
from finr1.params import STAGES
from finr1.progress import read_metrics
from finr1.run import read_manifest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SMALL = {
    "model_name_or_path": None,  # filled in: the tiny model
    "num_train": 60, "num_dev": 20, "num_test": 20, "num_sft": 16, "num_rl": 24, "code_problems": 8,
    "eval_problems": 2, "eval_max_tokens": 8, "04_sft.max_steps": 2, "04_sft.save_steps": 1,
    "max_completion_length": 8, "num_generations": 4,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
    "05_grpo.max_steps": 2, "05_grpo.save_steps": 1, "05_grpo.warmup_steps": 0, "pass_rate_candidates": 0,
    "06_benchmark.num_items": 6, "06_benchmark.max_tokens": 8, "06_benchmark.num_samples": 2,
    "06_benchmark.suite_items": 2,
}  # fmt: skip


# ---- what the files promise, without running them -------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_the_house_rules(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert path.stat().st_size < 48_000
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith(f"# {path.stem[:2]} ")
    tags = [cell.metadata.get("tags", []) for cell in code]
    assert "settings" in tags[0] and sum("parameters" in tag for tag in tags) == 1
    assert 4 <= len(code[0].source.splitlines()) <= 7
    hidden = ["hide-input" in tag for tag in tags]
    assert hidden == [cell.metadata.get("jupyter", {}).get("source_hidden", False) for cell in code]
    started = next(place for place, cell in enumerate(code) if re.search(r"^params = ", cell.source, re.MULTILINE))
    assert not hidden[0] and all(hidden[place] or "settings" in tags[place] for place in range(started + 1))
    for cell in code:
        assert "!pip" not in cell.source and "if False" not in cell.source and "try:" not in cell.source
    assert "run.finish(" in code[-1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_reads_every_parameter_with_its_help(path):
    """It looks into one cell: those of the settings stand there once more, in a text."""
    found = papermill.inspect_notebook(str(path))
    assert set(found) == set(ALL[path.stem].model_fields)
    assert all(entry["help"] for entry in found.values())
    settings = {line.split(" = ")[0] for line in nbformat.read(path, 4).cells[1].source.splitlines()}
    if any(entry["default"] == "above" for entry in found.values()):
        assert {name for name, entry in found.items() if entry["default"] == "above"} == settings


def test_there_is_a_notebook_for_every_stage():
    assert [path.stem for path in NOTEBOOKS] == list(ALL)


def test_the_recipe_of_both_trainings_is_plain_trl_that_can_be_copied():
    for stage, names in {"04_sft": ("SFTConfig(", "SFTTrainer("), "05_grpo": ("GRPOConfig(", "GRPOTrainer(")}.items():
        script = recipe_script(stage, STAGES[stage])
        assert all(name in script for name in (*names, "LoraConfig(", "BitsAndBytesConfig(", "def make_trainer("))
        assert not re.search(r"\b(run|display|plotting)\b\.?\(", script), "nothing of the notebook's kernel"
        compile(script, stage, "exec")


# ---- the whole recipe on a tiny model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, embedded) -> dict:
    """Environment and arguments with which every run of this file is made."""
    folder = tmp_path_factory.mktemp("workshop")
    model = make_tiny_model(folder / "tiny")
    (folder / "outputs").mkdir()
    (folder / "outputs" / "cache").symlink_to(embedded)
    # One thread: tiny tensors only lose time in a pool, and two processes would fight over the cores.
    env = os.environ | {"FINR1_OUTPUTS": str(folder / "outputs"), "OMP_NUM_THREADS": "1"}
    settings = [f"--set={name}={model if value is None else value}" for name, value in SMALL.items()]
    # 00 is the same map for every run. So other runs take it over from the first one, with its plan.
    plan = json.dumps([setting.removeprefix("--set=") for setting in settings])
    return {"folder": folder, "outputs": folder / "outputs", "env": env, "settings": settings,
            "same_plan": f"--set=00_overview.changes={plan}"}  # fmt: skip


def finr1(workshop: dict, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "finr1", "run", "--preset", "demo", *workshop["settings"], *arguments]
    return subprocess.run(command, cwd=ROOT, env=workshop["env"], capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def made(workshop) -> Path:
    """Folder of a complete run on the tiny model."""
    result = finr1(workshop, "--run", "tiny")
    assert result.returncode == 0, result.stdout + result.stderr
    workshop["printed"] = result.stdout
    return workshop["outputs"] / "tiny"


def taken_over(made: Path, run: str, stages: list[str]) -> Path:
    """Folder of another run, to which these stages of the first one are complete and unchanged."""
    folder = made.parent / run
    for stage in stages:
        shutil.copytree(made / stage, folder / stage)
        record = read_manifest(folder / stage)
        parameters = json.dumps(record["parameters"]).replace(f"outputs/{made.name}/", f"outputs/{run}/")
        record |= {"run": run, "parameters": json.loads(parameters) | {"run": run}}
        (folder / stage / "manifest.json").write_text(json.dumps(record), "utf8")
    return folder


@pytest.mark.slow
def test_the_run_ends_with_a_table_and_the_path_of_the_report(made, workshop):
    printed = workshop["printed"]
    assert "report.html" in printed
    for word in ("base", "sft", "grpo", "greedy", "sampled"):
        assert word in printed
    assert (made / "07_report" / "report.html").stat().st_size > 50_000


@pytest.mark.slow
def test_each_stage_is_complete_with_figures_that_have_something_in_them(made):
    import matplotlib.image

    for stage in STAGES:
        manifest = read_manifest(made / stage)
        assert manifest["metrics"] and manifest["outputs"]
        for figure in (made / stage / "figures").glob("*.png"):
            assert matplotlib.image.imread(figure).std() > 0.01, figure
            assert figure.with_suffix(".pdf").exists()
    assert len(list(made.glob("*/figures/*.png"))) >= 10


@pytest.mark.slow
def test_executed_notebooks_hold_no_error_and_no_warning_flood(made):
    for stage in STAGES:
        notebook = nbformat.read(made / stage / f"{stage}.ipynb", as_version=4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        stderr = "".join(output.text for output in outputs if output.get("name") == "stderr")
        assert len(stderr) < 4_000, stderr[:2000]


@pytest.mark.slow
def test_looking_at_a_finished_run_keeps_every_manifest_byte_for_byte(made, workshop, tmp_path):
    manifests = [made / stage / "manifest.json" for stage in list(STAGES)[1:]]  # 00 measures the machine again
    before = [path.read_bytes() for path in manifests]
    for path in manifests:
        assert alone(workshop, path.parent.name, tmp_path, {"run": made.name}).returncode == 0
    assert before == [path.read_bytes() for path in manifests]


@pytest.mark.slow
def test_the_map_of_a_finished_run_shows_what_it_counted(made, workshop, tmp_path):
    result = alone(workshop, "00_overview", tmp_path, {})
    assert result.returncode == 0, result.stderr
    numbers = read_manifest(made / "00_overview")["metrics"]["numbers"]
    counts = {name: text.split()[0] for name, text in numbers.items()}
    assert counts["train"] == "68" and counts["traces"] == "60" and counts["sft"] == "16" and counts["groups"] == "8"


@pytest.mark.slow
def test_the_machine_is_measured_and_each_preset_planned(workshop, tmp_path):
    notebook, values = ROOT / "notebooks" / "11_machine.ipynb", json.dumps({"preset": "paper", "run": "machine"})
    command = [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), "-y", values]
    result = subprocess.run(command, cwd=tmp_path, env=workshop["env"], capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    plan = json.loads((workshop["outputs"] / "machine" / "11_machine" / "plan.json").read_text("utf8"))
    assert plan["gpus"] == 8 and plan["memory"]["05 GRPO"]["weights"] > 0
    assert all(row["minutes here"] >= 0 for row in plan["costs"])


@pytest.mark.slow
def test_the_site_of_a_whole_run_shows_every_figure_with_its_titles(made, browser, tmp_path):  # noqa: F811
    done = build(made.parent, "tiny", tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    assert faults_of(tmp_path / "site") == []
    pages = {stage: (tmp_path / "site" / "notebooks" / f"{stage}.html") for stage in STAGES}
    texts = {stage: page.read_text("utf8") for stage, page in pages.items()}
    assert sum(text.count("<figure>") for text in texts.values()) >= 10
    assert not [stage for stage, text in texts.items() if "Figure of the section" in text]  # an alt text was missing
    assert all("As the run <code>tiny</code> executed it" in text for text in texts.values())
    assert {stage: wrong for stage, page in pages.items() if (wrong := look(page, browser, 1280))} == {}


@pytest.mark.slow
def test_functions_to_write_pass_by_the_teacher_and_reach_rl(made):
    assert len((made / "02_distillation" / "traces.jsonl").read_text("utf8").splitlines()) == 60
    rows = [json.loads(line) for line in (made / "05_grpo" / "train.jsonl").read_text("utf8").splitlines()]
    code = [row["family"] for row in rows if row["answer_kind"] == "code"]
    assert len(code) == len(set(code)) == 8  # balanced: each family has as many rows as the median one


@pytest.mark.slow
def test_every_sampled_group_is_kept(made):
    import pandas as pd

    files = sorted((made / "05_grpo" / "completions").glob("*.parquet"))
    assert len(files) == 2
    table = pd.read_parquet(files[0])
    assert len(table) == 4 and {"prompt", "completion", "advantage"} <= set(table.columns)


@pytest.mark.slow
def test_running_again_skips_everything(made, workshop):
    before = {stage: (made / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}
    result = finr1(workshop, "--run", "tiny")
    assert result.returncode == 0
    assert result.stdout.count("complete and unchanged") == len(STAGES)
    assert before == {stage: (made / stage / "manifest.json").stat().st_mtime_ns for stage in STAGES}


@pytest.mark.slow
def test_the_same_seed_gives_identical_metrics_and_weights(made, workshop):
    again = taken_over(made, "again", ["00_overview"])  # the same map
    result = finr1(workshop, "--run", "again", "--until", "06_benchmark")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("complete and unchanged") == 1, result.stdout
    for stage in ("01_data", "02_distillation", "03_filtering", "04_sft", "05_grpo", "06_benchmark"):
        assert read_manifest(made / stage)["metrics"] == read_manifest(again / stage)["metrics"], stage
    for stage in ("04_sft", "05_grpo"):
        weights = [(folder / stage / "model" / "model.safetensors").read_bytes() for folder in (made, again)]
        assert weights[0] == weights[1], stage


def says_yes(question: str) -> dict:
    """A model that answers yes to everything, and a judge for whom little else is right; with a reason where asked."""
    if "You check answers" not in question:
        return {"content": "<think>Perhaps.</think><answer>\\boxed{yes}</answer>"}
    verdict = "1" if "instructions): yes\n" in question or "It is 12." in question else "0"
    return {"content": f"{verdict}\nYes is yes." if "Reply with two lines" in question else verdict}


@pytest.fixture(scope="module")
def endpoint():
    """Address of a model, judge and verifier."""
    with Loopback(message=says_yes) as server:
        yield server.base_url


def alone(
    workshop: dict, stage: str, folder: Path, values: dict, *arguments: str, notebook: Path | None = None
) -> subprocess.CompletedProcess:
    """papermill on one notebook, with the tiny run's parameters but for `values`; what it executed is in `folder`."""
    source = notebook or ROOT / "notebooks" / f"{stage}.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), str(folder / "out.ipynb"),
               "-f", str(workshop["outputs"] / "tiny" / stage / "params.yaml"), "-y", json.dumps(values)]  # fmt: skip
    env = workshop["env"] | {"FINR1_API_KEY": "any"}
    return subprocess.run([*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def pooled(made, workshop, endpoint, tmp_path_factory) -> dict:
    """What papermill ran 06 with by itself: a judge, a further model, and a 01 that trains on the test items."""
    folder = tmp_path_factory.mktemp("pooled")
    data = alone(workshop, "01_data", folder, {"run": "pooled"}, "-p", "track", "paper_like")
    assert data.returncode == 0, data.stderr
    values = {"data_stage": "outputs/pooled/01_data", "sft_stage": "outputs/tiny/04_sft", "run": "pooled",
              "grpo_stage": "outputs/tiny/05_grpo", "other_models": [f"yes=teacher@{endpoint}"], "judge_scope": "all",
              "judge_backend": "endpoint", "judge_model": "teacher", "judge_base_url": endpoint}  # fmt: skip
    good = alone(workshop, "06_benchmark", folder, values, "-p", "seed", "1")
    assert good.returncode == 0, good.stderr
    return values


@pytest.mark.slow
def test_papermill_alone_runs_a_preset_and_a_wrong_parameter_stops_it(pooled, workshop, tmp_path):
    assert read_manifest(workshop["outputs"] / "pooled" / "06_benchmark")["seed"] == 1
    bad = alone(workshop, "06_benchmark", tmp_path, pooled, "-p", "num_itmes", "3")
    assert bad.returncode != 0 and "did you mean num_items" in bad.stderr


@pytest.mark.slow
def test_a_judged_benchmark_beside_a_run_that_trained_on_its_items(pooled, workshop, tmp_path):
    values = pooled | {"run": "judged", "seed": 1, "data_stage": "outputs/tiny/01_data",
                       "paper_like_stage": "outputs/pooled/06_benchmark"}  # fmt: skip
    result = alone(workshop, "06_benchmark", tmp_path, values)
    assert result.returncode == 0, result.stderr
    folder = workshop["outputs"] / "judged" / "06_benchmark"
    verdicts = [json.loads(line)["verdict"] for line in (folder / "verdicts.jsonl").read_text("utf8").splitlines()]
    assert len(verdicts) >= 18 and None not in verdicts  # at least each answer of the model that always answers
    metrics = read_manifest(folder)["metrics"]
    assert "yes" in {row["model"] for row in metrics["judge"]}
    assert "judge" in {row["protocol"] for row in metrics["protocols"]}
    # The same weights and items: training on the test items can't have been worth anything, and that is what comes out.
    assert {row["model"] for row in metrics["contamination"]} == {"base", "sft", "grpo", "yes"}
    assert {row["difference"] for row in metrics["contamination"]} == {0.0}


@pytest.mark.slow
def test_a_killed_training_leaves_its_error_and_no_manifest_and_goes_on_from_its_checkpoint(made, workshop, endpoint):
    """kill -9 in the middle of GRPO, then the same command: same weights as the run that was never killed.

    With a verifier, to which rules leave nothing here.
    """
    workshop = workshop | {"env": workshop["env"] | {"FINR1_API_KEY_VERIFIER": "any"}}
    asked = {"max_steps": 8, "save_steps": 2, "verifier_backend": "endpoint", "verifier_model": "teacher"}
    settings = [f"--set=05_grpo.{name}={value}" for name, value in (asked | {"verifier_base_url": endpoint}).items()]
    settings.append(workshop["same_plan"])
    unbroken = finr1(workshop, "--run", "tiny", "--until", "05_grpo", *settings)
    assert unbroken.returncode == 0, unbroken.stderr
    expected = (made / "05_grpo" / "model" / "model.safetensors").read_bytes()
    expected_rewards = _rewards(made / "05_grpo")

    victim = taken_over(made, "victim", list(STAGES)[:5])
    arguments = ["--run", "victim", "--until", "05_grpo", *settings]
    command = [sys.executable, "-m", "finr1", "run", "--preset", "demo", *workshop["settings"], *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=workshop["env"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics, lock = victim / "05_grpo" / "metrics.jsonl", victim / "05_grpo" / "train.lock"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count("\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(int(lock.read_text()), signal.SIGKILL)
    printed, errors = process.communicate(timeout=120)
    assert printed.count("complete and unchanged") == 5, printed
    assert process.returncode == 1 and "SIGKILL" in errors, errors
    assert not (victim / "05_grpo" / "manifest.json").exists()

    again = finr1(workshop, *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    log = (victim / "05_grpo" / "train.log").read_text()
    assert [row["step"] for row in _rewards(victim / "05_grpo")] == list(range(1, 9)), log
    assert _rewards(victim / "05_grpo") == expected_rewards
    assert (victim / "05_grpo" / "model" / "model.safetensors").read_bytes() == expected


@pytest.mark.slow
def test_an_endpoint_as_teacher_and_judge_and_its_key_is_nowhere(made, workshop):
    """Notebooks 02 and 03 against a real HTTP server; the planted key may stand in no file of the run."""
    key = "planted-key-7f3a"
    full_marks = json.dumps(dict.fromkeys(judge.CRITERIA, 1))

    def answer(question: str) -> dict:
        if "one JSON object" in question:
            return {"content": full_marks}
        if "核对答案" in question or "You check answers" in question:
            return {"content": "**0**", "reasoning_content": "1? No."}
        return {
            "content": "<answer>\\boxed{bullish}</answer>",
            "reasoning_content": "Good news. It helps. So it is bullish.",
        }

    sizes = [setting for setting in workshop["settings"] if setting.startswith("--set=num_")]
    sizes = [setting for setting in sizes if "num_generations" not in setting]
    workshop = workshop | {"settings": sizes}  # the others belong to later stages
    with Loopback(message=answer) as server:
        names = {"02_distillation": "teacher", "03_filtering": "judge"}
        endpoint = [f"--set={stage}.{who}_backend=endpoint" for stage, who in names.items()]
        endpoint += [f"--set={stage}.{who}_base_url={server.base_url}" for stage, who in names.items()]
        endpoint += [f"--set={stage}.{who}_model=teacher" for stage, who in names.items()]
        endpoint.append("--set=03_filtering.study_items=4")  # the judge with all five orders of its prompt, too
        missing = finr1(workshop, "--run", "remote", "--until", "03_filtering", *endpoint)
        assert missing.returncode == 2 and "FINR1_API_KEY" in missing.stderr
        assert not (workshop["outputs"] / "remote").exists()
        taken_over(made, "remote", ["00_overview"])
        with_key = workshop | {"env": workshop["env"] | {"FINR1_API_KEY": key}}
        result = finr1(with_key, "--run", "remote", "--until", "03_filtering", workshop["same_plan"], *endpoint)
        assert result.returncode == 0, result.stdout + result.stderr
        assert any(headers.get("authorization") == f"Bearer {key}" for _, headers, _ in server.requests)
    metrics = read_manifest(workshop["outputs"] / "remote" / "03_filtering")["metrics"]
    assert metrics["traces"] == 60 and metrics["good"] > 0
    files = [path for path in (workshop["outputs"] / "remote").rglob("*") if path.is_file()]
    assert not [path for path in files if key.encode() in path.read_bytes()]


def _rewards(stage: Path) -> list[dict]:
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [{"step": row["step"], "reward": row["reward"], "loss": row["loss"]} for row in rows if "reward" in row]


# ---- a person changes the recipe -------------------------------------------------------------------------------------

THIRD = '''
def digits_reward(completions, **columns):
    """Share of characters that are digits."""
    texts = [completion[0]["content"] for completion in completions]
    return [sum(character.isdigit() for character in text) / max(len(text), 1) for text in texts]
'''


@pytest.mark.slow
def test_a_third_reward_is_a_function_in_the_cell_and_a_name_with_a_weight(made, workshop, tmp_path):
    """Nothing else is changed, and curves, explorer, pass rates, warnings, report and resume cope."""
    notebook = nbformat.read(ROOT / "notebooks" / "05_grpo.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "def accuracy_reward" in cell.source)
    cell.source += THIRD
    changed = tmp_path / "05_grpo.ipynb"
    nbformat.write(notebook, changed)
    env = workshop["env"] | {"JPY_SESSION_NAME": str(changed)}  # as JupyterLab sets it
    values = {"run": "third", "max_steps": 4, "stop_window": 20,
              "mask_truncated_completions": False,  # of a random model every completion is cut off
              "reward_funcs": ["digits_reward", "format_reward", "accuracy_reward"],
              "reward_weights": [0.5, 1.0, 1.0], "pass_rate_candidates": 0}  # fmt: skip
    values |= {name: f"outputs/tiny/{stage}" for name, stage in
               {"data_stage": "01_data", "filtering_stage": "03_filtering", "sft_stage": "04_sft"}.items()}  # fmt: skip
    result = alone(workshop | {"env": env}, "05_grpo", tmp_path, values, notebook=changed)
    assert result.returncode == 0, result.stderr
    stage = workshop["outputs"] / "third" / "05_grpo"
    rows = [row for row in read_metrics(stage) if "reward" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert any(row["rewards/digits_reward/mean"] > 0 for row in rows)
    for row in rows:  # the weighted sum, with the reward that judges the answer neither first nor last
        parts = [row[f"rewards/{name}/mean"] for name in values["reward_funcs"]]
        assert row["reward"] == pytest.approx(0.5 * parts[0] + parts[1] + parts[2], abs=1e-5)
        assert "watch/agreement" in row
    table = rollouts.read_rollouts(stage, 4)
    assert {f"rewards/{name}" for name in values["reward_funcs"]} <= set(table)
    assert table["reward"][0] == pytest.approx(0.5 * table["rewards/digits_reward"][0])
    weights = (stage / "model" / "model.safetensors").read_bytes()

    # The same cells again: nothing is trained. Another body of the function: trained again.
    log = (stage / "train.log").stat().st_size
    again = alone(workshop | {"env": env}, "05_grpo", tmp_path, values, notebook=changed)
    assert again.returncode == 0 and (stage / "train.log").stat().st_size == log
    before = (stage / "manifest.json").read_bytes()
    cell.source = cell.source.replace("character.isdigit()", "character.isalpha()")
    nbformat.write(notebook, changed)
    refused = alone(workshop | {"env": env}, "05_grpo", tmp_path, values, notebook=changed)
    assert refused.returncode != 0 and "05_grpo is complete and stays; changed since: train.py" in refused.stderr
    assert (stage / "manifest.json").read_bytes() == before and (stage / "model" / "model.safetensors").exists()
    env |= {"FINR1_REPLACES": "True"}  # as `finr1 run` does
    edited = alone(workshop | {"env": env}, "05_grpo", tmp_path, values, notebook=changed)
    assert edited.returncode == 0, edited.stderr
    assert "changed: train.py" in (tmp_path / "out.ipynb").read_text("utf8")
    assert (stage / "model" / "model.safetensors").read_bytes() != weights
    report = alone(workshop, "07_report", tmp_path, {"run": "third", "grpo_stage": "outputs/third/05_grpo"})
    assert report.returncode == 0, report.stderr
    page, summary = ((workshop["outputs"] / "third" / "07_report" / name).read_text("utf8")
                     for name in ("report.html", "summary.txt"))  # fmt: skip
    assert "digits" in page
    first = f"{made / '06_benchmark'} was not made from {stage} as it is now"  # it measured another GRPO
    assert summary.startswith(first) and first in page and page.index(first) < page.index("Summary</h2>")
