"""SFT: what the loss sees, with two families' chat templates, packed or not; the memory probe; early looks."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from recipes import cells, make_trainer, recipe, train
from test_training import demo
from tiny_model import make_tiny_model, tiny_qwen_tokenizer, tiny_tokenizer

from finr1 import curation, evaluation, models, synthetic, teacher, training
from finr1.generation import SamplingParams, ScriptedBackend
from finr1.params import SFTParams
from finr1.progress import EARLY_FILE
from finr1.records import SYSTEM_PROMPT, messages, render_completion, write_jsonl

# As SmolLM2-135M-Instruct has it; `test_models.py` holds it against the embedded model's own.
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n"
    "' + message['content'] + '<|im_end|>' + '\n"
    "'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
    "' }}{% endif %}"
)
ROWS = 8


def smollm2():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = SMOLLM2_TEMPLATE
    return tokenizer


TOKENIZERS = {
    "SmolLM2": smollm2,  # padding is the end of a turn: it must be learned, and not be taken for padding
    "Qwen2.5-Instruct": tiny_qwen_tokenizer,
    "Qwen2.5 base": lambda: tiny_qwen_tokenizer("<|endoftext|>"),  # its own end token ends no turn
}


@pytest.fixture
def stage(outputs):
    """Folder of an SFT stage, beside the rows and problems that it reads."""
    problems = synthetic.generate_problems(ROWS, "train", seed=1)
    rows = curation.sft_rows(teacher.derived_traces(problems))
    write_jsonl(outputs / "r" / "03_filtering" / "sft.jsonl", rows)
    write_jsonl(outputs / "r" / "01_data" / "problems.jsonl", [*problems, *synthetic.generate_problems(5, "dev", 2)])
    (outputs / "r" / "04_sft").mkdir(parents=True)
    return outputs / "r" / "04_sft"


def params(model, **changes) -> SFTParams:
    plain = {"peft": "full", "bf16": False, "max_length": 1024, "per_device_train_batch_size": ROWS, "sample_steps": 0}
    return demo(SFTParams, **({"model_name_or_path": str(model)} | plain | changes))


def build(values: SFTParams, stage, attention: str | None = None, **config):
    """The recipe's trainer, with what a person may write into its cells besides the parameters."""
    cells = recipe("04_sft")
    cells.SFTConfig = functools.partial(cells.SFTConfig, **config)
    cells.load_policy = functools.partial(cells.load_policy, attn_implementation=attention)
    return cells.make_trainer(values, stage)


# ---- what the loss sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("family", TOKENIZERS)
def test_the_loss_sees_each_completion_with_its_end_and_nothing_else(stage, tmp_path, family, packing):
    model = make_tiny_model(tmp_path / "tiny", tokenizer=TOKENIZERS[family]())
    trainer = build(params(model), stage, packing=packing, packing_strategy="bfd")
    tokenizer = trainer.processing_class
    (batch,) = trainer.get_train_dataloader()
    rows = [json.loads(line) for line in (stage.parent / "03_filtering" / "sft.jsonl").read_text("utf8").splitlines()]
    expected, seen = [], []
    for row in rows:
        given = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        assert given.count("<|im_start|>system") == 1 and SYSTEM_PROMPT in given, "no default prompt is put in"
        expected.append((given, row["completion"][0]["content"] + "<|im_end|>\n"))
    for ids, labels in documents(batch):
        assert torch.equal(ids[labels != -100], labels[labels != -100])
        first = int((labels != -100).nonzero()[0])
        learned = labels[first:][labels[first:] != -100]
        seen.append((tokenizer.decode(ids[:first]), tokenizer.decode(learned)))
        assert (learned == tokenizer.convert_tokens_to_ids("<|im_end|>")).sum() == 1, "one end, and it is learned"
        assert len(learned) == len(ids[first:]) - (ids[first + len(learned) :] == tokenizer.pad_token_id).sum()
    assert sorted(seen) == sorted(expected)


