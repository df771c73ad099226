"""Solutions of exercises_00: overview. The name of each is that of its exercise."""

printed_means = {"R1-Distill-Llama-70B"}  # 344 / 5 = 68.8, and 69.2 is printed

reasoning_share = (7629 + 2948 + 2451 + 2000) / 60_091  # a quarter

splits = ["train", "dev", "dev", "train", "test"]
