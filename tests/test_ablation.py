"""The ablation: which stages each arm makes, intervals over seeds and items, and notebooks 09 and 10 end to end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import papermill
import pytest
from conftest import demo_values
from recipes import cells
from scipy.stats import ttest_1samp

from finr1 import pipeline, plotting, reported
from finr1.evaluation import clustered_interval, wilson_interval
from finr1.manifest import read_manifest, write_json
from finr1.params import AblationParams, BenchmarkParams, ParameterError, Params
from finr1.run import Run

ROOT = Path(__file__).resolve().parent.parent


NOTEBOOK = cells("09_ablation", "cell-05", "variance-of-mean", "mean-over-seeds")
ARMS, mean_over_seeds = NOTEBOOK["ARMS"], NOTEBOOK["mean_over_seeds"]


def plan_of_seed(params: AblationParams, seed: int, arms: dict) -> list[Params]:
    """As notebook 09 plans it, with the arms `arms` in its table."""
    made = cells("09_ablation", "stages-of-seed", "stages-of-arm", "plan-of-seed", params=params, ARMS=arms)
    return made["plan_of_seed"](seed)


def parameters(**changes) -> AblationParams:
    values = {"run": "x", "seed": 5, "num_seeds": 2, "preset": "demo", "arms": ["base", "zero", "sft", "grpo"]}
    return AblationParams(**(values | {"changes": []} | changes))


def series(scores: dict) -> pd.Series:
    return pd.Series(scores).rename_axis(["seed", "item"])


def share(right: int, items: int, seed: int, shared: bool = False) -> dict:
    """(seed, item) -> score: the first items are right; `shared`: every seed has the same items."""
    return {(seed, f"{'' if shared else seed}/{item}"): float(item < right) for item in range(items)}


# ---- the intervals ---------------------------------------------------------------------------------------------------


def test_seeds_with_their_own_items_have_the_t_interval_of_their_means():
    """With equally many items for each seed and none in common, clustering by seed is a t test on the seeds' means."""
    mean = mean_over_seeds(series(share(10, 50, 1) | share(25, 50, 2) | share(30, 50, 3)))
    expected = ttest_1samp([0.2, 0.5, 0.6], 0)
    low, high = expected.confidence_interval(0.95)
    assert (mean["low"], mean["high"], mean["p"]) == pytest.approx((low, high, expected.pvalue))
    assert mean["by_seed"] == pytest.approx({"1": 0.2, "2": 0.5, "3": 0.6})
    assert mean["spread"] == pytest.approx(np.std([0.2, 0.5, 0.6], ddof=1)) and (mean["seeds"], mean["n"]) == (3, 150)


def test_items_that_all_seeds_share_count_once():
    """Three seeds that answer the same items alike are worth one: V is that of the items."""
    from scipy.stats import norm, t

    alone = mean_over_seeds(series(share(30, 100, 1)))
    thrice = mean_over_seeds(series({k: v for seed in (1, 2, 3) for k, v in share(30, 100, seed, shared=True).items()}))
    halves = [(mean["high"] - mean["low"]) / 2 for mean in (alone, thrice)]
    assert halves[0] / norm.ppf(0.975) == pytest.approx(halves[1] / t.ppf(0.975, 2))
    assert halves[0] / norm.ppf(0.975) == pytest.approx((0.3 * 0.7 / 99) ** 0.5)


def test_shared_items_add_their_spread_to_that_of_the_seeds():
    """Two-way by hand: V_seed + V_item - V_both, each with its G / (G - 1)."""
    from scipy.stats import t

    scores = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=float)  # (seed, item)
    e = scores - scores.mean()
    seed, item, both = 3 / 2 * (e.sum(1) ** 2).sum(), 4 / 3 * (e.sum(0) ** 2).sum(), 12 / 11 * (e**2).sum()
    mean = mean_over_seeds(series({(s, str(i)): scores[s, i] for s in range(3) for i in range(4)}))
    assert (mean["high"] - mean["mean"]) / t.ppf(0.975, 2) == pytest.approx(max(seed + item - both, item) ** 0.5 / 12)


def test_seeds_that_happen_to_agree_do_not_make_the_items_more():
    mean = mean_over_seeds(series(share(10, 40, 1) | share(10, 40, 2) | share(10, 40, 3)), share=True)
    items_alone = clustered_interval([1.0] * 30 + [0.0] * 90, 120)
    assert mean["spread"] == 0 and mean["high"] - mean["low"] > items_alone[1] - items_alone[0] > 0


def test_one_seed_has_the_interval_of_its_items():
    mean = mean_over_seeds(series(share(10, 40, 7)), share=True)
    assert (mean["low"], mean["high"]) == pytest.approx(wilson_interval(39 / 4, 39))  # its variance is over n - 1
    assert mean["spread"] is None


