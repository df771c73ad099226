"""SFT and GRPO on a tiny random model: what is learned from, what is saved, what is warned about."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from recipes import cells, make_trainer, recipe, train

from finr1 import cpu, curation, rewards, synthetic, teacher, training, watch
from finr1.params import GRPOParams, SFTParams
from finr1.params.base import read_flat_yaml
from finr1.paths import repository_root
from finr1.records import write_jsonl

SMALL = {
    "max_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "eval_problems": 2,
    "warmup_steps": 0, "save_steps": 1, "run": "r",
}  # fmt: skip


@pytest.fixture
def folders(outputs, tiny):
    """A run's folders with SFT and RL rows, and the tiny model where the SFT stage would leave its own."""
    problems = synthetic.generate_problems(40, "train", seed=1)
    write_jsonl(outputs / "r" / "03_filtering" / "sft.jsonl", curation.sft_rows(teacher.derived_traces(problems[:8])))
    write_jsonl(outputs / "r" / "05_grpo" / rewards.TRAIN_FILE, curation.rl_rows(problems[8:]))
    (outputs / "r" / "04_sft").mkdir(parents=True)
    (outputs / "r" / "04_sft" / "model").symlink_to(tiny)
    return outputs / "r"


def demo(params_class, **changes):
    values = read_flat_yaml(repository_root() / "params" / "demo" / f"{params_class.stage}.yaml").values
    values |= {name: 0 for name in ("sample_steps", "eval_steps") if name in values}  # they need problems of dev
    return params_class(**(values | SMALL | changes))


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_sft_saves_a_plain_model_that_has_learned(folders, tiny, peft):
    from transformers import AutoModelForCausalLM

    params = demo(SFTParams, model_name_or_path=str(tiny), peft=peft, bf16=False, learning_rate=1e-2)
    train(params, folders / "03_filtering")
    saved = folders / "03_filtering" / "model"
    assert not (saved / "adapter_config.json").exists()
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tiny, saved))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not (folders / "03_filtering" / "checkpoints").exists()


@pytest.mark.slow
def test_qlora_trains_on_this_cpu_and_saves_a_merged_model(folders, tiny):
    params = demo(SFTParams, model_name_or_path=str(tiny), peft="qlora", bf16=True)
    train(params, folders / "03_filtering")
    config = json.loads((folders / "03_filtering" / "model" / "config.json").read_text())
    assert "quantization_config" not in config


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_the_sampling_copy_is_the_policy(folders, tiny, peft):
    """After an update, the bf16 copy that samples must have the policy's weights, adapter included."""
    params = demo(GRPOParams, peft=peft, num_generations=4, max_completion_length=4)
    trainer = make_trainer(params, folders / "05_grpo")
    policy = trainer.accelerator.unwrap_model(trainer.model)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    trainer.rollout_func._refresh(policy)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected, copied = policy(ids).logits, trainer.rollout_func.model(ids).logits.float()
    assert torch.allclose(expected, copied, atol=0.1 * expected.abs().max().item())
    assert torch.equal(expected.argmax(-1), copied.argmax(-1))


def test_a_rollout_gives_each_prompt_its_own_completion(folders):
    params = demo(GRPOParams, peft="full", num_generations=4, max_completion_length=6)
    trainer = make_trainer(params, folders / "05_grpo")
    prompts = [row["prompt"] for row in list(trainer.train_dataset)[:3]]
    out = trainer.rollout_func(prompts, trainer)
    texts = trainer.processing_class.batch_decode(out["prompt_ids"])
    assert all(prompt[-1]["content"] in text for prompt, text in zip(prompts, texts, strict=True))
    assert all(1 <= len(ids) <= 6 for ids in out["completion_ids"])


def test_long_prompts_are_sampled_in_pieces_with_the_same_result(folders, monkeypatch):
    """Where the policy samples itself; a copy computes each prompt once, other engines know nothing of the setting."""
    inputs = {"input_ids": torch.randint(5, 200, (4, 21)), "attention_mask": torch.ones(4, 21, dtype=torch.long)}
    inputs["attention_mask"][0, :9] = 0
    found, widths = [], []
    for pieces in (4, 512):
        monkeypatch.setattr(cpu, "PREFILL_TOKENS", pieces)
        params = demo(GRPOParams, num_generations=4, max_completion_length=6, bf16=False)
        trainer = make_trainer(params, folders / "05_grpo")
        embed = trainer.model.get_input_embeddings()
        embed.register_forward_hook(lambda _, args, __: widths.append(args[0].shape[1]))
        torch.manual_seed(0)
        found.append(trainer.model.generate(**inputs, generation_config=trainer.generation_config))
    assert torch.equal(*found)
    assert widths[:6] == [4, 4, 4, 4, 4, 1] and 21 in widths
    trainer = make_trainer(demo(GRPOParams, num_generations=4, bf16=True), folders / "05_grpo")
    assert trainer.generation_config.prefill_chunk_size is None


