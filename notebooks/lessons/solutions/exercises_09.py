"""Solutions of exercises_09: ablation. The name of each is that of its exercise."""

import numpy as np
from checks import seed_steps
from scipy.stats import t

gains = np.array(seed_steps())
t_interval = t.interval(0.95, len(gains) - 1, gains.mean(), gains.std(ddof=1) / len(gains) ** 0.5)

seeds_needed = next(n for n in range(2, 99) if t.ppf(0.975, n - 1) * 7 / n**0.5 <= 5)  # 11; by the normal 8

best_of = 1 - 0.95**8  # a third
