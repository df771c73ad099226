"""What makes TRL's sampling fast on a CPU: a bf16 copy of the policy, and each prompt computed once a group."""

from __future__ import annotations

from finr1.generation.prefill import generation_inputs


class CPUSampler:
    """TRL `rollout_func` that samples from a bf16 copy of the policy.

    On the CPU, TRL samples from the fp32 master weights under bf16 autocast; a copy in bf16 with each prompt of a group
    computed once writes 2.7 times the tokens a second (benchmarks/README.md). It is refreshed before every rollout, so
    it differs from the policy by rounding alone; ratios are computed on the policy.
    """

    def __init__(self, path: str):
        from finr1.models import load_model

        self.model = load_model(path, "bfloat16").eval()

    def __call__(self, prompts: list, trainer) -> dict[str, list]:
        import torch

        self._refresh(trainer.accelerator.unwrap_model(trainer.model))
        tokenizer = trainer.processing_class
        prompt_ids = tokenizer.apply_chat_template(prompts, add_generation_prompt=True)["input_ids"]
        with torch.inference_mode():
            inputs = generation_inputs(self.model, prompt_ids, tokenizer.pad_token_id)
            output = self.model.generate(**inputs, generation_config=trainer.generation_config)
        completions = output[:, inputs["input_ids"].shape[1] :]  # (B, completion length)
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": [_up_to_eos(row.tolist(), tokenizer.eos_token_id) for row in completions],
            "logprobs": None,
        }

    def _refresh(self, policy) -> None:
        """Copy the policy's weights, an adapter folded in, into the bf16 copy.

        Not by `merge_adapter`: taking the adapter out again rounds the base, and a resumed run would differ a little.
        """
        from peft.tuners.lora import LoraLayer

        base = policy.get_base_model() if hasattr(policy, "merge_adapter") else policy
        state = {k.replace(".base_layer", ""): v for k, v in base.state_dict().items() if "lora_" not in k}
        for name, module in base.named_modules():
            if isinstance(module, LoraLayer):
                state[f"{name}.weight"] = module.get_base_layer().weight + module.get_delta_weight("default")
        self.model.load_state_dict(state)


def _up_to_eos(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos) + 1] if eos in ids else ids
