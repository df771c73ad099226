"""What watches a GRPO run: signs of reward hacking, warnings, and four rules that stop it.

A sign proves nothing: it says where to look, and notebook 05 shows the texts. A run that a stop rule ends saves its
model as it then is, and says why in metrics.jsonl ("stopped") and in the manifest.
"""

import collections
import math
import re
import time
from collections.abc import Mapping, Sequence
from statistics import fmean, median

import pandas as pd
from scipy.stats import entropy
from transformers import TrainerCallback
from trl.extras.profiling import ProfilingContext
from trl.rewards import get_repetition_penalty_reward

from finr1 import grading
from finr1.params import GRPOParams
from finr1.paths import data_beside

MIN_REASONING = 10  # characters; "<think>Yes.</think>" is no reasoning
START = 3  # first steps; their mean is what a warning compares with
ONE_ANSWER = 0.8  # share of one answer above which a family is said to have one only
_TABLE = data_beside(__file__, "watch.yaml")
_THINK = re.compile(r"<think>(.*?)(?:</think>|<answer>|$)", re.DOTALL)


def signs(
    texts: Sequence[str], accuracy: Sequence[float | None] | None, columns: Mapping[str, Sequence]
) -> dict[str, float]:
    """What one batch of completions logs, by name; what has nothing to be a share of is left out.

    `accuracy`: 1.0 or 0.0 for each completion, None where nobody could tell (None: no reward says so). The log's
    `accuracy`: right and in the format, of what could be judged; `repetition`: repeated 3-grams of tokens;
    `no_reasoning`: of all answers; `agreement`: format and accuracy both there or both missing.
    """
    judged = [(text, right) for text, right in zip(texts, accuracy or (), strict=False) if right is not None]
    thoughts = [" ".join(_THINK.findall(text)) for text in texts if grading.extract_answer(text)]
    repeated = get_repetition_penalty_reward(ngram_size=3)(columns["completion_ids"])
    shares = {
        "accuracy": [right * grading.has_format(text) for text, right in judged],
        "watch/repetition": [-penalty for penalty in repeated],
        "watch/no_reasoning": [len("".join(thought.split())) < MIN_REASONING for thought in thoughts],
        "watch/agreement": [grading.has_format(text) == (right > 0) for text, right in judged],
    }
    if "family" in columns:
        said = answers_by_family(columns, texts)
        shares |= {f"one_answer/{family}": [share] for family, share in said["share"].items()}
        shares |= {"watch/one_answer": [said["share"].max()] if len(said) else []}
        shares |= {f"answer_entropy/{name}": said[name] for name in ("within", "across")}
    return {name: fmean(values) for name, values in shares.items() if len(values)}


def answers_by_family(columns: Mapping[str, Sequence], texts: Sequence[str]) -> pd.DataFrame:
    """By family: its commonest `answer`, that one's `share`, and the entropy (nats) `within` a group and `across` all.

    Each gold counts alike: a policy that is always right has 1 / (number of golds) as its share, one that always says
    the same has 1. A group is the texts of one id. Left out: texts without an answer, and families with one gold.
    """
    said = [(grading.extract_answer(text) or "").strip().casefold() or None for text in texts]
    table = pd.DataFrame({name: columns[name] for name in ("family", "id", "solution")} | {"said": said}).dropna()
    rows = {}
    for family, part in table.groupby("family"):
        groups = pd.crosstab(part["id"], part["said"], normalize="index")
        by_gold = groups.groupby(part.groupby("id")["solution"].first()).mean()
        if len(by_gold) > 1:
            mean = by_gold.mean()
            rows[family] = mean.idxmax(), mean.max(), entropy(groups, axis=1).mean(), entropy(mean)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["answer", "share", "within", "across"])


