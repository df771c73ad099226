"""The notebooks of a preset in order, through papermill: `python -m finr1 run --preset demo --run NAME`.

A stage runs when it is not complete, or when its parameters, the content of its inputs, the code of its notebook or a
package file that it loaded differ from what its manifest says.
"""

import argparse
import logging
import math
import os
import sys
import textwrap
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import yaml

from finr1 import manifest
from finr1.launch import clean_lines, unknown_rewards
from finr1.params import STAGES, ParameterError, Params, TrainingParams, did_you_mean, quoted, read_flat_yaml
from finr1.paths import MessageAlone, naming, outputs_root, preset_names, remedy, repository_root, shown
from finr1.progress import duration
from finr1.run import KERNEL_LOG, REPLACES, changes, missing_inputs, refusal, remove_artefacts, stage_folder, turn

_LAST_LINES = 12  # of a traceback or a log, as many as an error shows


class NotebookFailed(MessageAlone, RuntimeError):
    """A notebook stopped: its own error, and where the executed notebook lies."""

    exit_code = 1


def run_command(options: argparse.Namespace) -> int:
    """`python -m finr1 run`."""
    default = f"{options.preset}-rehearsal" if options.rehearse else options.preset
    what = (options.preset, default if options.run is None else options.run, options.until, options.set, options.force)
    if options.max_cost is not None and not 0 < options.max_cost < math.inf:
        raise ParameterError("--max-cost", [f"{options.max_cost}: should be above 0, and finite"])
    if options.rehearse:
        from finr1.rehearse import rehearse  # it stands above this module

        rehearse(*what, options.max_cost)
    elif options.max_cost is None:
        run_preset(*what)
    else:
        raise ParameterError("--max-cost", ["it limits a rehearsal (--rehearse); a run has --set max_cost=..."])
    return 0


def run_preset(
    preset: str, run: str, until: str | None = None, changes: Sequence[str] = (), force: Sequence[str] = ()
) -> None:
    """Run the stages of `preset` up to `until` into `outputs/<run>`, then print the results; raises as `run_stages`.

    `changes` are `STAGE.NAME=VALUE`, `force` names stages to make again (or "all").
    """
    stages = [stage for stage in STAGES if until is None or stage <= until]  # they are numbered
    run_stages(list(load_preset(preset, run, stages, changes).values()), stages if "all" in force else force, True)
    report = outputs_root() / run / "07_report"
    if report.name in stages:  # else the one that lies there tells of another run
        print(f"\n{(report / 'summary.txt').read_text('utf8').rstrip()}\n\nreport: {shown(report / 'report.html')}")


def load_preset(preset: str, run: str, stages: Sequence[str], changes: Sequence[str] = ()) -> dict[str, Params]:
    """{stage: its parameters}; ParameterError with the problems of all stages together."""
    if preset not in (known := preset_names()):
        hint = f"{did_you_mean(preset, known)}; there are: {', '.join(known)}"
        raise ParameterError("--preset", [f"{quoted(preset)}: no such preset{hint}"])
    overrides = _parse_changes(changes)
    if changes:  # 00 plans what runs, not the preset as it lies on disk; a change of the plan runs it again
        overrides["00_overview"].setdefault("changes", list(changes))
    plan, problems = {}, []
    for stage in STAGES:
        path = repository_root() / "params" / preset / f"{stage}.yaml"  # one for each notebook
        if stage not in stages and not (overrides[stage] and path.exists()):  # what is changed is checked even so
            continue
        try:
            plan[stage] = STAGES[stage](**{**read_flat_yaml(path).values, **overrides[stage], "run": run})
        except ParameterError as error:
            problems += [f"{stage}: {problem}" for problem in error.problems]
    if problems:
        raise ParameterError(f"preset {preset}", problems)
    return {stage: plan[stage] for stage in stages}


