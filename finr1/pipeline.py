"""The notebooks of a preset in order, through papermill; what is complete and unchanged is skipped.

`python -m finr1 run --preset demo --run NAME [--until STAGE] [--set STAGE.NAME=VALUE] [--force STAGE|all]`

Every parameter of every stage is checked before any work. A stage runs when it is not complete, or when its parameters,
the content of its inputs or the code of its notebook differ from what its manifest says.
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
from finr1.params import STAGES, ParameterError, Params
from finr1.params.errors import describe, did_you_mean
from finr1.params.yaml_file import read_flat_yaml
from finr1.paths import outputs_root, preset_names, repository_root, shown
from finr1.progress import duration
from finr1.run import forget, how_to_make, input_hashes


def command(options: argparse.Namespace) -> int:
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
        print(f"{error}\nThe same command again goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command again goes on from here", file=sys.stderr)
        return 130
    return 0


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `run` to the commands of `python -m finr1`."""
    run = commands.add_parser(
        "run",
        help="run the notebooks of a preset",
        description="Run the notebooks of a preset in order, into outputs/NAME. What is complete and unchanged is "
        "skipped; the same command again goes on after an error.",
    )
    run.set_defaults(command=command)
    stages = ", ".join(STAGES)
    run.add_argument("--preset", default="demo", help="folder of params/ (default: demo)")
    run.add_argument("--run", metavar="NAME", help="folder of outputs/ (default: the preset's name)")
    run.add_argument("--until", metavar="STAGE", help=f"last stage to run: {stages}")
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


def run_preset(
    preset: str, run: str, until: str | None = None, changes: Sequence[str] = (), force: Sequence[str] = ()
) -> None:
    """Run the stages of `preset` up to `until` into `outputs/<run>`, then print the results.

    `changes` are `STAGE.NAME=VALUE`, `force` names stages to make again (or "all").
    Raises ParameterError before any work, NotebookFailed when a notebook fails.
    """
    stages = _stages_until(until)
    for stage in force:
        _known_stage(stage, "--force", [*STAGES, "all"])
    plan = load_preset(preset, run, stages, changes)
    run_stages(list(plan.values()), {stage for stage in stages if stage in force or "all" in force})
    print_results(outputs_root() / run / "07_report")


def run_stages(plan: Sequence[Params], forced: Collection[str] = ()) -> None:
    """Run each stage of `plan` in order, unless it is complete and unchanged and not named in `forced`.

    The stages may belong to several runs. Raises ParameterError before any work, NotebookFailed when a notebook fails.
    """
    _check_requirements(plan, forced)
    several = len({params.run for params in plan}) > 1
    made_by_other_code = []
    for params in plan:
        stage, name = params.stage, f"{params.run}/{params.stage}" if several else params.stage
        reason = f"--force {stage}" if stage in forced else why_run(params)
        if reason is None:
            print(f"skip {name}: complete and unchanged", flush=True)
            if manifest.read_manifest(stage_folder(params))["code"]["package_sha256"] != manifest.package_sha256():
                made_by_other_code.append(stage)
            continue
        if stage in forced:
            forget(stage_folder(params))
        print(f"run  {name}: {reason}", flush=True)
        started = time.monotonic()
        execute(stage, params)
        print(f"done {name}: {duration(time.monotonic() - started)}", flush=True)
    if made_by_other_code:
        print(_note_on_code(list(dict.fromkeys(made_by_other_code))))


def load_preset(preset: str, run: str, stages: Sequence[str], changes: Sequence[str] = ()) -> dict[str, Params]:
    """{stage: its parameters}; ParameterError with the problems of all stages together."""
    folder = repository_root() / "params" / preset
    presets = preset_names()
    if preset not in presets:
        hint = did_you_mean(preset, presets)
        raise ParameterError("--preset", [f"{describe(preset)}: no such preset{hint}; there are: {', '.join(presets)}"])
    overrides = _parse_changes(changes, stages)
    if changes:  # 00 plans what runs, not the preset as it lies on disk; a change of the plan runs it again
        overrides["00_overview"].setdefault("changes", list(changes))
    plan: dict[str, Params] = {}
    problems: list[str] = []
    for stage in stages:
        path = folder / f"{stage}.yaml"
        try:
            if not path.exists():
                raise ParameterError(stage, [f"{shown(path)} is missing; a preset has one file for each notebook"])
            plan[stage] = STAGES[stage](**{**read_flat_yaml(path).values, **overrides[stage], "run": run})
        except ParameterError as error:
            problems += [f"{stage}: {problem}" for problem in error.problems]
    if problems:
        raise ParameterError(f"preset {preset}", problems)
    return plan


