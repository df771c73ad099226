"""Weights that are not finite are never saved, a broken checkpoint changes no result, foreign code never runs."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import shutil
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import ROOT, demo_values
from recipes import cell_of, cells, recipe, train
from test_grpo_watch import looking, short
from test_grpo_watch import stage as grpo_stage  # noqa: F401
from test_sft import params
from test_sft import stage as sft_stage  # noqa: F401
from transformers import TrainerCallback

from finr1.cpu import attention_implementation
from finr1.models import load_model, load_tokenizer, merge_adapter, not_finite
from finr1.params import GRPOParams, SFTParams
from finr1.plan import shape_of
from finr1.progress import read_metrics
from finr1.training import Guard


@pytest.mark.parametrize("learning_rate", [1e39, 1e300])
def test_sft_that_diverges_ends_at_the_step_and_saves_nothing(sft_stage, tiny, learning_rate):  # noqa: F811
    values = params(tiny, learning_rate=learning_rate, max_steps=1, per_device_train_batch_size=2, bf16=True)
    with pytest.raises(FloatingPointError, match="step 1: .*no model is saved. Lower learning_rate"):
        train(values, sft_stage)
    assert not (sft_stage / "model").exists() and not list((sft_stage / "checkpoints").glob("*"))


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"learning_rate": 1e3}, 1),
        ({"learning_rate": 1.0}, 4),
        ({"learning_rate": 10.0, "max_steps": 1}, 1),  # no loss would be seen after that step
        ({"learning_rate": 1e3, "peft": "lora"}, 1),  # from random weights the loss only goes to a uniform guess's
        ({"learning_rate": 30.0, "peft": "lora", "merge_adapter": False}, 1),
    ],
)
def test_sft_that_is_finite_but_absurd_ends_and_saves_nothing(sft_stage, tiny, change, step):  # noqa: F811
    why = "(the loss went from 6.* to .* nats a token|the weight .* is not finite or above 1.*, ten times those before)"
    told = f"step {step}: {why}; no model is saved. Lower learning_rate"
    with pytest.raises(FloatingPointError, match=told):
        train(params(tiny, **{"max_steps": 4, "per_device_train_batch_size": 2} | change), sft_stage)
    assert not (sft_stage / "model").exists()
    losses = [row["loss"] for row in read_metrics(sft_stage) if "loss" in row]
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize(
    ("losses", "absurd"),
    [  # of a vocabulary of 49,152 a uniform guess costs 10.8
        ([1.5, 1.2, 0.9, 0.7], False),
        ([1.5, 9.0, 30.0, 2.0], False),  # a spike that is over
        ([1.5, 2.5, 3.5, 4.5], False),  # bad, and not absurd
        ([11.9, 13.0], False),  # random weights, as in a rehearsal
        ([1.5, 10.8, 10.8, 10.8], True),  # knows nothing any more
        ([1.5, 7.0], True),
        ([1.5, 3.6e6, 10.8, 1.4], True),  # at its second step
    ],
)
def test_no_honest_sft_is_taken_for_an_absurd_one(losses, absurd):
    guard = Guard(SimpleNamespace(processing_class=range(49_152)), SFTParams(**demo_values("04_sft")))
    told = []
    for step in range(1, len(losses) + 1):
        log = [{"loss": loss} for loss in losses[:step]]
        told.append(guard.absurd(SimpleNamespace(log_history=log, global_step=step, max_steps=len(losses))))
    assert any(told) == absurd
    grpo = Guard(guard.trainer, GRPOParams(**demo_values("05_grpo")))  # whose loss is another thing
    assert not grpo.absurd(SimpleNamespace(log_history=log, global_step=step, max_steps=len(losses)))


def test_grpo_that_diverges_ends_in_words_and_not_amid_sampling(grpo_stage, tiny):  # noqa: F811
    """At 1e300, for no completion of this model is rewarded: gradients are zero, and 0 times infinity is no number."""
    with pytest.raises(FloatingPointError, match="step 1: the weight .* is not finite or above 1.*; no model is saved"):
        train(short(tiny, learning_rate=1e300, max_steps=3, save_steps=1, bf16=False), grpo_stage)
    assert not (grpo_stage / "model").exists() and not list((grpo_stage / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize("bf16", [True, False])  # a copy samples, or the policy itself
@pytest.mark.parametrize("learning_rate", [1e3, 1e39, 1e300])
def test_grpo_that_learns_from_every_batch_and_diverges_does_so_too(grpo_stage, tiny, learning_rate, bf16):  # noqa: F811
    with pytest.raises(FloatingPointError, match="step [12]: .*; no model is saved. Lower learning_rate"):
        looking(tiny, grpo_stage, learning_rate=learning_rate, save_steps=1, eval_steps=1, bf16=bf16)
    assert not (grpo_stage / "model").exists() and not list((grpo_stage / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_one_wrong_number_among_the_weights_is_found(wrong):
    weights = {"a": torch.ones(3), "whole numbers": torch.ones(2, dtype=torch.int64), "none": torch.ones(0),
               "b": torch.ones(2, 3, dtype=torch.bfloat16)}  # fmt: skip
    assert not_finite(weights.items()) is None
    assert not_finite(weights.items(), limit=1.5) is None and not_finite(weights.items(), limit=1.0) == "a"
    weights["b"][1, 2] = wrong
    assert not_finite(weights.items()) == "b"


def test_an_adapter_that_is_not_finite_is_not_merged(tmp_path, tiny):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_model(str(tiny)), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name)[0] = math.nan
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(FloatingPointError, match="adapter merged into .* is not finite"):
        merge_adapter(tmp_path / "adapter")


class Stop(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise KeyboardInterrupt


def test_a_training_that_drops_its_newest_checkpoint_ends_as_an_unbroken_one(sft_stage, tiny, capsys):  # noqa: F811
    values = params(tiny, max_steps=5, save_steps=2, per_device_train_batch_size=2, learning_rate=1e-2)
    train(values, sft_stage)
    weights = (sft_stage / "model" / "model.safetensors").read_bytes()
    losses = [(row["step"], row["loss"]) for row in read_metrics(sft_stage) if "loss" in row]
    shutil.rmtree(sft_stage / "model")

    def stopped(params, folder):
        trainer = recipe("04_sft").make_trainer(params, folder)
        trainer.add_callback(Stop())
        return trainer

    with pytest.raises(KeyboardInterrupt):
        train(values, sft_stage, stopped)
    optimizer = sft_stage / "checkpoints" / "checkpoint-4" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    train(values, sft_stage)
    assert "checkpoint-4 is dropped: optimizer.pt is missing or not as it was written" in capsys.readouterr().out
    assert (sft_stage / "model" / "model.safetensors").read_bytes() == weights
    assert [(row["step"], row["loss"]) for row in read_metrics(sft_stage) if "loss" in row] == losses


def test_code_in_a_models_folder_never_runs(tmp_path, monkeypatch):
    """Asked at the terminal, transformers would take the "y" that waits there."""
    ran, folder = tmp_path / "ran", tmp_path / "malicious"
    folder.mkdir()
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    kinds = {"AutoConfig": "code.A", "AutoModelForCausalLM": "code.B", "AutoTokenizer": ["code.C", "code.C"]}
    (folder / "config.json").write_text(json.dumps({"model_type": "malicious", "auto_map": kinds}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": kinds, "tokenizer_class": "Malicious"}))
    for load in (load_model, load_tokenizer, attention_implementation):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
        with pytest.raises(ValueError, match="trust_remote_code"):
            load(str(folder))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    assert shape_of(str(folder)) is None
    assert not ran.exists()


def test_weights_are_read_as_tensors_and_not_as_objects_that_run(tmp_path, tiny):
    ran = tmp_path / "ran"
    folder = shutil.copytree(tiny, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(str(ran)), protocol=2))
    with pytest.raises(Exception, match="(?i)weights_only|unsupported|corrupt|pickle"):
        load_model(str(folder))
    assert not ran.exists()


class Runs:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_every_call_that_could_run_it_says_no():
    """A call that says nothing would be asked at the terminal."""
    call = re.compile(r"(?:Auto\w+\.from_pretrained|vllm\.LLM)\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")
    files = [*(ROOT / "finr1").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    calls = [(file.name, given) for file in files for given in call.findall(file.read_text("utf8"))]
    assert len(calls) >= 6
    silent = [c for c in calls if not re.search(r"trust_remote_code=False|\*\*(OWN_CODE|given|asked)", c[1])]
    assert not silent


def test_a_length_that_cuts_every_answer_off_is_an_error_before_the_training(sft_stage, tiny):  # noqa: F811
    rows = pd.read_json(sft_stage.with_name("03_filtering") / "sft.jsonl", lines=True)
    rows["prompt"] = [[*turns, {"role": "user", "content": "And now?"}] for turns in rows["prompt"]]
    tokenizer = load_tokenizer(str(tiny))
    examples = [cell_of("04_sft", "training_row").training_row(row, tokenizer) for row in rows.to_dict("records")]
    given, least = {"rows": rows, "examples": examples}, min(row["completion_mask"].count(0) for row in examples)
    with pytest.raises(AssertionError, match=f"max_length = {least}, but each prompt alone has {least} or more"):
        cells("04_sft", "cell-07", params=params(tiny, max_length=least), **given)
    cells("04_sft", "cell-07", params=params(tiny, max_length=least + 1), **given)
