"""What watches a GRPO run: seconds by phase, signs of reward hacking, warnings, and three rules that stop it.

A sign proves nothing: it says where to look, and notebook 05 shows the texts. A run that a stop rule ends saves its
model as it then is, and says why in metrics.jsonl ("stopped") and in the manifest. A loss or gradient that is not a
finite number ends it with an error instead: by then the weights are lost, so no model is saved; the last checkpoint
stays.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from finr1 import grading
from finr1.params import GRPOParams

if TYPE_CHECKING:
    from trl import GRPOTrainer

NGRAM = 3  # tokens
MIN_REASONING = 10  # characters; "<think>Yes.</think>" is no reasoning
WINDOW = 3  # steps: a sign is the mean of the last ones, against that of the first ones
_THINK = re.compile(r"<think>(.*?)(?:</think>|<answer>|$)", re.DOTALL)
_OR = re.compile(r"\bor\b|还是|或|/|、|,|\band\b|\bvs\b")


class Diverged(RuntimeError):
    """Loss or gradient is no longer a finite number."""


def watch(trainer: GRPOTrainer, params: GRPOParams) -> None:
    """Attach the stopwatch, the warnings and the stop rules. They add to each log, so `MetricsFile` comes after."""
    for callback in (PhaseTimes(), Warnings(), StopRules(params)):
        trainer.add_callback(callback)


# ---- seconds by phase ------------------------------------------------------------------------------------------------


class PhaseTimes(TrainerCallback):
    """Logs `time/<phase>`: seconds of one optimiser step, on the first process.

    `generate` is sampling (and passing the weights to vLLM), `reward` the reward functions, `score` the rest of what
    makes a batch (log-probabilities under the policy that sampled and under the reference), `update` forward, backward
    and optimiser. TRL measures all this, but sends it to W&B, MLflow and Trackio only; so this listens to its
    `ProfilingContext`. A step that uses its completions again has `generate` 0.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        from trl.extras.profiling import ProfilingContext

        self.seconds: Counter[str] = Counter()
        started: dict[int, float] = {}
        self.undo = enter, leave = ProfilingContext.__enter__, ProfilingContext.__exit__

        def timed_enter(context):
            started[id(context)] = time.perf_counter()
            return enter(context)

        def timed_leave(context, *error):
            part = context.name.partition(".")[2]  # "GRPOTrainer.transformers.generate"
            phase = {"_prepare_inputs": "batch", "_calculate_rewards": "reward", "sync_weights": "generate"}.get(part)
            phase = phase or ("generate" if "generate" in part else "other")
            self.seconds[phase] += time.perf_counter() - started.pop(id(context))
            return leave(context, *error)

        ProfilingContext.__enter__, ProfilingContext.__exit__ = timed_enter, timed_leave

    def on_train_end(self, args, state, control, **kwargs):
        from trl.extras.profiling import ProfilingContext

        ProfilingContext.__enter__, ProfilingContext.__exit__ = self.undo

    def on_step_begin(self, args, state, control, **kwargs):
        self.seconds.clear()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.step_s = time.perf_counter() - self.started

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:
            return
        generate, reward, batch = (self.seconds[phase] for phase in ("generate", "reward", "batch"))
        phases = {"generate": generate, "score": batch - generate - reward, "reward": reward}
        logs |= {f"time/{phase}": seconds for phase, seconds in phases.items()}
        logs["time/update"] = self.step_s - batch


# ---- signs of reward hacking, and what else deserves a look ----------------------------------------------------------


