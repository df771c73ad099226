"""The ablation: which stages each arm shares, that it goes on, and that its intervals hold seeds and items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp
from tiny_model import make_tiny_model

from finr1 import pipeline, plotting, reported
from finr1.__main__ import main
from finr1.ablation import ARMS, ablation_rows, ablation_steps, mean_over_seeds, read_ablation, render
from finr1.ablation.command import plan_of_seed
from finr1.evaluation import Sample, clustered_interval, wilson_interval
from finr1.manifest import read_manifest
from finr1.records import write_jsonl
from finr1.run import Run

ROOT = Path(__file__).resolve().parent.parent


def sample(model: str, item: str, correct: bool | None, decoding: str = "greedy") -> Sample:
    return Sample(
        model=model, decoding=decoding, problem_id=item, sample=0, source="synthetic", family="f", capability="risk",
        language="en", question="?", gold="1", prompt_sha256=item, text="1", tokens=1, finish_reason="stop",
        answer="1", lenient_answer="1", format=True, correct=correct, lenient_correct=correct,
    )  # fmt: skip


def samples(rates: dict[str, dict[int, float]], items: int = 40, same_items: bool = False) -> dict[int, list[Sample]]:
    """{arm: {seed: share right}} -> seed -> samples; the first items are the right ones."""
    seeds = next(iter(rates.values()))
    return {
        seed: [
            sample(arm, f"{'' if same_items else seed}/{i}", i < round(by_seed[seed] * items))
            for arm, by_seed in rates.items()
            for i in range(items)
        ]
        for seed in seeds
    }


def test_answers_without_a_verdict_and_judged_ones_are_said():
    found = samples({"base": {1: 0.25}, "sft": {1: 0.5}})
    assert "could not be graded" not in render(ablation_rows(found), ablation_steps(found))
    found[1] = [s.model_copy(update={"correct": None}) if n % 4 == 0 else s for n, s in enumerate(found[1])]
    found[1] = [s.model_copy(update={"graded_by": "judge"}) if n % 4 == 1 else s for n, s in enumerate(found[1])]
    rows = ablation_rows(found)
    assert [(row["undecided"], row["judged"], row["n"]) for row in rows] == [(10, 10, 30)] * 2
    text = render(rows, ablation_steps(found))
    assert "20 answers could not be graded" in text and "20 answers are as judged" in text
    marks = {"base": (True, None), "sft": (True, True)}
    lone = [sample(arm, str(item), mark) for arm, both in marks.items() for item, mark in enumerate(both)]
    assert [row["model"] for row in ablation_rows({1: lone})] == ["sft"]


# ---- the intervals ---------------------------------------------------------------------------------------------------


def test_seeds_with_their_own_items_have_the_t_interval_of_their_means():
    """With equally many items a seed and none in common, clustering by seed is a t test on the seeds' means."""
    rng = np.random.default_rng(0)
    shares = {1: 0.2, 2: 0.5, 3: 0.6}
    scores = {(seed, f"{seed}/{i}"): float(rng.random() < share) for seed, share in shares.items() for i in range(50)}
    means = [np.mean([v for (s, _), v in scores.items() if s == seed]) for seed in shares]
    found = mean_over_seeds(scores)
    # statsmodels corrects by (n - 1) / (n - 1) = 1 and S / (S - 1), which is the sample variance of the means over S
    assert found.variance == pytest.approx(np.var(means, ddof=1) / 3)
    expected = ttest_1samp(means, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.p == pytest.approx(ttest_1samp(means, 0).pvalue)


def test_items_that_all_seeds_share_count_once():
    """Three seeds that answer the same items alike are worth one: V is that of the items."""
    answers = [1.0] * 30 + [0.0] * 70
    alone = mean_over_seeds({(1, str(i)): value for i, value in enumerate(answers)})
    thrice = mean_over_seeds({(seed, str(i)): value for seed in (1, 2, 3) for i, value in enumerate(answers)})
    assert thrice.variance == pytest.approx(alone.variance) == pytest.approx(np.var(answers, ddof=1) / 100)
    assert thrice.items == 300 and thrice.seeds == 3


def test_shared_items_add_their_spread_to_that_of_the_seeds():
    """Two-way by hand: V_seed + V_item - V_both, each with its G / (G - 1)."""
    table = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=float)  # (seed, item)
    e = table - table.mean()
    seed, item, both = 3 / 2 * (e.sum(1) ** 2).sum(), 4 / 3 * (e.sum(0) ** 2).sum(), 12 / 11 * (e**2).sum()
    found = mean_over_seeds({(s, str(i)): table[s, i] for s in range(3) for i in range(4)})
    assert found.variance == pytest.approx(max(seed + item - both, item) / 12**2)


