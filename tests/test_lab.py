"""JupyterLab as a person uses it, in a real browser, on a copy of the project and a tiny model.

Needs a Chromium, as tests/test_report_browser.py does. `FINR1_SCREENSHOTS` names a folder for the pictures; without
it they lie in pytest's temporary folder, which a failure names.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from finished import finish
from test_ablation import SMALL as ARM
from test_notebooks import SMALL
from test_report_browser import browser  # noqa: F401  (a fixture)
from test_rollouts import write
from tiny_model import make_tiny_model

from finr1.params import NOTEBOOKS

# Twelve minutes, and a slow machine may not keep its waits: it runs where somebody asks for it, and the gate runs four.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("FINR1_LAB"), reason="FINR1_LAB=1 runs it"),
]
ROOT = Path(__file__).resolve().parent.parent
DATA = {"num_train": 40, "num_dev": 20, "num_test": 20, "benchmark_names": ["synthetic"]}
DESK = {"width": 1280, "height": 900}
ERROR = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']"
# Where a row of a table in sight is taller than one line, and where something stands beyond its output.
WRAPPED = """() => [...document.querySelectorAll('.scroll > table tr')]
    .filter(row => !row.closest('details') && row.getBoundingClientRect().height > 36)
    .map(row => row.innerText)"""
BEYOND = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.getClientRects().length)
    .map(e => [e.scrollWidth, e.clientWidth, e.innerText.slice(0, 200)])"""
PALE = """() => [...document.querySelectorAll('.jp-OutputArea-output :is(td, th, p, h5, summary)')].map(e => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
    let at = e;
    while (at && (rgb(getComputedStyle(at).backgroundColor)[3] ?? 1) === 0) at = at.parentElement;
    const ground = at ? light(rgb(getComputedStyle(at).backgroundColor)) : 1;
    return [Math.abs(ground - light(rgb(getComputedStyle(e).color))), e.innerText.slice(0, 60)];
}).filter(([contrast]) => contrast < 0.3)"""


# ---- a project, its JupyterLab, and a person's hands -----------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy with a run `made` that 04 can train on, and a notebook that shows what GRPO sampled."""
    folder = tmp_path_factory.mktemp("lab") / "project"
    ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.egg-info")
    for name in ("finr1", "notebooks", "params"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "Makefile", "README.md", "constraints.txt", "constraints-vllm.txt"):
        shutil.copy(ROOT / name, folder / name)
    model = make_tiny_model(folder / "tiny")
    set_parameters(folder, "01_data", run="made", **DATA)
    data, filtering = (folder / "outputs" / "made" / stage for stage in ("01_data", "03_filtering"))
    filtering.mkdir(parents=True)
    chat = {"prompt": [{"role": "user", "content": "What is 2 + 3?"}],
            "completion": [{"role": "assistant", "content": "<think>2 + 3 = 5</think><answer>5</answer>"}]}  # fmt: skip
    rows = [json.dumps({"id": f"r{number}"} | chat) for number in range(16)]
    (filtering / "sft.jsonl").write_text("\n".join(rows) + "\n", "utf8")
    finish(filtering)
    set_parameters(
        folder, "04_sft", run="made", model_name_or_path=str(model), max_steps=4000, save_steps=1, sample_steps=0,
        per_device_train_batch_size=2, eval_problems=2, eval_max_tokens=8,
    )  # fmt: skip
    set_parameters(folder, "02_distillation", run="lost", data_stage="outputs/nowhere/01_data")
    explorer_notebook(folder)
    return folder


def set_parameters(folder: Path, stage: str, **values) -> None:
    """Write values into a notebook, as a person changes them."""
    path = folder / "notebooks" / f"{stage}.ipynb"
    notebook = nbformat.read(path, 4)
    for name, value in values.items():
        line = re.compile(rf"(?m)^{name} = (?!above).*?  #")  # "above" stands in a text for papermill
        [cell] = [cell for cell in notebook.cells if cell.cell_type == "code" and line.search(cell.source)]
        cell.source = line.sub(lambda _, new=f"{name} = {value!r}  #": new, cell.source)
    nbformat.write(notebook, path)


