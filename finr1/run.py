"""The folder of one stage of one run: what went in, what came out, and whether it is complete.

`manifest.json` is written last and atomically: it exists = the stage is complete; the next stage refuses to start
without it. A stage that was killed resumes: with the same parameters, inputs and code its artefacts stay. Otherwise
they are removed, except for two kinds. Answers (`*.answers.jsonl`) are keyed by request and were paid for. What
training made stays when nothing but code changed: `launch` knows which code the trainer loaded, and decides.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finr1 import manifest
from finr1.child import LOADED_FILE, is_locked
from finr1.launch import MADE_BY_TRAINING, PARAMS_FILE, SCRIPT, launch, notebook_file  # noqa: F401
from finr1.manifest import MANIFEST_FILE, read_manifest
from finr1.params import NOTEBOOKS, STAGES, ParameterError, Params
from finr1.paths import cache_dir, outputs_root, shown  # noqa: F401  (notebooks import it and `launch` from here)

KERNEL_LOG = "kernel.log"
_STATE_FILE = "state.json"
# Never removed: answers, and what papermill is writing into this folder right now.
_KEPT_SUFFIXES = (".answers.jsonl", ".ipynb", KERNEL_LOG)


class MissingStage(ParameterError):
    """An input stage is not there or not complete."""


class StageBusy(RuntimeError):
    """Another process is training in the same folder."""


def input_hashes(params: Params) -> dict[str, dict[str, str]]:
    """{parameter: path, sha256 of all outputs} of each input stage; raises MissingStage when one is incomplete."""
    problems, hashes = [], {}
    for name, folder in params.inputs().items():
        if missing := manifest.what_is_missing(folder):
            problems.append(how_to_make(name, params.input_names()[name], missing))
        else:
            hashes[name] = {"path": shown(folder), "sha256": read_manifest(folder)["outputs_sha256"]}
    if problems:
        raise MissingStage(params.stage, problems)
    return hashes


def how_to_make(name: str, value: str, missing: str) -> str:
    """The line for an input that is not complete: the parameter, its value, the notebook and the command."""
    folder = Path(value)
    run = folder.parent.name or "NAME"
    if folder.name in NOTEBOOKS and folder.name not in STAGES:
        notebook = f"notebooks/{folder.name}.ipynb"
        return f'{name} = "{value}": not complete ({missing}); {notebook} makes it, with run = "{run}"'
    again = f" --force {folder.name}" if "is gone" in missing or "was changed" in missing else ""
    return (
        f'{name} = "{value}": not a complete stage ({missing}); notebooks/{folder.name}.ipynb makes it: '
        f"`python -m finr1 run --preset PRESET --run {run} --until {folder.name}{again}`"
    )


class Run:
    """One stage of one run. Making it prepares `outputs/<run>/<stage>/`; `finish` completes it.

    Raises MissingStage when an input is incomplete and StageBusy when a trainer is at work in the folder.
    """

    def __init__(self, params: Params):
        self.params, self.name, self.stage = params, params.run, params.stage
        self.inputs = params.inputs()
        self.dir = outputs_root() / params.run / params.stage
        self._input_hashes = input_hashes(params)
        if is_locked(self.dir):
            raise StageBusy(f"a trainer is at work in {shown(self.dir)}; wait for it or end it")
        # Taken now, as this is the code that runs; by the end of a long stage the files may have been edited.
        self._code = manifest.commit() | manifest.notebook_code(notebook_file(self.stage))
        self._package = manifest.package_hashes()
        made_from = {name: entry["sha256"] for name, entry in self._input_hashes.items()}
        self.fingerprint = manifest.digest([params.model_dump(), made_from])
        self._prepare()

    @property
    def figures(self) -> Path:
        """Folder for this stage's figures; made when first asked for."""
        folder = self.dir / "figures"
        folder.mkdir(exist_ok=True)
        return folder

    def path(self, name: str) -> Path:
        """Where the artefact `name` of this stage goes; folders in between are made."""
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to the phase `name`, summed over all sessions that made these artefacts."""
        started = time.perf_counter()
        try:
            yield
        finally:
            phases = self.state["phases"]
            phases[name] = round(phases.get(name, 0.0) + time.perf_counter() - started, 3)
            self.save_state()

    def finish(self, metrics: dict[str, Any], outputs: list[str]) -> None:
        """Write `manifest.json`, which makes the stage complete, and print a short summary.

        `outputs` are names of files and folders in this stage's folder that later stages may read.
        Raises FileNotFoundError when one of them was not written.
        """
        described = manifest.describe_outputs(self.dir, outputs)
        trainer = self.dir / LOADED_FILE
        by_trainer = json.loads(trainer.read_text("utf8")) if trainer.exists() else {}
        # The largest of all sessions that made these artefacts: one that only shows them again trains nothing.
        peaks = self.state.get("peak_memory_gib", {})
        peaks = {name: max(peaks.get(name, 0.0), gib) for name, gib in manifest.peak_memory_gib().items()}
        self.state["peak_memory_gib"] = peaks
        self.save_state()
        record = {
            "stage": self.stage,
            "run": self.name,
            "fingerprint": self.fingerprint,
            "parameters": self.params.model_dump(),
            "seed": self.params.seed,
            "inputs": self._input_hashes,
            "outputs": described,
            "outputs_sha256": manifest.outputs_sha256(described),
            "metrics": metrics,
            "code": self._code | {"files": by_trainer | manifest.loaded_files(self._package)},
            "versions": manifest.versions(),
            "hardware": manifest.hardware(),
            "phases_s": self.state["phases"],
            "sessions": self.state["sessions"],
            "peak_memory_gib": peaks,
            "started": self.state["started"],
            "finished": _now(),
        }
        manifest.write_json(self.dir / MANIFEST_FILE, record)
        print(_summary(read_manifest(self.dir), self.dir))

    def save_state(self) -> None:
        """Keep `state` for a session that resumes after this one was killed."""
        manifest.write_json(self.dir / _STATE_FILE, self.state)

    def _prepare(self) -> None:
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / MANIFEST_FILE).unlink(missing_ok=True)  # a stage under way is not complete
        file = self.dir / _STATE_FILE
        self.state = json.loads(file.read_text("utf8")) if file.exists() else {}
        code = manifest.digest([self._code["notebook_sha256"], self._package])
        if self.state.get("fingerprint") != self.fingerprint:
            _remove_artefacts(self.dir)
            self.state = {"fingerprint": self.fingerprint, "started": _now()}
            self.state |= {"sessions": 0, "phases": {}, "launched": {}}
        elif self.state.get("code_sha256") != code:
            _remove_artefacts(self.dir, kept=(*MADE_BY_TRAINING, SCRIPT, _STATE_FILE))
        self.state["code_sha256"] = code
        self.state["sessions"] += 1
        self.save_state()
        self.params.to_yaml(self.dir / PARAMS_FILE)


def forget(stage_dir: Path) -> None:
    """Make the next `Run` in this folder start afresh (answers stay, as always)."""
    for name in (MANIFEST_FILE, _STATE_FILE):
        (stage_dir / name).unlink(missing_ok=True)


def _remove_artefacts(folder: Path, kept: tuple[str, ...] = ()) -> None:
    for path in folder.iterdir():
        if path.name.endswith(_KEPT_SUFFIXES) or path.name in kept:
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _summary(record: dict[str, Any], folder: Path) -> str:
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record["phases_s"].items())
    memory, versions, code = record["peak_memory_gib"], record["versions"], record["code"]
    files = [f"{name} ({entry['rows']} rows)" if "rows" in entry else name for name, entry in record["outputs"].items()]
    more = [f"and {len(files) - 6} more"] if len(files) > 6 else []
    dirty = " with uncommitted changes" if code["dirty"] else ""
    lines = {
        "inputs": ", ".join(f"{entry['path']} {entry['sha256'][:8]}" for entry in record["inputs"].values()) or "none",
        "outputs": ", ".join(files[:6] + more) or "none",
        "phases": phases or "none timed",
        "memory": f"notebook {memory['notebook']} GiB, largest child {memory['largest_child']} GiB",
        "code": f"{code['commit'][:10]}{dirty}" if code["commit"] else "no commit known",
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "trl") if name in versions),
    }
    body = "\n".join(f"  {name:9}{text}" for name, text in lines.items())
    return f"{record['stage']} is complete: {shown(folder / MANIFEST_FILE)}\n{body}"
