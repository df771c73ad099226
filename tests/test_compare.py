"""Two runs side by side: hand-made runs of a few items, whose differences and intervals are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from recipes import cells
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from finr1 import manifest
from finr1.evaluation import remark
from finr1.params import CompareParams, ParameterError
from finr1.paths import run_folder
from finr1.records import write_jsonl
from finr1.run import Run


def answers(
    right: list[int | None], model: str = "base", decoding: str = "greedy", prompt: str = "p", **more
) -> list[dict]:
    """One answer an item: right (1), wrong (0) or undecided (None)."""
    row = {
        "model": model,
        "decoding": decoding,
        "source": "finqa",
        "format": True,
        "finish_reason": "stop",
        "graded_by": "rules",
    }
    return [
        row | {"prompt_sha256": f"{prompt}{i}", "correct": value, "lenient_correct": value} | more
        for i, value in enumerate(right)
    ]


def write_stage(
    folder: Path, parameters: dict, outputs: dict[str, list[dict]], inputs: dict[str, Path] | None = None, **more
):
    """A complete stage with a manifest as `Run.finish` writes it; `more` replaces entries."""
    for name, rows in outputs.items():
        write_jsonl(folder / name, rows)
    described = manifest.describe_outputs(folder, list(outputs))
    sha256 = manifest.digest({name: file["sha256"] for name, file in described.items()})
    hashes = {name: manifest.read_manifest(path)["outputs_sha256"] for name, path in (inputs or {}).items()}
    record = {
        "stage": folder.name, "run": folder.parent.name,
        "parameters": {"run": folder.parent.name, "seed": 1, "judge_backend": "rules", "judge_model": None,
                       "judge_scope": "undecided", **parameters},
        "seed": 1, "outputs": described, "outputs_sha256": sha256, "metrics": {},
        "inputs": hashes,
        "code": {"commit": "0123456789abcdef", "notebook": {"": "b" * 64}, "files": {"finr1/rewards.py": "a" * 64}},
        "versions": {"torch": "2.13.0"}, "hardware": {"cpu": "a cpu", "gpus": []}, "phases_s": {"train": 3.5},
        "peak_memory_gib": {"notebook": 1.0}, "finished": "2026-01-01T10:00:00+00:00", **more,
    }  # fmt: skip
    manifest.write_json(folder / "manifest.json", record)


def make_run(folder: Path, samples: list[dict], learning_rate: float = 1e-5, **more) -> Path:
    """A run of two stages: a training and its benchmark."""
    write_stage(
        folder / "04_sft",
        {"learning_rate": learning_rate},
        {"model.jsonl": [{"w": learning_rate}]},
        **more,
    )
    own = {"sft_stage": f"outputs/{folder.name}/04_sft"}
    write_stage(folder / "06_benchmark", own, {"samples.jsonl": samples}, {"sft_stage": folder / "04_sft"}, **more)
    return folder


def notebook(a: Path, b: Path) -> dict:
    """The names of notebook 10 after it has compared two runs."""
    inputs = {"run_a": a / "06_benchmark", "run_b": b / "06_benchmark"}
    given = {"params": SimpleNamespace(seed=0), "run": SimpleNamespace(inputs=inputs)}
    return cells(
        "10_compare", "read-stages", "measure", "metrics-of-answers", "judges", "compare-metrics", "holm", **given
    )


def difference(tmp_path: Path, first: list[dict], second: list[dict]) -> list[dict]:
    runs = [make_run(tmp_path / name, rows) for name, rows in (("a", first), ("b", second))]
    return notebook(*runs)["metrics"].to_dict("records")


def accuracy(rows: list[dict]) -> dict:
    return next(row for row in rows if row["metric"] == "accuracy")


def test_the_notebook_runs_to_its_end(outputs):
    """Paired and unpaired, judged on one side, and a setting that differs."""
    first = answers([1, 0] * 20) + answers([0, 1] * 20, decoding="sampled", graded_by="judge")
    second = answers([1, 1] * 20) + answers([1, 0] * 15, decoding="sampled", prompt="q")
    make_run(outputs / "a", first)
    make_run(outputs / "b", second, learning_rate=1e-3)
    file = Path(__file__).parent.parent / "notebooks" / "10_compare.ipynb"
    names: dict = {}
    for cell in nbformat.read(file, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"run_a": "a", "run_b": "b"}
    text = (outputs / "comparison" / "10_compare" / "comparison.txt").read_text("utf8")
    assert "learning_rate" in text and "0.001" in text and "unpaired" in text and "A judge graded" in text
    assert (outputs / "comparison" / "10_compare" / "manifest.json").exists()


# ---- the numbers -----------------------------------------------------------------------------------------------------


def test_the_same_prompts_are_compared_item_by_item(tmp_path):
    before, after = [1] * 10 + [0] * 30, [1] * 8 + [0] * 2 + [1] * 16 + [0] * 14  # 16 gained, 2 lost
    row = accuracy(difference(tmp_path, answers(before), answers(after)))
    assert row["paired"] and (row["n_a"], row["n_b"]) == (40, 40)
    assert (row["a"], row["b"], row["difference"]) == pytest.approx((0.25, 0.6, 0.35))
    assert row["p"] == pytest.approx(binomtest(16, 18).pvalue, abs=0.001)  # by flipped signs, drawn
    assert 0 < row["low"] < 0.35 < row["high"] and remark(row) == ""


def test_other_items_are_compared_unpaired_with_newcombes_interval(tmp_path):
    row = accuracy(difference(tmp_path, answers([1] * 56 + [0] * 14), answers([1] * 48 + [0] * 32, prompt="q")))
    assert not row["paired"] and (row["n_a"], row["n_b"]) == (70, 80)
    # Newcombe 1998, table II (a), method 10: 56/70 - 48/80 is 0.2 with 0.0524 to 0.3339
    assert (-row["high"], -row["low"]) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_part_of_the_items_is_paired_on_that_part_and_an_overlap_is_not(tmp_path):
    long, short = answers([1, 0] * 20), answers([1, 1] * 10)
    row = accuracy(difference(tmp_path / "part", long, short))
    assert row["paired"] and (row["n_a"], row["n_b"]) == (20, 20) and row["a"] == 0.5
    overlap = answers([1, 1] * 10)[10:] + answers([0] * 10, prompt="q")
    row = accuracy(difference(tmp_path / "overlap", long, overlap))
    assert not row["paired"] and (row["n_a"], row["n_b"]) == (40, 20)


def test_an_answer_that_one_run_could_not_grade_leaves_its_item_out_of_both(tmp_path):
    row = accuracy(difference(tmp_path, answers([1, 0, None, 1, 0]), answers([1, 1, 1, None, 0])))
    assert row["paired"] and row["n_a"] == row["n_b"] == 3 and row["difference"] == pytest.approx(1 / 3)


def test_several_answers_an_item_are_one_item(tmp_path):
    first = answers([0, 0, 1, 1] * 5, decoding="sampled") + answers([0, 1, 0, 1] * 5, decoding="sampled")
    row = accuracy(difference(tmp_path, first, answers([1] * 20, decoding="sampled") * 2))
    assert row["n_a"] == 20 and row["a"] == 0.5 and row["p"] < 0.01


def test_constant_values_make_no_nonsense():
    measure = cells("10_compare", "measure", params=SimpleNamespace(seed=0))["measure"]
    row = measure(pd.Series([0.0] * 4), pd.Series([0.0] * 5), paired=False)
    assert row["low"] < 0 < row["high"] and (row["difference"], row["p"]) == (0, 1)


def test_p_values_are_corrected_together_and_the_verdict_follows_the_correction(tmp_path):
    before, after = [0] * 40, [1] * 6 + [0] * 34  # 6 of 40 gained, p = 0.031: alone beyond the noise
    first = answers(before) + answers(before, model="sft")
    second = answers(after) + answers(before, model="sft")
    rows = difference(tmp_path, first, second)
    assert [row["p_holm"] for row in rows] == pytest.approx(multipletests([row["p"] for row in rows], method="holm")[1])
    row = accuracy(rows)
    assert row["low"] > 0 and row["p"] < 0.05 < row["p_holm"] and remark(row) == "noise among so many"


def test_a_difference_inside_the_noise_is_called_so(tmp_path):
    rows = difference(tmp_path, answers([1, 0] * 20), answers([1, 0] * 19 + [1, 1]))
    assert remark(accuracy(rows)) == "inside the noise"


JUDGE = {"judge_backend": "endpoint", "judge_model": "J", "judge_scope": "undecided"}


@pytest.mark.parametrize(
    ("judges", "graded", "compared"),
    [
        ((None, "J"), ("rules", "judge"), False),
        (("J", "K"), ("judge", "judge"), False),
        (("J", "J"), ("judge", "judge"), True),
        (("J", "J"), ("rules", "judge"), True),  # nothing was open in the one run
        ((None, "J"), ("rules", "rules"), True),  # the judge had nothing to grade
    ],
)
def test_rules_and_a_judge_are_not_compared(tmp_path, judges, graded, compared):
    runs = []
    for name, judge, who, right in zip("ab", judges, graded, ([1, 0, 0, 0], [1, 1, 1, 0]), strict=True):
        own = JUDGE | {"judge_model": judge} if judge else {}
        write_stage(tmp_path / name / "06_benchmark", own, {"samples.jsonl": answers(right, graded_by=who)})
        runs.append(tmp_path / name)
    metrics = set(notebook(*runs)["metrics"]["metric"])
    assert ("accuracy" in metrics) is compared and {"lenient", "format"} <= metrics


# ---- the runs --------------------------------------------------------------------------------------------------------


def test_a_run_is_named_by_folder_or_by_path(outputs, tmp_path, monkeypatch):
    inside, outside = make_run(outputs / "a", answers([1, 0])), make_run(tmp_path / "elsewhere" / "a2", answers([1, 0]))
    monkeypatch.chdir(tmp_path)
    assert run_folder("a") == run_folder("outputs/a") == run_folder(str(inside)) == inside
    assert run_folder("elsewhere/a2") == run_folder("./elsewhere/a2/") == run_folder(str(outside)) == outside
    params = CompareParams(run="c", seed=1, run_a="a", run_b=str(outside))
    assert Run(params).inputs == {"run_a": inside / "06_benchmark", "run_b": outside / "06_benchmark"}


def test_a_run_that_was_moved_keeps_its_own_stages(outputs, tmp_path):
    moved = tmp_path / "archive" / "old"
    shutil.move(make_run(outputs / "a", answers([1, 0])), moved)
    assert list(notebook(moved, moved)["stages"]["A"]) == ["04_sft", "06_benchmark"]


def test_a_run_that_is_not_there_or_not_complete_is_named(outputs):
    made = make_run(outputs / "good_b", answers([1, 0]))
    with pytest.raises(ParameterError, match="run_b = .*good_bb.*not a complete stage"):
        Run(CompareParams(run="c", seed=1, run_a="good_b", run_b="good_bb"))
    (made / "06_benchmark" / "manifest.json").unlink()
    with pytest.raises(ParameterError, match="--run good_b --until 06_benchmark"):
        Run(CompareParams(run="c", seed=1, run_a="good_b", run_b="good_b"))


def test_runs_that_share_no_model_are_an_error(tmp_path):
    runs = [make_run(tmp_path / m, answers([1, 0], model=m)) for m in ("base", "grpo")]
    with pytest.raises(AssertionError, match="no model answered"):
        notebook(*runs)


def test_two_equal_runs_differ_nowhere(tmp_path):
    run = make_run(tmp_path / "a", answers([1, 0] * 4))
    rows = notebook(run, run)["metrics"]
    assert not rows["difference"].any() and rows["inside_noise"].all()


def test_what_chance_is_worth_stands_beside_each_run_by_source(outputs):
    a, b = make_run(outputs / "a", answers([1, 0])), make_run(outputs / "b", answers([1, 1]))
    worth = answers([1, 0, 0, 0], model="constant", decoding="none")
    write_jsonl(b / "06_benchmark" / "chance.jsonl", [row | {"problem_id": row["prompt_sha256"]} for row in worth])
    benchmarks = {"A": a / "06_benchmark", "B": b / "06_benchmark"}
    table = cells("10_compare", "chance", benchmarks=benchmarks)["worth"]
    assert table.to_dict() == {"B": {("finqa", "constant"): "25.0"}}  # A was made before there was such a file
    assert cells("10_compare", "chance", benchmarks={"A": a / "06_benchmark"})["worth"].empty
