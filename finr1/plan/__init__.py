"""What a preset will take before anything is spent: GiB on each GPU, tokens, FLOPs, hours and cost.

`python -m finr1 plan --preset paper [--set NAME=VALUE] [--json] [--calibrate]`
"""

from finr1.plan.machine import capacity, machine, measure_rates, minutes_here
from finr1.plan.memory import PARTS, grpo_memory, sft_memory
from finr1.plan.preset import Plan, advice, fits_here, make_plan, read_preset
from finr1.plan.shapes import Shape, shape_of
from finr1.plan.work import Assumptions

__all__ = [
    "PARTS",
    "Assumptions",
    "Plan",
    "Shape",
    "advice",
    "capacity",
    "fits_here",
    "grpo_memory",
    "machine",
    "make_plan",
    "measure_rates",
    "minutes_here",
    "read_preset",
    "sft_memory",
    "shape_of",
]
