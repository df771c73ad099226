"""Notebook 09: what each arm trains, and means over seeds and items.

An interval over items alone says nothing about another training. Here scores are clustered twice, by seed and by item
(Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29:238), and never less than by item. A difference is
d +- t(S - 1) sqrt(V) for S seeds; a share has Wilson's interval at an effective size (Korn and Graubard 1998, Surv.
Methodol. 24:193). With one seed an interval covers items alone.
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

    An arm (name -> {[STAGE.]NAME: value}) makes what it changes and all that follows, in `<run>-<arm>-<seed>`.
    Raises ParameterError for a wrong parameter or arm.
    """
    stages, name, common = [*TRAINED, BENCHMARK], f"{params.run}-{seed}", [*params.changes, f"seed={seed}"]
    shared = load_preset(params.preset, name, stages, common)
    plan, measured = [shared[stage] for stage in TRAINED], shared[BENCHMARK].model_dump()
    for arm in (arm for arm in params.arms if arm in arms or arm not in RECIPE):
        if arm not in arms:
            raise ParameterError(params.stage, [f'arm "{arm}": not in the table of arms{did_you_mean(arm, arms)}'])
        own = [f"{key}={'null' if value is None else value}" for key, value in arms[arm].items()]
        changed = load_preset(params.preset, name, stages, [*common, *own])
        differ = [place for place, stage in enumerate(TRAINED) if changed[stage] != shared[stage]]
        if not differ:
            raise ParameterError(params.stage, [f'arm "{arm}": it trains nothing else than preset {params.preset}'])
        mine, again = f"{params.run}-{arm}-{seed}", TRAINED[differ[0] :]
        for stage in again:
            names = {key: Path(value).name for key, value in changed[stage].input_names().items()}
            moved = {key: f"outputs/{mine}/{place}" for key, place in names.items() if place in again}
            plan.append(STAGES[stage](**changed[stage].model_dump() | moved | {"run": mine}))
        if arm == "zero":
            measured["zero_stage"] = f"outputs/{mine}/{TRAINED[-1]}"
        else:
            measured["other_models"].append(f"{arm}=outputs/{mine}/{TRAINED[-1]}/model")
    return [*plan, STAGES[BENCHMARK](**measured)]


def mean_over_seeds(scores: pd.Series, share: bool = False) -> dict[str, Any]:
    """Mean of `scores` (indexed by seed and item) with its interval; `share`: a share in [0, 1], else a difference.

    Keys: mean, low, high, p (two-sided, "the mean is 0"), by_seed (seed as text -> mean), spread (standard deviation of
    these; None for one seed), seeds, n (scores, two at least).
    """
    from scipy.stats import norm, t
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups

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
