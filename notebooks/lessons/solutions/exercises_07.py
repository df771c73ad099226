"""Solutions of exercises_07: report. The name of each is that of its exercise."""

better_or_noise = ["better", "noise", "worse", "noise"]  # the second has zero inside; the fourth is one of four

overlap = {"A": "better", "B": "noise", "C": "worse"}  # 14 against 2, 60 against 48, 2 against 14

belongs = {"05_grpo < 03_filtering", "06_benchmark < 04_sft"}
