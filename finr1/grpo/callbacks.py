"""What hangs on the trainer: seconds by phase, warnings, stop rules. Each speaks through the rows of metrics.jsonl."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback

from finr1.grpo.monitor import hacking_warnings
from finr1.grpo.stopping import Diverged, stop_reason
from finr1.params import GRPOParams

PHASES = ("generate", "score", "reward", "update")  # logged as "time/<phase>", seconds of one optimiser step


class PhaseTimes(TrainerCallback):
    """Adds seconds by phase to the metrics of each optimiser step (`metrics`: the trainer's own, name -> values)."""

    def __init__(self, metrics: dict[str, list[float]]):
        self.metrics = metrics
        self.seconds: Counter[str] = Counter()
        self.started = 0.0

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Count the seconds spent inside to `phase`, less those that an inner phase has counted."""
        started, inner = time.perf_counter(), self.seconds.total()
        yield
        self.seconds[phase] += time.perf_counter() - started - (self.seconds.total() - inner)

    def on_step_begin(self, args, state, control, **kwargs):
        self.seconds.clear()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds["update"] = time.perf_counter() - self.started - self.seconds.total()
        for phase in PHASES:
            self.metrics[f"time/{phase}"].append(self.seconds[phase])


class Monitor(TrainerCallback):
    """Writes each warning into the row of metrics.jsonl of the step at which it appears, and into the training log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:
            return
        new = [line for line in hacking_warnings(state.log_history) if line.startswith(f"step {state.global_step}:")]
        if new:
            logs["warnings"] = new
        for line in new if state.is_world_process_zero else ():
            print("WARNING", line, flush=True)


class StopRules(TrainerCallback):
    """Looks at every logged step. Needs `logging_nan_inf_filter=False`, or the trainer hides what it looks for."""

    def __init__(self, params: GRPOParams):
        self.params = params

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:  # the summary at the end
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise Diverged(
                    f"step {state.global_step}: {name} is {logs[name]}; no model is saved. Lower learning_rate (now "
                    f"{self.params.learning_rate:g}), lengthen warmup_steps (now {self.params.warmup_steps:g}), or set "
                    "bf16 to false; a changed parameter starts afresh"
                )
        reason = stop_reason(state.log_history, self.params)
        if reason and state.global_step < state.max_steps:
            logs["stopped"] = f"step {state.global_step}: {reason}"
            control.should_training_stop = True
            if state.is_world_process_zero:
                print("STOPPED", logs["stopped"], flush=True)
