"""The folder of one stage of one run: what went in, what came out, and whether it is complete.

`manifest.json` is written last and atomically: it exists = the stage is complete. A stage that was killed resumes: with
the same parameters, inputs and code its artefacts stay. Otherwise they are removed, but not answers
(`*.answers.jsonl`, keyed by request and paid for), and not what training made when nothing but code changed: `launch`
knows which code the trainer loaded, and decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finr1 import manifest
from finr1.child import LOADED_FILE, stage_lock
from finr1.launch import MADE_BY_TRAINING, PARAMS_FILE, SCRIPT, launch, notebook_file  # noqa: F401
from finr1.locks import lock
from finr1.manifest import MANIFEST_FILE, read_manifest, read_object, remove
from finr1.params import ParameterError, Params
from finr1.paths import cache_dir, outputs_root, shown  # noqa: F401  (notebooks import it and `launch` from here)

KERNEL_LOG = "kernel.log"
STATE_FILE = "state.json"
# Never removed: answers, and what papermill and the locks have open in this folder right now.
_KEPT_SUFFIXES = (".answers.jsonl", ".ipynb", KERNEL_LOG, ".lock")
_AT_WORK: dict[Path, AbstractContextManager[None]] = {}  # stages that this process has begun and not finished


def missing_inputs(params: Params) -> dict[Path, str]:
    """{folder: the line that names the parameter, its value, the notebook and the command} of incomplete inputs."""
    named = {folder: f'{name} = "{params.input_names()[name]}"' for name, folder in params.inputs().items()}
    return {at: f"{name}: {missing}" for at, name in named.items() if (missing := manifest.unfinished(at))}


def stage_folder(params: Params) -> Path:
    """`outputs/<run>/<stage>`."""
    return outputs_root() / params.run / params.stage


def kernel_lock(folder: Path, wait: bool = False) -> AbstractContextManager[None]:
    """Hold a stage folder for this kernel; while another process does, wait or raise RuntimeError."""
    if folder in _AT_WORK:  # the cell was run again
        return nullcontext()
    return lock(folder / "kernel.lock", f"is at work in {shown(folder)} (a notebook left open counts)", wait)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait, with a message, until no other `run` and no kernel is at work in a stage folder; then it is this one's."""
    with lock(folder / "run.lock", f"runs {shown(folder)}", wait=True):
        with kernel_lock(folder, wait=True):  # also that of a run that was killed: it ends within a second
            pass
        yield


class Run:
    """One stage of one run. Making it prepares `outputs/<run>/<stage>/`; `finish` completes it.

    Raises ParameterError when an input is incomplete, and RuntimeError when another process is at work in the folder.
    """

    def __init__(self, params: Params):
        self.params, self.name, self.stage = params, params.run, params.stage
        self.inputs = params.inputs()
        self.dir = stage_folder(params)
        self.figures = self.dir / "figures"
        if missing := missing_inputs(params):
            raise ParameterError(params.stage, missing.values())
        self._made_from = {name: read_manifest(folder)["outputs_sha256"] for name, folder in self.inputs.items()}
        self.fingerprint = manifest.digest([params.model_dump(), self._made_from])
        # Taken now, as this is the code that runs; by the end of a long stage the files may have been edited.
        self._code = {"commit": manifest.commit(), "notebook": manifest.notebook_code(notebook_file(self.stage))}
        self._package = manifest.package_hashes()
        with stage_lock(self.dir):
            (held := kernel_lock(self.dir)).__enter__()
            _AT_WORK.setdefault(self.dir, held)
            self._prepare()

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
        """Write `manifest.json`, which makes the stage complete, and say so.

        `outputs` names files and folders that later stages may read; FileNotFoundError when one was not written.
        """
        described = manifest.describe_outputs(self.dir, outputs)
        by_trainer = read_object(self.dir / LOADED_FILE, {}, absent={})
        # The largest of all sessions that made these artefacts: one that only shows them again trains nothing.
        peaks = self.state.setdefault("peak_memory_gib", {})
        peaks |= {name: max(gib, peaks.get(name, 0.0)) for name, gib in manifest.peak_memory_gib().items()}
        self.save_state()
        record = {
            "stage": self.stage,
            "run": self.name,
            "fingerprint": self.fingerprint,
            "parameters": self.params.model_dump(),
            "seed": self.params.seed,
            "inputs": self._made_from,
            "outputs": described,
            "outputs_sha256": manifest.digest({name: file["sha256"] for name, file in described.items()}),
            "metrics": metrics,
            "code": self._code | {"files": by_trainer | manifest.loaded_files(self._package)},
            "versions": manifest.versions(),
            "hardware": manifest.hardware(),
            "phases_s": self.state["phases"],
            "peak_memory_gib": peaks,
            "started": self.state["started"],
            "finished": _now(),
        }
        manifest.write_json(self.dir / MANIFEST_FILE, record)
        if held := _AT_WORK.pop(self.dir, None):
            held.__exit__(None, None, None)
        print(f"{self.stage} is complete: {shown(self.dir / MANIFEST_FILE)}")

    def save_state(self) -> None:
        """Keep `state` for a session that resumes after this one was killed."""
        manifest.write_json(self.dir / STATE_FILE, self.state)

    def _prepare(self) -> None:
        with suppress(OSError, ValueError):  # what was changed by other hands is made again, and not taken for ours
            for name in manifest.changed_outputs(self.dir):
                remove(self.dir / Path(name).parts[0])
        remove(self.dir / MANIFEST_FILE)  # a stage under way is not complete
        self.state = self._kept_state()
        code = manifest.digest([self._code["notebook"], self._package])
        if self.state.get("fingerprint") != self.fingerprint:
            _remove_artefacts(self.dir)
            self.state = {"fingerprint": self.fingerprint, "started": _now(), "phases": {}, "launched": {}}
        elif self.state.get("code_sha256") != code:
            _remove_artefacts(self.dir, kept=(*MADE_BY_TRAINING, SCRIPT, STATE_FILE))
        self.state["code_sha256"] = code
        self.save_state()
        self.params.to_yaml(self.dir / PARAMS_FILE)

    def _kept_state(self) -> dict[str, Any]:
        """What a session before this one has kept; nothing where it can't be read, and then the stage starts anew."""
        try:
            kinds = {"fingerprint": str, "started": str, "phases": dict, "launched": dict}
            return read_object(self.dir / STATE_FILE, kinds, absent={})
        except ValueError as error:
            print(f"{error}; {self.stage} starts anew")
            return {}


def _remove_artefacts(folder: Path, kept: tuple[str, ...] = ()) -> None:
    for path in folder.iterdir():
        if not path.name.endswith(_KEPT_SUFFIXES) and path.name not in kept:
            remove(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
