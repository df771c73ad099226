"""`python -m finr1 plan`: the plan of a preset on the screen or as JSON, and its calibration."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from finr1.params import ParameterError
from finr1.plan.calibration import calibrate
from finr1.plan.machine import capacity, machine
from finr1.plan.preset import Plan, advice, fits_here, make_plan
from finr1.plan.work import assumption_rows


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `plan` to the commands of `python -m finr1`."""
    parser = commands.add_parser(
        "plan",
        help="what a preset needs before anything is spent: GiB on each GPU, tokens, hours, cost",
        description="Memory, tokens, FLOPs, hours and cost of a preset by formula. Assumptions are listed with the "
        "result; --set changes them (mfu_train=0.3) and parameters (05_grpo.max_steps=10).",
    )
    parser.add_argument("--preset", default="demo", help="folder of params/ (default: demo)")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a parameter or an assumption")
    parser.add_argument("--json", action="store_true", help="everything as JSON")
    parser.add_argument(
        "--calibrate", action="store_true", help="train for two steps in child processes: predicted and measured memory"
    )
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> int:
    """Print the plan; returns 2 with the reason for a wrong preset, parameter or value."""
    try:
        plan = make_plan(options.preset, options.set)
    except (ParameterError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    count, gib = capacity()
    found = {
        "preset": plan.preset,
        "machine": machine(),
        "memory_gib": plan.memory,
        "costs": plan.costs,
        "assumptions": assumption_rows(plan.assumptions),
        "presets_here": fits_here(count, gib),
        "advice": advice(plan, count, gib),
    }
    if options.calibrate:
        with tempfile.TemporaryDirectory() as folder:
            found["calibration"] = calibrate(Path(folder))
    print(json.dumps(found, indent=1) if options.json else _text(plan, found))
    return 0


def _text(plan: Plan, found: dict[str, Any]) -> str:
    where = f"{plan.gpus} GPUs" if plan.gpus else "a CPU"
    lines = [f"{plan.preset}, planned for {where}", "", "GiB in each process"]
    parts = [name for name in next(iter(plan.memory.values())) if any(row[name] for row in plan.memory.values())]
    lines.append(f"{'':18}" + "".join(f"{name:>17}" for name in [*parts, "sum"]))
    for phase, row in plan.memory.items():
        values = [*(row[part] for part in parts), sum(row.values())]
        lines.append(f"{phase:18}" + "".join(f"{value:17.2f}" for value in values))
    lines += ["", f"{'':26}{'read':>12}{'written':>12}{'trained':>12}{'exaFLOPs':>10}{'hours':>9}{'GPU':>9}{'API':>9}"]
    for row in plan.costs:
        tokens = "".join(f"{row[name]:12,.0f}" for name in ("read", "written", "trained"))
        money = "".join(f"{row[name]:9.2f}" for name in ("hours", "GPU cost", "API cost"))
        lines.append(f"{row['stage']:26}{tokens}{row['exaFLOPs']:10.3g}{money}")
    total = [sum(row[name] for row in plan.costs) for name in ("hours", "GPU cost", "API cost")]
    lines.append(f"{'all':26}{'':46}" + "".join(f"{value:9.2f}" for value in total))
    hardware = f"{plan.gpus or 1} GPUs of {plan.assumptions.gpu_tflops:g} TFLOP/s"
    lines += ["", f"Hours on {hardware}{'' if plan.gpus else ' in place of the CPU'}. Assumed (--set changes them):"]
    lines += [f"  {name} = {value:g}" for name, value in found["assumptions"].items()]
    lines += ["", "On this machine: " + ", ".join(f"{name} {value}" for name, value in found["machine"].items())]
    lines += [
        f"  {row['preset']:12}{row['GiB each']:7.1f} GiB in each of {row['processes']} processes: "
        + ("fits" if row["fits"] else "does not fit")
        if row["processes"]
        else f"  {row['preset']:12} can't be planned: `python -m finr1 plan --preset {row['preset']}` says why"
        for row in found["presets_here"]
    ]
    lines += ["", *(f"- {line}" for line in found["advice"])]
    if "calibration" in found:
        lines += ["", f"{'calibration':32}{'predicted':>10}{'measured':>10}{'error':>8}"]
        lines += [
            f"{row['case']:32}{row['predicted']:10.2f}{row['measured']:10.2f}{row['error']:8.0%}"
            for row in found["calibration"]
        ]
    return "\n".join(lines)
