"""How fast does GRPO sample on this CPU? TRL's own way against ours, side by side in one run.

`python benchmarks/cpu_sampling.py` prints a table. TRL samples from the fp32 weights that it trains (here under bf16
autocast, its fastest setting without a second copy); `cpu.CPUSampler` from a bf16 copy with grouped attention, and
each prompt of a group goes through it once.
"""

from __future__ import annotations

import time

import torch

from finr1.cpu import generation_inputs
from finr1.models import EMBEDDED_MODEL, load_model, load_tokenizer, resolve_model
from finr1.paths import cache_dir
from finr1.records import messages
from finr1.synthetic import generate_problems

BATCH, GROUP, TOKENS, ROUNDS = 64, 8, 48, 1
OURS = "the same, each prompt once (ours)"


def rate(model, batch: dict, autocast: bool, pad: int | None) -> float:
    """Sampled tokens per second, the better of the rounds; with `pad`, each prompt is computed once."""
    best = 0.0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            inputs = batch if pad is None else generation_inputs(model, prompts_of(batch), pad)
            model.generate(**inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=True, top_k=0)
        best = max(best, BATCH * TOKENS / (time.perf_counter() - start))
    return best


def prompts_of(batch: dict) -> list[list[int]]:
    """The rows' tokens, without padding."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def main() -> None:
    path = resolve_model(EMBEDDED_MODEL, cache_dir())
    tokenizer = load_tokenizer(path)
    chats = [messages(problem) for problem in generate_problems(BATCH // GROUP, "train", seed=0) for _ in range(GROUP)]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    variants = {
        "fp32, sdpa (transformers' default)": ("float32", "sdpa", False),
        "fp32 under bf16 autocast, sdpa": ("float32", "sdpa", True),
        "bf16 copy, sdpa": ("bfloat16", "sdpa", False),
        "bf16 copy, eager": ("bfloat16", "eager", False),
        "bf16 copy, grouped": ("bfloat16", None, False),
        OURS: ("bfloat16", None, False),
    }
    rates = {}
    for name, (dtype, attention, autocast) in variants.items():
        model = load_model(path, dtype, attention)
        rates[name] = rate(model, batch, autocast, tokenizer.pad_token_id if name == OURS else None)
    slowest = next(iter(rates.values()))
    print(f"{BATCH} sequences x {TOKENS} tokens, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, value in rates.items():
        print(f"{name:38}{value:8.0f} tokens/s {value / slowest:6.2f} x")


if __name__ == "__main__":
    main()
