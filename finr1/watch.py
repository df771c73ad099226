"""What watches a GRPO run: seconds by phase, signs of reward hacking, warnings, and three rules that stop it.

A sign proves nothing: it says where to look, and notebook 05 shows the texts. A run that a stop rule ends saves its
model as it then is, and says why in metrics.jsonl ("stopped") and in the manifest. A loss or gradient that is not a
finite number ends it with an error instead: by then the weights are lost, so no model is saved; the last checkpoint
stays. The callbacks add to each log, so `MetricsFile` stands after them.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from transformers import TrainerCallback
from trl.extras.profiling import ProfilingContext
from trl.rewards import get_repetition_penalty_reward

from finr1 import grading
from finr1.params import GRPOParams

MIN_REASONING = 10  # characters; "<think>Yes.</think>" is no reasoning
START = 3  # first steps; their mean is what a warning compares with
_THINK = re.compile(r"<think>(.*?)(?:</think>|<answer>|$)", re.DOTALL)


# ---- seconds by phase ------------------------------------------------------------------------------------------------


class PhaseTimes(TrainerCallback):
    """Logs `time/<phase>`: seconds of one optimiser step, on the first process.

    `generate` is sampling (and passing the weights to vLLM), `reward` the reward functions, `score` the rest of what
    makes a batch (log-probabilities under the policy that sampled and under the reference), `update` forward, backward
    and optimiser. TRL measures all this, but sends it to W&B, MLflow and Trackio only; so this listens to its
    `ProfilingContext`. A step that uses its completions again has `generate` 0.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        self.seconds: Counter[str] = Counter()
        started: dict[int, float] = {}
        self.undo = enter, leave = ProfilingContext.__enter__, ProfilingContext.__exit__

        def timed_enter(context):
            started[id(context)] = time.perf_counter()
            return enter(context)

        def timed_leave(context, *error):
            part = context.name.rpartition(".")[2]  # "GRPOTrainer.transformers.generate"
            self.seconds[part] += time.perf_counter() - started.pop(id(context))
            return leave(context, *error)

        ProfilingContext.__enter__, ProfilingContext.__exit__ = timed_enter, timed_leave

    def on_train_end(self, args, state, control, **kwargs):
        ProfilingContext.__enter__, ProfilingContext.__exit__ = self.undo

    def on_step_begin(self, args, state, control, **kwargs):
        self.seconds.clear()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.step_s = time.perf_counter() - self.started

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:
            return
        generate = sum(self.seconds[part] for part in ("generate", "generate_batch", "sync_weights"))
        reward, batch = self.seconds["_calculate_rewards"], self.seconds["_prepare_inputs"]
        logs |= {"time/generate": generate, "time/score": batch - generate - reward, "time/reward": reward}
        logs["time/update"] = self.step_s - batch


# ---- signs of reward hacking, and what else deserves a look ----------------------------------------------------------


def signs(
    texts: Sequence[str], completion_ids: Sequence[Sequence[int]], accuracy: Sequence[float | None] | None
) -> dict[str, float]:
    """Shares of one batch of completions, each 0 to 1; those with nothing to be a share of are left out.

    `accuracy`: 1.0 or 0.0 for each completion, None where nobody could tell (None: no reward says so). `repetition`:
    repeated 3-grams of tokens (as TRL's `get_repetition_penalty_reward` counts them); `no_reasoning`: answers without
    reasoning, of all answers; `agreement`: format and accuracy both there or both missing, of what could be judged.
    """
    judged = [(text, right) for text, right in zip(texts, accuracy or (), strict=False) if right is not None]
    shares = {
        "repetition": [-penalty for penalty in get_repetition_penalty_reward(ngram_size=3)(completion_ids)],
        "no_reasoning": [not _reasons(text) for text in texts if grading.extract_answer(text)],
        "agreement": [grading.has_format(text) == (right > 0) for text, right in judged],
    }
    return {name: fmean(values) for name, values in shares.items() if values}


def _reasons(text: str) -> bool:
    return sum(len("".join(thought.split())) for thought in _THINK.findall(text)) >= MIN_REASONING


