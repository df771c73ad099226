"""What the page shows of each stage: figures with captions, tables with their intervals, costs, environment."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from finr1.evaluation import percent, points

# Metrics that are shares in [0, 1] and read better in percent; differences of shares read in points.
_SHARES = {
    "accuracy", "format", "lenient", "truncated", "accuracy_given_format", "inaccurate", "irregular", "precision",
    "recall", "share", "missing", "majority", "spread", "pass", "clean", "paper_like",
    "all", "without", "flawed", "mean", "sd", "as_judged", "judged share", "as judged", "corrected",
}  # fmt: skip
_POINTS = ("difference", "gap", "detectable")  # with an interval; a part of a difference and `detectable` have none
TITLES = {  # name of a metric -> heading of its table; others are called by their name
    "look": "A look at the dev split",
    "by_source": "By benchmark",
    "by_suite": "By capability suite",
    "repeated": "Several answers an item: right at least once in k, and by majority vote",
    "bad_golds": "With and without golds that are known to be bad",
    "contamination": "Contamination: trained on the clean pool, and on one that holds the test items",
    "seeds": "Over several training seeds",
    "judge": "The judge of the benchmark: accuracies as it judged, and with its error taken out",
    "study": "The judge tried with five orders of its prompt",
    "audit": "Audit: planted faults and how many of them were rejected",
    "funnel": "Funnel: records after each step",
}
CAPTIONS = {  # file name -> what the figure shows; other figures are called by their file's name
    "funnel": "Records after each step of curation",
    "overview": "What the problems ask for, and how long the prompts are, by split",
    "audit": "What the filter rejected of planted faults, and of sound traces (95 % intervals)",
    "judges": "Yield of the filter by least points, and agreement of two judges",
    "scores": "Criteria met by a trace, and how many traces meet each criterion",
    "sft_curves": "Supervised fine-tuning: faint as logged, bold a trailing mean",
    "toy_group": "Four completions by hand: reward and advantage",
    "pass_rates": "Share of right answers of the SFT model on each candidate problem",
    "grpo_curves": "GRPO: rewards by part and what to watch; faint as logged, bold a trailing mean",
    "variants": "GRPO beside its variants, a few steps each (95 % intervals; hollow: noise)",
    "benchmark": "Accuracy on the benchmark with 95 % intervals",
    "paired_differences": "Each step of the recipe on the same items (paired 95 % intervals)",
    "decomposition": "Where each difference comes from: the format or better answers",
    "by_capability": "Accuracy by capability with 95 % intervals",
    "by_suite": "Accuracy by capability suite with 95 % intervals",
    "protocols": "One set of answers under several protocols, beside one model as three groups report it",
    "repeated_answers": "Several answers an item: right at least once in k, and by majority vote",
    "memory": "Memory of each GPU, part by part",
    "ablation": "The recipe with steps left out, over several seeds",
    "ablation_steps": "What each step adds, over seeds and items (95 % intervals)",
    "beside_the_paper": "This run, and what the paper reports; the ledger says what may be compared",
}


def figures(folder: Path) -> list[dict[str, str]]:
    """The PNGs in `<folder>/figures`, in the order of their names, as data URIs with a caption."""
    return [
        {
            "name": file.stem,
            "caption": CAPTIONS.get(file.stem, file.stem.replace("_", " ")),
            "uri": "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(),
        }
        for file in sorted((folder / "figures").glob("*.png"))
    ]


def title(name: str) -> str:
    return TITLES.get(name, name.replace("_", " ").capitalize())


def is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def scalars(metrics: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested metrics as one flat {name: value}; tables and texts of several lines are left out."""
    flat: dict[str, object] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= scalars(value, f"{prefix}{key} / ")
        elif not is_table(value) and "\n" not in str(value):
            flat[f"{prefix}{key}"] = value
    return flat


