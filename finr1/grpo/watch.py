"""What a GRPO run tells about itself, while it runs and after; its sampled groups are read by `finr1.rollouts`."""

from __future__ import annotations


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
