"""Group relative policy optimisation with TRL's `GRPOTrainer`, rewards from `finr1.rewards`.

Fin-R1's objective is TRL's `loss_type="grpo"` with `beta > 0`, a symmetric clip and R = R_format + R_accuracy; TRL's
own defaults differ (`loss_type="dapo"`, `beta=0`), so every preset states them. The paper gives no value for any of
them. `launch("finr1.grpo", run)` starts this module in a process of its own; by hand it is
`python -m finr1.grpo outputs/demo/05_grpo`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finr1 import rewards
from finr1.params import GRPOParams
from finr1.run import cache_dir, child_main

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer

TRAIN_FILE = "train.jsonl"  # the RL rows that the notebook has chosen by pass rate
REWARD_COLUMNS = ("solution", "answer_kind", "alternatives", "choices", "labels")  # of an RL row, for `accuracy_reward`


def reward_functions(params: GRPOParams) -> list:
    """`sum`: format and accuracy as two rewards that TRL adds up, as in the paper; `gated`: one that needs both."""
    if params.reward == "gated":
        return [rewards.gated_reward]
    return [rewards.format_reward, rewards.accuracy_reward]


def pass_rates(rows: list[dict], texts: list[str]) -> list[float | None]:
    """Share of right answers for each RL row; `texts` holds the same number of answers for each, in the rows' order.

    None where the rules could grade none of them: such a row has no reward to learn from.
    """
    tries = len(texts) // max(len(rows), 1)
    repeated = {name: [row[name] for row in rows for _ in range(tries)] for name in REWARD_COLUMNS}
    verdicts = rewards.accuracy_reward(texts, **repeated) if rows else []
    groups = [[v for v in verdicts[i * tries : (i + 1) * tries] if v is not None] for i in range(len(rows))]
    return [sum(group) / len(group) if group else None for group in groups]


def check_enough(rows: list[dict], params: GRPOParams) -> None:
    """Raise `ValueError` when `rows` can't fill one step: a step draws that many different problems."""
    needed = params.batch_size // params.num_generations
    if len(rows) < needed:
        raise ValueError(
            f"{len(rows)} problems are left, a step needs {needed}: raise pass_rate_candidates (now "
            f"{params.pass_rate_candidates}) or pass_rate_samples (now {params.pass_rate_samples}), "
            "or train the SFT model longer"
        )