def test_seeds_that_happen_to_agree_do_not_make_the_items_more():
    rows = ablation_rows(samples({"sft": {1: 0.25, 2: 0.25, 3: 0.25}}))
    assert rows[0]["spread"] == 0
    width, items_alone = rows[0]["high"] - rows[0]["low"], clustered_interval([1.0] * 30 + [0.0] * 90, 120)
    assert width > items_alone[1] - items_alone[0] > 0


def test_one_seed_has_the_interval_of_its_items():
    rows = ablation_rows(samples({"sft": {7: 0.25}}))
    expected = wilson_interval(39 / 4, 39)  # the variance is the sample's, over n - 1
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx(expected)
    assert rows[0]["spread"] is None and "One seed" in render(rows, [])


def test_an_arm_that_is_never_right_has_an_interval_and_no_difference_to_its_like():
    found = samples({"base": {1: 0.0, 2: 0.0, 3: 0.0}, "zero": {1: 0.0, 2: 0.0, 3: 0.0}})
    row = ablation_rows(found)[0]
    assert row["accuracy"] == row["low"] == 0 and 0 < row["high"] < 0.2
    step = ablation_steps(found)[0]
    assert (step["difference"], step["low"], step["high"], step["p"]) == (0, 0, 0, 1) and step["inside_noise"]


def test_the_interval_over_seeds_holds_the_truth_as_often_as_it_says():
    """Simulated: seeds differ by 5 points, 3 of them with 100 items each; 95 % should cover the mean of all seeds."""
    rng, covered, trials = np.random.default_rng(1), 0, 200
    for _ in range(trials):
        rates = 0.3 + rng.normal(0, 0.05, 3)
        scores = {(s, f"{s}/{i}"): float(rng.random() < rates[s]) for s in range(3) for i in range(100)}
        low, high = mean_over_seeds(scores).share_interval
        covered += low <= 0.3 <= high
    assert 0.92 <= covered / trials <= 1.0


def test_quantiles_are_students_and_for_one_seed_the_normal_one():
    assert mean_over_seeds({(s, f"{s}{i}"): i % 2 for s in range(3) for i in range(4)}).quantile == pytest.approx(
        t.ppf(0.975, 2)
    )
    assert mean_over_seeds({(0, str(i)): i % 2 for i in range(4)}).quantile == pytest.approx(norm.ppf(0.975))


def test_a_mean_needs_two_items():
    with pytest.raises(ValueError, match="got 1"):
        mean_over_seeds({(1, "a"): 1.0})


# ---- the table -------------------------------------------------------------------------------------------------------

PAPERLIKE = {
    "base": {1: 0.0, 2: 0.0, 3: 0.05},
    "zero": {1: 0.1, 2: 0.05, 3: 0.1},
    "sft": {1: 0.3, 2: 0.25, 3: 0.35},
    "grpo": {1: 0.6, 2: 0.55, 3: 0.6},
}


