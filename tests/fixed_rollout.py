"""Completions that depend on nothing but the prompt: the same in one process and in several."""

from __future__ import annotations

import hashlib
from collections import Counter

TEXTS = ("<think>{0}</think><answer>\\boxed{{2}}</answer>", "<think>{0}</think>", "neutral {0}", "{0} \\boxed{{3}}")


class FixedRollout:
    """TRL `rollout_func`: the n-th completion of a prompt is one of four texts around the prompt's hash."""

    def __call__(self, prompts: list, trainer) -> dict[str, list]:
        tokenizer, seen = trainer.processing_class, Counter()
        ids = {"prompt_ids": [], "completion_ids": [], "logprobs": None}
        for prompt in prompts:
            question = prompt[-1]["content"]
            text = TEXTS[seen[question] % len(TEXTS)].format(hashlib.sha256(question.encode()).hexdigest()[:4])
            seen[question] += 1
            ids["prompt_ids"].append(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
            ids["completion_ids"].append(tokenizer(text)["input_ids"] + [tokenizer.eos_token_id])
        return ids
