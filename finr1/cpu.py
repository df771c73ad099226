"""What makes a laptop fast enough: attention, scoring and sampling for a CPU, with the same numbers as the libraries'.

No library has these. Liger's kernels need Triton, and TRL's fused head keeps to the labelled tokens on a GPU only.
`benchmarks/README.md` says what each of them brings.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, DynamicCache, GenerationConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from finr1.models import load_model, merged_weights, native_dtype
from finr1.params import GRPOParams

if TYPE_CHECKING:
    from trl import GRPOTrainer, SFTTrainer

PREFILL_TOKENS = 512  # of each prompt that go through the policy at once where the policy itself samples
PIECE = 16  # tokens that are written before rows that have ended leave the batch
TREE = 1500  # tokens of a tree whose attention costs as much as all else; 200 to 1500 measured within 10 %
SCORED_AT_ONCE = 1024  # tokens; their logits take 16 bytes for each entry of the vocabulary: 0.8 GB with 49k of them
# Attention without softcap, sinks or other additions, for which `_grouped_attention` would be wrong.
_PLAIN_ATTENTION = ("llama", "mistral", "qwen2", "qwen3")
# Settings with which logits or loss are more than the head's product; TRL's `add_fused_lm_head` has the same list.
_OTHER_HEADS = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
                "num_experts", "num_local_experts", "n_routed_experts")  # fmt: skip

Tree = dict[tuple[int, int], int]  # (place of the token before, token) -> place


def speed_up(trainer: SFTTrainer | GRPOTrainer) -> None:
    """On a CPU, give the trainer's model and reference model the head below; sample long prompts in pieces anywhere."""
    from peft import PeftModel

    samples_itself = hasattr(trainer, "rollout_func") and trainer.rollout_func is None and not trainer.use_vllm
    if samples_itself and computable_in_pieces(trainer.accelerator.unwrap_model(trainer.model)):
        # A whole generation batch of long pages at once can take more memory than the update.
        trainer.generation_config.prefill_chunk_size = PREFILL_TOKENS
    if torch.cuda.is_available():
        return
    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            model = trainer.accelerator.unwrap_model(model)
            base = model.get_base_model() if isinstance(model, PeftModel) else model
            add_completion_head(base, getattr(trainer, "temperature", 1.0))


