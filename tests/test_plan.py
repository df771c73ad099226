"""Memory, work and cost of a preset, against numbers that are known or counted by hand."""

from __future__ import annotations

import math
import shutil

import pytest
from tiny_model import make_tiny_model

from finr1 import pipeline, plan
from finr1.__main__ import main
from finr1.params import STAGES, ParameterError
from finr1.paths import repository_root
from finr1.pipeline import load_preset
from finr1.plan import training_memory as memory
from finr1.run import Run

GIB = 2**30
ROOT = repository_root()

# As the models' cards state them; norms and biases are left out.
SIZES = [
    ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
    ("Qwen/Qwen2.5-72B-Instruct", 72_706_203_648),
    ("SmolLM2-135M-Instruct", 134_515_008),
]


@pytest.mark.parametrize("name, size", SIZES, ids=[row[0] for row in SIZES])
def test_a_known_models_parameters_are_counted(name, size):
    assert plan.shape_of(name).parameters == pytest.approx(size, rel=0.001)


def test_the_adapters_parameters_are_pefts(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / "tiny")
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainable, _ = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).get_nb_trainable_parameters()
    params = preset("demo")["04_sft"].model_copy(update={"peft": "lora", "lora_r": 4})
    parts = memory(plan.shape_of(str(folder)), params, 50, 100, None)
    assert parts["gradients"] * GIB == pytest.approx(4 * trainable)


@pytest.mark.parametrize("family", ["Qwen3Config", "LlamaConfig"])
def test_a_model_that_nobody_listed_is_counted_from_its_config(tmp_path, family):
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 100, "head_dim": 32, "tie_word_embeddings": False}  # fmt: skip
    config = getattr(transformers, family)(**sizes)
    config.save_pretrained(tmp_path)
    counted = transformers.AutoModelForCausalLM.from_config(config).num_parameters()
    assert plan.shape_of(str(tmp_path)).parameters == pytest.approx(counted, rel=0.01)  # a small model has many norms


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


SEVEN = plan.shape_of("Qwen2.5-7B")
# changes of paper's SFT -> share of the 16 bytes for each parameter
STRATEGIES = [
    ({"num_processes": 1, "distributed": "ddp", "bf16": False}, 1),
    ({"num_processes": 8, "distributed": "ddp", "bf16": False}, 1),
    ({"num_processes": 8, "distributed": "fsdp2"}, 1 / 8),
    ({"num_processes": 8, "distributed": "zero3"}, 1 / 8),
]


@pytest.mark.parametrize("changes, share", STRATEGIES)
def test_weights_gradients_and_optimizer_are_split_as_the_strategy_says(changes, share):
    parts = memory(SEVEN, preset("paper")["04_sft"].model_copy(update=changes), 64, 128, 80.0)
    of_each = SEVEN.parameters * share / GIB
    assert [parts[name] for name in ("weights", "gradients", "optimizer")] == pytest.approx(
        [4 * of_each, 4 * of_each, 8 * of_each]
    )


def test_adapters_cost_less_and_four_bits_less_again():
    params = preset("single_gpu")["04_sft"]
    sums = {
        peft: sum(memory(SEVEN, params.model_copy(update={"peft": peft}), 100, 4096, 80.0).values())
        for peft in ("full", "lora", "qlora")
    }
    assert sums["full"] > 100 > sums["lora"] > 15 > sums["qlora"] > 5


def test_checkpointing_saves_activations_and_costs_a_pass():
    params = preset("paper")["04_sft"]
    without = params.model_copy(update={"gradient_checkpointing": False})
    parts = [memory(SEVEN, each, 100, 16384, 80.0)["activations"] for each in (params, without)]
    assert parts[1] > 5 * parts[0]
    flops = [work("paper", f"04_sft.gradient_checkpointing={how}")["04 SFT"]["exaFLOPs"] for how in ("true", "false")]
    assert flops[0] / flops[1] == pytest.approx(4 / 3)


def work(name: str, *changes: str) -> dict:
    """Stage -> row."""
    return {row["stage"]: row for row in plan.make_plan(name, changes)["costs"]}


def test_training_flops_are_six_times_the_parameters_and_attention():
    update, length = work("demo", "05_grpo.peft=full", "05_grpo.beta=0")["05 GRPO update"], 75 + 50
    expected = 6 * 134_515_008 + 6 * 30 * 576 * length  # 12 L H s / 2: each token looks back on half of the row
    assert update["exaFLOPs"] * 1e18 == pytest.approx(update["trained"] * expected, rel=0.001)