def documents(batch):
    """(ids, labels) of each row of a batch; of a packed one, of each document in it."""
    if "position_ids" not in batch:
        return list(zip(batch["input_ids"], batch["labels"], strict=True))
    ends = batch["cu_seq_lens_q"].tolist()
    return [(batch["input_ids"][0, a:b], batch["labels"][0, a:b]) for a, b in zip(ends, ends[1:], strict=False)]


@pytest.mark.parametrize("family", TOKENIZERS)
def test_the_saved_model_stops_where_the_chat_template_ends_a_turn(stage, tmp_path, family):
    model = make_tiny_model(tmp_path / "tiny", tokenizer=TOKENIZERS[family]())
    train(params(model), stage)
    tokenizer = models.load_tokenizer(str(stage / "model"))
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == ("<|im_end|>" if family == "SmolLM2" else "<|endoftext|>")
    saved = models.load_model(str(stage / "model"))
    assert saved.config.eos_token_id == tokenizer.eos_token_id
    ends = saved.generation_config.eos_token_id
    assert tokenizer.eos_token_id in (ends if isinstance(ends, list) else [ends])


def test_a_template_without_an_end_of_turn_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    with pytest.raises(ValueError, match="learn to stop"):
        models.end_of_turn(tokenizer)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packing_changes_the_batch_and_not_the_loss(stage, tiny, attention):
    """Documents in one sequence must not see each other: position ids that start again make the mask block-diagonal."""
    losses = []
    for packing in (False, True):
        trainer = build(params(tiny), stage, attention, packing=packing)
        (batch,) = trainer.get_train_dataloader()
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model, dict(batch)).item())
    assert batch["input_ids"].shape[0] == 1 and (batch["position_ids"] == 0).sum() == ROWS
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1])[None]  # one document: all see all before them
    with torch.no_grad():
        assert trainer.compute_loss(trainer.model, dict(batch)).item() != pytest.approx(losses[0], rel=1e-3)


def test_packing_fills_sequences_and_cuts_no_row_that_fits(stage, tiny):
    trainer = build(params(tiny, max_length=512), stage, packing=True)
    lengths = [sum(parts) for parts in trainer.train_dataset["seq_lengths"]]
    assert max(lengths) <= 512 and len(lengths) < ROWS
    assert sum(len(parts) for parts in trainer.train_dataset["seq_lengths"]) == ROWS


@pytest.mark.parametrize("change", ["sdpa", {"gradient_checkpointing": True}], ids=str)
def test_what_saves_time_or_memory_leaves_loss_and_gradients_alone(stage, tiny, change):
    found = []
    for options in ({}, change):
        attention, options = (options, {}) if options == "sdpa" else (None, options)
        trainer = build(params(tiny, **options), stage, attention)
        trainer.train()
        assert trainer.model.is_gradient_checkpointing == options.get("gradient_checkpointing", False)
        found.append([(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row])
    assert found[0] == [pytest.approx(pair, rel=1e-4) for pair in found[1]] and len(found[0]) == 2


# ---- QLoRA -----------------------------------------------------------------------------------------------------------


def test_qlora_is_nf4_with_double_quantisation_and_bf16_compute(stage, tiny):
    from bitsandbytes.nn import Linear4bit

    trainer = make_trainer(params(tiny, peft="qlora", bf16=True), stage)
    layers = [layer for layer in trainer.model.modules() if isinstance(layer, Linear4bit)]
    assert len(layers) == 2 * 7, "the seven linear layers of each of the two blocks"
    for layer in layers:
        assert layer.weight.quant_type == "nf4" and layer.compute_dtype == torch.bfloat16
        assert layer.weight.quant_state.nested, "the scales are quantised, too"
    trained = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)


# ---- the memory probe ------------------------------------------------------------------------------------------------


