"""What makes decoding fast on a CPU must not change the numbers: grouped attention, prompts computed once."""

from __future__ import annotations

import functools

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, GPTNeoConfig, LlamaConfig, MistralConfig

from finr1.cpu import PIECE, attention_implementation, complete, generation_inputs
from finr1.models import load_model

PAD, END = 0, 2
# Prompts of a batch: several beginnings and lengths, and some more than once.
BATCHES = {
    "a common beginning": [[5, 6, 7, 8, 9], [5, 6, 7, 11], [5, 6, 7, 12, 13, 14, 15]],
    "nothing in common": [[5, 6, 7, 8], [9, 6], [10, 11, 12, 13, 14]],
    "groups of equal prompts": [[5, 6, 7], [5, 6, 7], [5, 9, 10, 11, 12], [5, 9, 10, 11, 12], [5, 6, 7]],
    "one prompt, several times": [[5, 6, 7, 8]] * 3,
    "one is the beginning of another": [[5, 6, 7], [5, 6, 7, 8, 9]],
    "single tokens": [[5], [6], [5]],
    "one of a single token": [[5], [5, 6, 7]],
}


@pytest.fixture(scope="module")
def grouped_heads(tmp_path_factory):
    """A random model of six heads in two groups, as SmolLM2's and Qwen2.5's are."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("grouped") / "model"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def texts(model, inputs) -> list[list[int]]:
    config = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=END, pad_token_id=PAD)
    with torch.inference_mode():
        return model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", BATCHES)
def test_prompts_computed_once_get_the_same_answers(grouped_heads, name):
    model, prompts = load_model(grouped_heads).eval(), BATCHES[name]
    model.generation_config = GenerationConfig()
    alone = [texts(model, {"input_ids": torch.tensor([prompt])})[0] for prompt in prompts]
    with torch.inference_mode():
        inputs = generation_inputs(model, prompts, PAD)
    for row, mask, prompt in zip(inputs["input_ids"], inputs["attention_mask"], prompts, strict=True):
        assert row[mask.bool()].tolist() == prompt
    found = texts(model, inputs)
    for one, other in zip(alone, found, strict=True):
        assert other[: len(one)] == one and set(other[len(one) :]) <= {PAD}
    assert len({tuple(answer) for answer in found}) == len({tuple(prompt) for prompt in prompts})


@pytest.mark.parametrize("length", [1, PIECE, 2 * PIECE + 3])
@pytest.mark.parametrize("name", BATCHES)
def test_rows_that_have_ended_leave_the_batch_and_no_answer_changes(grouped_heads, monkeypatch, name, length):
    model, prompts = load_model(grouped_heads).eval(), BATCHES[name]
    model.generation_config = GenerationConfig()
    ends = [17, 40, 3, 55]  # some of what this model says, so that answers end at different places
    config = GenerationConfig(max_new_tokens=length, do_sample=False, eos_token_id=ends, pad_token_id=PAD)
    alone = [model.generate(torch.tensor([prompt]), generation_config=config)[0].tolist() for prompt in prompts]
    expected = [tokens[len(prompt) :] for tokens, prompt in zip(alone, prompts, strict=True)]
    sizes, forward = [], model.forward

    @functools.wraps(forward)
    def counted(*args, **given):
        sizes.append(len(given["input_ids"]))
        return forward(*args, **given)

    monkeypatch.setattr(model, "forward", counted)
    with torch.inference_mode():
        assert complete(model, prompts, config) == expected
    piece = length if name == "single tokens" else PIECE  # nothing to share: no cache, and one piece
    assert sizes == [sum(len(answer) > step // piece * piece for answer in expected) for step in range(len(sizes))]


def test_each_prompt_and_the_common_beginning_go_through_the_model_once(grouped_heads, monkeypatch):
    model, seen = load_model(grouped_heads).eval(), []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda ids, **kw: seen.append(tuple(ids.shape)) or forward(ids, **kw))
    generation_inputs(model, BATCHES["a common beginning"] * 4, PAD)
    assert seen == [(1, 3), (3, 3)]  # [5, 6, 7] once; then what is left of three prompts but their last tokens


SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}  # fmt: skip
NOT_IN_PIECES = {
    "a sliding window": MistralConfig(**SMALL, sliding_window=4),
    "RoPE by the longest position": LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
    "local attention": GPTNeoConfig(vocab_size=64, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=32,
                                    attention_types=[[["global", "local"], 1]]),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_IN_PIECES)
def test_models_that_must_see_a_prompt_whole_keep_padding_on_the_left(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(NOT_IN_PIECES[name])
    inputs = generation_inputs(model, BATCHES["a common beginning"], PAD)
    assert "past_key_values" not in inputs
    assert inputs["attention_mask"].tolist()[1] == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU uses sdpa")
def test_grouped_attention_is_eager_attention(grouped_heads):
    assert attention_implementation(grouped_heads) == "grouped"
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    packed = {"position_ids": torch.tensor([[*range(4), *range(5)]] * 3)}
    for inputs in ({}, {"attention_mask": mask}, packed):
        found = []
        for name in ("eager", None):
            model = load_model(grouped_heads, attn_implementation=name)
            logits = model(ids, **inputs).logits
            logits[inputs.get("attention_mask", torch.ones_like(ids)).bool()].square().mean().backward()
            found.append((logits, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])))
        for one, other in zip(*found, strict=True):
            assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU uses sdpa")
def test_another_family_of_models_keeps_its_own_attention(tmp_path):
    from transformers import Gemma2Config

    Gemma2Config().save_pretrained(tmp_path)  # it caps its attention
    assert attention_implementation(str(tmp_path)) == "eager"
