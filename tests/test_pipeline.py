"""The pipeline on small made-up notebooks: what runs, what is skipped, and what a person reads when something fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from conftest import ROOT, demo_values
from finished import finish

from finr1 import manifest, pipeline
from finr1.__main__ import main
from finr1.params import STAGES, ParameterError, SFTParams
from finr1.params.base import read_flat_yaml
from finr1.pipeline import NotebookFailed
from finr1.run import Run, read_manifest

PRESET = {
    "00_overview": demo_values("00_overview", run="tiny", seed=1, preset="tiny"),
    "01_data": demo_values(
        "01_data", run="tiny", seed=1, num_train=8, num_dev=4, num_test=4, benchmark_names=["synthetic"]
    ),
    "02_distillation": demo_values("02_distillation", run="tiny", seed=1),
}
LAST = "02_distillation"
START = """
from finr1.params import STAGES
from finr1.run import Run
params = STAGES[{stage!r}].from_notebook(globals())
run = Run(params)
"""
FINISH = """
run.path("rows.jsonl").write_text(str(getattr(params, "num_train", 0)) + chr(10))
run.finish({}, outputs=["rows.jsonl"])
"""


@pytest.fixture
def tiny(project: Path, outputs: Path) -> Path:
    """A project with a preset `tiny` and a notebook for each of its three stages."""
    (project / "notebooks").mkdir()
    (project / "params" / "tiny").mkdir(parents=True)
    for stage, values in PRESET.items():
        (project / "params" / "tiny" / f"{stage}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), "utf8")
        write_notebook(project, stage)
    return project


def write_notebook(project: Path, stage: str, body: str = FINISH) -> None:
    parameters = nbformat.v4.new_code_cell("\n".join(f"{k} = {v!r}  # help" for k, v in PRESET[stage].items()))
    parameters.metadata["tags"] = ["parameters"]
    cells = [parameters, *(nbformat.v4.new_code_cell(text) for text in (START.format(stage=stage), body))]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project / "notebooks" / f"{stage}.ipynb")


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces papermill by a function that does what the notebooks do; the stages that ran, in order."""
    stages = []

    def execute(stage, params):
        stages.append(stage)
        manifest.package_hashes.cache_clear()  # each kernel looks at the package anew
        run = Run(params)
        run.path("rows.jsonl").write_text(f"{getattr(params, 'num_train', 0)}\n", "utf8")
        run.finish({}, outputs=["rows.jsonl"])

    monkeypatch.setattr(pipeline, "execute", execute)
    return stages


def run_tiny(executed: list[str], *changes: str, force: tuple[str, ...] = (), until: str = LAST) -> list[str]:
    executed.clear()
    pipeline.run_preset("tiny", "mine", until, changes, force)
    return list(executed)


# What runs and what is skipped.


def test_stages_run_in_order_and_a_second_time_not_at_all(tiny, executed, capsys):
    assert run_tiny(executed) == ["00_overview", "01_data", "02_distillation"]
    capsys.readouterr()
    assert run_tiny(executed) == []
    assert "skip 01_data: complete and unchanged" in capsys.readouterr().out


def test_until_stops_early_and_a_later_run_goes_on(tiny, executed):
    assert run_tiny(executed, until="01_data") == ["00_overview", "01_data"]
    assert run_tiny(executed) == ["02_distillation"]


@pytest.mark.parametrize(
    ("change", "expected", "reason"),
    [
        ("01_data.num_train=9", ["01_data", "02_distillation"], "its outputs change, so what reads them runs again"),
        ("01_data.num_dev=9", ["01_data"], "its outputs come out the same, so what reads them stays"),
        ("02_distillation.max_tokens=9", ["02_distillation"], "nothing upstream depends on it"),
        ("seed=2", ["01_data", "02_distillation"], "a name without a stage is changed in every stage"),
    ],
)
def test_a_changed_parameter_runs_what_depends_on_it(tiny, executed, change, expected, reason):
    run_tiny(executed)
    planned = run_tiny(executed, change)
    assert planned[0] == "00_overview" and planned[1:] == expected, reason  # 00 plans what the run changes


