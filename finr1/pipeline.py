"""The notebooks of a preset in order, through papermill; what is complete and unchanged is skipped.

`python -m finr1 run --preset demo --run NAME [--until STAGE] [--set STAGE.NAME=VALUE] [--force STAGE|all]`

Every parameter of every stage is checked before any work. A stage runs when it is not complete, or when its parameters,
the content of its inputs, the code of its notebook or a package file that it loaded differ from what its manifest says.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from finr1 import manifest
from finr1.launch import clean_lines
from finr1.params import STAGES, ParameterError, Params, read_flat_yaml
from finr1.params.base import did_you_mean, quoted
from finr1.paths import outputs_root, preset_names, repository_root, shown
from finr1.progress import ProgressLine, duration, read_metrics
from finr1.run import KERNEL_LOG, forget, missing_inputs

_LAST_LINES = 12  # of a traceback or a log, as many as an error shows


class NotebookFailed(RuntimeError):
    """A notebook stopped: its own error, and where the executed notebook lies."""


# The command.


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `run` to the commands of `python -m finr1`."""
    run = commands.add_parser(
        "run",
        help="run the notebooks of a preset",
        description="Run the notebooks of a preset in order, into outputs/NAME. What is complete and unchanged is "
        "skipped; after an error, the same command again resumes.",
    )
    run.set_defaults(command=run_command)
    run.add_argument("--preset", default="demo", help="folder of params/ (default: demo)")
    run.add_argument("--run", metavar="NAME", help="folder of outputs/ (default: the preset's name)")
    run.add_argument("--until", metavar="STAGE", help=f"last stage to run: {', '.join(STAGES)}")
    what = "change a parameter, as 05_grpo.max_steps=2; without STAGE in every stage that has it; repeatable"
    run.add_argument("--set", metavar="[STAGE.]NAME=VALUE", action="append", default=[], help=what)
    what = "make a stage again, or all; repeatable"
    run.add_argument("--force", metavar="STAGE", action="append", default=[], help=what)


def run_command(options: argparse.Namespace) -> int:
    """`python -m finr1 run`; 0 done, 1 a notebook failed, 2 wrong parameters."""
    try:
        run_preset(options.preset, options.run or options.preset, options.until, options.set, options.force)
    except ParameterError as error:
        print(error, file=sys.stderr)
        return 2
    except NotebookFailed as error:
        print(f"{error}\nThe same command again resumes from here.", file=sys.stderr)
        return 1
    return 0


def run_preset(
    preset: str, run: str, until: str | None = None, changes: Sequence[str] = (), force: Sequence[str] = ()
) -> None:
    """Run the stages of `preset` up to `until` into `outputs/<run>`, then print the results.

    `changes` are `STAGE.NAME=VALUE`, `force` names stages to make again (or "all").
    Raises ParameterError before any work, NotebookFailed when a notebook fails.
    """
    stages = list(STAGES)
    if until is not None:
        _check_known("--until", "stage", until, stages)
        stages = stages[: stages.index(until) + 1]
    for stage in force:
        _check_known("--force", "stage", stage, [*STAGES, "all"])
    plan = load_preset(preset, run, stages, changes)
    run_stages(list(plan.values()), stages if "all" in force else force)
    report = outputs_root() / run / "07_report"
    if not manifest.what_is_missing(report):
        print(f"\n{(report / 'summary.txt').read_text('utf8').rstrip()}\n\nreport: {shown(report / 'report.html')}")


