"""Memory, work and cost of a preset, against numbers that are known or counted by hand."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from tiny_model import make_tiny_model

from finr1 import pipeline, plan
from finr1.__main__ import main
from finr1.params import STAGES, ParameterError
from finr1.paths import repository_root
from finr1.pipeline import load_preset
from finr1.run import Run

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


@pytest.mark.parametrize("family", ["Qwen3Config", "LlamaConfig"])
def test_a_model_that_nobody_listed_is_counted_from_its_config(tmp_path, family):
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 100, "head_dim": 32, "tie_word_embeddings": False}  # fmt: skip
    config = getattr(transformers, family)(**sizes)
    config.save_pretrained(tmp_path)
    counted = transformers.AutoModelForCausalLM.from_config(config).num_parameters()
    assert plan.shape_of(str(tmp_path)).parameters == pytest.approx(counted, rel=0.002)  # Qwen3's norms of q and k


@pytest.mark.parametrize("made", ["nothing", "mixture", "strange"])
def test_a_shape_that_nobody_can_tell_is_unknown_and_no_error(tmp_path, made):
    from transformers import Qwen3MoeConfig

    if made == "mixture":  # the formulas are for one dense MLP
        Qwen3MoeConfig().save_pretrained(tmp_path)
    if made == "strange":
        (tmp_path / "config.json").write_text('{"model_type": "of-tomorrow"}', "utf8")
    assert plan.shape_of(str(tmp_path)) is None and plan.shape_of("someone/something") is None


def preset(name: str) -> dict:
    return load_preset(name, name, list(STAGES))


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
    params = preset("paper")["04_sft"].model_copy(update=changes)
    shape = plan.shape_of("Qwen2.5-7B")
    parts = plan.sft_memory(shape, params, gpu=True, length=128)
    gathered = {"ddp": 0.0, "zero3": 2 * 1e9, "fsdp2": 4 * (shape.linear_parameters / 28 + 152064 * 3584)}
    weights = parts["weights"] - gathered[params.distributed] / GIB
    assert (weights, parts["gradients"], parts["optimizer"]) == pytest.approx(expected)


def test_adapters_cost_less_and_four_bits_less_again():
    params, shape = preset("single_gpu")["04_sft"], plan.shape_of("Qwen2.5-7B")
    sums = {
        peft: sum(plan.sft_memory(shape, params.model_copy(update={"peft": peft}), gpu=True).values())
        for peft in ("full", "lora", "qlora")
    }
    assert sums["full"] > 100 > sums["lora"] > 15 > sums["qlora"] > 5


def test_a_qlora_adapter_is_bf16_with_its_gradient_and_moments():
    params, shape = preset("single_gpu")["04_sft"], plan.shape_of("Qwen2.5-7B")
    adapter = shape.adapter_parameters(params.lora_r) / GIB
    four, sixteen = (
        plan.sft_memory(shape, params.model_copy(update={"peft": peft}), gpu=True) for peft in ("qlora", "lora")
    )
    assert (four["gradients"], four["optimizer"]) == pytest.approx((2 * adapter, 4 * adapter))
    assert (sixteen["gradients"], sixteen["optimizer"]) == pytest.approx((4 * adapter, 8 * adapter))


def test_checkpointing_saves_activations_and_costs_a_pass():
    params, shape = preset("paper")["04_sft"], plan.shape_of("Qwen2.5-7B")
    without = params.model_copy(update={"gradient_checkpointing": False})
    parts = [plan.sft_memory(shape, each, gpu=True)["activations"] for each in (params, without)]
    assert parts[1] > 5 * parts[0]
    flops = [plan.training("x", shape, each, rows=1, length=1000).compute for each in (params, without)]
    assert flops[0] / flops[1] == pytest.approx(4 / 3)


def test_training_flops_are_six_times_the_parameters_and_attention():
    params, shape = preset("demo")["05_grpo"], plan.shape_of("SmolLM2-135M-Instruct")
    full = params.model_copy(update={"peft": "full", "gradient_checkpointing": False})
    expected = 6 * 134_515_008 + 6 * 30 * 576 * 100  # 12 L H s / 2: each token looks back on half of the row
    assert plan.training("x", shape, full, rows=1, length=100).compute == pytest.approx(100 * expected)


def test_the_plan_counts_what_the_preset_asks_for():
    demo = preset("demo")
    work = {item.stage: item for item in plan.make_plan("demo").work}
    grpo, benchmark = demo["05_grpo"], demo["06_benchmark"]
    assert work["05 GRPO generate"].written == grpo.max_steps / grpo.num_iterations * grpo.batch_size * 50
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)
    assert work["06 benchmark"].written == benchmark.num_items * (1 + benchmark.num_samples) * models * 50
    rates = {"sample": 100.0, "train": 200.0}
    written = work["05 GRPO generate"].written
    assert work["05 GRPO generate"].minutes_here(rates) >= written / 100 / 60


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


@pytest.fixture
def foreign(project):
    """A preset `foreign` whose model nobody knows, beside the real ones."""
    shutil.copytree(ROOT / "params", project / "params", dirs_exist_ok=True)
    shutil.copytree(project / "params" / "demo", project / "params" / "foreign")
    for path in (project / "params" / "foreign").glob("*.yaml"):
        text = path.read_text("utf8").replace("SmolLM2-135M-Instruct", "nobody/Unknown-3B")
        path.write_text(text.replace("preset: demo", "preset: foreign"), "utf8")
    return project


def test_a_model_of_unknown_shape_has_a_plan_in_words(foreign, capsys):
    made = plan.make_plan("foreign")
    assert made.memory == {} and math.isnan(made.peak_gib)
    by_stage = {row["stage"]: row for row in made.costs}
    assert math.isnan(by_stage["05 GRPO generate"]["hours"]) and by_stage["05 GRPO generate"]["written"] > 0
    assert math.isnan(made.work[-1].minutes_here({"sample": 1.0, "train": 1.0}))
    assert "the shape of nobody/Unknown-3B is unknown" in plan.advice(made, 0, 16.0)[0]
    rows = {row["preset"]: row["fits"] for row in plan.presets_here(0, 16.0)}
    assert (rows["foreign"], rows["demo"], rows["paper"]) == ("unknown", "yes", "no")
    assert main(["plan", "--preset", "foreign"]) == 0 and "unknown" in capsys.readouterr().out
    assert main(["plan", "--preset", "foreign", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["costs"][-1]["hours"] is None


def test_a_preset_with_a_fault_breaks_no_other_plan(foreign):
    with (foreign / "params" / "foreign" / "05_grpo.yaml").open("a") as file:
        file.write("no_such_name: 1\n")
    assert [row["fits"] for row in plan.presets_here(0, 16.0) if row["preset"] == "foreign"] == ["unknown"]


def test_the_overview_of_a_run_plans_what_the_run_changes(foreign, outputs, monkeypatch):
    """`finr1 run --set` reaches the parameters of 00, whose plan it then is; another change makes 00 stale."""
    seen = []

    def execute(stage, params):
        seen.append((stage, params.changes))
        Run(params).finish({"peak": plan.make_plan(params.preset, params.changes).peak_gib}, outputs=[])

    monkeypatch.setattr(pipeline, "execute", execute)
    for changes in ([], ["05_grpo.max_steps=3"], ["05_grpo.max_steps=3"], ["05_grpo.max_steps=4"]):
        pipeline.run_preset("demo", "x", "00_overview", changes)
    assert seen == [("00_overview", []), ("00_overview", ["05_grpo.max_steps=3"]),
                    ("00_overview", ["05_grpo.max_steps=4"])]  # fmt: skip
    pipeline.run_preset("foreign", "y", "00_overview")  # it does not stop the run


def test_a_local_judge_may_have_any_name():
    changes = ["judge_backend=endpoint", "judge_base_url=http://localhost:8000/v1", "judge_model=my-judge"]
    (judge,) = [row for row in plan.make_plan("demo", changes).costs if row["stage"] == "03 judge"]
    assert judge["written"] > 0 and judge["API cost"] == 0


def test_changes_are_parameters_or_assumptions():
    before, after = plan.make_plan("paper"), plan.make_plan("paper", ["05_grpo.max_steps=30", "mfu_train=0.2"])
    assert after.assumptions.mfu_train == 0.2
    hours, flops = (
        [{row["stage"]: row[key] for row in each.costs} for each in (before, after)] for key in ("hours", "exaFLOPs")
    )
    assert hours[1]["04 SFT"] == pytest.approx(2 * hours[0]["04 SFT"])
    assert flops[1]["05 GRPO generate"] == pytest.approx(flops[0]["05 GRPO generate"] / 10)
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