def test_the_reason_for_running_is_told(tiny, executed, capsys):
    run_tiny(executed)
    run_tiny(executed, "01_data.num_train=9")
    text = capsys.readouterr().out
    assert "run  01_data: changed: num_train 8 -> 9" in text and "run  02_distillation: changed: data_stage" in text


def test_changed_code_of_a_notebook_runs_it_again(tiny, executed):
    run_tiny(executed)
    write_notebook(tiny, "01_data", FINISH + "print(1)")
    assert run_tiny(executed) == ["01_data"]


def test_a_lost_output_runs_its_stage_again(tiny, executed, outputs, capsys):
    run_tiny(executed)
    (outputs / "mine" / "01_data" / "rows.jsonl").unlink()
    assert run_tiny(executed) == ["01_data"]
    assert "run  01_data: rows.jsonl was removed or changed" in capsys.readouterr().out


def test_force_makes_a_stage_again_from_nothing_but_its_answers(tiny, executed, outputs):
    run_tiny(executed)
    for name in ("model.bin", "teacher.answers.jsonl"):
        (outputs / "mine" / "01_data" / name).touch()
    assert run_tiny(executed, force=("01_data",)) == ["01_data"]
    assert not (outputs / "mine" / "01_data" / "model.bin").exists()
    assert (outputs / "mine" / "01_data" / "teacher.answers.jsonl").exists()
    assert run_tiny(executed, force=("all",)) == list(PRESET)


def test_a_changed_package_file_runs_again_what_loaded_it_and_is_named(tiny, package, executed, outputs, capsys):
    run_tiny(executed)
    (package / "unused.py").write_text("2\n", "utf8")
    assert run_tiny(executed) == [], "no stage has loaded it"
    (package / "plotting" / "style.py").write_text("2\n", "utf8")
    assert run_tiny(executed) == list(PRESET)
    assert "run  01_data: changed: finr1/plotting/style.py\n" in capsys.readouterr().out
    (outputs / "mine" / "01_data" / "train_files.json").write_text('{"finr1/sft.py": "a"}', "utf8")
    write_notebook(tiny, "01_data", FINISH + "def make_trainer(): ...")
    assert run_tiny(executed, "01_data.num_dev=5", force=("02_distillation",)) == list(PRESET)
    text = capsys.readouterr().out
    assert "run  01_data: changed: num_dev 4 -> 5, cell `make_trainer` of its notebook, " in text
    (package / "rewards.py").unlink()
    (package / "rewards.yaml").unlink()
    run_tiny(executed, "01_data.num_dev=5")
    assert "run  02_distillation: changed: finr1/rewards.py, finr1/rewards.yaml\n" in capsys.readouterr().out


def test_a_half_trained_stage_is_not_lost_to_a_typo_in_set(tiny, executed, outputs):
    run_tiny(executed)
    folder = outputs / "mine" / "01_data"
    (folder / "manifest.json").unlink()  # killed
    (folder / "checkpoints" / "checkpoint-9").mkdir(parents=True)
    with pytest.raises(ParameterError, match="01_data: .*01_data is half trained and stays; .*num_train 8 -> 9"):
        run_tiny(executed, "01_data.num_train=9", "02_distillation.max_tokens=9")
    assert executed == [] and (folder / "checkpoints").exists()
    assert run_tiny(executed) == ["01_data"], "with the old parameters it resumes"
    (folder / "manifest.json").unlink()
    assert run_tiny(executed, "01_data.num_train=9", force=("01_data",))[1:] == ["01_data", "02_distillation"]
    assert not (folder / "checkpoints").exists()