def explorer_notebook(folder: Path) -> None:
    """The last cells of notebook 05, on groups that this writes: what a policy says is whatever pays."""
    stage = folder / "outputs" / "shown" / "05_grpo"
    stage.mkdir(parents=True)
    long = "Revenue rose from $120 million to $150 million, and costs from $80 to $90. " * 6 + "What is the growth?"
    for step, rewards in {1: [0.0, 0.0], 4: [1.0, 0.0]}.items():
        write(stage, step, {long: rewards, "合规还是不合规？": [1.0, 1.0]}, id=["a", "a", "b", "b"])
    golds = [
        {"id": "a", "solution": "25%", "answer_kind": "percent"},
        {"id": "b", "solution": "合规", "answer_kind": "label"},
    ]
    (stage / "train.jsonl").write_text("".join(json.dumps(gold) + "\n" for gold in golds), "utf8")
    cells = [
        "from IPython.display import display\nfrom pathlib import Path\nfrom finr1 import plotting, rollouts\n"
        "from finr1.params import GRPOParams, read_flat_yaml",
        f"sampled = rollouts.read_rollouts(Path({str(stage)!r}), 2)\nrollouts.show(sampled, 0)",
        "values = read_flat_yaml(Path('../params/demo/05_grpo.yaml')).values\n"
        "display(plotting.table(GRPOParams(**values | {'run': 'x'}).table(), missing='None'))",
        f"import os\nfrom IPython.display import HTML\nfrom markupsafe import Markup\n"
        f"path = Path({str(stage)!r}) / 'report.html'\npath.write_text('<h1>The report of this run</h1>', 'utf8')",
        next(
            cell.source
            for cell in nbformat.read(ROOT / "notebooks" / "07_report.ipynb", 4).cells
            if cell.id == "page-shown"
        ),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}  # else it is asked
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=kernel)
    nbformat.write(notebook, folder / "notebooks" / "explorer.ipynb")


@pytest.fixture(scope="module")
def lab(project) -> Iterator[str]:
    """Address of the JupyterLab that `make lab` starts."""
    told = subprocess.run(["make", "-n", "lab", f"VENV={sys.prefix}"], cwd=project, capture_output=True, text=True)
    command = told.stdout.strip().splitlines()[-1].split()
    assert command[1] == "lab", told
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none", "recordTiming": False},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, values in settings.items():
        file = project.parent / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), "utf8")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython",
              "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}  # fmt: skip
    env = os.environ | {name: str(project.parent / place) for name, place in places.items()}
    env |= {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    options = ["--no-browser", f"--port={port}", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    with (project.parent / "lab.log").open("w") as log:
        server = subprocess.Popen([*command, *options], cwd=project, env=env, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: urllib.request.urlopen(f"{address}/api").status == 200, 60)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError("waited in vain")


class Person:
    """One browser window on JupyterLab."""

    def __init__(self, browser, address: str, pictures: Path):  # noqa: F811
        self.page, self.address, self.pictures = (
            browser.new_page(viewport={"width": 1280, "height": 900}),
            address,
            pictures,
        )
        self.page.set_default_timeout(60_000)

    def open(self, name: str) -> None:
        """Open a notebook, close all others, and wait for its kernel."""
        self.page.goto(f"{self.address}/lab/tree/notebooks/{name}.ipynb?reset")
        self.page.wait_for_selector(
            ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator[data-status=idle]"
        )
        # The indicator is idle before a kernel has answered, and JupyterLab drops what is run until then.
        self.page.wait_for_function("() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel")
        self.page.evaluate("""async () => {
            const context = window.jupyterapp.shell.currentWidget.sessionContext;
            await context.ready;
            await context.session.kernel.info;
        }""")

    def do(self, command: str, **arguments) -> None:
        """A command of the menus; returns when it is done."""
        self.page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)?.then(() => null)",
                           [command, arguments])  # fmt: skip

    def begin(self, command: str) -> None:
        """A command that goes on while the person does something else."""
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name); }", command)

    def change(self, old: str, new: str) -> None:
        """Click into the cell that holds `old` and type it over."""
        read = "old => window.jupyterapp.shell.currentWidget.content.widgets.map(w => w.model.sharedModel.source)"
        source = self.page.evaluate(f"{read}.find(source => source.includes(old))", old)
        self.page.locator(".jp-CodeCell", has_text=old).first.locator(".cm-line").first.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source.replace(old, new))

    def said(self) -> str:
        """All that the outputs show."""
        return "\n".join(self.page.locator(".jp-OutputArea-output:visible").all_inner_texts())

    def errors(self) -> list[str]:
        return self.page.locator(ERROR).all_inner_texts()

    def run_and_look(self, name: str) -> None:
        """Open a notebook, run all of it without an error, and look at it."""
        self.open(name)
        self.do("notebook:run-all-cells")
        assert self.errors() == [], name
        self.picture(name.rpartition("/")[2])

    def picture(self, name: str) -> None:
        """Look at the notebook at two widths, in light and dark; nothing wraps, nothing is cut, nothing is pale."""
        for theme in ("Light", "Dark"):
            self.do("apputils:change-theme", theme=f"JupyterLab {theme}")
            for width in (1280, 800):
                self.page.set_viewport_size({"width": width, "height": 900})
                self.page.wait_for_timeout(300)
                self.page.screenshot(path=self.pictures / f"{name}-{width}-{theme.lower()}.png")
                if width == 1280:
                    assert self.page.evaluate(WRAPPED) == []
                assert self.page.evaluate(BEYOND) == []
            assert self.page.evaluate(PALE) == []
        self.do("apputils:change-theme", theme="JupyterLab Light")
        self.page.set_viewport_size(DESK)


