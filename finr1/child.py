"""The child's side of `launch`: one trainer per folder, and none that outlives the notebook that started it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from finr1.params import Params
from finr1.paths import lock, shown

MakeTrainer = Callable[[Params, Path], Any]  # which returns a `Trainer` of transformers
LAUNCHED = "FINR1_LAUNCHED"  # set by `launch`: standard input is a pipe that closes when the notebook is gone
SHARDS_ON_A_CPU = "FINR1_SHARDS_ON_A_CPU"  # set by a rehearsal: FSDP2 in gloo's processes
LOADED_FILE = "train_files.json"  # {package file: sha256} that the trainer has loaded: another one outdates its model


def stage_lock(stage_dir: Path) -> AbstractContextManager[None]:
    """Hold the training lock of a stage folder; RuntimeError when another process does."""
    return lock(stage_dir / "train.lock", f"is at work in {shown(stage_dir)}")


def first_gpu() -> str:
    """CUDA_VISIBLE_DEVICES of one process: with several in sight, transformers takes all, with that many batches."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def child_main(make_trainer: MakeTrainer, params_class: type[Params]) -> None:
    """Train the stage whose folder holds this script: read `params.yaml`, lock the folder, make the trainer, train."""
    stage_dir = Path(sys.argv[0]).resolve().parent
    if "RANK" not in os.environ:  # by hand, without torchrun; CUDA is not started yet
        os.environ["CUDA_VISIBLE_DEVICES"] = first_gpu()
    if os.environ.get(LAUNCHED):
        threading.Thread(target=_end_with_the_notebook, daemon=True).start()
    params = params_class.from_yaml(stage_dir / "params.yaml")
    with stage_lock(stage_dir) if os.environ.get("RANK", "0") == "0" else nullcontext():  # one for all ranks
        train(make_trainer, params, stage_dir)


def train(make_trainer: MakeTrainer, params: Params, stage_dir: Path) -> None:
    """Train, from the last checkpoint if there is one, and save `<stage>/model`."""
    import torch

    from finr1 import manifest, training

    hashes = manifest.package_hashes()
    if torch.cuda.is_available():  # before any model is loaded: else every rank's would lie on the first GPU
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    trainer = make_trainer(params, stage_dir)
    training.check_processes(trainer, params.num_processes, params.distributed)
    if trainer.is_world_process_zero():
        manifest.write_json(stage_dir / LOADED_FILE, manifest.loaded_files(hashes))
    training.train_and_save(trainer, params, stage_dir)


def _end_with_the_notebook() -> None:
    # Not sys.stdin.read(): its lock, held by a daemon thread, aborts the interpreter's own shutdown.
    while os.read(0, 1):
        pass
    print("the notebook that started this training is gone: it stops and can be resumed", file=sys.stderr, flush=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # all ranks
