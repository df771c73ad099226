"""The four arms over several seeds: levels and paired differences, with intervals that hold both items and seeds.

An interval over items alone says nothing about another training: the next seed may land elsewhere. Here the spread of
the seeds is part of the interval, and with three seeds it is wide, because three are few.

**The interval.** Scores are clustered twice, by seed and by item (two seeds may have been asked the same question).
The variance of their mean is Cameron, Gelbach and Miller's (2011, J. Bus. Econ. Stat. 29:238) two-way one,
V = V_seed + V_item - V_both, as statsmodels computes it, and never less than V_item: three seeds that happen to agree
do not make the items more. It has as many degrees of freedom as there are seeds but one, so a difference is
d +- t(S - 1) sqrt(V), and a level is Wilson's interval at the effective size p (1 - p) / V times (z / t)^2 (Korn and
Graubard 1998, Surv. Methodol. 24:193), which stays inside 0 to 100 %. With one seed it covers items alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from finr1.evaluation import Sample, change_text, estimate, percent, points, wilson_interval
from finr1.evaluation.statistics import CONFIDENCE, EMPTY, holm
from finr1.evaluation.tables import by_values

ARMS = ("base", "zero", "sft", "grpo")  # in the order of the paper's table
NAMES = {"base": "base", "zero": "Zero (GRPO only)", "sft": "SFT", "grpo": "SFT + GRPO"}
STEPS = (("base", "zero"), ("base", "sft"), ("sft", "grpo"), ("zero", "grpo"), ("base", "grpo"))

Scores = dict[tuple[int, str], float]  # (seed, hash of the prompt) -> mean score in [0, 1] of its answers


class Mean(NamedTuple):
    """A mean over seeds and items, and how sure it is."""

    mean: float
    variance: float  # of the mean, over seeds and items
    seeds: int
    items: int  # pairs of seed and item

    @property
    def quantile(self) -> float:
        """Half an interval in standard errors: Student's with seeds - 1 degrees of freedom; the normal one for one."""
        from scipy.stats import norm, t

        side = (1 + CONFIDENCE) / 2
        return float(t.ppf(side, self.seeds - 1) if self.seeds > 1 else norm.ppf(side))

    @property
    def interval(self) -> tuple[float, float]:
        """mean -+ quantile x standard error: for differences."""
        half = self.quantile * self.variance**0.5
        return self.mean - half, self.mean + half

    @property
    def share_interval(self) -> tuple[float, float]:
        """For a share: Wilson's at the effective size. Where nothing varies, each item counts once."""
        from scipy.stats import norm

        p = min(max(self.mean, 0.0), 1.0)
        size = p * (1 - p) / self.variance if self.variance > EMPTY**2 and p * (1 - p) > EMPTY else self.items
        size *= (float(norm.ppf((1 + CONFIDENCE) / 2)) / self.quantile) ** 2
        return wilson_interval(p * size, size)

    @property
    def p(self) -> float:
        """Two-sided p-value of "the mean is zero"."""
        from scipy.stats import norm, t

        if self.variance <= EMPTY**2:
            return 1.0 if abs(self.mean) < EMPTY else 0.0
        z = abs(self.mean) / self.variance**0.5
        return float(2 * (t.sf(z, self.seeds - 1) if self.seeds > 1 else norm.sf(z)))


def mean_over_seeds(scores: Scores) -> Mean:
    """Mean of `scores` with its two-way clustered variance; see the module. Raises ValueError for less than two."""
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups

    if len(scores) < 2:
        raise ValueError(f"a mean over seeds needs two items or more, got {len(scores)}")
    values = np.array(list(scores.values()))
    seeds, items = (np.unique(list(labels), return_inverse=True)[1] for labels in zip(*scores, strict=True))
    fit = OLS(values, np.ones(len(values))).fit()
    by_item = cov_cluster(fit, items).item()
    number = int(seeds.max()) + 1
    both = cov_cluster_2groups(fit, seeds, items)[0].item() if number > 1 else by_item
    return Mean(float(values.mean()), max(both, by_item), number, len(values))


