"""Solutions of exercises_06: benchmark. The name of each is that of its exercise."""

from scipy.stats import binomtest

from finr1 import plan

collapsed = "position_rule"  # it answers no to everything; half of the golds are that

mcnemar = binomtest(44, 80).pvalue  # 0.43: 80 items changed, 44 of them for the better

# position_rule: yes, 8 of 20 right; sentiment: bullish, 9 of 15 right
constant = (8 + 9) / 35

costs = {row["stage"]: row["cost"] for row in plan.make_plan("paper")["costs"]}
grpo = costs["05 GRPO samples"] + costs["05 GRPO update"]
claim = {"preset": "paper", "arms": ["zero", "grpo"], "seeds": 3, "training_cost": 3 * (costs["04 SFT"] + 2 * grpo)}