def test_an_arm_that_is_never_right_has_an_interval_and_no_difference_to_its_like():
    never = series(share(0, 40, 1) | share(0, 40, 2) | share(0, 40, 3))
    level, change = mean_over_seeds(never, share=True), mean_over_seeds(never)
    assert level["mean"] == level["low"] == 0 and 0 < level["high"] < 0.2
    assert (change["low"], change["high"], change["p"]) == (0, 0, 1)


def test_the_interval_over_seeds_holds_the_truth_as_often_as_it_says():
    """Simulated: seeds differ by 5 points, 3 of them with 100 items each; 95 % should cover the mean of all seeds."""
    rng, covered, trials = np.random.default_rng(1), 0, 100
    for _ in range(trials):
        rates = 0.3 + rng.normal(0, 0.05, 3)
        scores = series({(s, f"{s}/{i}"): float(rng.random() < rates[s]) for s in range(3) for i in range(100)})
        mean = mean_over_seeds(scores, share=True)
        covered += mean["low"] <= 0.3 <= mean["high"]
    assert 0.92 <= covered / trials <= 1.0


@pytest.mark.parametrize("arms", [["base", "zero", "sft", "grpo"], ["paper_loss", "dapo", "利率"]])
def test_the_figure_has_a_dot_for_each_seed_and_keeps_the_papers_numbers_apart(arms):
    plotting.use_style()
    level = mean_over_seeds(series(share(10, 40, 1) | share(15, 40, 2) | share(20, 40, 3)), share=True)
    rows = [{"model": arm, "decoding": how, "accuracy": level["mean"]} | level
            for arm in arms for how in ("greedy", "sampled")]  # fmt: skip
    fig = plotting.beside_the_paper(rows, reported.recipe_rows() if "base" in arms else [], "preset demo", "apart")
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in dots] == [3] * len(rows)
    assert "3 seeds" in fig.axes[0].get_xlabel() and "n = 120" in fig.axes[0].get_yticklabels()[0].get_text()
    assert ("Not comparable" in fig.get_suptitle()) is ("base" in arms)
    fig.canvas.draw()
    plt.close(fig)


# ---- the arms --------------------------------------------------------------------------------------------------------


def test_zero_differs_from_the_preset_in_where_it_starts_and_in_what_would_end_it():
    plan = plan_of_seed(parameters(changes=["05_grpo.max_steps=3"]), 7, ARMS)
    made = {(stage.run, stage.stage): stage for stage in plan}
    assert [run for run, _ in made] == ["x-7"] * 5 + ["x-zero-7", "x-7"]
    zero, other = made["x-zero-7", "05_grpo"].model_dump(), made["x-7", "05_grpo"].model_dump()
    assert zero["sft_stage"] is None and zero["seed"] == other["seed"] == 7 and zero["max_steps"] == 3
    assert (zero["data_stage"], zero["filtering_stage"]) == ("outputs/x-7/01_data", "outputs/x-7/03_filtering")
    differing = {name for name in zero if zero[name] != other[name]}
    selection = {"pass_rate_candidates"} if other["pass_rate_candidates"] else set()
    assert differing == {"run", "sft_stage", "stop_reward", "stop_dead_groups"} | selection
    assert made["x-7", "06_benchmark"].zero_stage == "outputs/x-zero-7/05_grpo"


def test_an_arm_makes_what_it_changes_and_all_that_follows():
    arms = {"hot": {"04_sft.learning_rate": 3e-4}}
    plan = plan_of_seed(parameters(arms=["sft", "grpo", "hot"]), 7, arms)
    own = {stage.stage: stage for stage in plan if stage.run == "x-hot-7"}
    assert list(own) == ["04_sft", "05_grpo"] and own["04_sft"].learning_rate == 3e-4
    assert own["05_grpo"].input_names() == {
        "data_stage": "outputs/x-7/01_data",
        "filtering_stage": "outputs/x-7/03_filtering",
        "sft_stage": "outputs/x-hot-7/04_sft",
    }
    benchmark = plan[-1]
    assert isinstance(benchmark, BenchmarkParams)
    models = {
        "hot_sft": "outputs/x-hot-7/04_sft",
        "hot": "outputs/x-hot-7/05_grpo",
    }  # an SFT of its own is measured, too
    assert benchmark.other_models == [f"{name}={folder}/model" for name, folder in models.items()]
    assert benchmark.input_names()["other_models, hot_sft"] == "outputs/x-hot-7/04_sft"
    assert benchmark.input_names()["other_models, hot"] == "outputs/x-hot-7/05_grpo"  # trained anew: asked anew


