"""Imported by a recipe of two processes: the second one dies once (SIGKILL), amid the fourth step."""

import os
import signal
import sys
from pathlib import Path

from transformers import Trainer

_step = Trainer.training_step


def step_or_die(self, *arguments, **more):
    died = Path(sys.argv[0]).with_name("died")
    if self.state.global_step == 3 and self.args.process_index == 1 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _step(self, *arguments, **more)


Trainer.training_step = step_or_die
