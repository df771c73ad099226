"""The dirt that notebook 01 plants: seeded, recorded, audited, and gone before anything is trained on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT, demo_values
from recipes import cells

from finr1.params import DataParams
from finr1.records import Problem, read_jsonl
from finr1.synthetic import generate_problems

SIZES = {"num_train": 260, "num_dev": 52, "num_test": 78}


def cells_after_run() -> list[str]:
    """The code cells of 01 behind the one that makes its `Run`."""
    code = [cell for cell in nbformat.read(ROOT / "notebooks" / "01_data.ipynb", 4).cells if cell.cell_type == "code"]
    made = next(place for place, cell in enumerate(code) if "Run(params)" in cell.source)
    return [cell.id for cell in code[made + 1 :]]


def run_01(folder: Path, **changes) -> tuple[Path, dict]:
    """The whole notebook in this process: its folder and its metrics."""
    finished = {}

    def path(name: str) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        return folder / name

    run = SimpleNamespace(
        path=path, dir=folder, figures=folder, finish=lambda metrics, outputs: finished.update(metrics)
    )
    params = DataParams(**demo_values("01_data", **SIZES | changes))
    cells("01_data", *cells_after_run(), params=params, run=run)
    return folder, finished


@pytest.fixture(scope="module")
def dirty(tmp_path_factory) -> tuple[Path, dict]:
    return run_01(tmp_path_factory.mktemp("dirty"), dirt_share=0.25)


def test_the_problems_are_the_same_with_dirt_and_without(dirty, tmp_path):
    clean, metrics = run_01(tmp_path, dirt_share=0.0)
    assert metrics["dirt"] == [] and (clean / "planted.jsonl").read_text() == ""
    assert (dirty[0] / "problems.jsonl").read_bytes() == (clean / "problems.jsonl").read_bytes()
    problems = list(read_jsonl(clean / "problems.jsonl", Problem))
    assert Counter(p.split for p in problems) == {"train": 260, "dev": 52, "test": 78}
    generated = {p.id: p for split in ("train", "dev") for p in generate_problems(SIZES[f"num_{split}"], split, 42)}
    assert {p.id: p for p in problems if p.split != "test"} == generated


def test_the_audit_counts_what_each_step_found_and_what_slipped_through(dirty):
    folder, metrics = dirty
    rows = [json.loads(line) for line in (folder / "planted.jsonl").read_text("utf8").splitlines()]
    assert Counter(row["kind"] for row in rows) == {row["kind"]: row["planted"] for row in metrics["dirt"]}
    assert {row["planted"] for row in metrics["dirt"]} == {13} and metrics["sound_rows_lost"] == 0
    removed = {(row["kind"], row["removed_by"]) for row in rows}
    assert {kind: step for kind, step in removed if kind not in ("near duplicate", "leak")} == {
        "unreadable row": "readable",
        "contradictory golds": "without bad golds to learn from",
        "exact duplicate": "unique",
    }
    # A short question hides behind a few more words: the steps are neither perfect nor useless.
    found = {row["kind"]: row["found"] for row in metrics["dirt"]}
    assert 0 < found["near duplicate"] < 13 and 0 < found["leak"] < 13
    assert {kind for kind, step in removed if step == "missed"} == {"near duplicate", "leak"}
    stages = {
        stage["stage"]: stage["dropped"] for stage in json.loads((folder / "funnel.json").read_text("utf8"))["stages"]
    }
    missed = sum(row["removed_by"] == "missed" for row in rows)
    assert stages["planted rows taken out"] == {"planted, and missed by the steps": missed}
    # Two leaks of one question are duplicates of each other, too.
    assert stages["unique"]["exact duplicate"] >= 13
    assert sum(stages["unique"].values()) == sum(row["removed_by"] == "unique" for row in rows)


def test_dirt_depends_on_the_seed_alone_and_names_what_it_was_made_from():
    train, dev = (generate_problems(40, split, 1) for split in ("train", "dev"))
    plant = cells("01_data", "plant-dirt")["plant_dirt"]
    lines, made = plant(train, dev, 25, 1)
    assert (lines, made) == plant(train, dev, 25, 1) and lines != plant(train, dev, 25, 2)[0]
    assert Counter(kind for kind, _ in made.values()) == dict.fromkeys(cells("01_data", "plant-dirt")["DIRT"], 5)
    known = {"leak": {p.id for p in dev}}
    assert all(name in known.get(kind, {p.id for p in train}) for kind, name in made.values())