def signs(
    columns: Mapping[str, Sequence], texts: Sequence[str], accuracy: Sequence[float | None] | None
) -> dict[str, float]:
    """Shares of one batch of completions, each 0 to 1; those with nothing to be a share of are left out.

    `columns`: the RL rows' columns with `prompts` and `completion_ids`, as TRL passes them to a reward; `accuracy`: 1.0
    or 0.0 for each completion, None where nobody could tell (None: no reward says so). `repetition`: repeated 3-grams
    of tokens (as TRL's `get_repetition_penalty_reward` counts them); `no_reasoning`: answers without reasoning, of all
    answers; `options`: answers that repeat the question's options, of all answers; `agreement`: format and accuracy
    both there or both missing, of what could be judged.
    """
    from trl.rewards import get_repetition_penalty_reward

    answers = [grading.extract_answer(text) for text in texts]
    answered = [i for i, answer in enumerate(answers) if answer]
    judged = [i for i, right in enumerate(accuracy or ()) if right is not None]
    prompts = columns["prompts"]
    rows = [{name: columns[name][i] for name in ("answer_kind", "choices", "labels")} for i in answered]
    shares = {
        "repetition": [-penalty for penalty in get_repetition_penalty_reward(NGRAM)(columns["completion_ids"])],
        "no_reasoning": [not _reasons(texts[i]) for i in answered],
        "options": [
            repeats_options(answers[i], row | {"prompt": prompts[i]}) for i, row in zip(answered, rows, strict=True)
        ],
        "agreement": [grading.has_format(texts[i]) == (accuracy[i] > 0) for i in judged],
    }
    return {name: fmean(values) for name, values in shares.items() if values}


def _reasons(text: str) -> bool:
    return sum(len("".join(thought.split())) for thought in _THINK.findall(text)) >= MIN_REASONING


def repeats_options(answer: str, row: Mapping) -> bool:
    """Whether `answer` names two labels, every choice, or a piece of the question with an "or" inside."""
    answer = answer.strip().lower()
    if row.get("labels"):
        return _named(answer, json.loads(row["labels"]).values()) > 1
    if row.get("choices"):
        letters = json.loads(row["choices"])
        return len(letters) > 1 and all(
            re.search(rf"(?<![A-Za-z]){re.escape(k.lower())}(?![a-z])", answer) for k in letters
        )
    question = row["prompt"][-1]["content"].lower()
    return row["answer_kind"] == "boolean" and bool(_OR.search(answer)) and answer.rstrip("?？.。") in question


def _named(answer: str, names) -> int:
    """How many of `names` stand in `answer`, the longest first: "non-compliant" does not name "compliant" as well."""
    count = 0
    for name in sorted({name.lower() for name in names}, key=len, reverse=True):
        if name in answer:
            count += 1
            answer = answer.replace(name, " ")
    return count


SIGNS = ("watch/repetition", "watch/no_reasoning", "watch/options", "watch/agreement", "completions/mean_length")


def _gone_wrong(sign: str, start: float, now: float) -> str | None:
    """The warning for a sign (a key of metrics.jsonl) that was `start` in the first steps; None while it is fine."""
    if sign == "watch/repetition" and now > max(0.3, 2 * start):
        return f"{now:.0%} of the 3-grams in the completions are repeats: lower learning_rate or raise beta"
    if sign == "watch/no_reasoning" and now > max(0.3, start + 0.2):
        return f"{now:.0%} of the answers come without reasoning: the reward does not ask for any; raise beta"
    if sign == "watch/options" and now > max(0.05, start + 0.05):
        return f"{now:.0%} of the answers repeat the question's options: look whether the grader pays for them"
    if sign == "watch/agreement" and now < start - 0.2:
        paid = 'reward_funcs = ["gated_reward"] pays both or none'
        return f"format and accuracy agree in {now:.0%} ({start:.0%} at first): {paid}"
    if sign == "completions/mean_length" and now > 2 * start:
        return f"the completions grew from {start:.0f} to {now:.0f} tokens: does length pay? soft_punish_cache"
    if sign == "completions/mean_length" and now < 0.5 * start:
        favours = 'loss_type = "grpo" favours short ones'
        return f"the completions shrank from {start:.0f} to {now:.0f} tokens: {favours}"
    return None


def hacking_warnings(log: Sequence[Mapping]) -> list[str]:
    """A line with its step for each sign, where it first goes wrong in `log` (rows of metrics.jsonl, in order)."""
    lines = []
    for sign in SIGNS:
        rows = [row for row in log if row.get(sign) is not None]
        start = fmean([row[sign] for row in rows[:WINDOW]]) if rows else 0.0
        for i in range(WINDOW, len(rows)):
            now = fmean([row[sign] for row in rows[i - WINDOW + 1 : i + 1]])
            if warning := _gone_wrong(sign, start, now):
                lines.append((rows[i]["step"], f"step {rows[i]['step']}: {warning}"))
                break
    return [line for _, line in sorted(lines)]