def test_a_training_that_a_notebook_runs_is_not_replaced_without_being_asked(outputs, monkeypatch):
    """Notebook 09 starts whole runs: there, too, a changed setting destroys no model."""
    sft, asked = SFTParams(**demo_values("04_sft")), []
    for folder in sft.inputs().values():
        finish(folder)
    inputs = {name: read_manifest(folder)["outputs_sha256"] for name, folder in sft.inputs().items()}
    finish(outputs / "demo" / "04_sft", parameters=sft.model_dump(), inputs=inputs, fingerprint="of this")
    monkeypatch.setattr(pipeline, "execute", lambda *_: asked.append(os.environ["FINR1_REPLACES"]))
    changed = SFTParams(**sft.model_dump() | {"lora_r": 8})
    with pytest.raises(ParameterError, match="04_sft is complete and stays; changed since: lora_r 16 -> 8. Name"):
        pipeline.run_stages([changed])
    assert asked == []
    pipeline.run_stages([changed], (), True)
    assert asked == ["True"] and "FINR1_REPLACES" not in os.environ
    (sft.inputs()["filtering_stage"] / "more").touch()
    finish(sft.inputs()["filtering_stage"])
    pipeline.run_stages([sft])  # other inputs: its kernel will refuse, when it sees what they have become
    assert asked == ["True", "False"]


def test_many_changes_are_cut(tiny, executed, capsys):
    run_tiny(executed)
    write_notebook(tiny, "01_data", FINISH + "\n".join(f"def function_{number}(): ..." for number in range(9)))
    run_tiny(executed)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run  01_data: changed")]
    assert "cell `function_0` of its notebook, cell" in told[0] and told[0].endswith(" ...") and len(told[0]) < 350


def test_a_changed_figure_runs_its_notebook_and_does_not_train_again(tiny, package, executed, outputs):
    run_tiny(executed)
    for name in ("model", "train_files.json"):
        (outputs / "mine" / "01_data" / name).write_text("{}", "utf8")
    (package / "plotting" / "style.py").write_text("2\n", "utf8")
    assert run_tiny(executed, until="01_data") == ["00_overview", "01_data"]
    assert (outputs / "mine" / "01_data" / "model").exists()


# What stops before any work.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "01_data.num_trian=9"], "01_data.num_trian: unknown parameter; did you mean 01_data.num_train?"),
        (["--set", "01_data.num_train=many"], '01_data: num_train = "many": should be a valid integer'),
        (["--set", "01_dta.num_train=9"], "01_dta.num_train: unknown parameter; did you mean 01_data.num_train?"),
        (["--set", "num_trian=9"], "num_trian: unknown parameter; did you mean num_train?"),
        (["--set", "num_train"], "num_train: no value; as 05_grpo.max_steps=2"),
        (["--set", "01_data.run=other"], "--run NAME names the run"),
        (
            ["--set", "02_distillation.data_stage=outputs/other/01_data"],
            '02_distillation: data_stage = "outputs/other/01_data": not a complete stage (no manifest.json); '
            "notebooks/01_data.ipynb makes it",
        ),
        (["--set", "teacher_backend=endpoint"], 'teacher_model = None: teacher_backend = "endpoint" needs'),
        (["--preset", "tinny"], '"tinny": no such preset; did you mean tiny?; there are: tiny'),
        (["--run", "../x"], 'run = "../x": should be a plain folder name'),
        (["--until", "02_distil"], "invalid choice: '02_distil' (choose from"),
        (["--force", "03"], "invalid choice: '03' (choose from"),
    ],
)
def test_wrong_arguments_stop_before_any_work(tiny, executed, capsys, arguments, words):
    try:
        code = main(["run", "--preset", "tiny", "--until", LAST, *arguments])
    except SystemExit as stopped:  # by argparse
        code = stopped.code
    error = capsys.readouterr().err
    assert (code, executed) == (2, []) and words in error, error


def test_the_stages_that_a_command_takes_are_those_there_are():
    options = yaml.safe_load((ROOT / "finr1" / "commands.yaml").read_text("utf8"))["run"]["options"]
    assert options["--until"]["choices"] == list(STAGES) and options["--force"]["choices"] == [*STAGES, "all"]


def test_the_problems_of_all_stages_come_together(tiny, executed):
    with pytest.raises(ParameterError) as caught:
        run_tiny(executed, "01_data.num_train=0", "02_distillation.top_p=2")
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["01_data:", "02_distillation:"]


