"""Stop rules: when a run cannot be saved by waiting.

A run that one of the three rules ends saves its model as it then is, and says why in metrics.jsonl ("stopped") and in
the manifest. A loss or gradient that is not a finite number ends it with an error instead: the weights are lost by
then, so no model is saved; the last checkpoint stays.
"""

from __future__ import annotations

from collections.abc import Sequence

from finr1.params import GRPOParams


class Diverged(RuntimeError):
    """Loss or gradient is no longer a finite number."""


def stop_reason(log: Sequence[dict], params: GRPOParams) -> str | None:
    """Why a run with this log (rows of metrics.jsonl) should end, and what to do; None to go on.

    Each rule compares the mean of the last `stop_window` steps; a rule whose parameter is null is off.
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
    rewards, kls, dead = means("reward"), means("kl"), means("frac_reward_zero_std")
    if params.stop_reward is not None and rewards and rewards[-1] < params.stop_reward * max(rewards) > 0:
        return (
            f"the reward collapsed from {max(rewards):.3g} to {rewards[-1]:.3g} ({over}), below stop_reward = "
            f"{params.stop_reward:g} of its best: lower learning_rate, raise beta, or look at the texts for what pays"
        )
    if params.stop_kl is not None and kls and kls[-1] > params.stop_kl:
        return (
            f"the KL to the starting model is {kls[-1]:.3g} ({over}), above stop_kl = {params.stop_kl:g}: lower "
            f"learning_rate or raise beta (now {params.beta:g})"
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
