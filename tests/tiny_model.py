"""A random model of 0.1 M parameters with a real tokenizer, made offline in a second: stands in for a real one."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_TEXT = [
    "Revenue rose from 120 million to 150 million. What is the growth in percent?",
    "<think>150 - 120 = 30 and 30 / 120 = 0.25, so the growth is 25 percent.</think><answer>\\boxed{25%}</answer>",
    "Is the sentiment of the headline bearish, bullish or neutral? 该公司的净利润率是多少?",
    "system user assistant Reason step by step, then give the result.",
]


def make_tiny_model(folder: Path, seed: int = 0, tokenizer=None, heads: int = 4) -> Path:
    """Save a random 2-layer Llama (hidden 64, 4 heads, tied embeddings) and a byte-level BPE tokenizer to `folder`.

    The tokenizer has at most 512 tokens, SmolLM2's ChatML template without its default system turn, and eos = pad =
    "<|im_end|>"; `tokenizer` takes its place. The same `seed` gives the same weights. Returns `folder`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.1,  # the usual 0.02 repeats one token for ever
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def tiny_qwen_tokenizer(eos_token: str = "<|im_end|>"):
    """Qwen2.5's tokenizer on a small vocabulary: its class, pre-tokenizer, special tokens and published chat template.

    The template is the copy that TRL ships (trl/chat_templates/qwen2_5.jinja). `eos_token`: "<|im_end|>" as in the
    Instruct models, "<|endoftext|>" as in the base models; padding is "<|endoftext|>" in both.
    """
    import json

    import trl
    from transformers import Qwen2Tokenizer

    bpe = json.loads(tiny_tokenizer().backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in bpe["merges"]]
    names = {"eos_token": eos_token, "pad_token": "<|endoftext|>"}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab=bpe["vocab"], merges=merges, additional_special_tokens=special, **names)
    template = Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja"
    tokenizer.chat_template = template.read_text("utf8")
    return tokenizer


def tiny_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast
