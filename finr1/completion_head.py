"""What makes TRL's training fast on a CPU: a language-model head that scores the tokens with a label, and no others."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from trl import GRPOTrainer, SFTTrainer

# Settings of a model's configuration with which logits or loss are more than the head's product.
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
    labelled positions alone, in the dtype of autocast, all at once; columns that are padding in every row do not even
    go through the model.

    `model(..., labels=labels, fused_lm_head=True)` gives `log_probs`, `entropy` (without gradient), `is_top1` and
    `label_mask`, each (B, L - 1) and zero where the label is -100. Models that scale or cap their logits, or route
    tokens to experts, keep TRL's head.
    """
    from trl.trainer.utils import FusedCausalLMOutput, selective_log_softmax_and_entropy

    if any(getattr(model.config.get_text_config(), name, None) for name in _OTHER_HEADS):
        return
    with_trl_head = model.forward

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(self, *args, fused_lm_head=False, **kwargs):
        if not fused_lm_head:
            return with_trl_head(*args, **kwargs)
        labels = kwargs.pop("labels")
        scored = labels[:, 1:] != -100  # (B, L - 1): each position predicts the next token
        used = _used_columns(kwargs)
        kwargs |= {name: kwargs[name][:, used] for name in ("input_ids", "attention_mask") if name in kwargs}
        hidden = self.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state[:, :-1]
        hidden = hidden[scored[:, used][:, : hidden.size(1)]]  # (N, hidden size)
        logits = self.get_output_embeddings()(hidden).float()[None]  # (1, N, vocabulary)
        targets = labels[:, 1:][scored][None]
        log_probs, entropy = selective_log_softmax_and_entropy(
            logits, targets, entropy_requires_grad=False, temperature=temperature
        )
        is_top1 = logits.detach().argmax(dim=-1) == targets

        def placed(values: torch.Tensor) -> torch.Tensor:
            # Unlike an index, it stays in the model's graph where no token has a label: gradients of zero, no error.
            return values.new_zeros(scored.shape).masked_scatter(scored, values)

        return FusedCausalLMOutput(
            loss=-log_probs.sum() / scored.sum().clamp(min=1),
            log_probs=placed(log_probs),
            entropy=placed(entropy),
            is_top1=placed(is_top1),
            label_mask=scored,
        )

    model.forward = types.MethodType(forward, model)


def _used_columns(inputs: dict[str, torch.Tensor]) -> slice:
    """The columns that hold a token in some row; all of them where rows are packed."""
    if "attention_mask" not in inputs or "position_ids" in inputs:
        return slice(None)
    used = inputs["attention_mask"].any(dim=0).nonzero()
    return slice(int(used[0]), int(used[-1]) + 1)