def test_a_missing_key_stops_a_run_that_needs_it_and_no_other(tiny, executed, monkeypatch):
    endpoint = ["teacher_backend=endpoint", "teacher_model=m", "teacher_base_url=http://127.0.0.1:1/v1"]
    with pytest.raises(ParameterError, match="FINR1_API_KEY is not set"):
        run_tiny(executed, *endpoint)
    assert executed == []
    monkeypatch.setenv("FINR1_API_KEY", "any")
    assert run_tiny(executed, *endpoint) == list(PRESET)
    monkeypatch.delenv("FINR1_API_KEY")
    assert run_tiny(executed, *endpoint) == [], "a finished stage needs its key no more"


def test_a_preset_without_a_file_for_each_notebook_is_refused(tiny, executed, capsys):
    (tiny / "params" / "tiny" / "01_data.yaml").unlink()
    assert main(["run", "--preset", "tiny", "--until", LAST]) == 2
    assert "params/tiny/01_data.yaml" in capsys.readouterr().err and executed == []


def test_a_wrong_parameter_is_told_within_five_seconds_and_without_a_traceback(tiny):
    command = [sys.executable, "-m", "finr1", "run", "--preset", "tiny", "--until", LAST, "--set", "num_train=x"]
    started = os.times()
    result = subprocess.run(command, capture_output=True, text=True)
    ended = os.times()  # seconds of work, which do not grow when another test works beside this one
    assert ended.children_user + ended.children_system - started.children_user - started.children_system < 5
    assert result.returncode == 2 and "Traceback" not in result.stderr and 'num_train = "x"' in result.stderr