def test_the_table_has_a_row_an_arm_and_paired_steps_by_seed():
    rows, steps = ablation_rows(samples(PAPERLIKE)), ablation_steps(samples(PAPERLIKE))
    assert [row["model"] for row in rows] == list(ARMS)
    assert rows[3]["by_seed"] == pytest.approx({"1": 0.6, "2": 0.55, "3": 0.6})
    assert rows[3]["accuracy"] == pytest.approx(0.5833, abs=1e-4) and (rows[3]["n"], rows[3]["seeds"]) == (120, 3)
    last = next(step for step in steps if (step["before"], step["after"]) == ("sft", "grpo"))
    assert last["by_seed"] == pytest.approx({"1": 0.3, "2": 0.3, "3": 0.25}) and last["n"] == 120
    assert last["low"] < last["difference"] < last["high"] and last["p"] <= last["p_holm"] <= 1
    text = render(rows, steps)
    for word in ("Zero (GRPO only)", "SFT -> SFT + GRPO", "+28.3 [", "seed 3", "degrees"):
        assert word in text
    assert json.dumps([rows, steps], allow_nan=False)


def test_undecided_answers_and_other_models_are_left_out():
    found = {1: [sample("sft", str(i), i > 1) for i in range(9)] + [sample("sft", "9", None), sample("r1", "0", True)]}
    rows = ablation_rows(found)
    assert len(rows) == 1 and rows[0]["n"] == 9 and rows[0]["accuracy"] == pytest.approx(7 / 9)
    assert ablation_steps(found) == []


def test_the_figure_has_a_dot_a_seed_and_keeps_the_papers_numbers_apart():
    plotting.use_style()
    fig = plotting.ablation(ablation_rows(samples(PAPERLIKE)), reported.ablation_rows(), "preset demo")
    left, right = fig.axes
    dots = [line for line in left.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in dots] == [3] * 4
    assert [bar.get_height() for bar in right.patches] == [65.6, 67.8, 71.9, 75.2]
    assert "Not comparable" in fig.get_suptitle() and "3 seeds, n = 120 items" in fig.get_supxlabel()
    plt.close(fig)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def executed(outputs, monkeypatch) -> list[str]:
    """In place of notebooks: stages that are complete at once; a benchmark is right as often as `PAPERLIKE` says."""
    done = []

    def execute(stage, params):
        run = Run(params)
        rows = [{"stage": stage, "run": params.run}]
        if stage == "06_benchmark":
            rows = samples(PAPERLIKE)[params.seed]
        write_jsonl(run.path("samples.jsonl"), rows)
        run.finish({"made": 1}, outputs=["samples.jsonl"])
        done.append(f"{params.run}/{stage}")

    monkeypatch.setattr(pipeline, "execute", execute)
    return done


SEED = ["01_data", "02_distillation", "03_filtering", "04_sft", "05_grpo"]


def test_each_seed_trains_its_arms_on_shared_data_and_the_table_and_report_come_last(executed, outputs, capsys):
    assert main(["ablation", "--preset", "demo", "--run", "x", "--seeds", "3", "1", "2"]) == 0
    expected = []
    for seed in (3, 1, 2):
        expected += [f"x_seed{seed}/{stage}" for stage in SEED]
        expected += [f"x_seed{seed}_zero/05_grpo", f"x_seed{seed}/06_benchmark"]
    assert executed == [*expected, "x_seed3/07_report"]
    table = read_ablation(outputs / "x" / "ablation")
    assert table["seeds"] == [3, 1, 2] and len(table["rows"]) == 4
    printed = capsys.readouterr().out
    assert "Zero (GRPO only)" in printed and "report:" in printed and "skip" not in printed

    executed.clear()
    assert main(["ablation", "--preset", "demo", "--run", "x", "--seeds", "3", "1", "2"]) == 0
    assert executed == []


def test_a_seed_more_or_an_arm_that_is_gone_runs_only_what_is_missing(executed, outputs):
    assert main(["ablation", "--run", "x", "--seeds", "1", "2"]) == 0
    executed.clear()
    (outputs / "x_seed2_zero" / "05_grpo" / "manifest.json").unlink()
    assert main(["ablation", "--run", "x", "--seeds", "1", "2", "3"]) == 0
    of_third = [f"x_seed3/{stage}" for stage in SEED] + ["x_seed3_zero/05_grpo", "x_seed3/06_benchmark"]
    assert executed == ["x_seed2_zero/05_grpo", *of_third, "x_seed1/07_report"]  # same outputs: no benchmark again


