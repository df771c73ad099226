"""Which problems are worth a group: those that the policy sometimes solves."""

from __future__ import annotations

from finr1 import rewards
from finr1.params import GRPOParams

REWARD_COLUMNS = ("solution", "answer_kind", "alternatives", "choices", "labels")  # of an RL row, for `accuracy_reward`


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
