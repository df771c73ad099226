"""The folder of one stage of one run: what went in, what came out, and whether it is complete.

`manifest.json` is written last and atomically: the stage is complete where it exists and its hashes hold. With the same
parameters and inputs a killed stage resumes; with others it starts afresh, but a complete or trained one is replaced
only where somebody has said so. Answers always stay (`*.answers.jsonl`, keyed by request and paid for).
"""

import os
import textwrap
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finr1 import manifest
from finr1.child import LOADED_FILE, stage_lock
from finr1.launch import MODEL_FOLDER, PARAMS_FILE, launch, notebook_file  # noqa: F401
from finr1.manifest import MANIFEST_FILE, making, read_manifest, read_object, remove
from finr1.params import ParameterError, Params, quoted
from finr1.paths import cache_dir, lock, outputs_root, shown  # noqa: F401  (notebooks import it and `launch` from here)

KERNEL_LOG, STATE_FILE = "kernel.log", "state.json"
REPLACES = "FINR1_REPLACES"  # "True" in the kernels of `finr1 run`: a complete stage may be replaced
# Never removed: answers, and what papermill and the locks have open in this folder right now.
_KEPT_SUFFIXES = (".answers.jsonl", ".ipynb", KERNEL_LOG, ".lock")
KINDS = ("data", "distillation", "filtering", "sft", "grpo", "benchmark", "ablation")  # of stages that are inputs
_SESSION = uuid.uuid4().hex  # of this process
_AT_WORK: dict[Path, ExitStack] = {}  # the locks of stages that this process has begun and not finished


def missing_inputs(params: Params) -> dict[Path, str]:
    """{folder: the line that names the parameter, its value, the notebook and the command} of incomplete inputs."""
    lines = {}
    for name, folder in params.inputs().items():
        if not (wrong := manifest.unfinished(folder)):
            stage, kind = read_manifest(folder)["stage"], name.removesuffix("_stage")
            wrong = f"it is a stage {stage}" if kind in KINDS and not stage.endswith(kind) else ""
        lines |= {folder: f'{name} = "{params.input_names()[name]}": {wrong}'} if wrong else {}
    return lines


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


def changes(params: Params, record: dict[str, Any], inputs: bool = True) -> list[str]:
    """How parameters, and the content of `inputs`, differ from those of a manifest or state, in words."""
    if "parameters" not in record:
        return ["what it was made with is not known"]
    old, new = record["parameters"], params.model_dump()
    changed = [f"{name} {quoted(old.get(name))} -> {quoted(new[name])}" for name in new if old.get(name) != new[name]]
    for name, source in params.inputs().items() if inputs else ():
        if manifest.what_is_missing(source) or read_manifest(source)["outputs_sha256"] != record["inputs"].get(name):
            changed.append(name)
    return changed


def what_is_there(stage_dir: Path) -> tuple[dict[str, Any], str]:
    """A stage's manifest or state, and what a person may not lose: "complete", "trained", "half trained", or ""."""
    if manifest.what_is_missing(stage_dir) is None:
        return read_manifest(stage_dir), "complete"
    half = any((stage_dir / "checkpoints").glob("checkpoint-*"))
    done = "trained" if (stage_dir / MODEL_FOLDER).exists() else "half trained" * half
    try:
        return _state(stage_dir), done
    except ValueError as error:
        print(error)
        return {}, done


def _state(stage_dir: Path) -> dict[str, Any]:
    """The state of a stage, an empty one where there is none; ValueError when it can't be read."""
    kinds = {"fingerprint": str, "started": str, "phases": dict, "launched": dict, "parameters": dict, "inputs": dict}
    state = read_object(path := stage_dir / STATE_FILE, kinds, absent={})
    numbers = [state.get("phases", {}), state.get("peak_memory_gib", {})]
    if not all(isinstance(part, dict) and {*map(type, part.values())} <= {int, float} for part in numbers):
        raise ValueError(f"{shown(path)} can't be read (times or sizes are no numbers){making(stage_dir)}")
    return state