def _parse_changes(changes: Sequence[str], stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`STAGE.NAME=VALUE` or `NAME=VALUE` -> {stage: {name: value}}; values are read as YAML."""
    found: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    for change in changes:
        target, equals, text = change.partition("=")
        stage, dot, name = target.rpartition(".")
        if not equals or not name:
            raise ParameterError(
                "--set", [f"{describe(change)}: should be STAGE.NAME=VALUE, such as 05_grpo.max_steps=2"]
            )
        if name == "run":
            raise ParameterError("--set", [f"{describe(change)}: --run NAME names the run of all stages"])
        if dot:
            _known_stage(stage, f"--set {change}", STAGES)
        targets = [stage] if dot else [stage for stage in stages if name in STAGES[stage].model_fields]
        if not targets:
            known = {field for stage in stages for field in STAGES[stage].model_fields}
            raise ParameterError("--set", [f"{name}: unknown parameter in every stage{did_you_mean(name, known)}"])
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        for stage in targets:
            found[stage][name] = value
    return found


def _stages_until(until: str | None) -> list[str]:
    stages = list(STAGES)
    if until is None:
        return stages
    _known_stage(until, "--until", stages)
    return stages[: stages.index(until) + 1]


def _known_stage(stage: str, where: str, known: Any) -> None:
    if stage not in known:
        hint = did_you_mean(stage, known)
        raise ParameterError(where, [f"{describe(stage)}: no such stage{hint}; there are: {', '.join(known)}"])


def _check_requirements(plan: Sequence[Params], forced: Collection[str]) -> None:
    """Check what the parameters alone cannot tell: inputs from elsewhere, keys, folders of data.

    A stage that is skipped needs its key no more.
    """
    problems: list[str] = []
    may_run: dict[Path, bool] = {}
    for params in plan:
        stage, inputs = params.stage, params.inputs()
        follows = any(may_run.get(folder, False) for folder in inputs.values())
        may_run[stage_folder(params)] = stage in forced or follows or _why_run_alone(params) is not None
        if may_run[stage_folder(params)]:
            problems += [f"{stage}: {problem}" for problem in params.requirements()]
        for name, folder in inputs.items():
            if folder not in may_run and (missing := manifest.what_is_missing(folder)):
                problems.append(f"{stage}: {how_to_make(name, params.input_names()[name], missing)}")
    if problems:
        raise ParameterError("this run", problems)


def why_run(params: Params) -> str | None:
    """Why a stage has to run, in words; None when it is complete and unchanged. Its inputs have to be complete."""
    if reason := _why_run_alone(params):
        return reason
    recorded = manifest.read_manifest(stage_folder(params))["inputs"]
    now = input_hashes(params)
    changed = [name for name, entry in now.items() if recorded.get(name, {}).get("sha256") != entry["sha256"]]
    return f"changed: {', '.join(changed)}" if changed else None


def _why_run_alone(params: Params) -> str | None:
    """`why_run` as far as the stage itself can tell, whatever becomes of its inputs."""
    folder = stage_folder(params)
    if missing := manifest.what_is_missing(folder):
        return missing if (folder / manifest.MANIFEST_FILE).exists() else "not complete yet"
    record = manifest.read_manifest(folder)
    old, new = record["parameters"], params.model_dump()
    differing = [
        f"{name} {describe(old.get(name))} -> {describe(new[name])}" for name in new if old.get(name) != new[name]
    ]
    if differing:
        return "changed: " + ", ".join(differing)
    if record["code"]["notebook_sha256"] != manifest.notebook_sha256(params.stage):
        return "changed: its notebook"
    return None


def stage_folder(params: Params) -> Path:
    """`outputs/<run>/<stage>`."""
    return outputs_root() / params.run / params.stage


def _note_on_code(stages: list[str]) -> str:
    force = " ".join(f"--force {stage}" for stage in stages) if len(stages) < len(STAGES) else "--force all"
    them = "it" if len(stages) == 1 else "them"
    were = "was" if len(stages) == 1 else "were"
    return f"note: finr1/ changed since {', '.join(stages)} {were} made; {force} makes {them} again"


def print_results(report_dir: Path) -> None:
    """The table and the page that 07_report wrote, where it is complete."""
    if manifest.what_is_missing(report_dir):
        return
    summary, page = report_dir / "summary.txt", report_dir / "report.html"
    if summary.exists():
        print("\n" + summary.read_text("utf8").rstrip())
    if page.exists():
        print(f"\nreport: {shown(page)}")
