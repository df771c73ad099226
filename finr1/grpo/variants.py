"""The algorithms that stand beside the paper's: what each changes, and a short run of some of them side by side.

`python -m finr1 variants RUN [--steps 8] [--seeds 42 43] [--only dapo gspo]` trains each for a few steps from the model
and on the problems of `outputs/RUN/05_grpo`, with the same seeds and so the same problems in the same order, and
compares what they sampled. Then notebook 05 runs again, and the report after it: their work is done, so they only
show the comparison.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from finr1 import evaluation, launch, manifest, pipeline, rewards
from finr1.grpo.problems import REWARD_COLUMNS
from finr1.grpo.trainer import TRAIN_FILE
from finr1.params import GRPOParams, ParameterError, ReportParams
from finr1.paths import outputs_root, repository_root, shown
from finr1.progress import read_metrics

FOLDER = "variants"  # in the stage's folder: it goes when the stage is made again
TABLE = "variants.json"


@dataclass(frozen=True)
class Variant:
    """One change to the objective, the advantage or the reward: `changes` are parameters of notebook 05."""

    name: str
    source: str  # arXiv id
    changes: dict[str, Any]
    formula: str
    idea: str
    compared: bool = True  # in the short run

    def row(self) -> dict[str, str]:
        """For the table of the notebook."""
        settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.changes.items())
        row = {"name": self.name, "parameters": settings, "changes": self.formula, "idea": self.idea}
        return row | {"arXiv": self.source}


_PAPER = {"loss_type": "grpo", "beta": 0.001, "reward": "sum", "importance_sampling_level": "token", "epsilon": 0.2,
          "epsilon_high": None, "scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize",
          "soft_punish_cache": 0, "mask_truncated_completions": False}  # fmt: skip
VARIANTS = {
    "grpo": Variant(
        "GRPO, as in Fin-R1", "2402.03300", {"loss_type": "grpo", "beta": 0.001, "reward": "sum"},
        "mean over completions of 1/|o| sum_t [min(rho A, clip(rho, 1 - eps, 1 + eps) A) - beta KL]",
        "The group is the baseline; the KL holds the policy near the model it started from.",
    ),
    "no_kl": Variant(
        "no KL", "2503.14476", {"beta": 0.0}, "without - beta KL",
        "Long reasoning has to move far from the start; no reference model in memory.", compared=False,
    ),
    "gated": Variant(
        "gated reward", "2504.15716", {"reward": "gated"}, "R = 1 if format and answer are right, else 0",
        "Format alone pays nothing, so obedience can't pass for accuracy; early on nearly every group is dead.",
    ),
    "dapo": Variant(
        "DAPO", "2503.14476",
        {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.0, "mask_truncated_completions": True},
        "sum over all tokens / all tokens; clip(rho, 1 - eps, 1 + eps_high)",
        "Every token weighs the same, rare tokens may grow, and what was cut off teaches nothing.",
    ),
    "overlong": Variant(
        "overlong shaping", "2503.14476", {"soft_punish_cache": 13},
        "R - max(0, |o| - (L - cache)) / cache",
        "A slope towards the limit L instead of a cliff at it.", compared=False,
    ),
    "dr_grpo": Variant(
        "Dr. GRPO", "2503.20783", {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0},
        "sum over all tokens / (G L); A = R - mean(R)",
        "1/|o| favours long wrong answers, 1/std favours too easy and too hard questions: both go.",
    ),
    "gspo": Variant(
        "GSPO", "2507.18071",
        {"importance_sampling_level": "sequence", "epsilon": 0.0003, "epsilon_high": 0.0004, "beta": 0.0},
        "rho = exp(mean_t log rho_t), one ratio and one clip for a completion",
        "The reward belongs to the whole completion, so does the ratio; narrow bounds, as it varies little.",
    ),
    "cispo": Variant(
        "CISPO", "2506.13585", {"loss_type": "cispo", "epsilon_high": 5.0, "beta": 0.0},
        "min(rho, eps_high) held constant, times A log pi",
        "A clipped token still teaches; only its weight is capped (bound: ScaleRL, 2510.13786).",
    ),
    "gdpo": Variant(
        "GDPO", "2601.05242", {"multi_objective_aggregation": "normalize_then_sum"},
        "A = sum over rewards of (R_k - mean_k) / std_k, then standardised over the batch",
        "Right in a bad format and wrong in a good one sum to the same R; apart, they stay different.", compared=False,
    ),
    "reuse": Variant(
        "several updates", "2402.03300", {"num_iterations": 2}, "each batch of completions is used twice",
        "Sampling is dear; only from the second use on do ratio and clip matter at all.", compared=False,
    ),
}  # fmt: skip


def table() -> list[dict[str, str]]:
    """One row a variant: name, parameters, what changes in the formula, the idea, where it is from."""
    return [variant.row() for variant in VARIANTS.values()]


@dataclass
class Sampled:
    """What one variant sampled after its first update: a value a group, which is a problem at a step with a seed."""

    format: dict[tuple, float] = field(default_factory=dict)
    accuracy: dict[tuple, float] = field(default_factory=dict)
    by_step: dict[int, list[float]] = field(default_factory=dict)  # format + accuracy of each group, in [0, 2]
    completions: int = 0


def variant_params(stage_dir: Path, name: str, seed: int, steps: int, batch: int) -> GRPOParams:
    """The stage's parameters with the paper's objective, then the variant's changes; two uses of each batch.

    `batch`: completions a step. With one use, ratio and clip are without effect, and half of the variants the same.
    Raises `ValueError` for a batch that can't be made up, `ParameterError` for one that doesn't fit the groups.
    """
    base = GRPOParams.from_yaml(stage_dir / "params.yaml")
    values = base.model_dump() | _PAPER | {"num_iterations": 2, "max_steps": steps, "save_steps": steps, "seed": seed}
    at_once = base.per_device_train_batch_size * base.num_processes
    if batch < 1 or batch % at_once:
        raise ValueError(f"--batch {batch}: {at_once} completions are trained at once; a multiple of that would work")
    values["gradient_accumulation_steps"] = batch // at_once
    values["warmup_steps"] = min(base.warmup_steps, steps // 4)  # the run's own may be longer than this one
    # The same problems for all, whatever they learn, and to the last step.
    values |= {"pass_rate_between_epochs": False, "stop_reward": None, "stop_kl": None, "stop_dead_groups": None}
    return GRPOParams(**(values | VARIANTS[name].changes))


def run_variants(stage_dir: Path, names: Sequence[str], seeds: Sequence[int], steps: int, batch: int) -> None:
    """Train what is not there yet, each in a process of its own; the models are not kept."""
    for seed in seeds:
        for name in names:
            params = variant_params(stage_dir, name, seed, steps, batch)
            folder = stage_dir / FOLDER / f"{name}-{seed}"
            if _is_made_with(folder, params):
                print(f"skip {name}, seed {seed}: complete", flush=True)
                continue
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            shutil.copy(stage_dir / TRAIN_FILE, folder)
            params.to_yaml(folder / "params.yaml")
            print(f"run  {name}, seed {seed}", flush=True)
            with (folder / "train.log").open("wb") as log:
                command = launch.command("finr1.grpo", folder, params.num_processes, params.distributed)
                where = {"cwd": repository_root(), "env": launch.environment(params.num_processes)}
                subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, **where)
            shutil.rmtree(folder / "model")


def _is_made_with(folder: Path, params: GRPOParams) -> bool:
    done = (folder / "completions").exists()  # copied there when training has ended
    return done and GRPOParams.from_yaml(folder / "params.yaml") == params


def compare(stage_dir: Path, names: Sequence[str], seeds: Sequence[int], seed: int) -> dict[str, Any]:
    """What the variants `names`, trained with `seeds`, sampled once they had learned, as `variants.json` holds it.

    All are measured alike, whatever they were paid for: format, accuracy, and their sum as in the paper. The paper's
    objective is what the others are held against, paired by problem, step and seed; intervals and p are over such
    groups, p once more with Holm's correction for the number of variants. `curves`: variant -> step -> mean of format +
    accuracy, low, high, groups. `seed` is the bootstrap's.
    """
    problems = {row["id"]: row for row in map(json.loads, (stage_dir / TRAIN_FILE).open(encoding="utf8"))}
    folders = {name: [stage_dir / FOLDER / f"{name}-{number}" for number in seeds] for name in names}
    sampled = {name: _sampled(made, problems) for name, made in folders.items()}
    rows = []
    for name, made in sampled.items():
        scores = list(made.accuracy.values())
        low, high = evaluation.clustered_interval(scores, made.completions)
        groups = sorted(made.format.keys() & sampled["grpo"].format.keys())
        paper, ours = ([s.format[g] + s.accuracy[g] for g in groups] for s in (sampled["grpo"], made))
        difference = _difference(paper, ours, seed) if name != "grpo" else None
        rows.append(
            {"variant": name, "groups": len(scores), "completions": made.completions, "low": low, "high": high}
            | {"accuracy": fmean(scores), "format": fmean(made.format.values()), "logged": _logged(folders[name])}
            | {"difference": difference}
        )
    differences = [row["difference"] for row in rows if row["difference"]]
    for found, p in zip(differences, evaluation.holm([found["p"] for found in differences]), strict=True):
        found["p_holm"] = p
    curves = {
        name: {step: _level(sums) for step, sums in made.by_step.items() if sums} for name, made in sampled.items()
    }
    return {"seeds": list(seeds), "rows": rows, "curves": curves}


def _difference(paper: Sequence[float], ours: Sequence[float], seed: int) -> dict[str, Any]:
    found = evaluation.paired_bootstrap(paper, ours, seed)
    return found._asdict() | {"inside_noise": found.inside_noise, "p": evaluation.sign_flips(paper, ours, seed)}


def _level(sums: Sequence[float]) -> list[float]:
    """Mean, low, high and number of groups; each counts once, however many completions it has: the cautious end."""
    low, high = evaluation.clustered_interval([total / 2 for total in sums], len(sums))
    return [fmean(sums), 2 * low, 2 * high, len(sums)]


def _sampled(folders: Sequence[Path], problems: dict[str, dict]) -> Sampled:
    made = Sampled()
    for folder in folders:
        for step, table in _generations(folder):
            texts = [completion[0]["content"] for completion in table["completion"]]
            columns = {name: [problems[id_][name] for id_ in table["id"]] for name in REWARD_COLUMNS}
            scored = table[["id"]].assign(
                format=rewards.format_reward(texts), accuracy=rewards.accuracy_reward(texts, **columns)
            ).dropna()  # fmt: skip
            means = scored.groupby("id").mean()
            made.by_step.setdefault(step, []).extend(means["format"] + means["accuracy"])
            if step == 1:  # nobody has learned anything yet
                continue
            made.completions += len(scored)
            for problem, mean in means.iterrows():
                key = (folder.name.rpartition("-")[2], step, problem)
                made.format[key], made.accuracy[key] = float(mean["format"]), float(mean["accuracy"])
    return made


def _generations(folder: Path) -> Iterator[tuple[int, Any]]:
    """(step, completions) of the first use of each batch; TRL writes a batch again at its second use."""
    import pandas as pd

    uses = GRPOParams.from_yaml(folder / "params.yaml").num_iterations
    for file in sorted((folder / "completions").glob("*.parquet")):
        step = int(file.stem.rpartition("_")[2])
        if (step - 1) % uses == 0:
            yield step, pd.read_parquet(file)


def _logged(folders: Sequence[Path]) -> dict[str, float]:
    """Means over all steps of what the trainer logged, where it did."""
    rows = [row for folder in folders for row in read_metrics(folder) if "reward" in row]
    keys = ("frac_reward_zero_std", "clip_ratio/region_mean", "cispo_clip_ratio", "entropy", "kl",
            "completions/mean_length", "grad_norm")  # fmt: skip
    values = {key: [row[key] for row in rows if row.get(key) is not None] for key in keys}
    return {key: fmean(found) for key, found in values.items() if found}


def render(result: dict[str, Any]) -> str:
    """The comparison as plain text: shares in percent, the reward's difference as it is, in [-2, 2]."""
    header = ["variant", "groups", "format", "accuracy [95 %]", "n", "reward against GRPO [95 %]", "p", "Holm", "dead",
              "clipped", "tokens", ""]  # fmt: skip
    return evaluation.render_rows(header, [_line(row) for row in result["rows"]], 1)


