"""Gathers what the template shows. See the package's docstring for what the page promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from finr1 import ledger, paths, reported, rollouts, templates
from finr1.evaluation import (
    Sample,
    decided,
    paired_table,
    percent,
    points,
    remark,
    results_table,
    table_notes,
)
from finr1.judge import Verdict, steps_with_judge_error, with_judge_error
from finr1.plotting import MODEL_COLOURS, MODEL_NAMES
from finr1.progress import duration
from finr1.records import read_jsonl
from finr1.report import content
from finr1.report.summary import summary_sentences

TEMPLATE = "report/report.html.j2"
OVERVIEW, BENCHMARK, GRPO = "00_overview", "06_benchmark", "05_grpo"
SECTIONS = {  # stage folder -> heading, in the order of the report
    "01_data": "Data",
    "02_distillation": "Distillation",
    "03_filtering": "Filtering and its audit",
    "04_sft": "Supervised fine-tuning",
    "05_grpo": "GRPO",
    "06_benchmark": "The benchmark in figures",
}
PARTS = {
    "data": "Data", "distillation": "Distillation", "filtering": "Filtering", "sft": "Supervised fine-tuning",
    "grpo": "GRPO", "evaluation": "Evaluation", "results": "Results",
}  # fmt: skip
BETTER_SHOWN = ("rows", "steps", "by_capability", "table", "protocols", "warnings")  # metrics with a place of their own
MAX_TEXT = 1500  # characters of a sample text that the report shows
ABLATION = "ablation"  # a stage that is made from several runs, and a figure


def build_report(
    stages: Mapping[str, Path], path: Path, seed: int = 0, measured_on: str = "this run's problems"
) -> Path:
    """Write the report of a run to `path` and return it.

    `stages`: stage name ("01_data" ... "06_benchmark", "ablation") -> its folder. A stage that is missing or incomplete
    is shown as such, and a folder without figures is fine. Figures in `figures/` beside `path` are notebook 07's own;
    the folder above, the run's, may hold 00_overview. `seed` is that of the bootstrap. `measured_on`: what the
    benchmark's problems are ("synthetic problems").
    """
    path = Path(path)
    folders = {name: Path(stages[name]) for name in SECTIONS if name in stages}
    samples, verdicts = read_samples(folders.get(BENCHMARK)), read_verdicts(folders.get(BENCHMARK))
    judged = (samples, verdicts, seed)
    rows, by_capability = (with_judge_error(results_table(samples, by), *judged) for by in (None, "capability"))
    steps = steps_with_judge_error(paired_table(samples, seed), *judged)
    sections = [section(name, title, folders.get(name)) for name, title in SECTIONS.items()]
    manifests = {s["name"]: s["manifest"] for s in sections if s["manifest"]}
    groups = sampled_groups(folders.get(GRPO), manifests.get(GRPO))
    base = manifests.get(BENCHMARK, {}).get("parameters", {}).get("model_name_or_path")
    apart = reported.why_apart({sample.source for sample in samples}, base)
    html = _template().render(
        run=next((m.get("run", "") for m in manifests.values()), ""),
        finished=max((m.get("finished", "") for m in manifests.values()), default=""),
        summary=summary_sentences(rows, steps, measured_on, apart),
        apart=apart,
        measured_on=measured_on,
        rows=rows,
        steps=steps,
        headline=[row for row in rows if row["decoding"] == "greedy"] or rows,
        protocols=protocol_rows(manifests.get(BENCHMARK)),
        by_capability=by_capability,
        table_notes=table_notes(rows),
        answers=sample_answers(samples),
        average=rollouts.average_change(groups, seed) if groups else "",
        selection=rollouts.selection(groups),
        sections=sections,
        ablation=ablation(Path(stages[ABLATION]) if ABLATION in stages else None),
        own_figures=content.figures(path.parent),
        ledger=ledger_parts(ledger.entries(ledger.read_evidence(folders, samples, seed, verdicts))),
        costs=costs(manifests),
        environment=content.environment(manifests),
        manifests=manifests | linked_manifests(stages, manifests, path.parent.parent),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf8")
    return path


def _template():
    environment = templates.environment(Path(__file__).parent.parent)
    environment.filters |= {
        "percent": percent, "points": points, "cell": content.show, "shorten": shorten, "duration": duration,
        "as_json": content.as_json, "table": content.table, "titled": content.title, "claimed": ledger.shown_number,
        "remark": remark, "decided": decided,
        "model": lambda name: MODEL_NAMES.get(name, name), "colour": lambda name: MODEL_COLOURS.get(name, "#56606f"),
    }  # fmt: skip
    environment.globals["reported"] = reported
    return environment.get_template(TEMPLATE)


def read_samples(folder: Path | None) -> list[Sample]:
    """The benchmark's samples; none when the stage did not run."""
    file = folder / "samples.jsonl" if folder else None
    return list(read_jsonl(file, Sample)) if file and file.exists() else []


def read_verdicts(folder: Path | None) -> list[Verdict]:
    """What the judge of the benchmark said; none where rules alone graded, or the stage did not run."""
    file = folder / "verdicts.jsonl" if folder else None
    return list(read_jsonl(file, Verdict)) if file and file.exists() else []


