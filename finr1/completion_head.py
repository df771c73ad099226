"""What makes TRL's training fast on a CPU: a language-model head that scores the tokens with a label, and no others."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from trl import GRPOTrainer, SFTTrainer

SCORED_AT_ONCE = 1024  # tokens; their logits take 16 bytes for each entry of the vocabulary: 0.8 GB with 49k of them
# Settings with which logits or loss are more than the head's product; `add_fused_lm_head` has the same.
_OTHER_HEADS = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling",
    "num_experts", "num_local_experts", "n_routed_experts",
)  # fmt: skip


def use_completion_head(trainer: SFTTrainer | GRPOTrainer) -> None:
    """On a CPU, give the trainer's model and its reference model the head of `add_completion_head`."""
    import torch
    from peft import PeftModel

    if torch.cuda.is_available():
        return
    for model in (trainer.model, getattr(trainer, "ref_model", None)):
        if model is not None:
            model = trainer.accelerator.unwrap_model(model)
            base = model.get_base_model() if isinstance(model, PeftModel) else model
            add_completion_head(base, getattr(trainer, "temperature", 1.0))


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
