"""What makes a laptop fast enough: attention, scoring and sampling for a CPU, with the same numbers as the libraries'.

No library has these. Liger's kernels need Triton, and TRL's fused head keeps to the labelled tokens on a GPU only.
`benchmarks/README.md` says what each of them brings.
"""

from __future__ import annotations

import functools
import inspect
import os
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from trl import GRPOTrainer, SFTTrainer

    from finr1.params import GRPOParams

PREFILL_TOKENS = 512  # of each prompt that go through the policy at once where the policy itself samples
SCORED_AT_ONCE = 1024  # tokens; their logits take 16 bytes for each entry of the vocabulary: 0.8 GB with 49k of them
# Attention without softcap, sinks or other additions, for which `_grouped_attention` would be wrong.
_PLAIN_ATTENTION = ("llama", "mistral", "qwen2", "qwen3")
# Settings with which logits or loss are more than the head's product; TRL's `add_fused_lm_head` has the same list.
_OTHER_HEADS = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
    "num_experts", "num_local_experts", "n_routed_experts",
)  # fmt: skip


def speed_up(trainer: SFTTrainer | GRPOTrainer) -> None:
    """On a CPU, give the trainer's model and reference model the head below; sample long prompts in pieces anywhere."""
    import torch
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


# ---- attention -------------------------------------------------------------------------------------------------------