def arm_scores(samples: Mapping[int, Iterable[Sample]]) -> dict[tuple[str, str], Scores]:
    """(arm, decoding) -> its scores, from each seed's benchmark samples; undecided answers are left out."""
    answers: dict[tuple[str, str], dict[tuple[int, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed, rows in samples.items():
        for sample in rows:
            if sample.model in ARMS and sample.correct is not None:
                answers[sample.model, sample.decoding][seed, sample.prompt_sha256].append(float(sample.correct))
    return {key: {item: float(np.mean(values)) for item, values in found.items()} for key, found in answers.items()}


def ablation_rows(samples: Mapping[int, Iterable[Sample]]) -> list[dict[str, Any]]:
    """A row an arm and decoding: `by_seed` {seed: accuracy}, `accuracy` over all, `low`, `high`, `spread` (standard
    deviation of the seeds' accuracies; None for one), `seeds`, `n` (items of all seeds), and where there are
    any `undecided` and `judged` (answers that nobody could grade, and that a judge did). Shares in [0, 1]. An arm with
    fewer than two decided items has no row.
    """
    found = {key: scores for key, scores in arm_scores(samples).items() if len(scores) > 1}
    answers = by_values([sample for members in samples.values() for sample in members], "model", "decoding")
    rows = []
    for (arm, decoding), scores in sorted(found.items(), key=lambda entry: (entry[0][1], ARMS.index(entry[0][0]))):
        mean = mean_over_seeds(scores)
        by_seed = {seed: float(np.mean([v for (s, _), v in scores.items() if s == seed])) for seed in samples}
        spread = float(np.std(list(by_seed.values()), ddof=1)) if len(by_seed) > 1 else None
        low, high = mean.share_interval
        rows.append(
            {"model": arm, "decoding": decoding, "by_seed": {str(seed): value for seed, value in by_seed.items()},
             "accuracy": mean.mean, "low": low, "high": high, "spread": spread, "seeds": mean.seeds, "n": mean.items}
            | _not_by_rules(answers[arm, decoding])
        )  # fmt: skip
    return rows


def _not_by_rules(samples: Sequence[Sample]) -> dict[str, int]:
    found = {
        "undecided": sum(sample.correct is None for sample in samples),
        "judged": sum(sample.graded_by == "judge" for sample in samples),
    }
    return {name: count for name, count in found.items() if count}


def ablation_steps(samples: Mapping[int, Iterable[Sample]]) -> list[dict[str, Any]]:
    """A row a pair of `STEPS` and decoding: `difference` on the same items of the same seeds, `low`, `high`, `by_seed`,
    `p`, `p_holm` (by Holm, over all rows), `inside_noise`: the interval contains zero.
    """
    found, rows = arm_scores(samples), []
    for decoding in sorted({decoding for _, decoding in found}):
        for before, after in STEPS:
            a, b = found.get((before, decoding), {}), found.get((after, decoding), {})
            change = {key: b[key] - a[key] for key in a if key in b}
            if len(change) < 2:
                continue
            mean = mean_over_seeds(change)
            by_seed = {str(seed): float(np.mean([v for (s, _), v in change.items() if s == seed])) for seed in samples}
            low, high = mean.interval
            rows.append(
                {"before": before, "after": after, "decoding": decoding, "difference": mean.mean, "low": low,
                 "high": high, "inside_noise": low <= 0 <= high, "by_seed": by_seed, "p": mean.p, "seeds": mean.seeds,
                 "n": mean.items}
            )  # fmt: skip
    corrected = holm([row["p"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def render(rows: Sequence[Mapping], steps: Sequence[Mapping]) -> str:
    """Both tables as plain text, in percent and percentage points, and how to read them."""
    seeds = list(rows[0]["by_seed"]) if rows else []
    lines = [f"{'arm':18}{'decoding':10}{'items':>6}" + "".join(f"{f'seed {s}':>10}" for s in seeds)
             + f"{'mean [95 %]':>22}{'sd':>8}"]  # fmt: skip
    for row in rows:
        level = estimate(row["accuracy"], row["low"], row["high"])
        own = "".join(f"{percent(row['by_seed'][seed]):>10}" for seed in seeds)
        name = f"{NAMES[row['model']]:18}{row['decoding']:10}{row['n']:6}"
        lines.append(f"{name}{own}{level:>22}{percent(row['spread']):>8}")
    lines += ["", f"{'step':32}{'decoding':10}" + "".join(f"{f'seed {s}':>10}" for s in seeds)
              + f"{'difference [95 %]':>24}{'p':>8}{'Holm':>8}"]  # fmt: skip
    for row in steps:
        own = "".join(f"{points(row['by_seed'][seed]):>10}" for seed in seeds)
        noise = "inside the noise" if row["inside_noise"] else "not after correction" if row["p_holm"] > 0.05 else ""
        step = f"{NAMES[row['before']]} -> {NAMES[row['after']]}"
        tests = f"{row['p']:8.2g}{row['p_holm']:8.2g}  {noise}".rstrip()
        lines.append(f"{step:32}{row['decoding']:10}{own}{change_text(row):>24}{tests}")
    return "\n".join([*lines, "", how_to_read(rows)])


def how_to_read(rows: Sequence[Mapping]) -> str:
    """What the intervals cover, and what keeps the accuracies from being plain ones."""
    undecided, judged = (sum(row.get(key, 0) for row in rows) for key in ("undecided", "judged"))
    notes = [_coverage(rows)]
    if undecided:
        notes.append(f"{undecided} answers could not be graded: accuracies and differences are of the rest.")
    if judged:
        notes.append(f"{judged} answers are as judged: the judge's error is not taken out, and in no interval.")
    return "\n".join(notes)


def _coverage(rows: Sequence[Mapping]) -> str:
    seeds = rows[0]["seeds"] if rows else 0
    if seeds < 2:
        return "One seed: the intervals cover the choice of items alone; another training may land outside them."
    return (
        "Intervals: two-way clustered by seed and item, never less than the items alone give, t with "
        f"{seeds - 1} degrees\nof freedom: they cover another seed and other items of the same kind. "
        "sd: standard deviation of the seeds'\naccuracies. Holm: p corrected for all steps shown."
    )
