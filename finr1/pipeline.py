"""The notebooks of a preset in order, through papermill; what is complete and unchanged is skipped.

`python -m finr1 run --preset demo --run NAME [--until STAGE] [--set STAGE.NAME=VALUE] [--force STAGE|all]`

Every parameter of every stage is checked before any work. A stage runs when it is not complete, or when its parameters,
the content of its inputs, the code of its notebook or a package file that it loaded differ from what its manifest says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from finr1 import manifest
from finr1.notebook_run import NotebookFailed, execute
from finr1.params import STAGES, ParameterError, Params, read_flat_yaml
from finr1.params.base import did_you_mean, quoted
from finr1.paths import outputs_root, preset_names, repository_root, shown
from finr1.progress import duration
from finr1.run import forget, how_to_make


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
    run.add_argument(
        "--set",
        metavar="[STAGE.]NAME=VALUE",
        action="append",
        default=[],
        help="change a parameter, such as 05_grpo.max_steps=2; without STAGE in every stage that has it; repeatable",
    )
    run.add_argument(
        "--force", metavar="STAGE", action="append", default=[], help="make a stage again, or all; repeatable"
    )


def run_command(options: argparse.Namespace) -> int:
    """`python -m finr1 run`; returns its `exit_code`."""
    return exit_code(
        lambda: run_preset(options.preset, options.run or options.preset, options.until, options.set, options.force)
    )


def exit_code(work: Callable[[], None]) -> int:
    """Do `work` and say what went wrong: 0 done, 1 a notebook failed, 2 wrong parameters, 130 interrupted."""
    try:
        work()
    except ParameterError as error:
        print(error, file=sys.stderr)
        return 2
    except NotebookFailed as error:
        print(f"{error}\nThe same command again resumes from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command again resumes from here", file=sys.stderr)
        return 130
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
        _check_stage(until, "--until", stages)
        stages = stages[: stages.index(until) + 1]
    for stage in force:
        _check_stage(stage, "--force", [*STAGES, "all"])
    plan = load_preset(preset, run, stages, changes)
    run_stages(list(plan.values()), {stage for stage in stages if stage in force or "all" in force})
    print_results(outputs_root() / run / "07_report")


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


def load_preset(preset: str, run: str, stages: Sequence[str], changes: Sequence[str] = ()) -> dict[str, Params]:
    """{stage: its parameters}; ParameterError with the problems of all stages together."""
    presets = preset_names()
    if preset not in presets:
        hint = did_you_mean(preset, presets)
        raise ParameterError("--preset", [f"{quoted(preset)}: no such preset{hint}; there are: {', '.join(presets)}"])
    overrides = _parse_changes(changes, stages)
    if changes:  # 00 plans what runs, not the preset as it lies on disk; a change of the plan runs it again
        overrides["00_overview"].setdefault("changes", list(changes))
    plan: dict[str, Params] = {}
    problems: list[str] = []
    for stage in stages:
        path = repository_root() / "params" / preset / f"{stage}.yaml"
        if not path.exists():
            problems.append(f"{stage}: {shown(path)} is missing; a preset has one file for each notebook")
            continue
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
            _check_stage(stage, f"--set {change}", STAGES)
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


def _check_stage(stage: str, where: str, known: Collection[str]) -> None:
    if stage not in known:
        hint = did_you_mean(stage, known)
        raise ParameterError(where, [f"{quoted(stage)}: no such stage{hint}; there are: {', '.join(known)}"])


def _check_requirements(plan: Sequence[Params], forced: Collection[str]) -> None:
    """Check what parameters cannot tell: inputs from elsewhere, keys, folders of data.

    A stage that is skipped no longer needs its key.
    """
    problems: list[str] = []
    may_run: dict[Path, bool] = {}
    for params in plan:
        stage, inputs = params.stage, params.inputs()
        follows = any(may_run.get(folder, False) for folder in inputs.values())
        runs = may_run[stage_folder(params)] = stage in forced or follows or why_run(params) is not None
        if runs:
            problems += [f"{stage}: {problem}" for problem in params.requirements()]
        for name, folder in inputs.items():
            if folder not in may_run and (missing := manifest.what_is_missing(folder)):
                problems.append(f"{stage}: {how_to_make(name, params.input_names()[name], missing)}")
    if problems:
        raise ParameterError("this run", problems)


def why_run(params: Params) -> str | None:
    """Why a stage has to run, in words; None when it is complete and unchanged."""
    folder = stage_folder(params)
    if missing := manifest.what_is_missing(folder):
        return missing if (folder / manifest.MANIFEST_FILE).exists() else "not complete yet"
    record = manifest.read_manifest(folder)
    if "files" not in record["code"]:
        return "made by an older version of the suite"
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


def print_results(report_dir: Path) -> None:
    """Print the table that 07_report wrote, and where its page lies; nothing when it is not complete."""
    if manifest.what_is_missing(report_dir):
        return
    summary, page = report_dir / "summary.txt", report_dir / "report.html"
    if summary.exists():
        print("\n" + summary.read_text("utf8").rstrip())
    if page.exists():
        print(f"\nreport: {shown(page)}")