def load_preset(preset: str, run: str, stages: Sequence[str], changes: Sequence[str] = ()) -> dict[str, Params]:
    """{stage: its parameters}; ParameterError with the problems of all stages together."""
    _check_known("--preset", "preset", preset, preset_names())
    overrides = _parse_changes(changes, stages)
    if changes:  # 00 plans what runs, not the preset as it lies on disk; a change of the plan runs it again
        overrides["00_overview"].setdefault("changes", list(changes))
    plan: dict[str, Params] = {}
    problems: list[str] = []
    for stage in stages:
        path = repository_root() / "params" / preset / f"{stage}.yaml"  # one for each notebook
        try:
            plan[stage] = STAGES[stage](**{**read_flat_yaml(path).values, **overrides[stage], "run": run})
        except ParameterError as error:
            problems += [f"{stage}: {problem}" for problem in error.problems]
    if problems:
        raise ParameterError(f"preset {preset}", problems)
    return plan


def _parse_changes(changes: Sequence[str], stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`STAGE.NAME=VALUE` or `NAME=VALUE` -> {stage: {name: value}}; values are read as YAML."""
    overrides: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    for change in changes:
        target, equals, text = change.partition("=")
        stage, dot, name = target.rpartition(".")
        if not equals or not name:
            raise ParameterError("--set", [f"{quoted(change)}: should be STAGE.NAME=VALUE, like 05_grpo.max_steps=2"])
        if name == "run":
            raise ParameterError("--set", [f"{quoted(change)}: --run NAME names the run of all stages"])
        if dot:
            _check_known(f"--set {change}", "stage", stage, STAGES)
        targets = [stage] if dot else [stage for stage in stages if name in STAGES[stage].model_fields]
        if not targets:
            known = {field for stage in stages for field in STAGES[stage].model_fields}
            raise ParameterError("--set", [f"{name}: unknown parameter in every stage{did_you_mean(name, known)}"])
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        for stage in targets:
            overrides[stage][name] = value
    return overrides


def _check_known(where: str, kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        hint = did_you_mean(name, known)
        raise ParameterError(where, [f"{quoted(name)}: no such {kind}{hint}; there are: {', '.join(known)}"])


# What runs.


def run_stages(plan: Sequence[Params], forced: Collection[str] = ()) -> None:
    """Run each stage of `plan` in order, unless it is complete and unchanged and not named in `forced`.

    The stages may belong to several runs. Raises ParameterError before any work, NotebookFailed when a notebook fails.
    """
    _check_requirements(plan, forced)
    several = len({params.run for params in plan}) > 1
    for params in plan:
        stage, name = params.stage, f"{params.run}/{params.stage}" if several else params.stage
        reason = f"--force {stage}" if stage in forced else why_run(params)
        if reason is None:
            print(f"skip {name}: complete and unchanged", flush=True)
            continue
        if stage in forced:
            forget(stage_folder(params))
        print(f"run  {name}: {reason}", flush=True)
        started = time.monotonic()
        execute(stage, params)
        print(f"done {name}: {duration(time.monotonic() - started)}", flush=True)


def _check_requirements(plan: Sequence[Params], forced: Collection[str]) -> None:
    """Check what parameters cannot tell: inputs from elsewhere, keys, folders of data.

    A stage that is skipped no longer needs its key.
    """
    problems: list[str] = []
    may_run: dict[Path, bool] = {}
    for params in plan:
        follows = any(may_run.get(folder, False) for folder in params.inputs().values())
        runs = params.stage in forced or follows or why_run(params) is not None
        may_run[stage_folder(params)] = runs
        lines = params.requirements() if runs else []
        lines += [line for folder, line in missing_inputs(params).items() if folder not in may_run]
        problems += [f"{params.stage}: {line}" for line in lines]
    if problems:
        raise ParameterError("this run", problems)


def why_run(params: Params) -> str | None:
    """Why a stage has to run, in words; None when it is complete and unchanged."""
    folder = stage_folder(params)
    if missing := manifest.what_is_missing(folder):
        return missing if (folder / manifest.MANIFEST_FILE).exists() else "not complete yet"
    record = manifest.read_manifest(folder)
    old, new = record["parameters"], params.model_dump()
    changed = [f"{name} {quoted(old.get(name))} -> {quoted(new[name])}" for name in new if old.get(name) != new[name]]
    for name, source in params.inputs().items():
        made_from = record["inputs"].get(name, {}).get("sha256")
        if manifest.what_is_missing(source) or manifest.read_manifest(source)["outputs_sha256"] != made_from:
            changed.append(name)
    changed += manifest.changed_code(params.stage, record["code"])
    more = [f"{len(changed) - 5} more"] if len(changed) > 5 else []
    return f"changed: {', '.join(changed[:5] + more)}" if changed else None


def stage_folder(params: Params) -> Path:
    """`outputs/<run>/<stage>`."""
    return outputs_root() / params.run / params.stage


# One notebook.


def execute(stage: str, params: Params) -> None:
    """Run `notebooks/<stage>.ipynb` with `params`; the executed notebook goes into the stage's folder.

    Raises NotebookFailed with the notebook's own error.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    folder = stage_folder(params)
    folder.mkdir(parents=True, exist_ok=True)
    executed, log_file = folder / f"{stage}.ipynb", folder / KERNEL_LOG
    try:
        with log_file.open("wb") as log, _progress(stage, folder):
            papermill.execute_notebook(
                str(repository_root() / "notebooks" / f"{stage}.ipynb"),
                str(executed),
                parameters=params.model_dump(),
                kernel_name="python3",
                language="python",
                kernel_manager_class=_kernel_manager_class(log),
                cwd=str(repository_root()),
                start_timeout=300,  # seconds; a busy machine takes its time
                progress_bar=False,
            )
    except papermill.PapermillExecutionError as error:
        said = "\n".join(clean_lines(f"{error.ename}: {error.evalue}"))
        # The suite's own errors say all; of others, the lines that led there help.
        trace = [] if "\n" in said else clean_lines("\n".join(error.traceback))[-_LAST_LINES:-1]
        lines = [f"failed in cell [{error.exec_count}]", *(f"  {line}" for line in trace), said]
    except DeadKernelError:
        # The kernel opens with a warning about its own sockets, which says nothing about its end.
        log_end = clean_lines(log_file.read_text("utf8", errors="replace"))[-_LAST_LINES:]
        lines = ["failed: its kernel died, as when the system ends a process that takes too much memory"]
        lines += [f"  {line}" for line in log_end if "[IPKernelApp] WARNING" not in line]
    else:
        if (missing := manifest.what_is_missing(folder)) is None:
            return
        lines = [f"ran to its end, but is not complete ({missing}): its last cell is `run.finish(...)`"]
    raise NotebookFailed("\n".join([f"{stage} {lines[0]}", *lines[1:], f"The executed notebook: {shown(executed)}"]))


def _kernel_manager_class(log: BinaryIO) -> type:
    """A kernel manager whose kernels run this interpreter and send what they say outside of cells to `log`.

    Jupyter looks for `python3` in the user's own folder too, where another project may have left one for its Python.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="finr1", language="python", interrupt_mode="signal")

        async def start_kernel(self, **arguments: Any) -> None:
            await super().start_kernel(**arguments, stdout=log, stderr=log)

    return ThisPython


@contextmanager
def _progress(stage: str, folder: Path) -> Iterator[None]:
    """On a terminal, a line that says how long the stage runs and how far its training is."""
    done, started, line = threading.Event(), time.monotonic(), ProgressLine()

    def keep_showing() -> None:
        while not done.wait(1):
            rows = read_metrics(folder)
            step = f", training step {rows[-1]['step']}/{rows[-1].get('max_steps', '?')}" if rows else ""
            line.show(f"     {stage}: {duration(time.monotonic() - started)}{step}")

    thread = threading.Thread(target=keep_showing, daemon=True)
    if sys.stdout.isatty():
        thread.start()
    try:
        yield
    finally:
        if thread.is_alive():
            done.set()
            thread.join()
            print("\r\x1b[K", end="", flush=True)
