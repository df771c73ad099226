"""Stop rules: when a run cannot be saved by waiting.

A run that one of the three rules ends saves its model as it then is, and says why in metrics.jsonl ("stopped") and in
the manifest. A loss or gradient that is not a finite number ends it with an error instead: the weights are lost by
then, so no model is saved; the last checkpoint stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from finr1.params import GRPOParams


class Diverged(RuntimeError):
    """Loss or gradient is no longer a finite number."""


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