@pytest.fixture
def person(browser, lab, tmp_path_factory, request) -> Iterator[Person]:  # noqa: F811
    pictures = Path(os.environ.get("FINR1_SCREENSHOTS") or tmp_path_factory.getbasetemp() / "screenshots")
    pictures.mkdir(parents=True, exist_ok=True)
    someone = Person(browser, lab, pictures)
    yield someone
    someone.page.screenshot(
        path=pictures / f"last-{os.environ['PYTEST_CURRENT_TEST'].split('::')[1].split(' ')[0]}.png"
    )
    print(f"screenshots: {pictures}")
    someone.page.close()


# ---- what a person does ----------------------------------------------------------------------------------------------


def test_lab_opens_with_the_notebooks_in_sight_and_the_project_around_them(person):
    person.page.goto(person.address)
    person.page.wait_for_selector(".jp-DirListing-item >> text=05_grpo.ipynb")
    person.page.locator(".jp-BreadCrumbs-home").click()
    for name in ("outputs", "README.md", "notebooks"):
        person.page.locator(f".jp-DirListing-item >> text={name}").first.wait_for()


def test_a_notebook_runs_and_reads_well_and_a_typo_or_a_lost_stage_is_one_message(person, project):
    person.open("01_data")
    person.do("notebook:run-all-cells")
    assert person.errors() == [] and (project / "outputs" / "made" / "01_data" / "manifest.json").exists()
    person.picture("01")
    made = (project / "outputs" / "made" / "01_data" / "manifest.json").read_bytes()
    for old, new, told in (
        ("num_train = 40", "num_trian = 50", "num_trian: unknown parameter"),
        ("num_trian = 50", "num_train = 50", "01_data is complete and stays"),
    ):
        person.change(old, new)
        person.do("notebook:run-all-cells")
        [error] = person.errors()
        assert told in error and "Traceback" not in error
    person.page.locator(ERROR).scroll_into_view_if_needed()
    person.picture("01-refused")
    assert (project / "outputs" / "made" / "01_data" / "manifest.json").read_bytes() == made
    person.open("02_distillation")
    person.do("notebook:run-all-cells")
    [error] = person.errors()
    assert (
        error.startswith("wrong parameters for 02_distillation")
        and "outputs/nowhere/01_data" in error
        and "Traceback" not in error
    )
    person.page.locator(ERROR).scroll_into_view_if_needed()
    person.picture("02-lost")


def test_an_interrupted_training_says_where_it_stands_and_resumes(person, project):
    stage = project / "outputs" / "made" / "04_sft"
    if not (project / "outputs" / "made" / "01_data" / "manifest.json").exists():
        pytest.skip("01 has not run")
    person.open("04_sft")
    person.begin("notebook:run-all-cells")
    wait_until(lambda: (stage / "metrics.jsonl").read_text().count("\n") >= 4, 90)
    person.page.wait_for_selector(".jp-OutputArea-output >> text=/step [0-9]+.4000, loss .* left/")
    watching = [sys.executable, "-m", "finr1", "watch", "made"]
    env = os.environ | {"PYTHONPATH": str(project), "PYTHONUNBUFFERED": "1"}
    watcher = subprocess.Popen(watching, env=env, cwd=project, stdout=subprocess.PIPE, text=True)
    assert "outputs/made/04_sft trains" in watcher.stdout.readline()
    assert re.match(r"step \d+/4000, loss ", watcher.stdout.readline())
    person.do("notebook:interrupt-kernel")
    person.page.wait_for_selector(ERROR)
    [error] = person.errors()
    step, resumes = re.fullmatch(
        r"stopped at step (\d+); run the cell again to resume from checkpoint (\d+)", error.strip()
    ).groups()
    assert int(step) - 1 <= int(resumes) <= int(step)
    assert f"stopped at step {step}" in watcher.communicate(timeout=30)[0]
    person.page.locator(ERROR).scroll_into_view_if_needed()
    person.picture("04-stopped")
    person.page.locator(".jp-CodeCell", has_text="log = launch(").locator(".jp-InputPrompt").click()
    person.page.keyboard.press("Shift+Enter")
    wait_until(
        lambda: int(json.loads((stage / "metrics.jsonl").read_text().splitlines()[-1])["step"]) > int(step) + 2, 90
    )
    steps = [json.loads(line)["step"] for line in (stage / "metrics.jsonl").read_text().splitlines()]
    trained = [step for step in steps if step]
    assert trained == sorted(set(trained))  # from the checkpoint on, none twice
    person.do("notebook:interrupt-kernel")
    person.do("notebook:shutdown-kernel")