def test_the_probe_takes_the_longest_rows_and_leaves_no_trace(stage, tiny):
    """With dropout, so that a random state that was not put back would show."""
    found, base = [], params(tiny, peft="lora", per_device_train_batch_size=2, max_steps=3)

    def with_dropout(values, folder, probe: bool):
        cells = recipe("04_sft")
        cells.LoraConfig = functools.partial(cells.LoraConfig, lora_dropout=0.3)
        trainer = cells.make_trainer(values, folder)
        if not probe:
            trainer.remove_callback(cells.MemoryProbe)
        return trainer

    for probe in (False, True):
        train(base, stage, functools.partial(with_dropout, probe=probe))
        rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text("utf8").splitlines()]
        steps = [(row["loss"], row["grad_norm"], row["num_tokens"]) for row in rows if "loss" in row]
        found.append((steps, models.load_model(str(stage / "model")).state_dict()))
        (stage / "model").rename(stage / f"model_{probe}")
    (plain_steps, plain), (probed_steps, probed) = found
    assert plain_steps == probed_steps and all(torch.equal(plain[name], probed[name]) for name in plain)
    assert rows[0]["step"] == 0 and rows[0]["memory_probe_gib"] > 0
    tokenizer = models.load_tokenizer(str(tiny))
    chats = [json.loads(line) for line in (stage.parent / "03_filtering" / "sft.jsonl").read_text("utf8").splitlines()]
    lengths = [len(tokenizer.apply_chat_template(c["prompt"] + c["completion"], return_dict=False)) for c in chats]
    assert rows[0]["memory_probe_tokens"] == 2 * max(lengths)


def test_a_lack_of_memory_comes_before_the_first_step_and_says_what_to_lower(stage, tiny):
    trainer = make_trainer(params(tiny), stage)
    trainer.model.register_forward_pre_hook(lambda *_: torch.empty(2**50))  # a real refusal by torch's allocator
    with pytest.raises(MemoryError, match="the longest batch") as caught:
        training.train_and_save(trainer, params(tiny), stage)
    message = str(caught.value)
    for name in ("max_length (now 1024)", "per_device_train_batch_size", "gradient_checkpointing = True", '"qlora"'):
        assert name in message
    assert "\n" not in message and "can't allocate memory" in message
    assert trainer.state.global_step == 0


def test_another_error_in_the_probe_keeps_its_own_words(stage, tiny):
    trainer = make_trainer(params(tiny), stage)

    def fail(*_):
        raise RuntimeError("shapes do not match")

    trainer.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        training.train_and_save(trainer, params(tiny), stage)


# ---- early looks, and what the metrics file holds --------------------------------------------------------------------


@pytest.mark.parametrize("peft", ["lora", "qlora"])
def test_early_looks_show_the_same_problems_over_the_steps_and_change_nothing(stage, tiny, peft):
    changes = {"learning_rate": 1e-1, "max_steps": 3, "eval_max_tokens": 6, "gradient_checkpointing": True}
    base, saved = params(tiny, peft=peft, bf16=peft == "qlora", **changes), []
    for steps in (0, 2):
        train(base.model_copy(update={"sample_steps": steps}), stage)
        saved.append((stage / "model" / "model.safetensors").read_bytes())
        (stage / "model").rename(stage / f"model_{steps}")
    assert saved[0] == saved[1]
    rows = [json.loads(line) for line in (stage / EARLY_FILE).read_text("utf8").splitlines()]
    assert [row["step"] for row in rows] == [step for step in (0, 2, 3) for _ in range(3)]
    ids = [row["id"] for row in rows[:3]]
    assert [row["id"] for row in rows] == ids * 3 and len(set(ids)) == 3
    texts = [row["text"] for row in rows if row["id"] == ids[0]]
    assert texts[0] != texts[-1] and all(texts)


def test_each_step_has_its_speed_and_memory(stage, tiny):
    train(params(tiny, max_steps=3, per_device_train_batch_size=2), stage)
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text("utf8").splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == 3
    for row in steps:
        assert row["tokens_per_s"] > 0 and 0 < row["memory_gib"] <= row["peak_memory_gib"] + 0.01


# ---- what notebook 04 says of the trained model ----------------------------------------------------------------------