def test_what_samples_before_it_trains_needs_the_larger_of_the_two():
    grpo = preset("single_gpu")["05_grpo"]
    sampled, alone = (
        memory(SEVEN, each, 3000, 5000, 80.0) for each in (grpo, grpo.model_copy(update={"use_vllm": True}))
    )
    assert sampled["activations"] > alone["activations"] and (sampled["vLLM"], alone["vLLM"]) == (0, pytest.approx(24))


def test_the_plan_counts_what_the_preset_asks_for():
    demo = preset("demo")
    written = {stage: row["written"] for stage, row in work("demo").items()}
    grpo, benchmark = demo["05_grpo"], demo["06_benchmark"]
    tries, answer = grpo.pass_rate_candidates * grpo.pass_rate_samples, plan.SOLUTION
    assert written["05 GRPO samples"] == (grpo.max_steps / grpo.num_iterations * grpo.batch_size + tries) * answer
    models = 3 + (benchmark.zero_stage is not None) + len(benchmark.other_models)
    answers = models + (models - 1) * benchmark.num_samples  # of an item
    assert written["06 benchmark"] == benchmark.num_items * answers * answer


def test_a_teacher_behind_an_endpoint_costs_money_and_no_hours():
    teacher = work("paper")["02 teacher"]
    assert teacher["cost"] > 1 and teacher["hours"] == 0


def test_the_presets_fit_the_gpus_that_they_are_made_for():
    assert plan.make_plan("paper")["peak_gib"] <= 80
    assert plan.make_plan("single_gpu", ["gpu_gib=24"])["peak_gib"] <= 24
    assert plan.make_plan("free_gpu", ["gpu_gib=15"])["peak_gib"] <= 14.7  # of a T4
    assert plan.make_plan("paper", ["distributed=ddp"])["peak_gib"] > 80  # 7B in full has to be split


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
    assert made["memory"] == {} and math.isnan(made["peak_gib"])
    samples = work("foreign")["05 GRPO samples"]
    assert math.isnan(samples["hours"]) and samples["written"] > 0
    assert main(["plan", "--preset", "foreign"]) == 0 and "unknown" in capsys.readouterr().out


def test_the_overview_of_a_run_plans_what_the_run_changes(foreign, outputs, monkeypatch):
    """`finr1 run --set` reaches the parameters of 00, whose plan it then is; another change makes 00 stale."""
    seen = []

    def execute(stage, params):
        seen.append((stage, params.changes))
        Run(params).finish({"peak": plan.make_plan(params.preset, params.changes)["peak_gib"]}, outputs=[])

    monkeypatch.setattr(pipeline, "execute", execute)
    for changes in ([], ["05_grpo.max_steps=3"], ["05_grpo.max_steps=3"], ["05_grpo.max_steps=4"]):
        pipeline.run_preset("demo", "x", "00_overview", changes)
    assert seen == [("00_overview", []), ("00_overview", ["05_grpo.max_steps=3"]),
                    ("00_overview", ["05_grpo.max_steps=4"])]  # fmt: skip
    pipeline.run_preset("foreign", "y", "00_overview")  # it does not stop the run


def test_a_judge_may_have_any_name():
    changes = ["judge_backend=endpoint", "judge_base_url=http://localhost:8000/v1", "judge_model=my-judge"]
    judge = work("demo", *changes)["03 judge"]
    assert judge["written"] > 0 and judge["cost"] == judge["hours"] == 0


def test_changes_are_parameters_or_assumptions():
    before, after = work("paper"), work("paper", "05_grpo.max_steps=30", "mfu_train=0.2")
    assert after["04 SFT"]["hours"] == pytest.approx(2 * before["04 SFT"]["hours"])
    assert after["05 GRPO samples"]["exaFLOPs"] == pytest.approx(before["05 GRPO samples"]["exaFLOPs"] / 10)
    with pytest.raises(ParameterError, match="demmo"):
        plan.make_plan("demmo")


def test_the_command_prints_the_plan(capsys):
    assert main(["plan", "--preset", "paper"]) == 0
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("on 8 GPUs", "weights", "05 GRPO samples", "hours", "cost", "mfu_train=0.4")
    )
    assert main(["plan", "--preset", "paper", "--set", "mfu_train=fast"]) == 2
    assert main(["plan", "--preset", "paper", "--set", "no_such_name=1"]) == 2