def test_the_command_line_does_not_import_torch():
    code = (
        "import sys, finr1.pipeline; print({'torch', 'trl', 'transformers', 'papermill', 'pandas'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# Real kernels.


def test_editing_a_file_of_the_package_runs_again_the_notebooks_that_loaded_it(tiny, outputs, monkeypatch):
    shutil.copytree(ROOT / "finr1", tiny / "finr1", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(tiny))

    def run() -> str:
        command = [sys.executable, "-m", "finr1", "run", "--preset", "tiny", "--until", "00_overview"]
        return subprocess.run(command, cwd=tiny, capture_output=True, text=True, check=True).stdout

    assert "run  00_overview: not complete yet" in run()
    for name in ("progress.py", "rewards.py"):  # the kernel loads the first of them
        with (tiny / "finr1" / name).open("a", encoding="utf8") as file:
            file.write("# edited\n")
    assert "run  00_overview: changed: finr1/progress.py\n" in run()
    assert run() == "skip 00_overview: complete and unchanged\n"


def test_notebooks_run_through_papermill_with_every_parameter_injected(tiny, outputs, capsys):
    (tiny / "user" / "kernels" / "python3").mkdir(parents=True)
    spec = '{"argv": ["/no/such/python", "{connection_file}"], "display_name": "theirs", "language": "python"}'
    (tiny / "user" / "kernels" / "python3" / "kernel.json").write_text(spec, "utf8")
    body = FINISH + "import sys; run.path('python.txt').write_text(sys.executable)"
    write_notebook(tiny, "01_data", body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(tiny / "user"))  # a kernel of the same name that somebody installed before
        assert main(["run", "--preset", "tiny", "--run", "mine", "--until", "01_data"]) == 0
    folder = outputs / "mine" / "01_data"
    assert read_manifest(folder)["parameters"] == {**PRESET["01_data"], "run": "mine"}
    assert (folder / "python.txt").read_text("utf8") == sys.executable
    injected = nbformat.read(folder / "01_data.ipynb", 4).cells[1]
    assert injected.source.startswith("# Parameters") and 'run = "mine"' in injected.source
    assert "done 01_data: " in capsys.readouterr().out


def test_papermill_alone_reports_a_parameter_that_does_not_exist(tiny, tmp_path):
    preset = read_flat_yaml(tiny / "params" / "tiny" / "01_data.yaml").values
    with pytest.raises(papermill.PapermillExecutionError, match="num_trian: unknown parameter; did you mean num_train"):
        papermill.execute_notebook(
            tiny / "notebooks" / "01_data.ipynb",
            tmp_path / "out.ipynb",
            parameters={**preset, "num_trian": 9},
            kernel_name="python3",
            language="python",
            progress_bar=False,
        )


def test_progress_of_training_is_stored_once_not_as_a_flood(tiny, outputs):
    body = """
import time
from finr1.progress import ProgressLine, describe

line = ProgressLine()
for step in (1, 2, 3):
    line.show(describe([{"step": step, "max_steps": 3}], step), last=step == 3)
    time.sleep(1)
"""
    write_notebook(tiny, "00_overview", body + FINISH)
    pipeline.run_preset("tiny", "tiny", "00_overview")
    cell = nbformat.read(outputs / "tiny" / "00_overview" / "00_overview.ipynb", 4).cells[-1]
    shown = [output for output in cell.outputs if output.output_type == "display_data"]
    assert len(shown) == 1 and shown[0].data["text/plain"].startswith("step 3/3, ")
    assert sum(len(output.text) for output in cell.outputs if output.output_type == "stream") < 1000


def test_a_failing_notebook_shows_its_own_error_and_leaves_no_manifest(tiny, outputs, capsys):
    write_notebook(tiny, "00_overview", "def divide():\n    return 1 / 0\n\ndivide()")
    assert main(["run", "--preset", "tiny", "--until", LAST]) == 1
    error = capsys.readouterr().err
    assert error.startswith("00_overview failed in cell [4]\n") and "\nZeroDivisionError: division by zero\n" in error
    assert "00_overview/00_overview.ipynb" in error and "The same command again resumes" in error
    assert "\x1b" not in error and error.count("\n") < 20
    assert not (outputs / "tiny" / "00_overview" / "manifest.json").exists()
    assert (outputs / "tiny" / "00_overview" / "00_overview.ipynb").exists()


def test_a_dead_kernel_is_told_as_such(tiny, capsys):
    write_notebook(tiny, "00_overview", "import os; os.write(2, b'a native crash'); os._exit(1)")
    assert main(["run", "--preset", "tiny", "--until", "00_overview"]) == 1
    error = capsys.readouterr().err
    assert "00_overview failed: its kernel died" in error and "a native crash" in error


def test_a_notebook_without_finish_is_not_complete(tiny):
    write_notebook(tiny, "00_overview", "pass")
    with pytest.raises(NotebookFailed, match="not complete .no manifest.json.: its last cell"):
        pipeline.run_preset("tiny", "tiny", "00_overview")


def test_an_interrupted_run_says_how_to_go_on(tiny, outputs):
    write_notebook(tiny, "00_overview", "import time; run.path('started').touch(); time.sleep(600)")
    command = [sys.executable, "-m", "finr1", "run", "--preset", "tiny", "--until", "00_overview"]
    # What a script starts in the background ignores the signal, and hands that on: to these tests, and to this process.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ), **heed)
    while not (outputs / "tiny" / "00_overview" / "started").exists():  # a kernel on a busy machine takes its time
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in error and "the same command again resumes" in error


def test_the_end_prints_the_reports_table_and_its_path_and_never_an_older_runs(tiny, monkeypatch, outputs, capsys):
    folder = outputs / "mine" / "07_report"
    folder.mkdir(parents=True)
    for name, text in (("summary.txt", "base 12.0\n"), ("report.html", "<html>")):
        (folder / name).write_text(text, "utf8")
    finish(folder)
    monkeypatch.setattr(pipeline, "run_stages", lambda *_: None)
    monkeypatch.setattr(pipeline, "load_preset", lambda *_: {})
    for until in pipeline.STAGES:
        pipeline.run_preset("tiny", "mine", until)
        text = capsys.readouterr().out
        whole = until == "07_report"
        assert ("base 12.0" in text) == whole and (f"report: {folder / 'report.html'}" in text) == whole
    pipeline.run_preset("tiny", "mine")
    assert "base 12.0" in capsys.readouterr().out