def table(rows: Sequence[Mapping]) -> dict[str, list]:
    """Rows as cells for the page: `header` and `rows` of {text, kind}; a value and its interval are two cells.

    `low` and `high` are the interval of the number before them, `x_low` and `x_high` that of `x` (or `x_difference`). A
    list of four numbers is a share, its interval and its n.
    """
    rows = [_spread_out(row) for row in rows]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    intervals = _intervals(keys)
    ends = {end for pair in intervals.values() for end in pair}
    shown = [key for key in keys if key not in ends]
    header = []
    for key in shown:
        numeric = any(isinstance(row.get(key), int | float) and not isinstance(row.get(key), bool) for row in rows)
        unit = {points: " (points)", percent: " (%)"}.get(_form(key, key in intervals), "")
        kind = "n" if numeric else ""
        header.append({"text": key.replace("_", " ") + unit, "kind": kind, "span": 1 + (key in intervals)})
    return {"header": header, "rows": [_cells(row, shown, intervals) for row in rows]}


def _spread_out(row: Mapping) -> dict:
    """`row` with each [share, low, high, n] as four columns."""
    flat: dict = {}
    for key, value in row.items():
        if isinstance(value, list) and len(value) == 4 and all(isinstance(v, int | float) or v is None for v in value):
            flat |= dict(zip((key, f"{key}_low", f"{key}_high", f"n {key}"), value, strict=True))
        else:
            flat[key] = value
    return flat


def _intervals(keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Key -> the keys of its interval's ends."""
    found = {}
    for number, key in enumerate(keys):
        stem = key.removesuffix("_difference")
        if f"{stem}_low" in keys and f"{stem}_high" in keys:
            found[key] = (f"{stem}_low", f"{stem}_high")
        elif keys[number + 1 : number + 3] == ["low", "high"]:
            found[key] = ("low", "high")
    return found


def _cells(row: Mapping, keys: Sequence[str], intervals: Mapping[str, tuple[str, str]]) -> list[dict[str, str]]:
    cells = []
    for key in keys:
        value = row.get(key)
        form = _form(key, key in intervals)
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        cells.append({"text": form(value) if numeric else show(value), "kind": "n" if numeric or value is None else ""})
        if key in intervals:
            low, high = (row.get(end) for end in intervals[key])
            text = "" if low is None or high is None else f"[{form(low)}, {form(high)}]"
            cells.append({"text": text, "kind": "interval"})
    return cells


def _is_difference(key: str) -> bool:
    return any(word in key for word in _POINTS)


def _form(key: str, has_interval: bool):
    if (_is_difference(key) and has_interval) or key.endswith("_part") or key == "detectable":
        return points
    return percent if key in _SHARES else show


def show(value: object) -> str:
    """A table's cell: numbers short, missing values a dash, the rest as text."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show(item)}" for key, item in value.items()) or "-"
    return str(value)


def seconds_of(manifest: Mapping) -> float:
    """Wall time: the sum of the timed phases, or from start to finish where none was timed."""
    phases = manifest.get("phases_s") or {}
    if phases:
        return sum(phases.values())
    return (datetime.fromisoformat(manifest["finished"]) - datetime.fromisoformat(manifest["started"])).total_seconds()


def environment(manifests: Mapping[str, Mapping]) -> list[dict[str, str]]:
    """Rows {what, value, stages}: hardware, seeds, code and versions; one row where all stages agree, else one each."""
    facts: dict[str, dict[str, list[str]]] = {}
    for stage, manifest in manifests.items():
        code, hardware = manifest.get("code", {}), manifest.get("hardware", {})
        commit = (code.get("commit") or "unknown")[:10] + (" with uncommitted changes" if code.get("dirty") else "")
        values = {"seed": manifest.get("seed"), "commit": commit, **hardware, **manifest.get("versions", {})}
        for what, value in values.items():
            facts.setdefault(what, {}).setdefault(show(value) if value != [] else "none", []).append(stage)
    return [
        {"what": what, "value": value, "stages": "all" if len(stages) == len(manifests) else ", ".join(stages)}
        for what, found in facts.items()
        for value, stages in found.items()
    ]


def as_json(manifest: Mapping) -> str:
    return json.dumps(manifest, indent=1, ensure_ascii=False)