def refusal(params: Params, replaced: bool, changed: list[str] | None = None) -> list[str]:
    """Why a complete or trained stage stays, and the ways on; `changed` says how it differs (None: its parameters)."""
    made, done = what_is_there(at := stage_folder(params))
    changed = changes(params, made, inputs=False) if changed is None else changed
    if not done or not changed or (done == "complete" and replaced):
        return []
    told = textwrap.shorten(", ".join(changed), 300, placeholder=" ...")
    ways = f'another run (run = "{params.run}_2", or --run), or replace this one (Run(params, overwrite=True), or'
    return [f"{shown(at)} is {done} and stays; changed since: {told}. Name {ways} --force {params.stage})"]


def strangers(params: Params) -> list[str]:
    """Sentences about inputs that were made from others than this stage reads; ParameterError where they mislead."""
    folders, told = params.inputs(), {}
    made = {name: read_manifest(folder) for name, folder in folders.items() if name != "paper_like_stage"}
    for name, record in made.items():
        zero = name == "grpo_stage" and record["parameters"].get("sft_stage", "") is None
        for its, sha256 in (({"sft_stage": None} if zero else {}) | record["inputs"]).items():
            of_the_recipe = "," not in name or its == "data_stage"  # `other_models, NAME` had another training
            if its in made and sha256 != made[its]["outputs_sha256"] and of_the_recipe:
                told[name, its] = f"{shown(folders[name])} was not made from {shown(folders[its])} as it is now"
    # Held-out problems may be among the rows; a gain of GRPO over SFT would be one over another SFT model.
    for name in ("distillation_stage", "filtering_stage", "grpo_stage"):
        wrong = told.get((name, "sft_stage" if name == "grpo_stage" else "data_stage"))
        if wrong and params.stage < "07":
            raise ParameterError(params.stage, [f"{wrong}: name others, or run {folders[name].name} again"])
    return list(told.values())


