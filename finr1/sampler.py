"""The sampler is the policy: how weights reach a colocated vLLM, and a check of every batch, whatever samples.

Where old weights, the base model, or an adapter that counts twice sample, nothing fails, and nothing is learned.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from trl import GRPOTrainer
from trl.trainer.utils import selective_log_softmax

from finr1.models import merged_weights

CHECKED = 4  # completions of each batch and process
TOLERANCE = 0.1  # mean difference in a sampled token's log-probability, nats; rounding to bf16 made 0.002 of it


def keep_vllm_weights() -> None:
    """Before vLLM is made on a CPU: keep the weights, which it would pack and drop, so that the policy's can follow."""
    if not torch.cuda.is_available():
        from vllm.model_executor.layers import utils

        linear = torch.nn.functional.linear
        utils.dispatch_cpu_unquantized_gemm = lambda layer, remove_weight: setattr(layer, "cpu_linear", linear)


def check_sampler(trainer: GRPOTrainer, tolerance: float = TOLERANCE) -> None:
    """Compare, in each batch that is sampled to learn from, a few completions' log-probabilities with the policy's.

    vLLM reports its own; for another sampler they are computed with its model. Logs the mean difference as TRL names it
    (`sampling/sampling_logp_difference/mean`), and raises `RuntimeError` where it is above `tolerance`.
    """
    sample = trainer._generate_and_score_completions

    def checked(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = sample(inputs)
        if trainer.model.training:  # the looks are greedy
            _compare(trainer, batch, tolerance)
        return batch

    trainer._generate_and_score_completions = checked
    if trainer.use_vllm:
        _merge_beside(trainer.vllm_generation)


def _merge_beside(sync: Any) -> None:
    """Let TRL's `VLLMGeneration` send an adapter's merged weights as `merged_weights` has them. Not under FSDP."""

    def named_params() -> Iterator[tuple[str, torch.Tensor]]:
        tied = sync.model.get_base_model().all_tied_weights_keys  # vLLM takes a tied head from the embedding alone
        with sync._dist.gather_params(list(sync.model.parameters())):
            weights = merged_weights(sync.model)
            yield from ((sync._fix_param_name_to_vllm(name), weight) for name, weight in weights if name not in tied)

    if isinstance(sync.model, PeftModel) and not sync._dist.is_fsdp:
        sync._iter_named_params = named_params


def _compare(trainer: GRPOTrainer, batch: dict[str, Any], tolerance: float) -> None:
    model, completions, reported = trainer.model, batch["completion_ids"], batch.get("sampling_per_token_logps")
    length, told = completions.size(1), batch["completion_mask"].bool()
    told = told | ~told.any(dim=1, keepdim=True)  # one that was cut off is masked, and as long as the batch is wide
    rows = torch.linspace(0, len(told) - 1, min(CHECKED, len(told)), device=told.device).round().long()
    ids = torch.cat([batch["prompt_ids"], completions], dim=1)[rows]
    mask = torch.cat([batch["prompt_mask"], told.to(batch["prompt_mask"])], dim=1)[rows]
    samples = getattr(trainer.rollout_func, "model", model)  # `CPUSampler` has a copy of the policy

    def recomputed(row: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        logits = samples(input_ids=row[None], attention_mask=seen[None], logits_to_keep=length + 1).logits[:, :-1]
        return selective_log_softmax(logits.float() / trainer.temperature, row[None, -length:])

    model.eval()  # without dropout
    with torch.no_grad():
        policy = trainer._get_per_token_logps_and_entropies(model, ids, mask, length, batch_size=1)[0]
        if reported is None:
            sampler = torch.cat([recomputed(*pair) for pair in zip(ids, mask, strict=True)])
        else:  # of the nucleus, in which each token is likelier by at most -log(top_p)
            sampler, tolerance = reported[rows], tolerance - math.log(trainer.top_p)
    model.train()
    known = told[rows] & ~sampler.isnan()
    sums = [values[known].sum() for values in ((sampler - policy).abs(), sampler, policy)]
    totals = trainer.accelerator.gather(torch.stack([*sums, known.sum()]).float()).view(-1, 4).sum(dim=0).tolist()
    gap, of_sampler, of_policy = (total / max(totals[3], 1) for total in totals[:3])
    trainer._metrics["train"]["sampling/sampling_logp_difference/mean"].append(gap)
    if gap > tolerance:
        raise RuntimeError(
            f"step {trainer.state.global_step}: the sampler is not the policy. A token's log-probability is "
            f"{of_sampler:.3f} by the sampler and {of_policy:.3f} by the policy, a mean difference of {gap:.3f} over "
            f"{totals[3]:.0f} tokens, above {tolerance:.3f}: weights did not arrive, or an adapter counts twice. "
            "use_vllm = false samples with the policy; where the engine only rounds more: check_sampler(tolerance=...)"
        )
