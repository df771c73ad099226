"""Training runs in a child process, from a laptop to several GPUs: the notebook's kernel never holds the GPU.

Several processes are started by `accelerate launch` with `params/accelerate/<distributed>.yaml`; several nodes by the
environment variables NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT (docs/distributed.md). The child's side is
`finr1.child`. (`notebook_launcher` forks, which CUDA does not survive; `accelerate launch --cpu --num_processes 2` was
seen to run one process without a word: the trainer checks its number of processes and its wrapper.)
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.child import LAUNCHED, first_gpu
from finr1.manifest import file_sha256
from finr1.params import STAGES
from finr1.paths import repository_root, shown
from finr1.progress import EARLY_FILE, METRICS_FILE, ProgressLine, describe, read_metrics

if TYPE_CHECKING:
    from finr1.run import Run

_MODULES = {"04_sft": "finr1.sft", "05_grpo": "finr1.grpo"}
PARAMS_FILE = "params.yaml"
LOG_FILE = "train.log"
MODEL_FOLDER = "model"
_MADE_BY_TRAINING = (MODEL_FOLDER, "model.tmp", "checkpoints", "completions", METRICS_FILE, EARLY_FILE, LOG_FILE)
_POLL_S = 0.2
_GRACE_S = 10  # between asking a trainer to stop and ending it

OnProgress = Callable[[list[dict[str, Any]]], None]


class TrainingFailed(RuntimeError):
    """The training process died; the message holds its own last error and the end of its log."""


def launch(
    module: str,
    run: Run,
    num_processes: int = 1,
    distributed: str = "ddp",
    *,
    reads: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> list[dict[str, Any]]:
    """Start `python -m <module> <stage folder>` and wait for it; returns the rows of its `metrics.jsonl`.

    `num_processes` counts over all nodes; `distributed` names the file of `params/accelerate/` for more than one.

    Returns at once when `model/` is there: the child writes it last. A child that was killed before goes on from its
    last checkpoint. `reads` names files of the stage folder that the child trains on: when they changed, a model and
    checkpoints made from the old ones are removed first. `on_progress` gets all rows whenever there are new ones, at
    most once a second. Raises TrainingFailed when the child dies; ends the child when interrupted.
    """
    _drop_outdated(module, run, reads)
    if (run.dir / MODEL_FOLDER).exists():
        print(f"{shown(run.dir / MODEL_FOLDER)} is complete: no training")
        return read_metrics(run.dir)
    log = run.dir / LOG_FILE
    start = log.stat().st_size if log.exists() else 0  # a resumed session appends
    with log.open("ab") as file:
        process = subprocess.Popen(
            command(module, run.dir, num_processes, distributed),
            stdin=subprocess.PIPE,  # closes when this process dies, whatever kills it: the child then ends too
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=repository_root(),
            env=environment(num_processes) | {LAUNCHED: "1"},
            start_new_session=True,
        )
    with process.stdin:
        try:
            code = _watch(process, run.dir, on_progress)
        except BaseException:  # an interrupted cell must not leave a trainer behind
            _end(process)
            raise
    if code != 0:
        raise TrainingFailed(_what_happened(module, code, log, start))
    return read_metrics(run.dir)


def command(module: str, stage_dir: Path, num_processes: int, distributed: str) -> list[str]:
    """The command that trains on this node: plain Python for one process, `accelerate launch` for more."""
    if num_processes == 1:
        return [sys.executable, "-m", module, str(stage_dir)]
    config = repository_root() / "params" / "accelerate" / f"{distributed}.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launcher, "--num_processes", str(num_processes), *_nodes(), "-m", module, str(stage_dir)]


def _nodes() -> list[str]:
    """Options for several nodes, from the usual environment variables; ValueError names those that are missing."""
    nodes = os.environ.get("NNODES", "1")
    if nodes == "1":
        return []
    if missing := [name for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ValueError(f"NNODES = {nodes}: the environment variables {', '.join(missing)} are not set")
    return [
        *("--num_machines", nodes),
        *("--machine_rank", os.environ["NODE_RANK"]),
        *("--main_process_ip", os.environ["MASTER_ADDR"]),
        *("--main_process_port", os.environ["MASTER_PORT"]),
    ]


def environment(num_processes: int) -> dict[str, str]:
    """The environment of a trainer, or of the launcher of several."""
    # RANK and the like, where this process has them, belong to another launcher.
    outer = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
    env = {name: value for name, value in os.environ.items() if name not in outer}
    env["PYTHONUNBUFFERED"] = "1"
    if num_processes == 1:
        env["CUDA_VISIBLE_DEVICES"] = first_gpu()
    return env


def join(stage_dir: Path) -> int:
    """On a further node: wait for the first node's trainer, take part in it; returns this node's exit code.

    The folder is on a file system that all nodes share. Returns 0 without training when `model/` is there.
    """
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    while not _reachable(address):
        if (stage_dir / MODEL_FOLDER).exists():
            print(f"{shown(stage_dir / MODEL_FOLDER)} is complete: no training")
            return 0
        time.sleep(_POLL_S)
    # Only now: what stood there before the first node started its trainer may be an older run's.
    params = STAGES[stage_dir.name].from_yaml(stage_dir / PARAMS_FILE)
    arguments = command(_MODULES[stage_dir.name], stage_dir, params.num_processes, params.distributed)
    return subprocess.run(arguments, cwd=repository_root(), env=environment(params.num_processes)).returncode


def _reachable(address: tuple[str, int]) -> bool:
    with suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def _drop_outdated(module: str, run: Run, reads: Sequence[str]) -> None:
    hashes = {name: file_sha256(run.dir / name) for name in reads}
    launched = run.state["launched"]
    if launched.get(module, hashes) != hashes:
        print("the training data changed: training starts afresh")
        for name in _MADE_BY_TRAINING:
            path = run.dir / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    launched[module] = hashes
    run.save_state()


def _watch(process: subprocess.Popen, stage_dir: Path, on_progress: OnProgress | None) -> int:
    line, started, looked, drawn = ProgressLine(), time.monotonic(), float("-inf"), 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
        ended, now = process.poll() is not None, time.monotonic()
        if not ended and now - looked < 1:
            continue
        looked = now
        rows = read_metrics(stage_dir)
        line.show(describe(rows, now - started), last=ended)
        if on_progress and len(rows) != drawn:
            on_progress(rows)
            drawn = len(rows)
        if ended:
            return process.returncode


def add_command(commands: argparse._SubParsersAction) -> None:
    """Add `join` to the commands of `python -m finr1`."""
    parser = commands.add_parser("join", help="on a further node: take part in the training that the first one starts")
    parser.set_defaults(command=lambda options: join(options.stage_dir.resolve()))
    parser.add_argument("stage_dir", type=Path, metavar="STAGE_FOLDER", help="for example outputs/paper/04_sft")


def _end(process: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
            return


def _what_happened(module: str, code: int, log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = clean_lines(file.read().decode("utf8", errors="replace"))
    # torchrun closes with a traceback of its own and a page about it, after this line.
    own = next((i for i, line in enumerate(lines) if re.search(r"torch/distributed/.*failed \(exitcode", line)), None)
    tail = "\n".join(f"  {line}" for line in lines[:own][-15:])
    return f"{module} {_ending(code, lines)}\n{last_error(lines[:own])}\nThe end of {shown(log)}:\n{tail}"


def clean_lines(text: str) -> list[str]:
    """Lines of a log without colours, overwritten progress bars, torchrun's rank marks and blank lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line.rstrip().rpartition("\r")[2]) for line in text.split("\n")]
    return [line for line in lines if line.strip()]


def last_error(lines: list[str]) -> str:
    """The exception line of the last traceback in a log; without one, the last line."""
    errors, inside = [], False
    for line in lines:
        if line.startswith("Traceback (most recent call last)"):
            inside = True
        elif inside and not line.startswith(" "):
            inside = False
            errors.append(line)
    return (errors or lines or ["(it wrote no log)"])[-1]


def _ending(code: int, lines: list[str]) -> str:
    # torchrun ends with 1 and tells of the signal that one of its processes got.
    told = [re.search(r"Signal \d+ \((SIG\w+)\)", line) for line in lines]
    names = [signal.Signals(-code).name] if code < 0 else [match[1] for match in told if match]
    if not names:
        return f"ended with exit code {code}"
    return f"was killed by {names[0]}" + (" (out of memory?)" if names[0] == "SIGKILL" else "")
