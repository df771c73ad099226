"""Adapters, merged or not: base, adapter and merged model are one function, and everything downstream loads either."""

from __future__ import annotations

import json

import pytest
import torch
from recipes import make_trainer, train
from test_training import demo
from transformers import BitsAndBytesConfig

from finr1 import curation, models, rewards, synthetic, teacher, training
from finr1.generation import Job, Request, SamplingParams
from finr1.generation.local import TransformersBackend
from finr1.params import GRPOParams, SFTParams
from finr1.records import write_jsonl

IDS = torch.arange(5, 45)[None]
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
SAME = {"atol": 1e-4, "rtol": 1e-4}  # fp32: merging adds B A to W before the product instead of after it


@pytest.fixture
def run(outputs, tiny):
    """A run's folder with the rows of SFT and GRPO."""
    problems = synthetic.generate_problems(24, "train", seed=1)
    write_jsonl(outputs / "r" / "03_filtering" / "sft.jsonl", curation.sft_rows(teacher.derived_traces(problems[:8])))
    write_jsonl(outputs / "r" / "05_grpo" / rewards.TRAIN_FILE, curation.rl_rows(problems[8:]))
    (outputs / "r" / "04_sft").mkdir(parents=True)
    return outputs / "r"


def sft_params(tiny, **changes):
    values = {"model_name_or_path": str(tiny), "peft": "lora", "bf16": False, "learning_rate": 1e-2}
    return demo(SFTParams, **(values | changes))


def save(trainer, tiny, folder, merge: bool) -> None:
    training._save(trainer, sft_params(tiny, merge_adapter=merge), folder, None)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(IDS).logits


def test_base_adapter_and_merged_model_give_the_same_logits(run, tiny, tmp_path):
    trainer = make_trainer(sft_params(tiny), run / "04_sft")
    base = logits(models.load_model(str(tiny)))
    assert torch.equal(logits(trainer.model), base), "a fresh adapter is zero: the base model to the last bit"
    trainer.train()
    adapted = logits(trainer.model)
    assert (adapted - base).abs().max() > 0.1, "it has learned, or the rest of this test shows nothing"
    save(trainer, tiny, tmp_path / "adapter", False)
    save(trainer, tiny, tmp_path / "merged", True)
    loaded, merged = models.load_model(str(tmp_path / "adapter")), models.load_model(str(tmp_path / "merged"))
    assert torch.allclose(adapted, logits(loaded), **SAME) and torch.allclose(adapted, logits(merged), **SAME)
    assert torch.equal(logits(loaded), logits(merged))
    in_bf16 = [logits(models.load_model(str(tmp_path / name), "bfloat16")) for name in ("adapter", "merged")]
    assert torch.equal(*in_bf16), "rounded once, after merging"


def test_an_adapter_on_a_16_bit_base_is_merged_in_fp32(run, tiny, tmp_path):
    """So `merge_adapter` saves the model that merging later gives; a GPU's LoRA has such a base."""
    trainer = make_trainer(sft_params(tiny, peft="lora", bf16=True), run / "04_sft")
    trainer.train()
    base = trainer.model.get_base_model()
    frozen = [weight for weight in base.parameters() if not weight.requires_grad]
    for weight in frozen:
        weight.data = weight.data.bfloat16()
    for name, merge in (("adapter", False), ("merged", True)):
        save(trainer, tiny, tmp_path / name, merge)
    loaded, merged = models.load_model(str(tmp_path / "adapter")), models.load_model(str(tmp_path / "merged"))
    assert torch.equal(logits(loaded), logits(merged))
    in_file = models.load_model(str(tmp_path / "merged"), "auto")
    assert {weight.dtype for weight in in_file.parameters()} == {torch.float32}


