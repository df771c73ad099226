"""Notebook 09: what each arm trains, and means over seeds and items.

An interval over items alone says nothing about another training. Here scores are clustered twice, by seed and by item:
V = V_seed + V_item - V_both (Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29:238), as statsmodels computes it,
and never less than V_item, as seeds that happen to agree do not make the items more. With S seeds a difference is
d +- t(S - 1) sqrt(V), and a share has Wilson's interval at the effective size p (1 - p) / V times (z / t)^2 (Korn and
Graubard 1998, Surv. Methodol. 24:193). With one seed an interval covers items alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from finr1.evaluation import wilson_interval
from finr1.params import RECIPE, STAGES, AblationParams, ParameterError, Params
from finr1.params.base import did_you_mean
from finr1.pipeline import load_preset

*TRAINED, BENCHMARK = list(STAGES)[1:7]


def plan_of_seed(params: AblationParams, seed: int, arms: Mapping[str, Mapping[str, Any]]) -> list[Params]:
    """The stages of one seed in order: the preset's in `<run>-<seed>`, each arm's own, and one benchmark of them all.

    An arm makes what its changed parameters (`arms`: name -> {[STAGE.]NAME: value}) concern and all that follows, in
    `<run>-<arm>-<seed>`; the stages before are the preset's. Raises ParameterError for a wrong parameter or arm.
    """
    name, common = f"{params.run}-{seed}", [*params.changes, f"seed={seed}"]
    shared = load_preset(params.preset, name, [*TRAINED, BENCHMARK], common)
    plan, measured = [shared[stage] for stage in TRAINED], shared[BENCHMARK].model_dump()
    for arm in (arm for arm in params.arms if arm in arms or arm not in RECIPE):
        if arm not in arms:
            raise ParameterError(params.stage, [f'arm "{arm}": not in the table of arms{did_you_mean(arm, arms)}'])
        own = [f"{key}={'null' if value is None else value}" for key, value in arms[arm].items()]
        changed = load_preset(params.preset, name, [*TRAINED, BENCHMARK], [*common, *own])
        first = next((place for place, stage in enumerate(TRAINED) if changed[stage] != shared[stage]), len(TRAINED))
        if first == len(TRAINED):
            raise ParameterError(params.stage, [f'arm "{arm}": it trains nothing else than preset {params.preset}'])
        mine = f"{params.run}-{arm}-{seed}"
        for stage in TRAINED[first:]:
            names = {key: Path(value).name for key, value in changed[stage].input_names().items()}
            moved = {key: f"outputs/{mine}/{place}" for key, place in names.items() if place in TRAINED[first:]}
            plan.append(STAGES[stage](**changed[stage].model_dump() | moved | {"run": mine}))
        if arm == "zero":
            measured["zero_stage"] = f"outputs/{mine}/{TRAINED[-1]}"
        else:
            measured["other_models"].append(f"{arm}=outputs/{mine}/{TRAINED[-1]}/model")
    return [*plan, STAGES[BENCHMARK](**measured)]


def mean_over_seeds(scores: pd.Series, share: bool = False) -> dict[str, Any]:
    """Mean of `scores` (indexed by seed and item) with its interval; `share`: a share in [0, 1], else a difference.

    Keys: mean, low, high, p (two-sided, "the mean is 0"), by_seed (seed as text -> mean), spread (standard deviation of
    these; None for one seed), seeds, n (scores). Raises ValueError for fewer than two scores.
    """
    from scipy.stats import norm, t
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups

    if len(scores) < 2:
        raise ValueError(f"a mean over seeds needs two scores or more, got {len(scores)}")
    seeds, items = (scores.index.get_level_values(level).factorize()[0] for level in ("seed", "item"))
    number, mean = int(seeds.max()) + 1, float(scores.mean())
    fit = OLS(scores.to_numpy(float), [1.0] * len(scores)).fit()
    variance = cov_cluster(fit, items).item()
    if number > 1:
        variance = max(variance, cov_cluster_2groups(fit, seeds, items)[0].item())
    law = t(number - 1) if number > 1 else norm
    half = law.ppf(0.975) * variance**0.5
    low, high = mean - half, mean + half
    varies = variance > 1e-18
    if share:  # where nothing varies, each item counts once
        size = mean * (1 - mean) / variance if varies and 1e-9 < mean < 1 - 1e-9 else len(scores)
        size *= (norm.ppf(0.975) / law.ppf(0.975)) ** 2
        low, high = wilson_interval(mean * size, size)
    p = float(2 * law.sf(abs(mean) / variance**0.5)) if varies else float(abs(mean) < 1e-9)
    means = scores.groupby("seed").mean()
    return {"mean": mean, "low": float(low), "high": float(high), "p": p, "seeds": number, "n": len(scores),
            "by_seed": {str(seed): float(value) for seed, value in means.items()},
            "spread": float(means.std()) if number > 1 else None}  # fmt: skip