# What is logged; when it is a warning, by its mean in the first steps and in the last quarter of the run; what to do.
WARNINGS = [
    (
        "watch/repetition",
        lambda start, now: now > max(0.3, 2 * start),
        "{now:.0%} of the 3-grams in the completions are repeats: lower learning_rate or raise beta",
    ),
    (
        "watch/no_reasoning",
        lambda start, now: now > max(0.3, start + 0.2),
        "{now:.0%} of the answers come without reasoning: the reward does not ask for any; raise beta",
    ),
    (
        "watch/agreement",
        lambda start, now: now < start - 0.2,
        "format and accuracy agree in {now:.0%} ({start:.0%} at first): "
        'reward_funcs = ["gated_reward"] pays both or none',
    ),
    (
        "completions/mean_length",
        lambda start, now: now > 2 * start,
        "the completions grew from {start:.0f} to {now:.0f} tokens: does length pay? soft_punish_cache",
    ),
    (
        "completions/mean_length",
        lambda start, now: now < 0.5 * start,
        'the completions shrank from {start:.0f} to {now:.0f} tokens: loss_type = "grpo" favours short ones',
    ),
    (
        "frac_reward_zero_std",
        lambda start, now: now > 0.6,
        "{now:.0%} of the groups have no spread, so they teach nothing: choose other problems or more generations",
    ),
    (
        "completions/clipped_ratio",
        lambda start, now: now > 0.3,
        "{now:.0%} of the completions are cut off: raise max_completion_length",
    ),
    (
        "verifier/failed",
        lambda start, now: now > 0.02,
        "the verifier gave no verdict on {now:.0%} of the completions, which then teach nothing: the column "
        "`verifier` of completions/ says why",
    ),
    (
        "entropy",
        lambda start, now: now < 0.1 * start,
        "entropy fell to {now:.3f}: the policy has nearly stopped exploring; lower learning_rate or raise beta",
    ),
    (
        "reward",
        lambda start, now: now < 0.5 * start,
        "the reward fell from {start:.3g} to {now:.3g}: lower learning_rate or raise beta",
    ),
]


def run_warnings(log: Sequence[Mapping]) -> list[str]:
    """What in `log` (rows of metrics.jsonl) deserves a look, each with what to do about it."""
    steps = [row for row in log if "reward" in row]
    lines = []
    for key, goes_wrong, words in WARNINGS:
        values = [row[key] for row in steps if row.get(key) is not None]  # TRL logs None for a mean of nothing
        if values:
            start, now = fmean(values[:START]), fmean(values[-max(1, len(values) // 4) :])
            if goes_wrong(start, now):
                lines.append(words.format(start=start, now=now))
    return lines


# ---- stop rules ------------------------------------------------------------------------------------------------------


class StopRules(TrainerCallback):
    """Looks at every logged step. Needs `logging_nan_inf_filter=False`, or the trainer hides what it looks for."""

    def __init__(self, params: GRPOParams):
        self.params = params

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:  # the summary at the end
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise FloatingPointError(
                    f"step {state.global_step}: {name} is {logs[name]}; no model is saved. Lower learning_rate (now "
                    f"{self.params.learning_rate:g}), lengthen warmup_steps (now {self.params.warmup_steps:g}), or set "
                    "bf16 to false; a changed parameter starts afresh"
                )
        reason = stop_reason(state.log_history, self.params)
        if reason and state.global_step < state.max_steps:
            logs["stopped"] = f"step {state.global_step}: {reason}"
            control.should_training_stop = True
            if state.is_world_process_zero:
                print("STOPPED", logs["stopped"], flush=True)


def stop_reason(log: Sequence[Mapping], params: GRPOParams) -> str | None:
    """Why a run with this log (rows of metrics.jsonl) should end, and what to do; None to go on.

    Each rule looks at the mean of the last `stop_window` steps, but at the median of the KL: its estimator is
    exponential in the log-ratio of a token, and a run was seen to log 29,000 nats at one step and 0.1 at the next.
    A rule whose parameter is null is off.
    """

    def windows(key: str) -> list[list[float]]:
        """Each `stop_window` steps in a row, oldest first."""
        values = [row[key] for row in log if row.get(key) is not None]
        return [values[end - params.stop_window : end] for end in range(params.stop_window, len(values) + 1)]

    over = f"of the last {params.stop_window} steps"
    rewards = [fmean(window) for window in windows("reward")]
    if params.stop_reward is not None and rewards and rewards[-1] < params.stop_reward * max(rewards) > 0:
        return (
            f"the reward collapsed from {max(rewards):.3g} to {rewards[-1]:.3g} (mean {over}), below stop_reward = "
            f"{params.stop_reward:g} of its best: lower learning_rate, raise beta, or look at the texts for what pays"
        )
    for window in windows("kl")[-1:]:
        if params.stop_kl is not None and median(window) > params.stop_kl:
            return (
                f"the KL to the starting model is {median(window):.3g} (median {over}), above stop_kl = "
                f"{params.stop_kl:g}: lower learning_rate or raise beta (now {params.beta:g})"
            )
    for window in windows("frac_reward_zero_std")[-1:]:
        if params.stop_dead_groups is not None and fmean(window) >= params.stop_dead_groups:
            return (
                f"{fmean(window):.0%} of the groups have no spread (mean {over}), stop_dead_groups = "
                f"{params.stop_dead_groups:g}: they teach nothing; choose problems by pass_rate_candidates, raise "
                "num_generations or temperature"
            )
    return None