def _line(row: dict[str, Any]) -> list[str]:
    logged, change = row["logged"], row["difference"]
    clipped = logged.get("clip_ratio/region_mean", logged.get("cispo_clip_ratio", 0.0))
    against = ["-"] * 4
    if change:
        interval = f"{change['difference']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]"
        against = [str(change["n"]), interval, f"{change['p']:.3g}", f"{change['p_holm']:.3g}"]
    percent = evaluation.percent
    accuracy = evaluation.estimate(row["accuracy"], row["low"], row["high"])
    return [VARIANTS[row["variant"]].name.partition(",")[0], str(row["groups"]), percent(row["format"]), accuracy,
            *against, percent(logged["frac_reward_zero_std"], 0), percent(clipped, 2),
            f"{logged['completions/mean_length']:.1f}", evaluation.remark(change) if change else ""]  # fmt: skip


def show_comparison(run: str) -> None:
    """Run notebook 05 of `run` again, then 07, and say where: both find their work done, and now the comparison.

    With the same parameters and inputs every artefact stays, so nothing is trained or sampled. A notebook that would
    have to run anyway is left to `finr1 run`, with the reason. Raises `NotebookFailed`.
    """
    for params_class in (GRPOParams, ReportParams):
        stage = params_class.stage
        file = outputs_root() / run / stage / launch.PARAMS_FILE
        try:  # a folder under another name than its own is another run: not this one's to make again
            params = params_class.from_yaml(file).model_copy(update={"run": run}) if file.exists() else None
            reason = pipeline.why_run(params) if params else "not made yet"
        except ParameterError as error:
            reason = "; ".join(error.problems)
        if reason:
            print(f"left {stage}: {reason}; `python -m finr1 run --preset PRESET --run {run}` runs it")
            continue
        print(f"run  {stage}: it shows the comparison, the rest is done", flush=True)
        print(f"     {shown(pipeline.execute(stage, params))}")


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `variants` to the commands of `python -m finr1`."""
    compared = [name for name, variant in VARIANTS.items() if variant.compared]
    parser = commands.add_parser(
        "variants",
        help="GRPO, DAPO, Dr. GRPO, GSPO, CISPO, ... for a few steps each, from one model on the same problems",
        description="Trains each variant of notebook 05's table from the model and on the problems of a finished "
        "outputs/RUN/05_grpo and compares what they sample. What is there already is not trained again. "
        "Notebook 05 and the report then show it.",
    )
    parser.add_argument("run", metavar="RUN", help="a run whose 05_grpo has chosen its problems")
    parser.add_argument(
        "--steps", type=int, default=8, help="optimiser steps, two to a batch of completions (default: 8)"
    )
    parser.add_argument("--batch", type=int, help="completions a step (default: the run's)")
    parser.add_argument("--seeds", type=int, nargs="+", help="(default: the run's)")
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, default=compared, metavar="NAME", help=", ".join(VARIANTS)
    )
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Exit code of `python -m finr1 variants`: 0 done, 1 a training failed, 2 nothing to start from or to compare."""
    from finr1 import plotting

    stage_dir = outputs_root() / options.run / GRPOParams.stage
    if not (stage_dir / TRAIN_FILE).exists():
        print(f"{shown(stage_dir / TRAIN_FILE)} is missing: run notebook 05 first", file=sys.stderr)
        return 2
    params = GRPOParams.from_yaml(stage_dir / "params.yaml")
    names = list(dict.fromkeys(["grpo", *options.only]))  # the others are held against it
    seeds = options.seeds or [params.seed]
    batch = options.batch or params.batch_size
    groups = (options.steps // 2 - 1) * (batch // params.num_generations) * len(seeds)
    if options.steps % 2 or groups < 2:
        needs = "an even number of --steps, and two groups or more after the first two steps"
        print(f"nothing to compare: {needs}; raise --steps or --batch", file=sys.stderr)
        return 2
    try:
        for name in names:
            variant_params(stage_dir, name, params.seed, options.steps, batch)
    except (ParameterError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        run_variants(stage_dir, names, seeds, options.steps, batch)
    except subprocess.CalledProcessError as error:
        print(f"a training failed: {shown(Path(error.cmd[-1]) / 'train.log')} says why", file=sys.stderr)
        return 1
    result = compare(stage_dir, names, seeds, params.seed)
    manifest.write_json(stage_dir / FOLDER / TABLE, result)
    print(render(result))
    plotting.use_style()
    plotting.save_figure(plotting.variants(result), stage_dir / FOLDER, "variants")
    print(f"\n{shown(stage_dir / FOLDER / 'variants.png')}")
    return pipeline.exit_code(lambda: show_comparison(options.run))
