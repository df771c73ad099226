"""A person runs a notebook in a real kernel: a typo, other settings under a run that is finished, an older stage."""

from __future__ import annotations

import re
from collections.abc import Iterator

import nbformat
import pytest
from conftest import ROOT
from finished import finish
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = nbformat.read(ROOT / "notebooks" / "01_data.ipynb", 4)
CELLS = {cell.id: cell.source for cell in NOTEBOOK.cells}
SMALL = CELLS["settings"].replace("num_train = 1600", "num_train = 60")


class Lab:
    """A kernel, and cells that are run in it one by one."""

    def __init__(self, client: NotebookClient):
        self.client = client

    def __call__(self, *sources: str) -> str:
        """What the cells print; an error ends them, and is the end of the text."""
        said = ""
        for source in sources:
            cell = nbformat.v4.new_code_cell(source)
            self.client.nb.cells.append(cell)
            try:
                self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
            except CellExecutionError as error:
                return f"{said}{error.ename}: {error.evalue}"
            said += "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
        return said


@pytest.fixture
def lab(outputs, monkeypatch) -> Iterator[Lab]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", resources={"metadata": {"path": ROOT}})
    with client.setup_kernel():
        yield Lab(client)


def start(lab: Lab, settings: str) -> str:
    return lab(settings, CELLS["cell-01"], CELLS["cell-02"], CELLS["cell-03"])


def test_a_typo_is_an_error_on_the_first_run_and_on_a_later_one(lab, outputs):
    typo = SMALL.replace("num_train", "num_trian")
    wrong = "num_trian: unknown parameter; did you mean num_train?"
    said = start(lab, typo)
    assert said.startswith("ParameterError: wrong parameters for 01_data") and wrong in said, said
    assert not (outputs / "mine").exists()
    assert start(lab, SMALL) == ""
    assert wrong in start(lab, typo), "the right value of before still is in the kernel"
    assert start(lab, SMALL) == "" and lab("print(run.params.num_train)") == "60\n"
    assert wrong in lab(SMALL + "\nnum_trian = 50  # a line more", CELLS["cell-03"])
    assert lab(SMALL, "num_trian = 5", CELLS["cell-03"]) == "", "a person's own name, in a person's own cell"


def test_a_finished_stage_survives_other_settings_and_the_ways_on_work(lab, outputs):
    write = "run.path('rows.jsonl').write_text('1'); run.finish({}, outputs=['rows.jsonl'])"
    assert "is complete" in start(lab, SMALL) + lab(write)
    folder = outputs / "mine" / "01_data"
    before = (folder / "manifest.json").read_bytes()
    assert "is complete" in start(lab, SMALL) + lab(write)
    assert (folder / "manifest.json").read_bytes() == before, "looked at"
    larger = SMALL.replace("num_train = 60", "num_train = 90")
    said = start(lab, larger)
    assert re.search("mine/01_data is complete and stays; changed since: num_train 60 -> 90. Name another run", said)
    assert "AttributeError" in lab(write), "nothing after the refused cell has a run to write to"
    assert (folder / "manifest.json").read_bytes() == before and (folder / "rows.jsonl").read_text() == "1"
    assert start(lab, larger.replace('"mine"', '"mine_2"')) == "" and (outputs / "mine_2" / "01_data").exists()
    assert lab(larger, CELLS["cell-03"].replace("Run(params)", "Run(params, overwrite=True)")) == ""
    assert not (folder / "rows.jsonl").exists()


def test_a_notebook_of_ones_own_run_starts_from_the_demo_and_says_so(lab, outputs):
    cells = {cell.id: cell.source for cell in nbformat.read(ROOT / "notebooks" / "02_distillation.ipynb", 4).cells}
    head = [cells[name] for name in ("settings", "cell-01", "cell-02", "cell-03")]
    assert re.search('data_stage = "outputs/mine/01_data": not a complete stage .*01_data.ipynb makes it', lab(*head))
    finish(outputs / "demo" / "01_data")
    assert "outputs/mine has no stages of its own for these yet, so it starts from outputs/demo/01_data\n" in lab(*head)
    assert lab("print(run.inputs['data_stage'])") == f"{outputs / 'demo' / '01_data'}\n"