def test_zero_starts_from_the_base_model_and_its_first_step_is_told_by_micro_batches(folders, tiny, capsys):
    params = demo(GRPOParams, num_generations=4, sft_stage=None, model_name_or_path=str(tiny), bf16=False,
                  per_device_train_batch_size=2, gradient_accumulation_steps=4)  # fmt: skip
    assert training.start_model(params) == str(tiny) and "sft_stage" not in params.inputs()
    (folders / "04_sft" / "model").unlink()
    train(params, folders / "05_grpo")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("first step: ")]
    assert told[0] == "first step: 0/4 micro-batches" and len(told) == 4, told  # the fourth is in the row of the step
    assert re.fullmatch(r"first step: 3/4 micro-batches, at most \d:\d\d:\d\d to its end", told[3])
    assert (folders / "05_grpo" / "model" / "model.safetensors").exists()
    given = demo(GRPOParams, num_generations=4)
    assert training.start_model(given) == str(folders / "04_sft" / "model")


def test_rewards_are_chosen_by_name_and_one_of_them_judges_the_answer():
    cells = vars(recipe("05_grpo"))
    names = ["format_reward", "accuracy_reward"]
    assert [f.__name__ for f in rewards.choose_rewards(names, cells)] == names
    with pytest.raises(ValueError, match="no function langage_reward .*there are format_reward, accuracy_reward"):
        rewards.choose_rewards(["format_reward", "langage_reward"], cells)
    with pytest.raises(ValueError, match="accuracy_reward and gated_reward both say"):
        rewards.choose_rewards(["accuracy_reward", "gated_reward"], cells)


def pass_rates(rows: list[dict], texts: list[str]) -> dict[str, float]:
    """What notebook 05 makes of two answers to each row; not a number where no answer could be graded."""
    names = cells(
        "05_grpo", "cell-12b", candidates=rows, tries=[SimpleNamespace(tagged=text) for text in texts],
        params=SimpleNamespace(pass_rate_samples=2), accuracy=recipe("05_grpo").accuracy_reward, verifier=None,
    )  # fmt: skip
    return names["rates"].to_dict()


def test_pass_rates_count_right_answers_by_row():
    rows = curation.rl_rows(synthetic.generate_problems(2, "train", seed=1))
    first, second = (row["id"] for row in rows)
    right = f"\\boxed{{{rows[0]['solution']}}}"
    assert pass_rates(rows, [right, "no", "no", "no"]) == {first: 0.5, second: 0.0}
    rows[1]["solution"] = "not readable"
    rates = pass_rates(rows, [right, right, "no", "no"])
    assert rates[first] == 1.0 and math.isnan(rates[second])
    assert pass_rates([], []) == {}


WARNINGS = [
    ({"frac_reward_zero_std": 0.9}, "no spread"),
    ({"completions/clipped_ratio": 0.8}, "max_completion_length"),
    ({"entropy": 0.01}, "exploring"),
    ({"verifier/failed": 0.2}, "no verdict on 20%"),
    ({"reward": 0.1}, "fell from 1 to 0.1"),
    ({"reward": None, "entropy": None, "verifier/failed": 1.0}, "no verdict on 100%"),
    ({"watch/repetition": 0.8}, "3-grams"),
    ({"watch/no_reasoning": 0.9}, "without reasoning"),
    ({"watch/agreement": 0.1}, "gated_reward"),
    ({"completions/mean_length": 200.0}, "grew from 40 to"),
    ({"completions/mean_length": 5.0}, "shrank from 40 to"),
]


@pytest.mark.parametrize("late, words", WARNINGS, ids=[row[1] for row in WARNINGS])
def test_a_run_that_goes_wrong_is_warned_about(late, words):
    healthy = {"reward": 1.0, "entropy": 1.0, "frac_reward_zero_std": 0.1, "completions/clipped_ratio": 0.0}
    healthy |= {"watch/repetition": 0.05, "watch/no_reasoning": 0.02, "watch/agreement": 0.6}
    healthy |= {"completions/mean_length": 40.0}
    assert watch.run_warnings([healthy] * 8) == []
    (warning,) = watch.run_warnings([healthy] * 6 + [healthy | late] * 2)
    assert words in warning


def test_a_wrong_number_of_processes_is_refused():
    class Trainer:
        class accelerator:
            num_processes = 1

    with pytest.raises(RuntimeError, match="num_processes = 2"):
        training.check_processes(Trainer, 2, "ddp")
