"""Notebook 10: two runs side by side, from their manifests and samples alone.

A metric is compared *paired* where the items of one run are among those of the other (equal hash of the prompt), else
*unpaired*. Neither covers another seed of the training: one run on each side cannot tell a better recipe from a luckier
seed. MLflow and trackio show parameters and curves, but no paired intervals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finr1.evaluation import holm, paired_bootstrap, sign_flips
from finr1.manifest import MANIFEST_FILE, read_manifest
from finr1.params import STAGES

ITEM, GROUP = "prompt_sha256", ["model", "decoding", "source"]
METRICS = {"accuracy": "correct", "lenient": "lenient_correct", "format": "format", "cut off": "finish_reason"}


class ComparedRun(NamedTuple):
    """One of the two runs."""

    stages: dict[str, dict[str, Any]]  # stage -> manifest, up to the benchmark
    samples: pd.DataFrame  # one row per answer: `GROUP`, `ITEM`, graded_by, and `METRICS` as numbers

    @property
    def judge(self) -> list:
        """The parameters of the benchmark's judge: backend ("rules": none), model and scope."""
        return [self.stages["06_benchmark"]["parameters"][f"judge_{name}"] for name in ("backend", "model", "scope")]


def read_run(benchmark: Path) -> ComparedRun:
    """A run by the folder of its complete benchmark, with the manifests of the stages beside it."""
    folders = [benchmark.with_name(name) for name in list(STAGES)[1:] if name <= benchmark.name]
    stages = {folder.name: read_manifest(folder) for folder in folders if (folder / MANIFEST_FILE).exists()}
    samples = pd.read_json(benchmark / "samples.jsonl", lines=True, dtype=False)
    samples["finish_reason"] = samples["finish_reason"].eq("length")
    numbers = {name: samples[key].astype(float) for name, key in METRICS.items()}
    return ComparedRun(stages, samples[[*GROUP, ITEM, "graded_by"]].assign(**numbers))


def compare_metrics(a: ComparedRun, b: ComparedRun, seed: int) -> pd.DataFrame:
    """One row per model, decoding, source and metric that both runs have.

    Columns: a, b (means), n_a, n_b (items), paired, difference (b - a), low, high, p, p_holm (over all rows),
    inside_noise. Accuracy is left out where a judge graded some of the answers and the two runs have not the same one.
    Raises `ValueError` where the runs share nothing.
    """
    groups, rows = [run.samples.groupby(GROUP, sort=False) for run in (a, b)], []
    for key in (key for key in groups[0].groups if key in groups[1].groups):
        pair = [group.get_group(key) for group in groups]
        asked = [set(side[ITEM]) for side in pair]
        paired = len(asked[0] & asked[1]) >= max(2, min(map(len, asked)))
        judged = a.judge != b.judge and any(side["graded_by"].eq("judge").any() for side in pair)
        for metric in list(METRICS)[1:] if judged else METRICS:
            items = [side.dropna(subset=metric).groupby(ITEM)[metric].mean() for side in pair]
            if paired:  # undecided in one run: left out of both
                items = [side[items[0].index.intersection(items[1].index)] for side in items]
            if min(map(len, items)) < 2:
                continue  # an interval needs two
            row = dict(zip(GROUP, key, strict=True)) | {"metric": metric, "paired": paired}
            row |= {"n_a": len(items[0]), "n_b": len(items[1]), "a": items[0].mean(), "b": items[1].mean()}
            rows.append(row | measure(*items, paired, seed))
    if not rows:
        raise ValueError("no model answered items of the same source with the same decoding in both runs")
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "inside_noise": row["low"] <= 0 <= row["high"]}
    return pd.DataFrame(rows)


def measure(a: pd.Series, b: pd.Series, paired: bool, seed: int) -> dict[str, float]:
    """The mean of `b` less that of `a` (a share of each item) with its 95 % interval and p.

    Paired: bootstrap over items, flipped signs. Unpaired: Newcombe (1998), Stat. Med. 17:873, method 10, and permuted
    labels.
    """
    from scipy.stats import permutation_test
    from statsmodels.stats.proportion import confint_proportions_2indep

    if paired:
        difference, low, high, _ = paired_bootstrap(a, b, seed)
        return {"difference": difference, "low": low, "high": high, "p": sign_flips(a, b, seed)}
    low, high = confint_proportions_2indep(b.sum(), len(b), a.sum(), len(a), compare="diff", method="newcomb")
    test = permutation_test(
        (b, a), lambda x, y, axis: np.mean(x, axis) - np.mean(y, axis), batch=1000, rng=np.random.default_rng(seed)
    )
    return {"difference": b.mean() - a.mean(), "low": float(low), "high": float(high), "p": float(test.pvalue)}