DEV = synthetic.generate_problems(78, "dev", 2)


def said_of_ways(capsys, answer):
    """What the cells on the two ways print and hold, for a model that answers each dev problem as `answer` does."""
    by_chat = {json.dumps(messages(p)): p for p in DEV}
    backend = ScriptedBackend(lambda request, *_: answer(by_chat[json.dumps(request.messages)]), "model")
    after = evaluation.evaluate(DEV, backend, SamplingParams(temperature=0.0), "sft")
    made = cells("04_sft", "cell-18b", "cell-18c", asked={p.id: p for p in DEV}, after=after)
    return capsys.readouterr().out, made["taken"]


def sound(problem, by_parts):
    return render_completion(by_parts and problem.reference_by_parts or problem.reference, problem.gold)


def test_notebook_04_counts_the_ways_and_compares_them_with_an_interval(capsys):
    def clever(problem):  # right by parts, wrong at once
        by_parts = DEV.index(problem) % 2
        return sound(problem, by_parts) if by_parts else sound(problem, False).replace(f"{{{problem.gold}}}", "{0}")

    told, taken = said_of_ways(capsys, clever)
    assert taken["answers"].sum() == sum(bool(p.reference_by_parts) for p in DEV) == 54
    assert taken.loc["by_parts", "right (%)"] == 100 and taken.loc["at_once", "right (%)"] == 0
    assert f"Both ways occur: {taken.loc['by_parts', 'answers']} of 54" in told and "more often right: +100" in told
    told, _ = said_of_ways(capsys, lambda p: sound(p, DEV.index(p) % 2))
    assert "as often right, within the noise: +0" in told
    told, _ = said_of_ways(capsys, lambda p: clever(p) if DEV.index(p) % 2 == 0 else sound(p, True).replace("{", "{9"))
    assert "within the noise" in told


def test_notebook_04_says_when_one_way_only_is_taken_or_none_is_there(capsys, monkeypatch):
    assert "All 54 greedy answers are at once" in said_of_ways(capsys, lambda p: sound(p, False))[0]
    assert "All 54 greedy answers are by parts" in said_of_ways(capsys, lambda p: sound(p, True))[0]
    assert "No answer here is in the format" in said_of_ways(capsys, lambda p: p.reference)[0]
    monkeypatch.setattr(f"{__name__}.DEV", [p for p in DEV if not p.reference_by_parts])
    assert "No answer here is in the format" in said_of_ways(capsys, lambda p: sound(p, False))[0]


def test_notebook_04_reads_the_order_of_learning_from_the_run(tmp_path, capsys):
    last = DEV[-1]  # one that is not among those of the look
    rows = [("what?", 0), (sound(last, False).replace(last.gold, "1"), 2), (sound(last, False), 4)]
    write_jsonl(tmp_path / EARLY_FILE, [{"step": n, "id": last.id, "text": text} for text, n in rows])
    names = {"run": SimpleNamespace(dir=tmp_path), "params": SimpleNamespace(sample_steps=2), "dev": DEV[:1]}
    names["asked"] = {p.id: p for p in DEV}
    cells("04_sft", "cell-14b", "cell-14e", **names)
    told = capsys.readouterr().out
    assert "first answer in the format: step 2" in told and "first answer that is right: step 4" in told
    write_jsonl(tmp_path / EARLY_FILE, [{"step": 0, "id": DEV[0].id, "text": "what?"}])
    cells("04_sft", "cell-14b", "cell-14e", **names)
    assert "first answer in the format: step none" in capsys.readouterr().out


def test_notebook_04_says_by_how_much_the_training_passed_the_probe(tmp_path, capsys, monkeypatch):
    log = [{"step": 0, "memory_probe_gib": 1.5, "memory_probe_tokens": 8, "peak_memory_gib": 1.5},
           {"step": 1, "loss": 2.0, "peak_memory_gib": 1.75}]  # fmt: skip
    from finr1 import plotting

    monkeypatch.setattr(plotting, "save_figure", lambda *_: None)
    cells("04_sft", "cell-13", log=log, run=SimpleNamespace(figures=tmp_path))
    assert "highest peak in training: 1.75 GiB, 0.25 GiB above what the probe saw" in capsys.readouterr().out