def _parse_changes(changes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`STAGE.NAME=VALUE` or `NAME=VALUE` -> {stage: {name: value}}; values are read as YAML."""
    overrides: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    known = [(stage, name) for stage in STAGES for name in STAGES[stage].model_fields if name not in ("run", "preset")]
    for change in changes:
        target, equals, text = change.partition("=")
        places = [(stage, name) for stage, name in known if target in (name, f"{stage}.{name}")]
        if not equals or not places:  # the value is left out: it may be a key that somebody put there
            words = {word for stage, name in known for word in (name, f"{stage}.{name}")}
            problem = f"unknown parameter{did_you_mean(target, words)}" if equals else "no value"
            name, more = target.partition(":")[0], "as 05_grpo.max_steps=2 (--run NAME names the run)"
            raise ParameterError("--set", [f"{name}: {problem}; {more}"])
        value = text
        with suppress(yaml.YAMLError, ValueError, RecursionError):  # a date that is none; what is no YAML stays text
            value = yaml.safe_load(text)
        for stage, name in places:
            overrides[stage][name] = value
    return overrides


def run_stages(plan: Sequence[Params], forced: Collection[str] = (), replaced: bool = False) -> None:
    """Run each stage of `plan`, of one run or several, unless it is complete and unchanged and not in `forced`.

    With other parameters or inputs a complete training is `replaced` or refused; a half trained one is refused. Raises
    ParameterError before any work, NotebookFailed when a notebook fails.
    """
    _check_requirements(plan, forced, replaced)
    several = len({params.run for params in plan}) > 1
    for params in plan:
        stage, name = params.stage, f"{params.run}/{params.stage}" if several else params.stage
        with nullcontext() if why_run(params) is None and stage not in forced else turn(stage_folder(params)):
            reason = f"--force {stage}" if stage in forced else why_run(params)  # whoever had its turn may have done it
            if reason is None:
                print(f"skip {name}: complete and unchanged", flush=True)
                continue
            if stage in forced:
                remove_artefacts(stage_folder(params))
            print(f"run  {name}: {reason}", flush=True)
            started = time.monotonic()
            os.environ[REPLACES] = str(replaced or not isinstance(params, TrainingParams))
            try:
                execute(stage, params)
            finally:
                del os.environ[REPLACES]
            print(f"done {name}: {duration(time.monotonic() - started)}", flush=True)


def _check_requirements(plan: Sequence[Params], forced: Collection[str], replaced: bool) -> None:
    """Check what parameters cannot tell: inputs from elsewhere, and keys and models of the stages that will run."""
    problems, may_run = [], {}  # {folder: whether its stage may run}
    for params in plan:
        follows = any(may_run.get(folder, False) for folder in params.inputs().values())
        runs = params.stage in forced or follows or why_run(params) is not None
        may_run[stage_folder(params)] = runs
        lines = [*params.requirements(), *unknown_rewards(params)] if runs else []
        if runs and params.stage not in forced:  # by its inputs it may change later: then its kernel refuses
            lines += refusal(params, replaced or not isinstance(params, TrainingParams))
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
    changed = changes(params, record) + manifest.changed_code(params.stage, record["code"])
    return textwrap.shorten(f"changed: {', '.join(changed)}", 300, placeholder=" ...") if changed else None


def execute(stage: str, params: Params) -> None:
    """Run `notebooks/<stage>.ipynb` with `params` into the stage's folder; raises NotebookFailed with its own error."""
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import DeadKernelError

    class ThisPython(AsyncKernelManager):
        def __init__(self, **settings: Any):  # in a user's folder, `python3` may be another project's
            super().__init__(**settings, kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))

        async def start_kernel(self, **arguments: Any) -> None:
            await super().start_kernel(**arguments, stdout=log, stderr=log)  # what it says outside of cells

    # After an interrupt nbclient's own watch finds the kernel dead, and asyncio would print that traceback at the end.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    folder = stage_folder(params)
    folder.mkdir(parents=True, exist_ok=True)
    executed, log_file = folder / f"{stage}.ipynb", folder / KERNEL_LOG
    try:
        with naming(executed), log_file.open("wb") as log:
            papermill.execute_notebook(
                str(repository_root() / "notebooks" / f"{stage}.ipynb"), str(executed), parameters=params.model_dump(),
                kernel_name="python3", language="python", kernel_manager_class=ThisPython, cwd=str(repository_root()),
                start_timeout=300,  # seconds; a busy machine takes its time
                progress_bar=sys.stdout.isatty(),
            )  # fmt: skip
        if (missing := manifest.what_is_missing(folder)) is None:
            return
        lines = [f"ran to its end, but is not complete ({missing}): its last cell is `run.finish(...)`"]
    except papermill.PapermillExecutionError as error:
        trace = clean_lines("\n".join(error.traceback))
        lines = [f"failed in cell [{error.exec_count}]", *trace[-_LAST_LINES - error.evalue.count("\n") :]]
        if told := remedy(error.evalue):
            lines = [f"failed in cell [{error.exec_count}], below {shown(folder)}: {error.evalue}; {told}"]
    except RuntimeError as error:  # it may have come up and died, or never have come up, as without a HOME
        dead = isinstance(error, DeadKernelError)
        why = "its kernel died, as when the system ends a process that takes too much memory" if dead else error
        log_lines = clean_lines(log_file.read_text("utf8", errors="replace"))[-_LAST_LINES:]
        lines = [f"failed: {why}", *log_lines, *filter(None, [remedy("\n".join(log_lines))])]
    again = f"The same command again resumes from here; `--force {stage}` with it makes the stage anew."
    lines += [f"The executed notebook: {shown(executed)}", again]
    raise NotebookFailed(f"{stage} " + "\n".join(lines))