def section(name: str, title: str, folder: Path | None) -> dict:
    """One stage: its manifest (None = not complete), its metrics as tables, its figures."""
    manifest = _manifest(folder)
    every = manifest["metrics"] if manifest else {}
    metrics = {key: value for key, value in every.items() if key not in BETTER_SHOWN and value is not None}
    return {
        "name": name,
        "title": title,
        "manifest": manifest,
        "scalars": content.scalars(metrics),
        "tables": {key: value for key, value in metrics.items() if content.is_table(value)},
        "figures": content.figures(folder) if folder else [],
        "warnings": every.get("warnings") or [],
    }


def _manifest(folder: Path | None) -> dict | None:
    from finr1.run import read_manifest

    try:
        return read_manifest(folder) if folder else None
    except FileNotFoundError:
        return None


def linked_manifests(stages: Mapping[str, Path], own: Mapping[str, Mapping], run_folder: Path) -> dict[str, dict]:
    """Manifests besides the recipe's `own`: notebook 00's, the ablation's, and of other runs what it and 06 read.

    The latter go by <run>/<stage>. One that is gone, or was made anew since it was read, is left out.
    """
    beside = {OVERVIEW: run_folder / OVERVIEW, ABLATION: stages.get(ABLATION)}
    found = {name: manifest for name, folder in beside.items() if (manifest := _manifest(folder))}
    shown = {Path(folder).resolve() for folder in stages.values()}
    for reader in (manifest for name, manifest in (own | found).items() if name in (BENCHMARK, ABLATION)):
        for entry in reader["inputs"].values():
            folder = paths.resolve(entry["path"])
            manifest = None if folder.resolve() in shown else _manifest(folder)
            if manifest and manifest["outputs_sha256"] == entry["sha256"]:
                found[f"{manifest['run']}/{manifest['stage']}"] = manifest
    return found


def protocol_rows(manifest: Mapping | None) -> list[dict]:
    """The same answers under each protocol that 06 tried: a row a model and decoding, with its results by protocol."""
    found: dict[tuple[str, str], dict] = {}
    for row in (manifest["metrics"].get("protocols") or []) if manifest else []:
        key = (row["model"], row["decoding"])
        found.setdefault(key, dict(zip(("model", "decoding"), key, strict=True)) | {"n": row["n"], "by": {}})
        found[key]["by"][row["protocol"]] = row
    return list(found.values())


def sampled_groups(folder: Path | None, manifest: Mapping | None) -> list[rollouts.Group]:
    """The groups that GRPO sampled; none where the stage is not complete."""
    if folder is None or manifest is None or "num_generations" not in manifest["parameters"]:
        return []
    return rollouts.read_groups(folder, manifest["parameters"]["num_generations"])


def ablation(folder: Path | None) -> dict | None:
    """The tables of `finr1.ablation`, a column a seed; None where no ablation was made."""
    if folder is None:
        return None
    found = json.loads((folder / "ablation.json").read_text("utf8"))
    return {
        "seeds": found["seeds"],
        "rows": [_by_seed(row, percent) for row in found["rows"]],
        "steps": [_by_seed(row, points) for row in found["steps"]],
    }


def _by_seed(row: Mapping, form: Callable[[float], str]) -> dict:
    """`row` with its `by_seed` as columns at the end; models under their names."""
    names = {key: MODEL_NAMES.get(row[key], row[key]) for key in ("model", "before", "after") if key in row}
    seeds = {f"seed {seed}": form(value) for seed, value in row["by_seed"].items()}
    return {key: value for key, value in (row | names).items() if key != "by_seed"} | seeds


def ledger_parts(rows: Sequence[ledger.Entry]) -> dict:
    """The ledger for the page: how many claims have each verdict, and the entries by part of the recipe."""
    parts = [
        {"name": name, "title": title, "rows": [row for row in rows if row.claim.part == name]}
        for name, title in PARTS.items()
    ]
    return {"tally": ledger.tally(rows), "parts": [part | {"tally": ledger.tally(part["rows"])} for part in parts]}


def costs(manifests: Mapping[str, Mapping]) -> list[dict]:
    """A row a stage: wall time in seconds, its phases, peak memory in GiB by process."""
    return [
        {"stage": name, "seconds": content.seconds_of(m), "phases": m.get("phases_s") or {},
         "memory": m.get("peak_memory_gib") or {}}
        for name, m in manifests.items()
    ]  # fmt: skip


def shorten(text: str) -> str:
    """`text` as far as the report shows it; a cut says so."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ... ({len(text) - MAX_TEXT:,} more characters)"


def sample_answers(samples: Sequence[Sample], problems: int = 3) -> list[dict]:
    """What each model wrote on a few items of different families, chosen by id and never by result."""
    shown = [s for s in samples if s.decoding == "greedy"] or [s for s in samples if s.sample == 0]
    first = {s.family: s for s in sorted(shown, key=lambda s: s.problem_id, reverse=True)}  # lowest id of a family
    chosen = sorted(first.values(), key=lambda s: s.problem_id)[:problems]
    return [
        {"problem": one.problem_id, "question": one.question, "gold": one.gold,
         "answers": [s for s in shown if s.problem_id == one.problem_id]}
        for one in chosen
    ]  # fmt: skip
