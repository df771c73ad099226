"""Solutions of exercises_10: compare. The name of each is that of its exercise."""

from checks import ITEMS, SHARES

paired = {"A", "D"}  # all items of the smaller run are in the other

unpaired_width = 196 * sum(p * (1 - p) / ITEMS for p in SHARES) ** 0.5  # 13.2 points

survivors = 1  # 0.004 x 4 = 0.016; 0.02 x 3 = 0.06, so Holm stops there
