"""Prompts through the model once: what several of them begin with, and those that are asked several times."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def generation_inputs(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """Inputs of `model.generate` for `prompts` of token ids: `input_ids` and `attention_mask` (B, longest prompt).

    With them comes `past_key_values`: keys and values of all but each prompt's last token. What all prompts begin with
    (the system prompt) is computed for one of them, and equal prompts (a GRPO group, the samples of an item) are
    computed once. So padding stands between the common beginning and the rest. Models whose layers do not all attend to
    everything before (a sliding window, a state) or that `computable_in_pieces` excludes get padding on the left, and
    no cache.
    """
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    rows = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
    width = max(map(len, rows))
    cache = DynamicCache(config=model.config)
    cacheable = computable_in_pieces(model) and all(type(layer) is DynamicLayer for layer in cache.layers)
    common = len(os.path.commonprefix([row[:-1] for row in rows])) if cacheable else 0
    padding = [width - len(row) for row in rows]
    ids = [[*row[:common], *[pad] * gap, *row[common:]] for row, gap in zip(rows, padding, strict=True)]
    mask = [[1] * common + [0] * gap + [1] * (width - gap - common) for gap in padding]
    ids, mask = (torch.tensor(values, device=model.device) for values in (ids, mask))
    numbers = {row: number for number, row in enumerate(rows)}
    index = torch.tensor([numbers[tuple(prompt)] for prompt in prompts], device=model.device)
    inputs = {"input_ids": ids[index], "attention_mask": mask[index]}
    if not cacheable or width == 1:
        return inputs
    if common:
        model.base_model(ids[:1, :common], past_key_values=cache)
        cache.batch_repeat_interleave(len(rows))
    if common < width - 1:
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)  # as `generate` counts them
        model.base_model(
            ids[:, common:-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, common:-1],
            past_key_values=cache,
        )
    cache.batch_select_indices(index)
    return inputs | {"past_key_values": cache}


def computable_in_pieces(model: PreTrainedModel) -> bool:
    """Whether a prompt may go through `model` piece by piece: not where RoPE depends on the longest position so far.

    Nor where padding in the middle would count (local attention by column), or positions can't be given.
    """
    config = model.config.get_text_config()
    rope = str(getattr(config, "rope_parameters", None))  # for all layers, or by kind of layer
    if "longrope" in rope or "dynamic" in rope or "local" in getattr(config, "attention_layers", ()):
        return False
    return "position_ids" in inspect.signature(model.forward).parameters
