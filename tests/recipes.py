"""Cells of a notebook in a test: those of the recipe as `launch` writes them to `train.py`, and any other by its id."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat

from finr1 import child, launch
from finr1.params import STAGES, Params
from finr1.records import Trace


def recipe(stage: str) -> ModuleType:
    """A fresh module each time: a test may change what is in it."""
    module = ModuleType(f"recipe_{stage}")
    exec(_code(stage), module.__dict__)
    return module


@functools.cache
def _code(stage: str):
    return compile(launch.recipe_script(stage, STAGES[stage]), f"{stage}/train.py", "exec")


def cell_of(stage: str, name: str) -> ModuleType:
    """The import cell of a notebook and the cell tagged `recipe` that defines the function `name`."""
    cells = nbformat.read(launch.notebook_file(stage), 4).cells
    imports = next(cell for cell in cells if cell.id == "cell-01")
    (recipe,) = (c for c in cells if "recipe" in c.metadata.get("tags", []) and f"def {name}(" in c.source)
    module = ModuleType(f"cell_{stage}")
    exec(f"{imports.source}\n{recipe.source}", module.__dict__)
    return module


def make_trainer(params: Params, stage_dir: Path):
    return recipe(params.stage).make_trainer(params, stage_dir)


def train(params: Params, stage_dir: Path, make=make_trainer) -> None:
    """As the child process does it."""
    child.train(make, params, stage_dir)


def cells(notebook: str, *ids: str, **names: Any) -> dict[str, Any]:
    """The import cell of a notebook and the cells `ids`, run in this order with `names` given; all names after it."""
    file = Path(__file__).parent.parent / "notebooks" / f"{notebook}.ipynb"
    sources = {cell.id: cell.source for cell in nbformat.read(file, 4).cells}
    for cell in ("cell-01", *ids):
        exec(compile(sources[cell], f"{notebook}, {cell}", "exec"), names)
    return names


@functools.cache
def rules_judge() -> dict[str, Any]:
    """What notebook 03 defines to judge by rules, and by a model."""
    return cells("03_filtering", "scores", "rules-words", "rules-conclusion", "rules-score", "score-prompt")


def score_reasoning(trace: Trace) -> Any:
    return rules_judge()["score_reasoning"](trace)


def score_prompt(trace: Trace) -> str:
    return rules_judge()["score_prompt"](trace)


def read_scores(reply: str) -> Any:
    return rules_judge()["read_scores"](reply)