def test_the_explorer_by_mouse_and_keyboard_and_without_a_kernel(person, project):
    page = person.page
    person.open("explorer")
    person.do("notebook:run-all-cells")
    page.wait_for_selector(".widget-vbox select")
    assert person.errors() == []
    assert page.locator(".rollouts:visible").count() == 1
    step, question = page.locator(".widget-vbox select").all()
    assert "Gold: 25% (percent)" in person.said()
    step.select_option("4")
    page.wait_for_selector(".widget-vbox >> text=/answer 0 at 4/")
    step.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_until(lambda: question.evaluate("e => e.selectedIndex") == 1, 60)  # the kernel turns the page
    page.wait_for_selector(".widget-vbox >> text=/Gold: 合规 .label./")
    assert page.locator(".widget-vbox .rollouts").count() == 1 and "The report of this run" in (
        page.frame_locator("iframe").locator("h1").inner_text()
    )
    person.picture("explorer")
    page.locator(".jp-OutputArea-output summary").click()
    person.picture("table")
    person.do("docmanager:save")
    person.do("notebook:shutdown-kernel")
    page.goto(f"{person.address}/lab/tree/README.md?reset")
    page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    person.page.goto(f"{person.address}/lab/tree/notebooks/explorer.ipynb?reset")
    page.wait_for_selector(".rollouts")
    page.wait_for_function("() => !document.body.innerText.includes('Loading widget')")  # until a kernel has answered
    page.wait_for_timeout(1500)
    assert page.locator(".rollouts:visible").count() == 1 and page.locator(".rollouts.static:visible").count() == 1
    assert "Error displaying widget" not in person.said() and "Loading widget" not in person.said()
    person.picture("reopened")


def test_every_step_runs_and_reads_well_and_running_a_finished_one_again_changes_nothing(person, project):
    given = SMALL | {"run": "whole", "08_use_the_model.num_items": 2, "serve": [], "gguf_types": []}
    for stage in (*list(NOTEBOOKS)[:9], "11_machine"):  # 00 to 08
        small = {name.removeprefix(f"{stage}."): value for name, value in given.items()}
        small |= {"model_name_or_path": str(project / "tiny")}
        known = NOTEBOOKS[stage].model_fields
        shutil.copy(ROOT / "notebooks" / f"{stage}.ipynb", project / "notebooks")  # tests before this one changed some
        set_parameters(project, stage, **{name: value for name, value in small.items() if name in known})
        person.run_and_look(stage)
        manifest = project / "outputs" / "whole" / stage / "manifest.json"
        made = manifest.read_bytes()
        person.do("notebook:run-all-cells")
        assert person.errors() == [], stage
        if stage not in ("08_use_the_model", "11_machine"):  # which measure speeds anew
            assert manifest.read_bytes() == made, stage
        person.do("notebook:shutdown-kernel")


def test_arms_over_seeds_and_two_runs_side_by_side(person, project):
    """09 trains two arms with two seeds, and 10 compares these seeds."""
    changes = [f"{name}={value}" for name, value in (ARM | {"model_name_or_path": project / "tiny"}).items()]
    arms = {"num_seeds": 2, "arms": ["sft", "grpo"], "changes": changes}
    for stage, given in {"09_ablation": arms, "10_compare": {"run_a": "arms-42", "run_b": "arms-43"}}.items():
        set_parameters(project, stage, run="arms", **given)
        person.run_and_look(stage)
        assert (project / "outputs" / "arms" / stage / "manifest.json").exists()
        person.do("notebook:shutdown-kernel")


@pytest.mark.parametrize("lesson", ["exercises_01", "exercises_05", "failures", "pooled_seeds"])
def test_a_lesson_opens_and_runs_before_anything_is_solved(person, lesson):
    person.run_and_look(f"lessons/{lesson}")
    person.do("notebook:shutdown-kernel")