class Run:
    """One stage of one run. Making it prepares `outputs/<run>/<stage>/`; `finish` completes it.

    `strangers` are sentences about inputs that do not belong together. `overwrite` lets this run replace what is
    complete or trained in its folder; without it that is a ParameterError, as is an incomplete input. Raises
    RuntimeError when another process is at work in the folder.
    """

    def __init__(self, params: Params, overwrite: bool = False):
        self.params, self.name, self.stage, self._overwrite = params, params.run, params.stage, overwrite
        self.inputs = params.inputs()
        self.dir = stage_folder(params)
        self.figures = self.dir / "figures"
        if missing := missing_inputs(params):
            raise ParameterError(params.stage, missing.values())
        self.strangers = strangers(params)
        self._made_from = {name: read_manifest(folder)["outputs_sha256"] for name, folder in self.inputs.items()}
        self.fingerprint = manifest.digest([params.model_dump(), self._made_from])
        # Taken now, as this is the code that runs; by the end of a long stage the files may have been edited.
        self._code = {"commit": manifest.commit(), "notebook": manifest.notebook_code(notebook_file(self.stage))}
        self._package = manifest.package_hashes()
        with stage_lock(self.dir), ExitStack() as held:
            held.enter_context(kernel_lock(self.dir))
            self._prepare()
            _AT_WORK.setdefault(self.dir, held.pop_all())
        print(*self.strangers, sep="\n", end="\n" * bool(self.strangers))

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
        """Write `manifest.json`, which completes the stage; `outputs`: files and folders that later ones may read."""
        with kernel_lock(self.dir), _AT_WORK.pop(self.dir, nullcontext()):  # after an earlier finish, no lock is held
            self._check_that_it_is_ours()
            described = manifest.describe_outputs(self.dir, outputs)
            sha256 = manifest.digest({name: file["sha256"] for name, file in described.items()})
            made = what_is_there(self.dir)[0]
            code = {"notebook": None, "files": {}} | made.get("code", {})
            same = code["notebook"] == self._code["notebook"] and code["files"].items() <= self._package.items()
            if not same or (made["fingerprint"], made["outputs_sha256"]) != (self.fingerprint, sha256):
                self._write_manifest(metrics, described, sha256)  # else it was only looked at
        print(f"{self.stage} is complete: {shown(self.dir / MANIFEST_FILE)}")

    def _write_manifest(self, metrics: dict[str, Any], described: dict[str, Any], outputs_sha256: str) -> None:
        by_trainer = read_object(self.dir / LOADED_FILE, {}, absent={})
        # The largest of all sessions that made these artefacts: one that only shows them again trains nothing.
        peaks = self.state.setdefault("peak_memory_gib", {})
        peaks |= {name: max(gib, peaks.get(name, 0.0)) for name, gib in manifest.peak_memory_gib().items()}
        self.save_state()
        record = {
            "stage": self.stage, "run": self.name, "fingerprint": self.fingerprint, "seed": self.params.seed,
            "parameters": self.params.model_dump(), "inputs": self._made_from, "strangers": self.strangers,
            "outputs": described, "outputs_sha256": outputs_sha256, "metrics": metrics,
            "code": self._code | {"files": by_trainer | manifest.loaded_files(self._package)},
            "versions": manifest.versions(), "hardware": manifest.hardware(), "phases_s": self.state["phases"],
            "peak_memory_gib": peaks, "started": self.state["started"], "finished": _now(),
        }  # fmt: skip
        manifest.write_json(self.dir / MANIFEST_FILE, record)

    def save_state(self) -> None:
        """Keep `state` for a session that resumes after this one was killed."""
        self._check_that_it_is_ours()
        manifest.write_json(self.dir / STATE_FILE, self.state)

    def may_replace(self, changed: list[str]) -> None:
        """Raise ParameterError where something complete or trained would be lost, and nobody has said that it may."""
        if not self._overwrite and (lines := refusal(self.params, os.environ.get(REPLACES) == "True", changed)):
            raise ParameterError(self.stage, lines)

    def _check_that_it_is_ours(self) -> None:
        """Raise RuntimeError when another kernel has begun this stage since, or an input was made again."""
        state = read_object(self.dir / STATE_FILE, {}, absent={})
        again = [] if (state.get("session"), state.get("fingerprint")) == (_SESSION, self.fingerprint) else [self.dir]
        for name, folder in self.inputs.items():
            made = read_object(folder / MANIFEST_FILE, {}, absent={})
            again += [folder] if made.get("outputs_sha256") != self._made_from[name] else []
        if again:
            raise RuntimeError(f"{shown(again[0])} has since been made again: run this notebook from `Run(params)` on")

    def _prepare(self) -> None:
        made, done = what_is_there(self.dir)
        if made.get("fingerprint") != self.fingerprint:
            self.may_replace(changes(self.params, made))
            remove_artefacts(self.dir)
            made = {}
        with suppress(OSError, ValueError):  # what was changed by other hands is made again, and not taken for ours
            outputs = read_manifest(self.dir)["outputs"]
            for name in manifest.changed_outputs(self.dir):
                remove(self.dir / (Path(name).parts[0] if name in outputs else name))
        if done != "complete":
            remove(self.dir / MANIFEST_FILE)
        self.state = {"started": made.get("started", _now()), "phases": made.get("phases_s", {}), "launched": {}}
        with suppress(ValueError):
            self.state |= _state(self.dir)
        code = manifest.digest([self._code["notebook"], self._package])
        if self.state.get("code_sha256", code) != code:
            remove(self.figures)  # the report would show one that is not drawn any more
        self.state |= {"fingerprint": self.fingerprint, "code_sha256": code, "session": _SESSION}
        self.state |= {"parameters": self.params.model_dump(), "inputs": self._made_from}
        manifest.write_json(self.dir / STATE_FILE, self.state)
        self.params.to_yaml(self.dir / PARAMS_FILE)


def remove_artefacts(folder: Path) -> None:
    """Empty a stage's folder, but for its answers."""
    for path in folder.iterdir():
        if not path.name.endswith(_KEPT_SUFFIXES):
            remove(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