def test_zero_differs_from_the_other_arm_in_where_it_starts_and_in_what_would_end_it():
    stages = {(params.run, params.stage): params for params in plan_of_seed("demo", "x", 7, ["05_grpo.max_steps=3"])}
    zero, other = stages["x_seed7_zero", "05_grpo"].model_dump(), stages["x_seed7", "05_grpo"].model_dump()
    differing = {name for name in zero if zero[name] != other[name]}
    assert zero["sft_stage"] is None and zero["seed"] == other["seed"] == 7 and zero["max_steps"] == 3
    assert (zero["data_stage"], zero["filtering_stage"]) == ("outputs/x_seed7/01_data", "outputs/x_seed7/03_filtering")
    assert differing == {"run", "sft_stage", "pass_rate_candidates", "stop_reward", "stop_dead_groups"}
    assert stages["x_seed7", "06_benchmark"].zero_stage == "outputs/x_seed7_zero/05_grpo"


@pytest.mark.parametrize("preset", ["demo", "real_cpu", "single_gpu", "paper"])
def test_every_preset_has_a_plan_for_the_ablation(preset):
    assert len(plan_of_seed(preset, "x", 1)) == 7


WRONG = [
    (["--seeds", "1", "1"], "should be different seeds"),
    (["--seeds", "1", "--set", "seed=3"], "--seeds names the seeds"),
    (["--seeds", "1", "--set", "05_grpo.max_stesp=3"], "did you mean max_steps"),
    (["--seeds", "1", "--set", "nothing=3"], "unknown parameter in every stage"),
    (["--seeds", "1", "--preset", "dmeo"], "did you mean demo"),
    (["--seeds", "1", "--run", "a/b"], "plain folder name"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_arguments_stop_before_any_work(executed, outputs, capsys, arguments, message):
    assert main(["ablation", *arguments]) == 2
    assert message in capsys.readouterr().err and not executed and not list(outputs.iterdir())


def test_a_report_of_an_ablation_that_is_not_there_says_which_command_makes_it(outputs, capsys):
    assert main(["run", "--set", "07_report.ablation_stage=outputs/x/ablation"]) == 2
    assert "`python -m finr1 ablation --preset PRESET --run x` makes it" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_ablation_on_a_tiny_model(tmp_path):
    """The real notebooks, one seed: four arms, a table, a report with its figures; Zero started from the base model."""
    sizes = {
        "model_name_or_path": make_tiny_model(tmp_path / "tiny"), "num_train": 60, "num_dev": 10, "num_test": 10,
        "num_sft": 16, "num_rl": 24, "eval_problems": 2, "eval_max_tokens": 8, "04_sft.max_steps": 1,
        "max_completion_length": 8, "num_generations": 4, "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1, "05_grpo.max_steps": 1, "05_grpo.warmup_steps": 0, "pass_rate_candidates": 0,
        "06_benchmark.num_items": 6, "06_benchmark.max_tokens": 8,
    }  # fmt: skip
    env = os.environ | {"FINR1_OUTPUTS": str(tmp_path / "outputs"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "finr1", "ablation", "--run", "x", "--seeds", "5"]
    command += [f"--set={name}={value}" for name, value in sizes.items()]
    made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert made.returncode == 0, made.stdout + made.stderr
    table = read_ablation(tmp_path / "outputs" / "x" / "ablation")
    assert {row["model"] for row in table["rows"]} == set(ARMS) and {row["n"] for row in table["rows"]} == {6}
    assert set(read_manifest(tmp_path / "outputs" / "x_seed5_zero" / "05_grpo")["inputs"]) == {
        "data_stage",
        "filtering_stage",
    }
    report = tmp_path / "outputs" / "x_seed5" / "07_report"
    assert (report / "figures" / "ablation.png").exists() and (report / "figures" / "ablation_steps.pdf").exists()
    again = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and again.stdout.count("complete and unchanged") == 8
