"""Kill a training with SIGKILL at one point of it, in a forked child: `killed_training.py CASES.json`.

One process imports everything once; each case is a list of points at which one attempt after the other is killed, then
an attempt that nothing stops.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path

import torch
from datasets.utils.logging import disable_progress_bar
from recipes import recipe, train
from transformers import Trainer, TrainerCallback

from finr1 import training
from finr1.params import STAGES


def format_reward(completions: list, **columns) -> list[float]:
    """Share of different characters: a random model's texts differ in it, and by format they would all get 0."""
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    return [len(set(text)) / max(len(text), 1) for text in texts]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(TrainerCallback):
    """Dies at `[event, step]`: as a step begins or ends, or with half a line of metrics written."""

    def __init__(self, event: str, step: int, stage_dir: Path):
        self.event, self.step, self.stage_dir = event, step, stage_dir

    def on_step_begin(self, args, state, control, **kwargs):
        if self.event == "step_begin" and state.global_step == self.step:
            die()

    def on_step_end(self, args, state, control, **kwargs):
        if self.event == "step_end" and state.global_step == self.step:
            die()

    def on_log(self, args, state, control, **kwargs):
        if self.event == "half_a_line" and state.global_step == self.step:
            with (self.stage_dir / "metrics.jsonl").open("a") as file:
                file.write('{"step": ')
            die()


def arm(event: str, step: int, stage_dir: Path) -> None:
    """Make this process die at `event` of `step`."""
    begin = training.MetricsFile.__init__

    def begin_with_killer(self, *arguments):
        begin(self, *arguments)
        self.killer = Killer(event, step, stage_dir)

    training.MetricsFile.__init__ = begin_with_killer
    for name in ("on_step_begin", "on_step_end", "on_log"):
        forward_to_killer(name)
    if event in ("before_optimizer", "before_state"):
        method = {"before_optimizer": "_save_optimizer_and_scheduler", "before_state": "_save_rng_state"}[event]
        saved = getattr(Trainer, method)

        def save_or_die(self, *arguments):
            if self.state.global_step == step:
                die()  # the weights are written, and nothing says yet that the checkpoint is whole
            return saved(self, *arguments)

        setattr(Trainer, method, save_or_die)
    if event == "half_a_state":
        write_state = training_state_writer()

        def write_half(self, path):
            if self.global_step == step:
                Path(path).write_text('{"best_gl')
                die()
            write_state(self, path)

        from transformers import TrainerState

        TrainerState.save_to_json = write_half


def training_state_writer():
    from transformers import TrainerState

    return TrainerState.save_to_json


def forward_to_killer(name: str) -> None:
    own = getattr(training.MetricsFile, name)

    def both(self, *arguments, **kwargs):
        own(self, *arguments, **kwargs)
        getattr(self.killer, name)(*arguments, **kwargs)

    setattr(training.MetricsFile, name, both)


def attempt(stage: str, stage_dir: Path, point: list | None) -> int:
    """Exit status of one attempt in a forked child."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    if point:
        arm(point[0], point[1], stage_dir)
    cells = recipe(stage)
    cells.format_reward = format_reward
    cells.LoraConfig = functools.partial(cells.LoraConfig, lora_dropout=0.1)
    train(STAGES[stage].from_yaml(stage_dir / "params.yaml"), stage_dir, cells.make_trainer)
    os._exit(0)


def main() -> None:
    torch.set_num_threads(1)
    disable_progress_bar()
    for case in json.loads(Path(sys.argv[1]).read_text()):
        for point in [*case["kills"], None]:
            status = attempt(case["stage"], Path(case["folder"]), point)
            expected = signal.SIGKILL if point else 0
            assert status == expected, f"{case}: at {point} the attempt ended with {status}"


if __name__ == "__main__":
    main()
