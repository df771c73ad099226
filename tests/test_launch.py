"""From the notebook's recipe to `train.py`: the cells as they were run, and when a training is outdated."""

from __future__ import annotations

import linecache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from finr1 import launch
from finr1.__main__ import main
from finr1.launch import notebook_file, recipe_script
from finr1.params import STAGES

MAKE = "def make_trainer(params, stage_dir):\n    return scale * 1"


def write(path: Path, *recipe: str, title: str = "# 04 SFT") -> Path:
    cells = [new_markdown_cell(title), new_code_cell("run = 'x'", metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source, metadata={"tags": ["recipe"]}) for source in recipe]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def script(namespace: dict | None = None) -> str:
    return recipe_script("04_sft", STAGES["04_sft"], namespace)


def in_kernel(namespace: dict, source: str, name: str) -> None:
    """Run a cell as IPython does: its source can be found by its file name."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), namespace)
    namespace.setdefault("In", [""]).append(source)


def test_the_script_is_the_tagged_cells_and_a_line_that_trains(project):
    write(project / "notebooks" / "04_sft.ipynb", "import math\n\nscale = 2", MAKE)
    text = script()
    assert "import math" in text and MAKE in text and "run = 'x'" not in text
    assert text.endswith("    child_main(make_trainer, SFTParams)\n")
    module: dict = {"__name__": "not main"}
    exec(compile(text, "train.py", "exec"), module)
    assert module["make_trainer"](None, None) == 2


def test_a_cell_that_was_run_and_not_saved_is_written_as_it_was_run(project):
    write(project / "notebooks" / "04_sft.ipynb", "import math\n\nscale = 2", MAKE)
    kernel: dict = {}
    in_kernel(kernel, "import math\nimport re\n\nscale = 2", "cell-1")
    in_kernel(kernel, MAKE.replace("* 1", "* 5"), "cell-2")
    in_kernel(kernel, MAKE.replace("* 1", "* 7"), "cell-3")
    text = script(kernel)
    assert "* 7" in text and "* 5" not in text and "* 1" not in text and "import re" in text


def test_a_class_of_a_cell_is_written_as_it_was_run_and_not_as_one_that_is_like_it(project):
    look, probe = (f"class {name}:\n    def __init__(self):\n        self.n = 1\n" for name in ("Look", "Probe"))
    write(project / "notebooks" / "04_sft.ipynb", look, probe, MAKE)
    kernel: dict = {"__name__": "__main__"}
    in_kernel(kernel, look.replace("= 1", "= 5"), "cell-1")
    in_kernel(kernel, probe.replace("= 1", "= 7"), "cell-2")
    text = script(kernel)
    assert [text.count(told) for told in ("class Look", "class Probe", "n = 5", "n = 7", "n = 1")] == [1, 1, 1, 1, 0]


def test_jupyters_notebook_counts_where_it_is_this_stages(project, monkeypatch):
    own = write(project / "notebooks" / "04_sft.ipynb", MAKE)
    copy = write(project / "mine" / "my_sft.ipynb", MAKE)
    other = write(project / "notebooks" / "09_ablation.ipynb", title="# 09 Ablation")
    for session, expected in ((copy, copy), (other, own), (project / "gone.ipynb", own)):
        monkeypatch.setenv("JPY_SESSION_NAME", str(session))
        assert notebook_file("04_sft") == expected


@pytest.mark.parametrize(
    ("changes", "folder", "told"),
    [
        ({"MASTER_ADDR": None, "NODE_RANK": None}, "04_sft", "not set: NODE_RANK, MASTER_ADDR;"),
        ({"MASTER_PORT": "many"}, "04_sft", "MASTER_PORT: 'many'"),
        ({"MASTER_PORT": "99999"}, "04_sft", "MASTER_PORT: '99999'"),
        ({}, "01_data", "join takes a folder 04_sft or 05_grpo"),
        ({}, "", "join takes a folder 04_sft or 05_grpo"),
    ],
)
def test_a_node_that_cannot_join_is_told_why(tmp_path, monkeypatch, capsys, changes, folder, told):
    for name, value in ({"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "x", "MASTER_PORT": "9"} | changes).items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert main(["join", str(tmp_path / folder)]) == 2
    assert told in capsys.readouterr().err


def test_a_node_does_not_wait_for_ever(tmp_path, monkeypatch, capsys):
    for name, value in {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "JOIN_HOURS", 1e-9)
    assert main(["join", str(tmp_path / "04_sft")]) == 1
    out, err = capsys.readouterr()
    assert "waiting for the trainer of 04_sft at 127.0.0.1:9" in out and "no trainer at 127.0.0.1:9" in err