def attention_implementation(path: str) -> str:
    """`sdpa` on a GPU; on a CPU `grouped` for the families of Llama and Qwen, `eager` for others.

    Measured with the embedded model in bf16 on two cores, 64 sequences: a decoding step takes 87 ms grouped, 134 eager,
    229 sdpa, whose CPU kernel is slow on short queries.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    if torch.cuda.is_available():
        return "sdpa"
    if AutoConfig.from_pretrained(path, trust_remote_code=False).model_type not in _PLAIN_ATTENTION:
        return "eager"
    AttentionInterface.register("grouped", _grouped_attention)
    AttentionMaskInterface.register("grouped", eager_mask)
    return "grouped"


def _grouped_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """SDPA; for a single token eager attention that does not copy keys and values for each head; the same numbers.

    query (B, heads, L, D), key and value (B, groups, K, D), mask (B or 1, 1, L, K) or None; returns (B, L, heads, D).
    """
    rows, heads, length, size = query.shape
    if length > 1:  # training and prompts, where the scores would fill the memory
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, is_causal=False)
    groups = query.reshape(rows, key.shape[1], -1, size)  # (B, groups, heads / groups, D)
    weights = groups @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).reshape(rows, 1, heads, size), None


def add_completion_head(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Replace the head that TRL's `add_fused_lm_head` has put on `model` by one for the CPU, with the same values.

    On a CPU, TRL's scores every position, prompts and padding too, computes the logits twice and multiplies their
    gradients in fp32: half of a step and more with a vocabulary of 49k. This one scores the labelled positions alone,
    in the dtype of autocast, of the hidden states that `_hidden_states` computes without most padding and repetitions.

    `model(..., labels=labels, fused_lm_head=True)` gives `log_probs`, `entropy` (without gradient), `is_top1` and
    `label_mask`, each (B, L - 1) and zero where the label is -100. Models that scale or cap their logits, or route
    tokens to experts, keep TRL's head.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    if any(getattr(model.config.get_text_config(), name, None) for name in _OTHER_HEADS):
        return
    with_trl_head = model.forward

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(self, *args, fused_lm_head=False, **kwargs):
        if not fused_lm_head:
            return with_trl_head(*args, **kwargs)
        labels = kwargs.pop("labels")
        scored = labels[:, 1:] != -100  # (B, L - 1): each position predicts the next token
        hidden = _hidden_states(self, scored, **kwargs)
        found = _score(self.get_output_embeddings(), hidden, labels[:, 1:][scored], temperature)
        # Unlike an index, it stays in the model's graph where no token has a label: gradients of zero, no error.
        log_probs, entropy, is_top1 = (value.new_zeros(scored.shape).masked_scatter(scored, value) for value in found)
        loss = -log_probs.sum() / scored.sum().clamp(min=1)
        return FusedCausalLMOutput(loss=loss, log_probs=log_probs, entropy=entropy, is_top1=is_top1, label_mask=scored)

    model.forward = types.MethodType(forward, model)


def _hidden_states(model: PreTrainedModel, scored: torch.Tensor, **inputs) -> torch.Tensor:
    """The last hidden state at each `scored` place (B, L - 1) of `input_ids` (B, L), in their order: (N, hidden size).

    With models of Llama's and Qwen's families, rows that begin alike (with the system prompt, or a GRPO group's prompt)
    become branches of one tree. A token sees those that lead to it, so the numbers are the same with little padding.
    """
    mask = inputs.get("attention_mask")
    plain = model.config.model_type in _PLAIN_ATTENTION and _attends_to_all(model)
    if not plain or mask is None or inputs.get("position_ids") is not None:
        return model.base_model(**inputs | {"use_cache": False}).last_hidden_state[:, :-1][scored]
    used = mask.bool()
    rows = [ids[own].tolist() for ids, own in zip(inputs["input_ids"], used, strict=True)]
    wanted = [row[own].tolist() for row, own in zip(torch.nn.functional.pad(scored, (0, 1)), used, strict=True)]
    trees, paths = _as_trees(rows, [row.index(True) + 1 if True in row else 0 for row in wanted])
    width = max(map(len, trees))
    seen = torch.eye(width, dtype=torch.bool).repeat(len(trees), 1, 1)
    ids = torch.zeros(len(trees), width, dtype=torch.long)
    for number, tree in enumerate(trees):
        for place, (parent, token) in enumerate(tree):  # a parent comes before its children
            ids[number, place] = token
            if parent >= 0:
                seen[number, place] |= seen[number, parent]
    bias = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, -torch.inf)[:, None]
    inputs = {"input_ids": ids, "position_ids": seen.sum(dim=-1) - 1, "attention_mask": bias}
    inputs = {name: values.to(mask.device) for name, values in inputs.items()}
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    places = ([tree * width + place for place in path] for tree, path in paths)
    index = [place for row in zip(places, wanted, strict=True) for place, scores in zip(*row, strict=True) if scores]
    return hidden.index_select(0, torch.tensor(index, dtype=torch.long, device=mask.device))


def _as_trees(rows: list[list[int]], answers: list[int]) -> tuple[list[Tree], list[tuple[int, list[int]]]]:
    """Rows of token ids as trees of about one size, and for each row the number of its tree and its tokens' places.

    `answers` says where each row's answer begins. Rows with one prompt stay together. The number of trees is cheapest.
    """

    def grow(numbers: list[int]) -> tuple[Tree, dict[int, list[int]]]:
        tree, paths = {}, {}
        for number in numbers:
            path = [-1]
            for token in rows[number]:
                path.append(tree.setdefault((path[-1], token), len(tree)))
            paths[number] = path[1:]
        return tree, paths

    common = len(os.path.commonprefix(rows))
    together: dict[tuple, list[int]] = {}  # rows by prompt
    for number, (row, start) in enumerate(zip(rows, answers, strict=True)):
        together.setdefault(tuple(row[:start]), []).append(number)
    # Tokens beside the common beginning, largest first.
    sizes = sorted(((len(grow(numbers)[0]) - common, numbers) for numbers in together.values()), reverse=True)
    tried = []
    for count in range(1, len(sizes) + 1):
        groups: list[tuple[int, list[int]]] = [(common, [])] * count
        for size, numbers in sizes:  # each to the tree that is the smallest so far
            at = groups.index(min(groups))
            groups[at] = groups[at][0] + size, groups[at][1] + numbers
        width = max(groups)[0]
        tried.append((count * width * (width + TREE), groups))
    grown = [grow(members) for _, members in min(tried)[1]]
    places = {row: (number, path) for number, (_, paths) in enumerate(grown) for row, path in paths.items()}
    return [tree for tree, _ in grown], [places[row] for row in range(len(rows))]


def _score(head, hidden: torch.Tensor, targets: torch.Tensor, temperature: float) -> tuple[torch.Tensor, ...]:
    """Log-probability, entropy and whether it is the likeliest, of each target: (N,) each; `hidden` (N, hidden size).

    More than `SCORED_AT_ONCE` are scored part by part, and each part's logits again in the backward pass.
    """
    from trl.trainer.utils import selective_log_softmax_and_entropy

    def score(hidden, targets):
        logits = head(hidden).float()[None]  # (1, N, vocabulary)
        how = {"entropy_requires_grad": False, "temperature": temperature}
        log_probs, entropy = selective_log_softmax_and_entropy(logits, targets[None], **how)
        return log_probs[0], entropy[0], logits[0].detach().argmax(dim=-1) == targets

    if len(hidden) <= SCORED_AT_ONCE:
        return score(hidden, targets)
    parts = zip(hidden.split(SCORED_AT_ONCE), targets.split(SCORED_AT_ONCE), strict=True)
    return tuple(map(torch.cat, zip(*(checkpoint(score, *part, use_reentrant=False) for part in parts), strict=True)))


def cpu_sampler(path: str, params: GRPOParams) -> CPUSampler | None:
    """TRL `rollout_func` for a CPU; None where vLLM, a GPU, or a policy of `bf16: false` or in 4 bits samples."""
    copies = not params.use_vllm and not torch.cuda.is_available() and params.bf16 and params.peft != "qlora"
    gathered = params.num_processes == 1 or params.distributed != "zero3"  # ZeRO-3's shards TRL gathers itself
    return CPUSampler(path) if copies and gathered else None


class CPUSampler:
    """TRL `rollout_func` that samples from a copy of the policy, in bf16 where the CPU has it.

    TRL samples from fp32 weights under autocast; this writes 2.7 times the tokens a second (benchmarks/README.md). The
    copy is refreshed before every rollout: it differs by rounding alone, and ratios are computed on the policy.
    """

    def __init__(self, path: str):
        self.model = load_model(path, native_dtype()).eval()

    def __call__(self, prompts: list, trainer: GRPOTrainer) -> dict[str, list]:
        """Token ids of B prompts (chats) and of their B completions, each up to its end token."""
        from trl.extras.profiling import profiling_context

        self._refresh(trainer.accelerator.unwrap_model(trainer.model))
        prompt_ids = trainer.processing_class.apply_chat_template(prompts, add_generation_prompt=True)["input_ids"]
        with profiling_context(trainer, "generate"), torch.inference_mode():
            completion_ids = complete(self.model, prompt_ids, trainer.generation_config)
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None}

    def _refresh(self, policy) -> None:
        """Give the copy the policy's weights, an adapter folded in."""
        self.model.load_state_dict(dict(merged_weights(policy)))


def complete(model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
    """Token ids of a completion of each of `prompts` (token ids), with its end token where it has one.

    `generate` computes every row until the longest has ended, twice the work here: so ended ones leave in between.
    """
    inputs, ends = generation_inputs(model, prompts, config.pad_token_id), torch.tensor(config.eos_token_id)
    rows, completions, left = list(range(len(prompts))), [[] for _ in prompts], config.max_new_tokens
    while rows and left:
        width, piece = inputs["input_ids"].size(1), copy.deepcopy(config)
        piece.max_new_tokens = min(left, PIECE) if "past_key_values" in inputs else left
        ids = model.generate(**inputs, generation_config=piece)
        stop = torch.isin(ids[:, width:], ends.to(ids.device))
        for row, new, stops in zip(rows, ids[:, width:].tolist(), stop.tolist(), strict=True):
            completions[row] += new[: stops.index(True) + 1] if True in stops else new
        left -= piece.max_new_tokens
        kept = (~stop.any(dim=1)).nonzero()[:, 0]
        rows = [rows[place] for place in kept.tolist()]
        if rows and left:
            inputs["past_key_values"].batch_select_indices(kept)
            mask = torch.nn.functional.pad(inputs["attention_mask"], (0, ids.size(1) - width), value=1)
            inputs |= {"input_ids": ids[kept], "attention_mask": mask[kept]}
    return completions


def generation_inputs(model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """Inputs of `model.generate` for `prompts` of token ids: `input_ids` and `attention_mask` (B, longest prompt).

    With them comes `past_key_values`: keys and values of all but each prompt's last token. What all prompts begin with
    (the system prompt), and equal prompts (a GRPO group, the samples of an item), are computed once. So padding stands
    behind the common beginning. Models that do not attend to everything before get it on the left, and no cache.
    """
    rows = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
    width, cacheable = max(map(len, rows)), _attends_to_all(model)
    common = len(os.path.commonprefix([row[:-1] for row in rows])) if cacheable else 0
    padding = [width - len(row) for row in rows]
    ids = [[*row[:common], *[pad] * gap, *row[common:]] for row, gap in zip(rows, padding, strict=True)]
    mask = [[1] * common + [0] * gap + [1] * (width - gap - common) for gap in padding]
    ids, mask = (torch.tensor(values, device=model.device) for values in (ids, mask))
    index = torch.tensor([rows.index(tuple(prompt)) for prompt in prompts], device=model.device)
    inputs = {"input_ids": ids[index], "attention_mask": mask[index]}
    if not cacheable or width == 1:
        return inputs
    cache = DynamicCache(config=model.config)
    if common:
        model.base_model(ids[:1, :common], past_key_values=cache)
        cache.batch_repeat_interleave(len(rows))
    if common < width - 1:
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)  # as `generate` counts them
        places = {"attention_mask": mask[:, :-1], "position_ids": positions[:, common:-1]}
        model.base_model(ids[:, common:-1], **places, past_key_values=cache)
    cache.batch_select_indices(index)
    return inputs | {"past_key_values": cache}


def _attends_to_all(model: PreTrainedModel) -> bool:
    """Whether each token sees all before it (no window, no state), wherever it stands: then prompts can be shared."""
    layers = DynamicCache(config=model.config).layers
    return computable_in_pieces(model) and all(type(layer) is DynamicLayer for layer in layers)


def computable_in_pieces(model: PreTrainedModel) -> bool:
    """Whether a prompt may go through `model` piece by piece: not where RoPE depends on the longest position so far.

    Nor where padding in the middle would count (local attention by column), or positions can't be given.
    """
    config = model.config.get_text_config()
    rope = str(getattr(config, "rope_parameters", None))  # for all layers, or by kind of layer
    if "longrope" in rope or "dynamic" in rope or "local" in getattr(config, "attention_layers", ()):
        return False
    return "position_ids" in inspect.signature(model.forward).parameters
