"""From the notebook's recipe to `train.py`: the cells as they were run, and when a training is outdated."""

from __future__ import annotations

import linecache
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

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


def test_jupyters_notebook_counts_where_it_is_this_stages(project, monkeypatch):
    own = write(project / "notebooks" / "04_sft.ipynb", MAKE)
    copy = write(project / "mine" / "my_sft.ipynb", MAKE)
    other = write(project / "notebooks" / "09_ablation.ipynb", title="# 09 Ablation")
    for session, expected in ((copy, copy), (other, own), (project / "gone.ipynb", own)):
        monkeypatch.setenv("JPY_SESSION_NAME", str(session))
        assert notebook_file("04_sft") == expected
