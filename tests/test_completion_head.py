"""The CPU's head of the model against TRL's: the same values and gradients, whatever the batch looks like."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config
from trl.trainer.utils import add_fused_lm_head

from finr1 import cpu
from finr1.cpu import add_completion_head
from finr1.models import load_model

VALUES = ("log_probs", "entropy", "is_top1")
#                  tokens of each row, where padding stands, labels of each row (the last so many tokens)
BATCHES = {
    "padded right": ([9, 5, 7], "right", [4, 2, 6]),
    "padded left": ([9, 5, 7], "left", [4, 2, 6]),
    "padding on both sides of all rows": ([5, 4, 5], "both", [2, 3, 1]),
    "all tokens but the first": ([6, 6], "right", [5, 5]),
    "a row without labels": ([6, 4], "left", [3, 0]),
    "no labels at all": ([6, 4], "right", [0, 0]),
}


def batch(lengths: list[int], side: str, labelled: list[int]) -> dict[str, torch.Tensor]:
    width = max(lengths) + (4 if side == "both" else 0)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    generator = torch.Generator().manual_seed(0)
    for row, (length, count) in enumerate(zip(lengths, labelled, strict=True)):
        first = {"right": 0, "left": width - length, "both": 2}[side]
        ids[row, first : first + length] = torch.randint(5, 60, (length,), generator=generator)
        mask[row, first : first + length] = 1
        labels[row, first + length - count : first + length] = ids[row, first + length - count : first + length]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def with_heads(tiny, ours: bool, temperature: float = 1.0, lora: bool = False, **config):
    model = load_model(str(tiny))
    for name, value in config.items():
        setattr(model.config, name, value)
    add_fused_lm_head(model, temperature=temperature, outputs=VALUES)
    if lora:
        torch.manual_seed(0)
        whole = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    if ours:
        add_completion_head(model, temperature)
    return whole if lora else model


def scored(model, inputs):
    outputs = model(**inputs, fused_lm_head=True)
    (-outputs.log_probs.sum()).backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return outputs, torch.cat(gradients)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", BATCHES)
def test_values_and_gradients_are_those_of_trl(tiny, name, temperature, lora):
    inputs = batch(*BATCHES[name])
    expected, their_gradient = scored(with_heads(tiny, False, temperature, lora), inputs)
    found, our_gradient = scored(with_heads(tiny, True, temperature, lora), inputs)
    for value in VALUES:
        assert torch.allclose(getattr(found, value).float(), getattr(expected, value).float(), atol=1e-5), value
    assert torch.equal(found.label_mask, expected.label_mask)
    assert found.loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-5, rtol=1e-4)
    assert bool(our_gradient.norm() > 1e-3) == bool(found.label_mask.any())


GROUPS = [[11, 12, 13], [21, 22, 23, 24, 25]]  # two prompts; rows as a shuffled GRPO batch has them
ANSWERS = [(0, [31, 32]), (1, [41, 42, 43, 44]), (0, [33, 34, 35]), (1, [45]), (0, [31, 32, 36])]


FIRST = [11, 12, 13, 31, 32, 33, 34, 35, 36]  # the last token follows 32
SECOND = [21, 22, 23, 24, 25, 41, 42, 43, 44, 45]
TREES = {"attention is dear": (1, [SECOND, [*FIRST, 0]]), "attention is cheap": (1000, [FIRST + SECOND])}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "gradient_checkpointing"])
@pytest.mark.parametrize("name", TREES)
def test_beginnings_that_rows_share_go_through_the_model_once(tiny, monkeypatch, name, checkpointing, lora):
    dear, expected_trees = TREES[name]
    monkeypatch.setattr(cpu, "TREE", dear)
    rows = [[0] * (5 - len(GROUPS[at])) + GROUPS[at] + answer + [0] * (4 - len(answer)) for at, answer in ANSWERS]
    ids = torch.tensor(rows)
    labels = ids.masked_fill((ids == 0) | (torch.arange(9) < 5), -100)
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}
    expected, their_gradient = scored(with_heads(tiny, False, lora=lora), inputs)
    model, seen = with_heads(tiny, True, lora=lora), []
    base = model.get_base_model().base_model if lora else model.base_model
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.train()
    forward = base.forward
    monkeypatch.setattr(base, "forward", lambda **given: seen.append(given["input_ids"]) or forward(**given))
    found, our_gradient = scored(model, inputs)
    for value in VALUES:
        assert torch.allclose(getattr(found, value).float(), getattr(expected, value).float(), atol=1e-5), value
    assert torch.allclose(our_gradient, their_gradient, atol=1e-5, rtol=1e-4)
    assert [[sorted(tree) for tree in trees.tolist()] for trees in seen] == [[sorted(tree) for tree in expected_trees]]


def test_different_prompts_share_what_they_begin_with(tiny):
    rows = [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11], [5, 6, 12, 13, 14]]
    trees, paths = cpu._as_trees(rows, [3, 3, 4])
    assert [len(tree) for tree in trees] == [10]
    for row, (tree, path) in zip(rows, paths, strict=True):
        assert [list(trees[tree])[place][1] for place in path] == row


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_packed_rows_are_scored_whole(tiny, lora):
    one = batch([6, 5], "right", [3, 2])
    ids, labels = (one[key][one["attention_mask"].bool()][None] for key in ("input_ids", "labels"))
    packed = {"input_ids": ids, "labels": labels, "position_ids": torch.tensor([[*range(6), *range(5)]])}
    model = with_heads(tiny, True, lora=lora)
    apart = model(**one, fused_lm_head=True)
    together = model(**packed, fused_lm_head=True)
    assert together.log_probs.shape == (1, 10)
    assert together.log_probs[together.label_mask].tolist() == pytest.approx(
        apart.log_probs[apart.label_mask].tolist(), abs=1e-5
    )


@pytest.mark.parametrize("name", BATCHES)
def test_scoring_in_parts_changes_nothing(tiny, monkeypatch, name):
    inputs = batch(*BATCHES[name])
    expected, whole = scored(with_heads(tiny, True), inputs)
    monkeypatch.setattr(cpu, "SCORED_AT_ONCE", 2)
    found, in_parts = scored(with_heads(tiny, True), inputs)
    for value in VALUES:
        assert torch.allclose(getattr(found, value).float(), getattr(expected, value).float(), atol=1e-6), value
    assert torch.allclose(in_parts, whole, atol=1e-5, rtol=1e-4)


def test_a_model_with_absolute_positions_keeps_them():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32))
    inputs = batch(*BATCHES["padding on both sides of all rows"])
    add_fused_lm_head(model.eval(), outputs=VALUES)
    expected = model(**inputs, fused_lm_head=True).log_probs
    add_completion_head(model)
    assert torch.allclose(model(**inputs, fused_lm_head=True).log_probs, expected, atol=1e-5)


def test_without_the_fused_head_the_model_is_as_it_was(tiny):
    inputs = batch(*BATCHES["padded left"])
    plain = load_model(str(tiny))(**inputs)
    found = with_heads(tiny, True)(**inputs)
    assert torch.equal(found.logits, plain.logits) and torch.equal(found.loss, plain.loss)


def test_a_model_that_caps_its_logits_keeps_trls_head(tiny):
    inputs = batch(*BATCHES["padded right"])
    expected, found = (with_heads(tiny, ours, final_logit_softcapping=0.5) for ours in (False, True))
    assert torch.equal(found(**inputs, fused_lm_head=True).log_probs, expected(**inputs, fused_lm_head=True).log_probs)
