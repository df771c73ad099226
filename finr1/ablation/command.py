"""`python -m finr1 ablation --preset demo --seeds 42 1 2`: base, Zero, SFT and SFT + GRPO, several seeds, one table.

A seed's arms share its data, its distilled and filtered traces and its benchmark:

    outputs/<name>_seed<seed>/        01_data ... 05_grpo, and 06_benchmark with all four models
    outputs/<name>_seed<seed>_zero/   05_grpo from the base model, on the same RL rows
    outputs/<name>/ablation/          the table, from which a report is made: 07_report of the first seed

The same command again skips what is complete, and goes on after a crash.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from finr1 import pipeline
from finr1.ablation.stage import TEXT, AblationParams, seed_run, write_ablation
from finr1.params import STAGES, ParameterError, Params
from finr1.paths import outputs_root, shown

SHARED = [stage for stage in STAGES if "00" < stage[:2] < "06"]  # 01_data ... 05_grpo
# The base model hardly ever keeps a format that it was never taught. A choice of problems by pass rate would leave
# none, and the rules that end a hopeless training would end this one: but how far it gets is what the arm has to show.
ZERO = ("sft_stage=null", "pass_rate_candidates=0", "pass_rate_between_epochs=false", "stop_reward=null",
        "stop_dead_groups=null")  # fmt: skip


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `ablation` to the commands of `python -m finr1`."""
    parser = commands.add_parser(
        "ablation",
        help="base, Zero (GRPO only), SFT and SFT + GRPO of a preset, for several seeds",
        description="Run the four arms of the paper's ablation for each seed and write one table with intervals over "
        "seeds and items, then 07_report of the first seed. What is complete is skipped: run it again to go on.",
    )
    parser.add_argument("--preset", default="demo", help="folder of params/ (default: demo)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2], metavar="SEED", help="default: 42 1 2")
    parser.add_argument("--run", metavar="NAME", help="its runs are outputs/NAME_seed<seed> (default: PRESET_ablation)")
    parser.add_argument(
        "--set",
        metavar="[STAGE.]NAME=VALUE",
        action="append",
        default=[],
        help="change a parameter in every arm; repeatable",
    )
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """`python -m finr1 ablation`; returns `pipeline.exit_code`."""
    name = options.run or f"{options.preset}_ablation"
    return pipeline.exit_code(lambda: run_ablation(options.preset, name, options.seeds, options.set))


def run_ablation(preset: str, name: str, seeds: Sequence[int], changes: Sequence[str] = ()) -> None:
    """Run what is not complete of all arms, write the table and the report, and print both.

    Raises ParameterError before any work, NotebookFailed when a notebook fails.
    """
    if named := [change for change in changes if change.partition("=")[0].rpartition(".")[2] == "seed"]:
        raise ParameterError("--set", [f"{change}: --seeds names the seeds of all stages" for change in named])
    ablation = AblationParams(run=name, seed=seeds[0] if seeds else 0, preset=preset, seeds=list(seeds))
    plan = [params for seed in seeds for params in plan_of_seed(preset, name, seed, changes)]
    report = _load(preset, seed_run(name, seeds[0]), ["07_report"], changes, seeds[0],
                   f"07_report.ablation_stage=outputs/{name}/ablation")  # fmt: skip
    pipeline.run_stages(plan)
    write_ablation(ablation)
    pipeline.run_stages(report)
    folder = outputs_root() / name / ablation.stage
    print(f"\n{(folder / TEXT).read_text('utf8')}\ntable: {shown(folder / TEXT)}")
    print(f"report: {shown(pipeline.stage_folder(report[0]) / 'report.html')}")


def plan_of_seed(preset: str, name: str, seed: int, changes: Sequence[str] = ()) -> list[Params]:
    """The stages of one seed in order: shared ones, the arm without SFT, and the benchmark of all four models."""
    run, zero = seed_run(name, seed), seed_run(name, seed, zero=True)
    shared = (f"data_stage=outputs/{run}/01_data", f"filtering_stage=outputs/{run}/03_filtering")
    arm = [f"05_grpo.{change}" for change in (*shared, *ZERO)]
    return [
        *_load(preset, run, SHARED, changes, seed),
        *_load(preset, zero, ["05_grpo"], changes, seed, *arm),
        *_load(preset, run, ["06_benchmark"], changes, seed, f"06_benchmark.zero_stage=outputs/{zero}/05_grpo"),
    ]


def _load(preset: str, run: str, stages: list[str], changes: Sequence[str], seed: int, *own: str) -> list[Params]:
    """Parameters of `stages`, with those of the user's `changes` that are about them and with the arm's `own`."""
    fits = [change for change in changes if _concerns(change, stages)]
    return list(pipeline.load_preset(preset, run, stages, [*fits, f"seed={seed}", *own]).values())


def _concerns(change: str, stages: Sequence[str]) -> bool:
    """Whether `--set` is about one of `stages`; what is about no stage at all goes to every one, which says why."""
    stage, dot, name = change.partition("=")[0].rpartition(".")
    if dot:
        return stage in stages or stage not in STAGES
    known = [stage for stage, params in STAGES.items() if name in params.model_fields]
    return not known or any(stage in stages for stage in known)
