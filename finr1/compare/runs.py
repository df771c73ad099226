"""What two runs were made with, from their manifests alone: nothing is loaded, nothing is run again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from finr1 import manifest
from finr1.params.base import did_you_mean
from finr1.paths import outputs_root, resolve, run_folder, shown

BENCHMARK, SAMPLES = "06_benchmark", "samples.jsonl"
ABSENT = "(not there)"  # a parameter, package or stage that only the other run has
# What the comparison reads of a sample; files of older and newer versions have these, whatever else they hold.
SAMPLE_KEYS = ("model", "decoding", "source", "prompt_sha256", "correct", "lenient_correct", "format", "finish_reason",
               "tokens")  # fmt: skip
GRADED_BY = "graded_by"  # a key that older samples lack: rules graded those
KINDS = ("parameter", "seed", "input", "code", "version", "hardware")  # of differences, in the order shown


class NotComparable(ValueError):
    """The two cannot be compared: one is missing or incomplete, or they answered different benchmarks."""


class ComparedRun(NamedTuple):
    """One of the two runs."""

    label: str  # the folder as a person wants to read it
    folder: Path
    stages: dict[str, dict[str, Any]]  # stage, or "stage (its parameter)" of a second one, -> manifest
    samples: list[dict[str, Any]]  # rows of samples.jsonl, `SAMPLE_KEYS` alone

    @property
    def benchmark(self) -> dict[str, Any]:
        """The manifest of the benchmark."""
        return self.stages[BENCHMARK]


def read_run(name: str) -> ComparedRun:
    """The run `name`: a folder of outputs/, or a path, also that of its benchmark. Raises NotComparable without one."""
    folder = run_folder(name)
    folder = folder.parent if folder.name == BENCHMARK else folder
    if not folder.is_dir():
        known = sorted(path.parent.name for path in outputs_root().glob(f"*/{BENCHMARK}"))
        there = f"; runs with a benchmark in {shown(outputs_root())}: {', '.join(known) or 'none'}"
        raise NotComparable(f"{name}: no such run{did_you_mean(name, known)}{there}")
    if missing := manifest.what_is_missing(folder / BENCHMARK):
        raise NotComparable(
            f"{shown(folder)}: {BENCHMARK} is not complete ({missing}); `python -m finr1 run --preset PRESET --run "
            f"{folder.name} --until {BENCHMARK}` completes a run in outputs/"
        )
    stages = dict(sorted(_stages(folder)))
    return ComparedRun(shown(folder), folder, stages, _read_samples(folder / BENCHMARK))


def _stages(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The benchmark and all that it was made from, found through the manifests' inputs; incomplete ones are left out.

    An input of the same run is looked for beside the benchmark first: the folder may have been moved since.
    """
    todo, seen = [(BENCHMARK, run / BENCHMARK)], {}
    while todo:
        parameter, folder = todo.pop(0)
        if folder in seen or not (folder / manifest.MANIFEST_FILE).exists():
            continue
        record = seen[folder] = manifest.read_manifest(folder)
        name = record["stage"]
        taken = {entry["stage"] for path, entry in seen.items() if path != folder}
        yield (f"{name} ({parameter})" if name in taken else name), record
        for parameter, entry in record["inputs"].items():
            path = Path(entry["path"])
            beside = folder.parent / path.name
            own = path.parent.name == record["run"] and (beside / manifest.MANIFEST_FILE).exists()
            todo.append((parameter, beside if own else resolve(entry["path"])))


def _read_samples(benchmark: Path) -> list[dict[str, Any]]:
    """The kept answers, checked against the manifest: an edited file would be compared as if the run had said it."""
    path = benchmark / SAMPLES
    recorded = manifest.read_manifest(benchmark)["outputs"].get(SAMPLES)
    if recorded is None or manifest.file_sha256(path) != recorded["sha256"]:
        raise NotComparable(
            f"{shown(path)} is not the file that the benchmark made: its hash differs from the manifest"
        )
    rows = [json.loads(line) for line in path.read_text("utf8").splitlines() if line.strip()]
    if missing := sorted({key for row in rows for key in SAMPLE_KEYS if key not in row}):
        raise NotComparable(f"{shown(path)}: samples without {', '.join(missing)}; run the benchmark again")
    return [{key: row[key] for key in SAMPLE_KEYS} | {GRADED_BY: row.get(GRADED_BY, "rules")} for row in rows]


def graders(run: ComparedRun) -> str:
    """Who may say that an answer is right: rules, or the judge that was set or has graded, with what it was given."""
    own = run.benchmark["parameters"]
    if own.get("judge_backend", "rules") == "rules" and not any(s[GRADED_BY] == "judge" for s in run.samples):
        return "rules"
    return f"rules and the judge {own.get('judge_model') or '(name not known)'} (scope {own.get('judge_scope', '?')})"


def setting_rows(a: ComparedRun, b: ComparedRun) -> list[dict[str, Any]]:
    """One row a difference: kind (`KINDS`), name, its values in `a` and `b`, and the stages in which it holds.

    A run's own name inside a path is no difference: `outputs/x/04_sft` in x is `outputs/y/04_sft` in y.
    """
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for stage in dict.fromkeys([*a.stages, *b.stages]):
        if stage not in a.stages or stage not in b.stages:
            sides = ["there" if stage in run.stages else ABSENT for run in (a, b)]
            found.setdefault(("parameter", "the stage itself", *sides), []).append(stage)
            continue
        first, second = _settings(a.stages[stage]), _settings(b.stages[stage])
        for kind, name in dict.fromkeys([*first, *second]):
            sides = first.get((kind, name), ABSENT), second.get((kind, name), ABSENT)
            if sides[0] != sides[1]:
                found.setdefault((kind, name, *sides), []).append(stage)
    rows = [dict(zip(("kind", "name", "a", "b"), key, strict=True), stages=names) for key, names in found.items()]
    return sorted(rows, key=lambda row: KINDS.index(row["kind"]))


def _settings(record: dict[str, Any]) -> dict[tuple[str, str], str]:
    """(kind, name) -> value as text: all of a manifest that a result may depend on."""
    run = record["run"]
    found = {}
    for name, value in record["parameters"].items():
        if name != "run":
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found["seed" if name == "seed" else "parameter", name] = text.replace(f"outputs/{run}/", "outputs/{run}/")
    found |= {("input", name): f"sha256 {entry['sha256'][:8]}" for name, entry in record["inputs"].items()}
    code = record["code"]
    found["code", "commit"] = f"{(code['commit'] or 'unknown')[:10]}{' + changes' if code['dirty'] else ''}"
    for part in ("package", "notebook"):
        found["code", part] = f"sha256 {(code.get(f'{part}_sha256') or 'unknown')[:8]}"
    for kind, entries in (("version", record["versions"]), ("hardware", record["hardware"])):
        found |= {(kind, name): str(value) for name, value in entries.items()}
    return found


def same_outputs(a: ComparedRun, b: ComparedRun) -> list[str]:
    """Stages whose outputs are byte for byte the same in both runs."""
    return [
        stage
        for stage in a.stages
        if stage in b.stages and a.stages[stage]["outputs_sha256"] == b.stages[stage]["outputs_sha256"]
    ]