@pytest.mark.parametrize("trains", [True, False], ids=["in training", "in evaluation"])
def test_a_4_bit_layer_keeps_its_gradients_after_sampling(run, tiny, trains):
    """On a CPU with AVX512-BF16, bitsandbytes would repack it at the first forward that is not in training."""
    policy = training.load_policy(str(tiny), sft_params(tiny, peft="qlora", bf16=True), NF4)
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    with torch.no_grad():
        policy.train(trains)(IDS)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.named_parameters())
    policy.train()
    policy.get_input_embeddings().weight.requires_grad_()
    policy(IDS).logits.sum().backward()
    assert policy.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_qlora_adapter_is_merged_into_the_unquantised_base(run, tiny, tmp_path):
    """Adapter and merged model are the same; from the 4-bit model that was trained they differ by its rounding."""
    trainer = make_trainer(sft_params(tiny, peft="qlora", bf16=True), run / "04_sft")
    with torch.no_grad(), trainer.model.disable_adapter():
        base = trainer.model(IDS).logits
    with torch.no_grad():
        assert torch.equal(trainer.model(IDS).logits, base), "a fresh adapter is zero"
    trainer.train()
    for name, merge in (("adapter", False), ("merged", True)):
        save(trainer, tiny, tmp_path / name, merge)
    loaded, merged = models.load_model(str(tmp_path / "adapter")), models.load_model(str(tmp_path / "merged"))
    assert torch.equal(logits(loaded), logits(merged)) and not hasattr(loaded.config, "quantization_config")
    rounding = (base.float() - logits(models.load_model(str(tiny)))).abs().mean()
    assert (logits(trainer.model).float() - logits(loaded)).abs().mean() < 2 * rounding
    again = training.load_policy(str(tmp_path / "adapter"), sft_params(tiny, peft="qlora", bf16=True), NF4)
    assert again.is_loaded_in_4bit, "QLoRA can start from an adapter: merged first, quantised then"


@pytest.mark.parametrize("grpo_peft", ["lora", "full"])
def test_an_unmerged_adapter_goes_through_grpo_to_answers(run, tiny, grpo_peft):
    """SFT's adapter -> GRPO with a KL (TRL loads its reference from a folder) -> an adapter on an adapter -> text."""
    train(sft_params(tiny, merge_adapter=False), run / "04_sft")
    first = run / "04_sft" / "model"
    assert (first / "adapter_config.json").exists() and not (first / "model.safetensors").exists()
    params = demo(
        GRPOParams, peft=grpo_peft, merge_adapter=False, bf16=True, beta=0.1, learning_rate=1e-2,
        num_generations=4, max_completion_length=4,
    )  # fmt: skip
    trainer = make_trainer(params, run / "05_grpo")
    start = logits(models.load_model(str(first)))
    assert torch.allclose(logits(trainer.model), start, **SAME)
    in_bf16 = {"atol": 0.02 * start.abs().max().item()}  # the sampling copy's weights, the reference's autocast
    assert torch.allclose(logits(trainer.rollout_func.model).float(), start, **in_bf16)
    if grpo_peft == "full":
        assert torch.allclose(logits(trainer.ref_model), start, **in_bf16)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.add_(0.05 * weight.requires_grad)
    second = run / "05_grpo" / "model"
    training._save(trainer, params, second, None)
    if grpo_peft == "lora":
        assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == str(first)
    (run / "05_grpo" / "checkpoints").rename(run / "removed")  # as after a training
    trained = logits(models.load_model(str(second)))
    assert torch.allclose(trained, logits(trainer.model), **SAME) and (trained - start).abs().max() > 0.1
    answers = TransformersBackend(second, dtype="float32").complete([JOB], GREEDY, lambda: False)
    assert next(answers)[0].text


GREEDY = SamplingParams(temperature=0.0, max_tokens=4, seed=0)
JOB = Job(Request(id="1", messages=[{"role": "user", "content": "What is the growth in percent?"}]), 0, "key")


def test_the_backend_answers_the_same_from_adapter_and_merged_model(run, tiny, tmp_path):
    trainer = make_trainer(sft_params(tiny), run / "04_sft")
    trainer.train()
    texts = []
    for name, merge in (("adapter", False), ("merged", True)):
        save(trainer, tiny, tmp_path / name, merge)
        backend = TransformersBackend(tmp_path / name)
        texts.append(next(backend.complete([JOB], GREEDY, lambda: False))[0].text)
    assert texts[0] == texts[1] != ""


def test_an_adapter_whose_base_is_gone_says_so(run, tiny, tmp_path):
    trainer = make_trainer(sft_params(tiny), run / "04_sft")
    save(trainer, tmp_path / "gone", tmp_path / "adapter", False)
    with pytest.raises(FileNotFoundError, match="gone.*merge_adapter"):
        models.load_model(str(tmp_path / "adapter"))