@pytest.mark.parametrize("preset", ["demo", "real_cpu", "free_gpu", "single_gpu", "paper"])
def test_every_arm_of_the_notebook_is_a_set_of_parameters_in_every_preset(preset):
    # Of the arms without a second way, the one that a preset is already is none there.
    share = pipeline.load_preset(preset, "x", ["02_distillation"])["02_distillation"].by_parts_share
    arms = {name: changed for name, changed in ARMS.items() if changed != {"02_distillation.by_parts_share": share}}
    plan = plan_of_seed(parameters(preset=preset, arms=["base", *arms]), 1, arms)
    assert len([stage for stage in plan if stage.stage == "05_grpo"]) == 1 + len(arms)
    if preset == "demo":
        assert arms == ARMS and 0 < share < 1
        shares = {p.run: p.by_parts_share for p in plan if p.stage == "02_distillation"}
        assert shares == {"x-1": share, "x-one_way-1": 0.0, "x-longer_way-1": 1.0}
    assert all(
        value is None or isinstance(value, bool | str | int | float | list)
        for a in ARMS.values()
        for value in a.values()
    )
    assert all(set(pair) <= {"base", "sft", "grpo", *ARMS} for pair in NOTEBOOK["STEPS"])


SAME = {"05_grpo.max_steps": demo_values("05_grpo")["max_steps"]}


@pytest.mark.parametrize(
    ("changes", "arms", "message"),
    [
        ({"arms": ["base", "dappo"]}, ARMS, "{'dappo'} not in the table; there are base, zero, sft, grpo, paper_loss"),
        (
            {"arms": ["base", "same"]},
            {"same": SAME},
            "trains nothing else than preset demo",
        ),
        ({"arms": ["base", "typo"]}, {"typo": {"05_grpo.max_stesp": 1}}, "did you mean 05_grpo.max_steps"),
        ({"arms": ["base", "a/b"]}, {"a/b": {"05_grpo.max_steps": 10}}, "plain folder name"),
        ({"preset": "dmeo"}, ARMS, "did you mean demo"),
        ({"changes": ["nothing=3"]}, ARMS, "nothing: unknown parameter"),
    ],
)
def test_wrong_arms_stop_before_any_work(changes, arms, message):
    planning = ["stages-of-seed", "stages-of-arm", "plan-of-seed", "cell-10"]
    with pytest.raises((ParameterError, AssertionError), match=message):
        cells("09_ablation", *planning, params=parameters(**changes), ARMS=arms)


def test_a_seed_more_or_an_arm_that_is_gone_makes_only_what_is_missing(outputs, monkeypatch):
    done = []

    def execute(stage, params):
        run = Run(params)
        (run.path("model") / "weights").parent.mkdir(parents=True, exist_ok=True)
        write_json(run.path("samples.jsonl"), {"stage": stage, "run": params.run})
        run.finish({}, outputs=["samples.jsonl"])
        done.append(f"{params.run}/{stage}")

    monkeypatch.setattr(pipeline, "execute", execute)

    def make(**changes) -> list[str]:
        done.clear()
        params = parameters(**changes)
        pipeline.run_stages([stage for seed in params.seeds for stage in plan_of_seed(params, seed, ARMS)])
        return list(done)

    assert len(make()) == 2 * 7 and make() == []
    (outputs / "x-zero-6" / "05_grpo" / "manifest.json").unlink()
    assert make(num_seeds=3)[0] == "x-zero-6/05_grpo" and len(done) == 1 + 7  # same outputs: no benchmark again
    assert make(arms=["grpo", "zero", "dapo"]) == ["x-dapo-5/05_grpo", "x-5/06_benchmark",
                                                   "x-dapo-6/05_grpo", "x-6/06_benchmark"]  # fmt: skip


@pytest.mark.parametrize(("best", "noise"), [(40, False), (21, True)])
def test_the_arm_that_ends_highest_is_named_with_its_distance(best, noise, capsys):
    right = {"grpo": 10, "one_way": 20, "longer_way": best, "sft": 50, "longer_way_sft": 45}
    scores = {("greedy", name, seed, f"{seed}/{i}"): float(i < count) for name, count in right.items()
              for seed in (1, 2, 3) for i in range(60)}  # fmt: skip
    scores = pd.Series(scores).rename_axis(["decoding", "model", "seed", "item"])
    rows = [{"model": name, "decoding": "greedy", "accuracy": count / 60} for name, count in right.items()]
    given = {"rows": rows, "scores": scores, "mean_over_seeds": mean_over_seeds}
    cells("09_ablation", "highest", params=parameters(arms=["sft", "grpo", "one_way", "longer_way"]), **given)
    said = capsys.readouterr().out
    assert said.startswith("greedy: of 3 arms longer_way ends highest") and "above one_way" in said
    assert ("inside the noise" in said) is noise
    cells("09_ablation", "highest", params=parameters(arms=["sft", "grpo"]), **given)
    assert not capsys.readouterr().out.strip()  # one arm ends


