"""Chat templates as they are published (the copies that TRL ships), on a small tokenizer: what is asked and learned.

Many cut the thought out of an answer, open it themselves, know no system prompt, or end turns and texts differently.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import trl
from recipes import recipe
from tiny_model import tiny_tokenizer
from transformers import GenerationConfig

from finr1 import grading, models, rewards
from finr1.records import SYSTEM_PROMPT

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))
REFUSED = {  # what no row of ours can be learned with, and the reason that notebook 04 gives
    "qwen3_5_nothink": "ends the thought before the answer begins",
    "gptoss": "before each answer",  # channels
    "muse_glimmer": "before each answer",
    "glm4moe": "without a special token",
    "idefics3": "leaves out the answer", "smolvlm": "leaves out the answer", "llava_next": "leaves out the answer",
}  # fmt: skip
OPENED = ["deepseek_r1_distill", "deepseekv3", "nemotron_3_nano", "qwen3_5_think", "qwen3_6", "qwen3_8"]
ENDS = {"phi3": "<|end|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>", "llama3": "<|eot_id|>",
        "deepseek_r1_distill": "<｜end▁of▁sentence｜>", "qwen3": "<|im_end|>",
        "cohere2": "<|END_RESPONSE|>"}  # fmt: skip
SPECIAL = re.compile(r"<\|[^\s'\"|{}<>]+\|>|<｜[^\s'\"{}<>]+｜>|<(?:start_of_turn|end_of_turn|\|turn|turn\|)>")
ANSWER = "<think>150 - 120 = 30\nso 25%</think><answer>\\boxed{25%}</answer>"
HISTORY = [{"role": "user", "content": "First?"}, {"role": "assistant", "content": "One."}]
PROMPT = [{"role": "system", "content": SYSTEM_PROMPT}, *HISTORY, {"role": "user", "content": "Second?"}]
ROW = {"prompt": PROMPT, "completion": [{"role": "assistant", "content": ANSWER}]}


@functools.cache
def sft():
    return recipe("04_sft")


def training_row(row, tokenizer):
    return sft().training_row(row, tokenizer)


def tokenizer_with(template: str, folder: Path):
    """As a model with this template would have it, saved and loaded again; its own end token ends texts, not turns."""
    tokenizer, text = tiny_tokenizer(), (FOLDER / f"{template}.jinja").read_text("utf8")
    special = sorted({*SPECIAL.findall(text), "<|endoftext|>"})
    tokenizer.add_special_tokens({"additional_special_tokens": special, "bos_token": "<s>"})
    tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = text
    tokenizer.save_pretrained(folder)
    return models.load_tokenizer(str(folder))


@pytest.mark.parametrize("template", [name for name in NAMES if name not in REFUSED])
def test_sft_learns_what_the_row_says_after_the_prompt_of_sampling(template, tmp_path):
    tokenizer = tokenizer_with(template, tmp_path)
    ids, learned = training_row(ROW, tokenizer).values()
    start = learned.index(1)
    assert learned == [0] * start + [1] * (len(ids) - start)
    given, said = tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:])
    assert ids[:start] == tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=False)
    assert SYSTEM_PROMPT in given and given.index(SYSTEM_PROMPT) < given.index("First?") < given.index("Second?")
    opened, end = models.opened_thought(tokenizer), models.end_of_turn(tokenizer)
    assert given.endswith(opened) and (opened.strip() == "<think>" if template in OPENED else True)
    assert said.rstrip() == (ANSWER.removeprefix("<think>") if opened else ANSWER) + end
    assert tokenizer.eos_token == end == ENDS.get(template, end)
    assert ids[start:].count(tokenizer.eos_token_id) == 1 and tokenizer.eos_token_id in tokenizer.all_special_ids


@pytest.mark.parametrize(("template", "reason"), REFUSED.items())
def test_what_cannot_be_learned_is_refused_with_the_reason(template, reason, tmp_path):
    tokenizer = tokenizer_with(template, tmp_path)
    with pytest.raises(ValueError, match=reason):
        training_row(ROW, tokenizer)


def test_every_template_is_in_one_list_or_the_other():
    assert set(NAMES) >= {*REFUSED, *OPENED, *ENDS} and len(NAMES) > 30


def test_a_system_prompt_goes_into_the_first_question_where_the_template_has_no_place_for_it(tmp_path):
    tokenizer = tokenizer_with("gemma", tmp_path / "gemma")
    text = tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    assert f"<start_of_turn>user\n{SYSTEM_PROMPT}\n\nFirst?<end_of_turn>" in text
    without = tokenizer.apply_chat_template(PROMPT[1:], tokenize=False, add_generation_prompt=True)
    assert without == text.replace(f"{SYSTEM_PROMPT}\n\n", "")
    tokenizer.save_pretrained(tmp_path / "again")  # as training saves it
    assert models.load_tokenizer(str(tmp_path / "again")).chat_template == tokenizer.chat_template
    dropped = tokenizer_with("qwen2_5", tmp_path / "qwen")
    dropped.chat_template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}<|im_end|>{% endfor %}"
    dropped.save_pretrained(tmp_path / "dropped")  # says nothing, and leaves it out
    loaded = models.load_tokenizer(str(tmp_path / "dropped"))
    assert loaded.apply_chat_template(PROMPT, tokenize=False).startswith(f"{SYSTEM_PROMPT}\n\nFirst?")


@pytest.mark.parametrize("template", ["qwen2_5", *OPENED])
def test_the_format_reward_counts_a_thought_that_the_template_has_opened(template, tmp_path):
    tokenizer = tokenizer_with(template, tmp_path)
    ids, learned = training_row(ROW, tokenizer).values()
    text = tokenizer.decode(ids[learned.index(1) :], skip_special_tokens=True).rstrip()  # what a policy would write

    def format_reward(completions, **columns):
        return [float(grading.has_format(completion[0]["content"])) for completion in completions]

    (reward,) = rewards.observed([format_reward], None, models.opened_thought(tokenizer))
    completions = [[{"role": "assistant", "content": said}] for said in (text, "so 25%")]
    assert reward(completions=completions) == reward(completions=completions) == [1.0, 0.0]  # opened once


def test_each_end_token_ends_an_answer(tmp_path):
    """As in Phi: one ends a turn, another a text, and the folder of the model may know more than the tokenizer."""
    tokenizer = tokenizer_with("phi3", tmp_path)
    turn, text = (tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "<|endoftext|>"))
    assert models.end_tokens(str(tmp_path), tokenizer) == [turn]
    for own in (text, [text, turn]):
        GenerationConfig(eos_token_id=own).save_pretrained(tmp_path)
        assert models.end_tokens(str(tmp_path), tokenizer) == [turn, text]