def warnings(log: list[dict]) -> list[str]:
    """What in the last quarter of `log` (rows of metrics.jsonl) deserves a look, each with what to do about it."""
    steps = [row for row in log if "reward" in row]
    late = steps[-max(1, len(steps) // 4) :]

    def mean(key: str, rows: list[dict]) -> float:
        values = [row[key] for row in rows if key in row]
        return sum(values) / len(values) if values else 0.0

    found = []
    if (dead := mean("frac_reward_zero_std", late)) > 0.6:
        found.append(
            f"{dead:.0%} of the groups have no spread, so they teach nothing: choose other problems or more generations"
        )
    if (cut := mean("completions/clipped_ratio", late)) > 0.3:
        found.append(f"{cut:.0%} of the completions are cut off: raise max_completion_length")
    if (entropy := mean("entropy", late)) < 0.1 * mean("entropy", steps[:1]):
        found.append(
            f"entropy fell to {entropy:.3f}: the policy has nearly stopped exploring; lower learning_rate or raise beta"
        )
    if mean("reward", late) < 0.5 * mean("reward", steps[:1]):
        found.append("the reward fell to less than half of its start: lower learning_rate or raise beta")
    return found


def sampled_groups(stage_dir: Path, step: int) -> list[dict]:
    """The completions that were sampled for `step`, each with its question, reward (sum of all) and advantage."""
    import pandas as pd

    table = pd.read_parquet(stage_dir / "completions" / f"completions_{step:05d}.parquet")
    names = [column for column in table.columns if column.endswith("_reward")]
    return [
        {
            "question": row["prompt"][-1]["content"],
            "completion": row["completion"][0]["content"],
            "reward": float(sum(row[name] for name in names)),
            "advantage": float(row["advantage"]),
        }
        for row in table.to_dict("records")
    ]


def start_model(params: GRPOParams) -> str:
    """Folder or hub id of the model that GRPO starts from: the SFT stage's, or the base model ("Zero")."""
    from finr1.models import resolve_model

    if params.sft_stage is None:
        return resolve_model(params.model_name_or_path, cache_dir())
    return str(params.inputs()["sft_stage"] / "model")


def grpo_config(params: GRPOParams, stage_dir: Path) -> GRPOConfig:
    """TRL's configuration for these parameters."""
    import torch
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(stage_dir / "checkpoints"),
        loss_type=params.loss_type,
        beta=params.beta,
        epsilon=params.epsilon,  # one bound for both sides: the paper's symmetric clip
        num_iterations=params.num_iterations,
        scale_rewards=params.scale_rewards,
        mask_truncated_completions=params.mask_truncated_completions,
        temperature=params.temperature,
        top_p=params.top_p,
        max_completion_length=params.max_completion_length,
        num_generations=params.num_generations,
        per_device_train_batch_size=params.per_device_train_batch_size,
        gradient_accumulation_steps=params.gradient_accumulation_steps,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.lr_scheduler_type,
        warmup_steps=params.warmup_steps,
        max_steps=params.max_steps,
        bf16=params.bf16,
        use_cpu=not torch.cuda.is_available(),  # bf16 autocast on a CPU has to be asked for
        gradient_checkpointing=params.gradient_checkpointing,
        save_steps=params.save_steps,
        save_total_limit=1,
        logging_steps=1,
        log_completions=True,
        num_completions_to_print=0,
        seed=params.seed,
        data_seed=params.seed,
        report_to="none",
        disable_tqdm=True,
    )


def make_trainer(params: GRPOParams, stage_dir: Path) -> GRPOTrainer:
    """TRL's trainer for `start_model` and the rows `{prompt, solution, answer_kind, ...}` of `<stage>/train.jsonl`."""
    import torch
    from datasets import load_dataset
    from trl import GRPOTrainer

    from finr1 import training
    from finr1.models import load_tokenizer

    config = grpo_config(params, stage_dir)  # first: ZeRO-3 loads the weights in shards only when it knows
    path = start_model(params)
    tokenizer = load_tokenizer(path)
    on_cpu = not torch.cuda.is_available()
    trainer_class = completion_scoring(GRPOTrainer) if on_cpu else GRPOTrainer
    return trainer_class(
        model=training.load_policy(path, params),
        reward_funcs=reward_functions(params),
        args=config,
        train_dataset=load_dataset("json", data_files=str(stage_dir / TRAIN_FILE), split="train"),
        processing_class=tokenizer,
        peft_config=training.peft_config(params),
        rollout_func=CPUSampler(path) if on_cpu and params.bf16 and params.peft != "qlora" else None,
    )


def completion_scoring(trainer_class: type[GRPOTrainer]) -> type[GRPOTrainer]:
    """`trainer_class` for the CPU: log-probabilities and entropies of the completion tokens alone.

    TRL's fused head is made for the GPU. On a CPU it scores the prompts too and multiplies its gradients in fp32, which
    takes half of a step with a vocabulary of 49k. Same values (a test compares them), about twice the speed.
    """
    import torch
    from trl.trainer.utils import selective_log_softmax_and_entropy

    class CompletionScoring(trainer_class):
        def _get_per_token_logps_and_entropies(
            self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **unused
        ):
            scored = []
            size = batch_size or len(input_ids)
            for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
                first = int(mask.any(dim=0).nonzero()[0])  # columns before it are padding in every row
                with self.accelerator.autocast():
                    logits = model(
                        input_ids=ids[:, first:],
                        attention_mask=mask[:, first:],
                        logits_to_keep=logits_to_keep + 1,
                        use_cache=False,
                    ).logits[:, :-1]  # (B, completion length, vocabulary): each position predicts the next token
                scored.append(
                    selective_log_softmax_and_entropy(
                        logits.float(),
                        ids[:, -logits_to_keep:],
                        entropy_requires_grad=False,
                        temperature=self.temperature,
                    )
                )
            logps, entropies = (torch.cat(parts) for parts in zip(*scored, strict=True))
            return logps, entropies if compute_entropy else None, None

    return CompletionScoring


def train(params: GRPOParams, stage_dir: Path) -> None:
    """Train, from the last checkpoint if there is one; save `model/` and every sampled group (`completions/`)."""
    from finr1 import training

    trainer = make_trainer(params, stage_dir)
    training.check_world_size(trainer, params.num_processes)
    training.train_and_save(trainer, stage_dir)


class CPUSampler:
    """TRL `rollout_func` that samples from a bf16 copy of the policy.

    On the CPU, TRL samples from the fp32 master weights; a copy in bf16 decodes about three times as fast. It is
    refreshed before every rollout, so it differs from the policy by rounding alone; ratios are computed on the policy.
    """

    def __init__(self, path: str):
        from finr1.models import load_model

        self.model = load_model(path, "bfloat16").eval()

    def __call__(self, prompts: list, trainer) -> dict[str, list]:
        import torch

        self._refresh(trainer.accelerator.unwrap_model(trainer.model))
        tokenizer = trainer.processing_class
        batch = tokenizer.apply_chat_template(
            prompts, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            output = self.model.generate(**batch, generation_config=trainer.generation_config)
        completions = output[:, batch["input_ids"].shape[1] :]  # (B, completion length)
        prompt_ids = [
            ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": [_up_to_eos(row.tolist(), tokenizer.eos_token_id) for row in completions],
            "logprobs": None,
        }

    def _refresh(self, policy) -> None:
        """Copy the policy's weights, an adapter folded in, into the bf16 copy."""
        has_adapter = hasattr(policy, "merge_adapter")
        if has_adapter:
            policy.merge_adapter()
        state = policy.get_base_model().state_dict() if has_adapter else policy.state_dict()
        self.model.load_state_dict({k.replace(".base_layer", ""): v for k, v in state.items() if "lora_" not in k})
        if has_adapter:
            policy.unmerge_adapter()


def _up_to_eos(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos) + 1] if eos in ids else ids


if __name__ == "__main__":
    child_main(train, GRPOParams)
