"""Notebook 10: two runs side by side, from their manifests and samples alone.

A metric is compared *paired* where the items of one run are among those of the other (equal hash of the prompt): item
by item, so that the difficulty of the items cancels. Else *unpaired*: Newcombe's interval for shares, Welch's for
tokens, and a permutation test of the labels. Neither covers another seed of the training: one run on each side cannot
tell a better recipe from a luckier seed. MLflow and trackio show parameters and curves, but no paired intervals.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from finr1 import manifest
from finr1.evaluation import holm, mcnemar, paired_bootstrap, sign_flips
from finr1.paths import resolve, shown

ITEM, GROUP = "prompt_sha256", ["model", "decoding", "source"]
METRICS = {"accuracy": "correct", "lenient": "lenient_correct", "format": "format", "cut off": "finish_reason",
           "tokens": "tokens"}  # fmt: skip


class ComparedRun(NamedTuple):
    """One of the two runs."""

    stages: dict[str, dict[str, Any]]  # stage, or "stage (its parameter)" of a second one, -> manifest
    samples: pd.DataFrame  # one row per answer: `GROUP`, `ITEM`, graded_by, and `METRICS` as numbers

    @property
    def graders(self) -> str:
        """Who may say that an answer is right: rules, or the judge that was set or has graded."""
        own = self.stages["06_benchmark"]["parameters"]
        if own.get("judge_backend", "rules") == "rules" and not self.samples["graded_by"].eq("judge").any():
            return "rules"
        return f"rules and the judge {own.get('judge_model') or '(unnamed)'} (scope {own.get('judge_scope', '?')})"


def read_run(benchmark: Path) -> ComparedRun:
    """A run by the folder of its complete benchmark, with the manifests of all that it was made from.

    An input of the same run is looked for beside the benchmark first: the folder may have been moved since. Raises
    ValueError where `samples.jsonl` is not what the benchmark wrote, or lacks a key.
    """
    path, hashes = benchmark / "samples.jsonl", manifest.read_manifest(benchmark)["outputs"]
    if manifest.file_sha256(path) != hashes["samples.jsonl"]["sha256"]:
        raise ValueError(f"{shown(path)} is not the file that the benchmark made: its hash differs from the manifest")
    samples = pd.read_json(path, lines=True, dtype=False)
    if missing := [key for key in (*GROUP, ITEM, *METRICS.values()) if key not in samples]:
        raise ValueError(f"{shown(path)}: samples without {', '.join(missing)}; run the benchmark again")
    samples["finish_reason"] = samples["finish_reason"].eq("length")
    numbers = {name: samples[key].astype(float) for name, key in METRICS.items()}
    graded_by = samples.get("graded_by", pd.Series("rules", samples.index))  # older samples do not say
    stages, todo, seen = {}, [("", benchmark)], set()
    while todo:
        parameter, folder = todo.pop(0)
        if folder in seen or not (folder / manifest.MANIFEST_FILE).exists():
            continue
        seen.add(folder)
        record = manifest.read_manifest(folder)
        stages[f"{record['stage']} ({parameter})" if record["stage"] in stages else record["stage"]] = record
        for parameter, entry in record["inputs"].items():
            beside = folder.parent / Path(entry["path"]).name
            own = Path(entry["path"]).parent.name == record["run"] and (beside / manifest.MANIFEST_FILE).exists()
            todo.append((parameter, beside if own else resolve(entry["path"])))
    return ComparedRun(dict(sorted(stages.items())), samples[[*GROUP, ITEM]].assign(graded_by=graded_by, **numbers))


def settings(run: ComparedRun) -> pd.Series:
    """All that a result may depend on as text, indexed by stage, kind (parameter, input, code, ...) and name.

    A run's own name inside a path is no difference: `outputs/x/04_sft` in x is `outputs/y/04_sft` in y.
    """
    values = {}
    for stage, record in run.stages.items():
        values[stage, "stage", "the stage itself"] = "there"
        for kind in ("parameters", "inputs", "code", "versions", "hardware"):
            for name, value in record[kind].items():
                value = value["sha256"] if kind == "inputs" else value
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                values[stage, kind, name] = text.replace(f"outputs/{record['run']}/", "outputs/{run}/")
        del values[stage, "parameters", "run"]
    return pd.Series(values)


def differing_settings(a: ComparedRun, b: ComparedRun) -> pd.DataFrame:
    """One row per difference: kind, name, its values in `a` and `b`, and the stages in which it holds."""
    both = pd.DataFrame({"a": settings(a), "b": settings(b)}).rename_axis(["stage", "kind", "name"]).reset_index()
    alone = both["stage"].isin(set(a.stages) ^ set(b.stages))  # of a stage that one run lacks, one row says it
    both = both[~alone | both["kind"].eq("stage")].fillna("(not there)")
    return both[both["a"] != both["b"]].groupby(["kind", "name", "a", "b"])["stage"].agg(", ".join).reset_index()


def compare_metrics(a: ComparedRun, b: ComparedRun, seed: int) -> pd.DataFrame:
    """One row per model, decoding, source ("all": several together) and metric that both runs have.

    Columns: a, b (means), n_a, n_b (items), paired, difference (b - a), low, high, p, p_holm (over all rows), verdict.
    Shares are in [0, 1]. Accuracy is left out where a judge graded some of the answers and the two runs have not the
    same one. `seed` is that of bootstrap and permutations. Raises ValueError where there is nothing to compare.
    """
    common = set(a.samples["source"]) & set(b.samples["source"])
    if not common:
        raise ValueError("different benchmarks, with no source in common")
    sides = [run.samples[run.samples["source"].isin(common)] for run in (a, b)]
    if len(common) > 1:
        sides = [pd.concat([side.assign(source="all"), side]) for side in sides]
    groups, rows = [side.groupby(GROUP, sort=False) for side in sides], []
    for key in (key for key in groups[0].groups if key in groups[1].groups):
        pair = [group.get_group(key) for group in groups]
        asked = [set(side[ITEM]) for side in pair]
        paired = len(asked[0] & asked[1]) >= max(2, min(map(len, asked)))
        if key[2] == "all" and not paired:
            continue  # other items of several sources are another mix of them: the whole would mean nothing
        judged = a.graders != b.graders and any(side["graded_by"].eq("judge").any() for side in pair)
        for metric in list(METRICS)[1:] if judged else METRICS:
            items = [side.dropna(subset=metric).groupby(ITEM)[metric].agg(["mean", "size"]) for side in pair]
            if paired:  # undecided in one run: left out of both
                items = [side.loc[items[0].index.intersection(items[1].index)] for side in items]
            if min(map(len, items)) < 2:
                continue  # an interval needs two
            row = dict(zip(GROUP, key, strict=True)) | {"metric": metric, "paired": paired}
            row |= {"n_a": len(items[0]), "n_b": len(items[1])}
            rows.append(row | measure(*items, paired, metric != "tokens", seed))
    if not rows:
        raise ValueError("no model was asked with the same decoding in both runs")
    rows = pd.DataFrame(rows).assign(p_holm=lambda table: holm(list(table["p"])))
    words = [rows["low"].eq(0) & rows["high"].eq(0), (rows["low"] <= 0) & (rows["high"] >= 0), rows["p_holm"] > 0.05]
    noise = ["no difference", "inside the noise", "inside the noise once corrected"]
    return rows.assign(verdict=np.select(words, noise, np.where(rows["difference"] > 0, "B is higher", "B is lower")))


def measure(a: pd.DataFrame, b: pd.DataFrame, paired: bool, share: bool, seed: int) -> dict[str, float]:
    """Means of two sets of items (columns mean, size: of an item's answers), b - a with its 95 % interval, and p.

    Paired: bootstrap over items; McNemar's test, or flipped signs where an item has several answers. Unpaired:
    Newcombe (1998), Stat. Med. 17:873, method 10, for shares, Welch's t for tokens; permuted labels.
    """
    from scipy.stats import permutation_test, ttest_ind
    from statsmodels.stats.proportion import confint_proportions_2indep

    first, second = a["mean"].to_numpy(), b["mean"].to_numpy()
    x, y = float(first.mean()), float(second.mean())
    if paired:
        single = share and (a["size"].eq(1) & b["size"].eq(1)).all()
        _, low, high, _ = paired_bootstrap(first, second, seed)
        p = mcnemar(first, second).p if single else sign_flips(first, second, seed)
        return {"a": x, "b": y, "difference": y - x, "low": low, "high": high, "p": p}
    low = high = y - x
    if share:
        counts = (y * len(b), len(b), x * len(a), len(a))
        low, high = confint_proportions_2indep(*counts, compare="diff", method="newcomb")
    elif first.std() or second.std():
        low, high = ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    p = permutation_test(
        (first, second), lambda x, y, axis: np.mean(y, axis=axis) - np.mean(x, axis=axis),
        permutation_type="independent", batch=1000, rng=np.random.default_rng(seed),
    ).pvalue  # fmt: skip
    return {"a": x, "b": y, "difference": y - x, "low": float(low), "high": float(high), "p": float(p)}