def attention_implementation(path: str) -> str:
    """`sdpa` on a GPU; on a CPU `grouped` for the families of Llama and Qwen, `eager` for others.

    Measured with the embedded model in bf16 on two cores, 64 sequences: a decoding step takes 87 ms grouped, 134 eager,
    229 sdpa, whose CPU kernel is slow on short queries.
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig
    from transformers.masking_utils import eager_mask

    if torch.cuda.is_available():
        return "sdpa"
    if AutoConfig.from_pretrained(path).model_type not in _PLAIN_ATTENTION:
        return "eager"
    AttentionInterface.register("grouped", _grouped_attention)
    AttentionMaskInterface.register("grouped", eager_mask)
    return "grouped"


def _grouped_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Eager attention that does not copy keys and values for each head that shares them; the same numbers.

    query (B, heads, L, D), key and value (B, groups, K, D), mask (B or 1, 1, L, K) or None; returns (B, L, heads, D).
    """
    import torch

    rows, heads, length, size = query.shape
    groups = key.shape[1]
    weights = query.reshape(rows, groups, -1, size) @ key.transpose(2, 3) * scaling  # (B, groups, heads/groups * L, K)
    if attention_mask is not None:
        weights = weights.view(rows, groups, heads // groups, length, -1) + attention_mask[:, :, None]
    weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = torch.nn.functional.dropout(weights, p=dropout, training=module.training)
    output = weights.view(rows, groups, -1, key.shape[2]) @ value
    return output.view(rows, heads, length, size).transpose(1, 2).contiguous(), None


# ---- scoring ---------------------------------------------------------------------------------------------------------


def add_completion_head(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Replace the head that TRL's `add_fused_lm_head` has put on `model` by one for the CPU, with the same values.

    TRL's head is made for the GPU. On a CPU it scores every position, prompts and padding too, computes the logits
    twice and multiplies their gradients in fp32: half of a step and more with a vocabulary of 49k. This one scores the
    labelled positions alone, in the dtype of autocast; columns that are padding in every row do not even go through the
    model.

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
        inputs, used = _without_padding(kwargs)
        hidden = self.base_model(*args, **inputs).last_hidden_state[:, :-1]
        hidden = hidden[scored[:, used][:, : hidden.size(1)]]  # (N, hidden size)
        found = _score(self.get_output_embeddings(), hidden, labels[:, 1:][scored], temperature)
        # Unlike an index, it stays in the model's graph where no token has a label: gradients of zero, no error.
        log_probs, entropy, is_top1 = (
            values.new_zeros(scored.shape).masked_scatter(scored, values) for values in found
        )
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / scored.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=entropy,
            is_top1=is_top1,
            label_mask=scored,
        )

    model.forward = types.MethodType(forward, model)


def _without_padding(inputs: dict[str, Any]) -> tuple[dict[str, Any], slice]:
    """`inputs` without the columns that are padding in every row, and which columns are left.

    Positions stay what they were. Packed rows, which come with positions of their own, are left alone.
    """
    import torch

    inputs = inputs | {"use_cache": False}
    mask = inputs.get("attention_mask")
    if mask is None or inputs.get("position_ids") is not None:
        return inputs, slice(None)
    columns = mask.any(dim=0).nonzero()
    used = slice(int(columns[0]), int(columns[-1]) + 1)
    inputs |= {"input_ids": inputs["input_ids"][:, used], "attention_mask": mask[:, used]}
    if used.start:
        inputs["position_ids"] = torch.arange(used.start, used.stop, device=mask.device)[None]
    return inputs, used


def _score(head, hidden: torch.Tensor, targets: torch.Tensor, temperature: float) -> tuple[torch.Tensor, ...]:
    """Log-probability, entropy and whether it is the likeliest, of each target: (N,) each; `hidden` (N, hidden size).

    More than `SCORED_AT_ONCE` are scored part by part, and each part's logits again in the backward pass.
    """
    import torch
    from torch.utils.checkpoint import checkpoint
    from trl.trainer.utils import selective_log_softmax_and_entropy

    def score(hidden, targets):
        logits = head(hidden).float()[None]  # (1, N, vocabulary)
        log_probs, entropy = selective_log_softmax_and_entropy(
            logits, targets[None], entropy_requires_grad=False, temperature=temperature
        )
        return log_probs[0], entropy[0], logits[0].detach().argmax(dim=-1) == targets

    if len(hidden) <= SCORED_AT_ONCE:
        return score(hidden, targets)
    parts = zip(hidden.split(SCORED_AT_ONCE), targets.split(SCORED_AT_ONCE), strict=True)
    return tuple(map(torch.cat, zip(*(checkpoint(score, *part, use_reentrant=False) for part in parts), strict=True)))


# ---- sampling --------------------------------------------------------------------------------------------------------


def cpu_sampler(path: str, params: GRPOParams) -> CPUSampler | None:
    """TRL `rollout_func` for a CPU; None where vLLM, a GPU, or a policy in fp32 or 4 bits samples by itself."""
    import torch

    copies = not params.use_vllm and not torch.cuda.is_available() and params.bf16 and params.peft != "qlora"
    return CPUSampler(path) if copies else None


class CPUSampler:
    """TRL `rollout_func` that samples from a bf16 copy of the policy.

    On the CPU, TRL samples from the fp32 master weights under bf16 autocast; a copy in bf16 with each prompt of a group
    computed once writes 2.7 times the tokens a second (benchmarks/README.md). It is refreshed before every rollout, so
    it differs from the policy by rounding alone; ratios are computed on the policy.
    """

    def __init__(self, path: str):
        from finr1.models import load_model

        self.model = load_model(path, "bfloat16").eval()

    def __call__(self, prompts: list, trainer: GRPOTrainer) -> dict[str, list]:
        """Token ids of B prompts (chats) and of their B completions, each up to its end token."""
        import torch
        from trl.extras.profiling import profiling_context

        self._refresh(trainer.accelerator.unwrap_model(trainer.model))
        tokenizer = trainer.processing_class
        prompt_ids = tokenizer.apply_chat_template(prompts, add_generation_prompt=True)["input_ids"]
        with profiling_context(trainer, "generate"), torch.inference_mode():
            inputs = generation_inputs(self.model, prompt_ids, tokenizer.pad_token_id)
            output = self.model.generate(**inputs, generation_config=trainer.generation_config)
        completions, ends = output[:, inputs["input_ids"].shape[1] :].tolist(), trainer.eos_token_ids
        last = [next((place for place, token in enumerate(ids) if token in ends), len(ids)) for ids in completions]
        cut = [ids[: place + 1] for ids, place in zip(completions, last, strict=True)]
        return {"prompt_ids": prompt_ids, "completion_ids": cut, "logprobs": None}

    def _refresh(self, policy) -> None:
        """Copy the policy's weights, an adapter folded in, into the bf16 copy."""
        from finr1.models import merged_weights

        self.model.load_state_dict(dict(merged_weights(policy)))


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
    index = torch.tensor([rows.index(tuple(prompt)) for prompt in prompts], device=model.device)
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
