"""Memory, work and cost of a preset, against numbers that are known or counted by hand."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_model import make_tiny_model

from finr1 import plan
from finr1.__main__ import main
from finr1.params import ParameterError
from finr1.paths import repository_root
from finr1.plan.work import training

GIB = 2**30
ROOT = repository_root()

# As the models' cards state them.
SIZES = [
    ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
    ("Qwen2.5-0.5B", 494_032_768),
    ("Qwen/Qwen2.5-72B-Instruct", 72_706_203_648),
    ("SmolLM2-135M-Instruct", 134_515_008),
]


@pytest.mark.parametrize("name, size", SIZES, ids=[row[0] for row in SIZES])
def test_a_known_models_parameters_are_counted(name, size):
    assert plan.shape_of(name).parameters == size


def test_a_local_models_parameters_are_counted_from_its_config(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / "tiny")
    assert plan.shape_of(str(folder)).parameters == AutoModelForCausalLM.from_pretrained(folder).num_parameters()


def test_the_adapters_parameters_are_pefts(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / "tiny")
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainable, _ = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).get_nb_trainable_parameters()
    assert plan.shape_of(str(folder)).adapter_parameters(4) == trainable


def test_an_unknown_models_shape_is_an_error_that_names_the_known():
    with pytest.raises(ValueError, match="Qwen2.5-7B"):
        plan.shape_of("someone/something")


SEVEN = 7_615_616_512 / GIB
# changes of paper's SFT -> GiB of weights (what is gathered left out), gradients and optimizer, by hand
STRATEGIES = [
    ({"num_processes": 1, "distributed": "ddp", "bf16": False}, (4 * SEVEN, 4 * SEVEN, 8 * SEVEN)),
    ({"num_processes": 8, "distributed": "ddp", "bf16": False}, (4 * SEVEN, 4 * SEVEN, 8 * SEVEN)),
    ({"num_processes": 8, "distributed": "fsdp2"}, (4 * SEVEN / 8, 4 * SEVEN / 8, 8 * SEVEN / 8)),
    ({"num_processes": 8, "distributed": "zero3"}, (2 * SEVEN / 8, 2 * SEVEN / 8, 12 * SEVEN / 8)),
]


@pytest.mark.parametrize("changes, expected", STRATEGIES)
def test_weights_gradients_and_optimizer_are_split_as_the_strategy_says(changes, expected):
    from finr1.plan.memory import _gathered

    params = plan.read_preset("paper")["04_sft"].model_copy(update=changes)
    shape = plan.shape_of("Qwen2.5-7B")
    parts = plan.sft_memory(shape, params, gpu=True, length=128)
    found = (parts["weights"] - _gathered(shape, params) / GIB, parts["gradients"], parts["optimizer"])
    assert found == pytest.approx(expected)


def test_adapters_cost_less_and_four_bits_less_again():
    params, shape = plan.read_preset("single_gpu")["04_sft"], plan.shape_of("Qwen2.5-7B")
    sums = {
        peft: sum(plan.sft_memory(shape, params.model_copy(update={"peft": peft}), gpu=True).values())
        for peft in ("full", "lora", "qlora")
    }
    assert sums["full"] > 100 > sums["lora"] > 15 > sums["qlora"] > 5


def test_a_qlora_adapter_is_bf16_with_its_gradient_and_moments():
    params, shape = plan.read_preset("single_gpu")["04_sft"], plan.shape_of("Qwen2.5-7B")
    adapter = shape.adapter_parameters(params.lora_r) / GIB
    four, sixteen = (
        plan.sft_memory(shape, params.model_copy(update={"peft": peft}), gpu=True) for peft in ("qlora", "lora")
    )
    assert (four["gradients"], four["optimizer"]) == pytest.approx((2 * adapter, 4 * adapter))
    assert (sixteen["gradients"], sixteen["optimizer"]) == pytest.approx((4 * adapter, 8 * adapter))


def test_checkpointing_saves_activations_and_costs_a_pass():
    params, shape = plan.read_preset("paper")["04_sft"], plan.shape_of("Qwen2.5-7B")
    without = params.model_copy(update={"gradient_checkpointing": False})
    parts = [plan.sft_memory(shape, each, gpu=True)["activations"] for each in (params, without)]
    assert parts[1] > 5 * parts[0]
    flops = [training("x", shape, each, rows=1, length=1000).trained_flops for each in (params, without)]
    assert flops[0] / flops[1] == pytest.approx(4 / 3)


def test_training_flops_are_six_times_the_parameters_and_attention():
    params, shape = plan.read_preset("demo")["05_grpo"], plan.shape_of("SmolLM2-135M-Instruct")
    full = params.model_copy(update={"peft": "full", "gradient_checkpointing": False})
    expected = 6 * 134_515_008 + 6 * 30 * 576 * 100  # 12 L H s / 2: each token looks back on half of the row
    assert training("x", shape, full, rows=1, length=100).trained_flops == pytest.approx(100 * expected)


def test_the_plan_counts_what_the_preset_asks_for():
    demo = plan.read_preset("demo")
    work = {item.stage: item for item in plan.make_plan("demo").work}
    grpo, benchmark = demo["05_grpo"], demo["06_benchmark"]
    assert work["05 GRPO generate"].written == grpo.max_steps / grpo.num_iterations * grpo.batch_size * 50
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)
    assert work["06 benchmark"].written == benchmark.num_items * (1 + benchmark.num_samples) * models * 50
    rates = {"sample": 100.0, "train": 200.0}
    written = work["05 GRPO generate"].written
    assert plan.minutes_here(work["05 GRPO generate"], rates) >= written / 100 / 60


def test_a_teacher_behind_an_endpoint_costs_money_and_no_hours():
    (teacher,) = [row for row in plan.make_plan("paper").costs if row["stage"] == "02 teacher"]
    assert teacher["API cost"] > 1 and teacher["hours"] == 0


def test_both_large_presets_fit_what_they_are_made_for():
    assert plan.make_plan("paper").peak_gib <= 80
    assert plan.make_plan("single_gpu", ["gpu_gib=24"]).peak_gib <= 24
    assert plan.make_plan("paper", ["distributed=ddp"]).peak_gib > 80  # 7B in full has to be split


def test_a_7b_model_is_advised_against_without_a_gpu():
    assert any("no GPU" in line for line in plan.advice(plan.make_plan("paper"), 0, 24))
    assert not any("no GPU" in line for line in plan.advice(plan.make_plan("demo"), 0, 24))


def test_a_share_of_vllm_that_is_too_small_is_said():
    small = plan.make_plan("paper", ["vllm_gpu_memory_utilization=0.1"])
    assert any("vllm_gpu_memory_utilization" in line for line in plan.advice(small, 8, 80))
    assert not any("vllm_gpu_memory_utilization" in line for line in plan.advice(plan.make_plan("paper"), 8, 80))


def test_a_preset_of_an_unknown_model_breaks_no_other_plan(project, monkeypatch, capsys):
    from finr1.plan import preset

    shutil.copytree(ROOT / "params", project / "params", dirs_exist_ok=True)
    shutil.copytree(project / "params" / "demo", project / "params" / "foreign")
    for file in ("04_sft.yaml", "05_grpo.yaml"):
        path = project / "params" / "foreign" / file
        path.write_text(path.read_text("utf8").replace("SmolLM2-135M-Instruct", "nobody/Unknown-3B"), "utf8")
    rows = {row["preset"]: row for row in preset.fits_here(0, 16.0)}
    assert rows["foreign"] == {"preset": "foreign", "processes": None, "GiB each": None, "fits": None}
    assert rows["demo"]["fits"] is True and rows["paper"]["fits"] is False
    assert main(["plan", "--preset", "demo"]) == 0
    assert "plan --preset foreign` says why" in capsys.readouterr().out
    assert main(["plan", "--preset", "foreign"]) == 2


def test_a_local_judge_may_have_any_name():
    changes = ["judge_backend=endpoint", "judge_base_url=http://localhost:8000/v1", "judge_model=my-judge"]
    (judge,) = [row for row in plan.make_plan("demo", changes).costs if row["stage"] == "03 judge"]
    assert judge["written"] > 0 and judge["API cost"] == 0


def test_a_gpus_time_ends_when_its_work_is_done(monkeypatch):
    """Kernels run on after the call that asked for them."""
    import torch

    from finr1.plan.machine import _seconds

    done = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    assert _seconds(lambda: done.append("work")) >= 0
    assert done == ["wait", "work", "wait"]


def test_changes_are_parameters_or_assumptions():
    before, after = plan.make_plan("paper"), plan.make_plan("paper", ["05_grpo.max_steps=30", "mfu_train=0.2"])
    assert after.assumptions.mfu_train == 0.2
    hours = [{row["stage"]: row["hours"] for row in each.costs} for each in (before, after)]
    assert hours[1]["04 SFT"] == pytest.approx(2 * hours[0]["04 SFT"])
    assert hours[1]["05 GRPO generate"] == pytest.approx(hours[0]["05 GRPO generate"] / 10)
    with pytest.raises(ParameterError, match="demmo"):
        plan.make_plan("demmo")


def test_the_command_prints_the_plan(capsys):
    assert main(["plan", "--preset", "paper", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory_gib"]["04 SFT"]["weights"] > 0 and found["costs"] and found["presets_here"]
    assert main(["plan", "--preset", "demo"]) == 0
    assert "05 GRPO generate" in capsys.readouterr().out
    assert main(["plan", "--preset", "paper", "--set", "mfu_train=fast"]) == 2
    assert main(["plan", "--preset", "paper", "--set", "no_such_name=1"]) == 2