def run_warnings(log: Sequence[Mapping]) -> list[str]:
    """What in `log` (rows of metrics.jsonl) deserves a look, each with what to do about it."""
    steps, lines = ([row for row in log if "reward" in row]), []
    for rule in _TABLE["warnings"]:
        # TRL logs None for a mean of nothing.
        if values := [row[rule["key"]] for row in steps if row.get(rule["key"]) is not None]:
            start, now = fmean(values[:START]), fmean(values[-max(1, len(values) // 4) :])
            limit = max(rule.get("times", 0) * start + rule.get("plus", 0), rule.get("least", -math.inf))
            if now > limit if rule["when"] == "above" else now < limit:
                lines.append(rule["says"].format(start=start, now=now))
    return lines + [f"{told}: compare with its golds" for told in _one_answer(steps, ONE_ANSWER)]


def _one_answer(steps: Sequence[Mapping], limit: float, window: int | None = None) -> list[str]:
    """A line for each family whose answers are one and the same to more than `limit`, in the last steps that tell."""
    names, lines = dict.fromkeys(key for row in steps for key in row if key.startswith("one_answer/")), []
    for name in names:
        told = [(row["step"], row[name]) for row in steps if row.get(name) is not None]
        last = told[-(window or max(START, len(told) // 4)) :]
        if len(last) >= (window or START) and (share := fmean(value for _, value in last)) > limit:
            family, since = name.removeprefix("one_answer/"), last[0][0]
            lines.append(f"{family}: one answer makes up {share:.0%} whatever is asked, since step {since} at least")
    return lines


class PhaseTimes(TrainerCallback):
    """Logs `time/<phase>`: seconds of one optimiser step, on the first process.

    `generate` is sampling (and passing the weights to vLLM), `reward` the reward functions, `score` the rest of what
    makes a batch, `update` forward, backward and optimiser. TRL measures all this, but sends it to W&B, MLflow and
    Trackio only; so this listens to its `ProfilingContext`. A step that uses completions again has `generate` 0.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        self.seconds = collections.Counter()
        self.undo = send = ProfilingContext._log_metrics

        def log_metrics(context, duration):
            self.seconds[context.name.rpartition(".")[2]] += duration  # "GRPOTrainer.transformers.generate"
            send(context, duration)

        ProfilingContext._log_metrics = log_metrics

    def on_train_end(self, args, state, control, **kwargs):
        ProfilingContext._log_metrics = self.undo

    def on_step_begin(self, args, state, control, **kwargs):
        self.seconds.clear()
        self.started = time.perf_counter()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:
            return
        generate = sum(self.seconds[part] for part in ("generate", "generate_batch", "sync_weights"))
        reward, batch = self.seconds["_calculate_rewards"], self.seconds["_prepare_inputs"]
        logs |= {"time/generate": generate, "time/score": batch - generate - reward, "time/reward": reward}
        logs["time/update"] = time.perf_counter() - self.started - batch


class StopRules(TrainerCallback):
    """Ends a run that will not recover. Needs `logging_nan_inf_filter=False`, else the trainer hides what it sees."""

    def __init__(self, params: GRPOParams):
        self.params = params

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:  # the summary at the end
            return
        reason = stop_reason(state.log_history, self.params)
        if reason and state.global_step < state.max_steps:
            logs["stopped"] = f"step {state.global_step}: {reason}"
            control.should_training_stop = True
            if state.is_world_process_zero:
                print("STOPPED", logs["stopped"], flush=True)


def stop_reason(log: Sequence[Mapping], params: GRPOParams) -> str | None:
    """Why a run should end by the last `stop_window` steps of its log, and what to do; a rule that is null is off."""

    def windows(key: str) -> list[list[float]]:
        """Each `stop_window` steps in a row, oldest first."""
        values = [row[key] for row in log if row.get(key) is not None]
        return [values[end - params.stop_window : end] for end in range(params.stop_window, len(values) + 1)]

    over, rewards = f"of the last {params.stop_window} steps", [fmean(window) for window in windows("reward")]
    if params.stop_reward is not None and rewards and rewards[-1] < params.stop_reward * max(rewards) > 0:
        return _TABLE["collapse"].format(best=max(rewards), now=rewards[-1], over=over, limit=params.stop_reward)
    for rule in _TABLE["stops"]:
        name, middle = rule["limit"], {"mean": fmean, "median": median}[rule["middle"]]
        limit, last = getattr(params, name), [middle(window) for window in windows(rule["key"])[-1:]]
        if limit is not None and last and last[0] >= limit:
            return rule["says"].format(now=last[0], over=over, limit=f"{name} = {limit:g}")
    lines = [] if params.stop_one_answer is None else _one_answer(log, params.stop_one_answer, params.stop_window)
    return f"{lines[0]}: balance its golds or leave the family out (stop_one_answer)" if lines else None