def loss_said(capsys, tmp_path, monkeypatch, losses) -> str:
    """What notebook 04 says of a curve of the loss."""
    from finr1 import plotting

    monkeypatch.setattr(plotting, "save_figure", lambda *_: None)
    log = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
    made = cells("04_sft", "cell-13", log=log, run=SimpleNamespace(figures=tmp_path))
    assert all(len(fig.axes) <= 4 for fig in map(plt.figure, plt.get_fignums()))
    cells(
        "04_sft",
        "notice-loss",
        **{name: made[name] for name in ("loss", "first", "last", "before_last", "parts", "tenth")},
    )
    return capsys.readouterr().out


def test_notebook_04_says_whether_the_loss_still_falls(capsys, tmp_path, monkeypatch):
    def said(curve, steps: int = 60) -> str:
        return loss_said(capsys, tmp_path, monkeypatch, [curve(n) for n in range(steps)])

    assert "Perplexity 5.1 to 1.26. It still fell by 0.156" in said(lambda n: 1.7 - 0.026 * n)
    assert "no more than its noise" in said(lambda n: 2 * 0.8**n + 0.05 * (n % 2))
    assert "has not fallen" in said(lambda n: 1 + 0.01 * n)
    assert "3 steps are too few" in said(lambda n: 1.0, 3)


def test_notebook_04_says_what_sft_gained_and_when_that_is_noise(capsys):
    def said(base, sft) -> str:
        by_chat, samples = {json.dumps(messages(p)): p for p in DEV}, []
        for name, answer in {"base": base, "sft": sft}.items():
            backend = ScriptedBackend(lambda r, *_, of=answer: of(by_chat[json.dumps(r.messages)]), name)
            samples += evaluation.evaluate(DEV, backend, SamplingParams(temperature=0.0), name)
        steps, table = evaluation.paired_table(samples, 0), evaluation.results_table(samples)
        names = {"steps": steps, "dev": DEV, "asked": {p.id: p for p in DEV}, "after": samples[len(DEV) :]}
        # The last cells of the notebook in their order: what one leaves behind must not spoil the next.
        last = ("my-guess", "notice-sft", "cell-18b", "cell-18c", "guess-scored")
        made = cells("04_sft", *last, table=table, **names)
        assert made["step"] == steps[0]
        return capsys.readouterr().out

    right, none = (lambda p: sound(p, DEV.index(p) % 2)), (lambda p: "no idea")
    assert "SFT gained +100.0" in said(none, right) and "SFT made it worse: -100.0" in said(right, none)
    assert "inside the noise" in said(right, right)


def test_each_token_is_shown_once_and_its_label_by_colour_and_line(tiny):
    tokenizer = models.load_tokenizer(str(tiny))
    ids = tokenizer("What is 2 < 3?\nyes")["input_ids"]
    made = cells("04_sft", "coloured", ids=ids, learned=[0] * (len(ids) - 1) + [1], tokenizer=tokenizer)
    assert len(made["tokens"]) == len(ids) and "&lt;" in "".join(made["tokens"]) and "↵" in "".join(made["tokens"])
    assert "dotted" in made["tokens"][0] and "solid" in made["tokens"][-1] and "background" in made["tokens"][-1]


def test_the_picture_of_lora_is_to_scale(tiny, tmp_path):
    params = SimpleNamespace(lora_r=4, peft="full")
    made = cells(
        "04_sft", "lora-picture", "lora-here", path=str(tiny), params=params, run=SimpleNamespace(figures=tmp_path)
    )
    sizes = [(patch.get_width(), patch.get_height()) for patch in made["ax"].patches]
    d = made["d"]
    assert sizes == [(d, d), (4, d), (d, 4)] and f"{2 * d * 4:,} numbers instead of {d * d:,}" in made["ax"].get_title()