def run_warnings(log: list[dict]) -> list[str]:
    """What in `log` (rows of metrics.jsonl) deserves a look, each with what to do about it.

    `hacking_warnings`, then what holds in the last quarter of the run.
    """
    steps = [row for row in log if "reward" in row]
    late = steps[-max(1, len(steps) // 4) :]

    def mean(key: str, rows: list[dict]) -> float:
        values = [row[key] for row in rows if row.get(key) is not None]  # TRL logs None for a mean of nothing
        return fmean(values) if values else math.nan  # which is neither above nor below anything

    lines = hacking_warnings(log)
    if (dead := mean("frac_reward_zero_std", late)) > 0.6:
        lines.append(
            f"{dead:.0%} of the groups have no spread, so they teach nothing: choose other problems or more generations"
        )
    if (cut := mean("completions/clipped_ratio", late)) > 0.3:
        lines.append(f"{cut:.0%} of the completions are cut off: raise max_completion_length")
    if (failed := mean("verifier/failed", late)) > 0.1 * mean("verifier/undecided", late):
        lines.append(
            f"the verifier gave no verdict on {failed:.0%} of the completions, which then teach nothing: the "
            "column `verifier` of completions/ says why"
        )
    if (entropy := mean("entropy", late)) < 0.1 * mean("entropy", steps[:1]):
        lines.append(
            f"entropy fell to {entropy:.3f}: the policy has nearly stopped exploring; lower learning_rate or raise beta"
        )
    if mean("reward", late) < 0.5 * mean("reward", steps[:1]):
        lines.append("the reward fell to less than half of its start: lower learning_rate or raise beta")
    return lines


class Warnings(TrainerCallback):
    """Writes each warning into the row of metrics.jsonl of the step at which it appears, and into the training log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:
            return
        new = [line for line in hacking_warnings(state.log_history) if line.startswith(f"step {state.global_step}:")]
        if new:
            logs["warnings"] = new
        for line in new if state.is_world_process_zero else ():
            print("WARNING", line, flush=True)


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
                raise Diverged(
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


def stop_reason(log: Sequence[dict], params: GRPOParams) -> str | None:
    """Why a run with this log (rows of metrics.jsonl) should end, and what to do; None to go on.

    Each rule looks at the mean of the last `stop_window` steps, but at the median of the KL: its estimator is
    exponential in the log-ratio of a token, and a run was seen to log 29,000 nats at one step and 0.1 at the next.
    A rule whose parameter is null is off.
    """
    window = params.stop_window

    def means(key: str) -> list[float]:
        """Mean of each `window` steps in a row, oldest first."""
        values = [row[key] for row in log if row.get(key) is not None]
        sums = [0.0]
        for value in values:
            sums.append(sums[-1] + value)
        return [(end - start) / window for start, end in zip(sums, sums[window:], strict=False)]

    over = f"mean of the last {window} steps"
    rewards, dead = means("reward"), means("frac_reward_zero_std")
    kls = [row["kl"] for row in log if row.get("kl") is not None][-window:]
    if params.stop_reward is not None and rewards and rewards[-1] < params.stop_reward * max(rewards) > 0:
        return (
            f"the reward collapsed from {max(rewards):.3g} to {rewards[-1]:.3g} ({over}), below stop_reward = "
            f"{params.stop_reward:g} of its best: lower learning_rate, raise beta, or look at the texts for what pays"
        )
    if params.stop_kl is not None and len(kls) == window and median(kls) > params.stop_kl:
        return (
            f"the KL to the starting model is {median(kls):.3g} (median of the last {window} steps), above stop_kl = "
            f"{params.stop_kl:g}: lower learning_rate or raise beta (now {params.beta:g})"
        )
    if params.stop_dead_groups is not None and dead and dead[-1] >= params.stop_dead_groups:
        return (
            f"{dead[-1]:.0%} of the groups have no spread ({over}), stop_dead_groups = {params.stop_dead_groups:g}: "
            "they teach nothing; choose problems by pass_rate_candidates, raise num_generations or temperature"
        )
    return None


def stopped(log: list[dict]) -> str | None:
    """What a stop rule said when it ended the run with this log; None for a run that went to its end."""
    return next((row["stopped"] for row in log if "stopped" in row), None)