def test_arms_with_an_sft_of_their_own_are_drawn_before_and_after_grpo(tmp_path):
    level = {"guess": 0.1, "constant": 0.12, "sft": 0.4, "grpo": 0.7, "one_way_sft": 0.5, "one_way": 0.3}
    rows = [{"model": name, "decoding": how, "accuracy": value, "low": value, "high": value}
            for name, value in level.items()
            for how in (("none",) if value < 0.2 else ("greedy", "sampled"))]  # fmt: skip
    own = {"one_way_sft": "one_way", "longer_way_sft": "longer_way"}
    given = {"OWN_SFT": own, "run": SimpleNamespace(figures=tmp_path)}
    fig = cells("09_ablation", "before-after", rows=rows, **given)["fig"]
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == ["as the preset", "one way"]
    assert (tmp_path / "before_and_after.png").exists()
    few = [row for row in rows if "one_way" not in row["model"]]
    assert "fig" not in cells("09_ablation", "before-after", rows=few, **given), "one arm alone needs no figure"


# ---- the notebooks ---------------------------------------------------------------------------------------------------

SMALL = {
    "num_train": 60, "num_dev": 10, "num_test": 10, "num_sft": 16, "num_rl": 24, "eval_problems": 2,
    "eval_max_tokens": 8, "04_sft.max_steps": 1, "04_sft.warmup_steps": 0, "max_completion_length": 8,
    "num_generations": 4,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "05_grpo.max_steps": 2,
    "05_grpo.warmup_steps": 0, "pass_rate_candidates": 0, "06_benchmark.num_items": 6, "06_benchmark.max_tokens": 8,
}  # fmt: skip


def run_notebook(name: str, folder: Path, values: dict) -> str:
    """Run a notebook into `folder`; what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    executed = papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb", values,
        cwd=str(ROOT), progress_bar=False, kernel_name="python3", language="python",
    )  # fmt: skip
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


@pytest.mark.slow
def test_notebooks_09_and_10_on_a_tiny_model_train_nothing_twice(tiny, outputs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    changes = [f"{name}={value}" for name, value in SMALL.items()] + [f"model_name_or_path={tiny}"]
    values = {"run": "x", "seed": 5, "num_seeds": 2, "preset": "demo", "arms": ["base", "zero", "grpo", "dapo"]}
    folder = outputs / "x" / "09_ablation"
    printed = run_notebook("09_ablation", folder, values | {"changes": changes})
    assert "done x-zero-6/05_grpo" in printed and "Percent and points. Intervals cover seeds and items" in printed
    table = json.loads((folder / "ablation.json").read_text("utf8"))
    arms = ["base", "zero", "grpo", "dapo"]  # the base model answers greedily alone
    assert [row["model"] for row in table["rows"]] == ["guess", "constant", *arms, *arms[1:]]
    assert len({row["n"] for row in table["rows"]}) == 1 and {row["seeds"] for row in table["rows"]} == {2}
    assert [(step["before"], step["after"]) for step in table["steps"][:4]] == [
        ("base", "zero"), ("base", "grpo"), ("base", "dapo"), ("zero", "grpo")]  # fmt: skip
    assert all(step["p"] <= step["p_holm"] for step in table["steps"])
    assert "inside the noise" in (folder / "ablation.txt").read_text("utf8")
    manifest = read_manifest(folder)
    assert set(manifest["inputs"]) == {"seed5", "seed6"} and "figures/ablation.png" in manifest["outputs"]
    assert set(read_manifest(outputs / "x-zero-5" / "05_grpo")["inputs"]) == {"data_stage", "filtering_stage"}
    assert "other_models, dapo" in read_manifest(outputs / "x-5" / "06_benchmark")["inputs"]

    times = {path: path.stat().st_mtime_ns for path in outputs.glob("x-*/*/manifest.json")}
    printed = run_notebook("09_ablation", folder, values | {"changes": changes})
    assert "\nrun  " not in printed and printed.count("complete and unchanged") == len(times) == 2 * (6 + 2)
    assert times == {path: path.stat().st_mtime_ns for path in outputs.glob("x-*/*/manifest.json")}

    values = {"run": "pair", "seed": 1, "run_a": "x-5", "run_b": "x-6"}
    printed = run_notebook("10_compare", outputs / "pair" / "10_compare", values)
    text = (outputs / "pair" / "10_compare" / "comparison.txt").read_text("utf8")
    assert "unpaired" in text and "inside the noise" in text and "seed" in text
    assert "no metric differs by more than the noise" in printed or " in B, " in printed
    assert len(text) > 1000
