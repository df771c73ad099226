"""Training runs in a child process, from a laptop to several GPUs: the notebook's kernel never holds the GPU.

(`notebook_launcher` forks, which CUDA does not survive; `accelerate launch --cpu --num_processes 2` was seen to run one
process without a word, torchrun ran two.) The child's side is `finr1.child`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.child import LAUNCHED
from finr1.manifest import file_sha256
from finr1.paths import repository_root, shown
from finr1.progress import METRICS_FILE, ProgressLine, describe, read_metrics

if TYPE_CHECKING:
    from finr1.run import Run

LOG_FILE = "train.log"
MODEL_FOLDER = "model"
_MADE_BY_TRAINING = (MODEL_FOLDER, "model.tmp", "checkpoints", "completions", METRICS_FILE, LOG_FILE)
_POLL_S = 0.2
_GRACE_S = 10  # between asking a trainer to stop and ending it

OnProgress = Callable[[list[dict[str, Any]]], None]


class TrainingFailed(RuntimeError):
    """The training process died; the message holds its own last error and the end of its log."""


def launch(
    module: str, run: Run, num_processes: int = 1, *, reads: Sequence[str] = (), on_progress: OnProgress | None = None
) -> list[dict[str, Any]]:
    """Start `python -m <module> <stage folder>` and wait for it; returns the rows of its `metrics.jsonl`.

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
            _command(module, run.dir, num_processes),
            stdin=subprocess.PIPE,  # closes when this process dies, whatever kills it: the child then ends too
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=repository_root(),
            env=_environment(num_processes),
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


def _command(module: str, stage_dir: Path, num_processes: int) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    return [sys.executable, *(torchrun if num_processes > 1 else []), "-m", module, str(stage_dir)]


def _environment(num_processes: int) -> dict[str, str]:
    env = {**os.environ, LAUNCHED: "1", "PYTHONUNBUFFERED": "1"}
    if num_processes == 1:
        # With several GPUs in sight, the trainer would wrap the model in DataParallel and multiply the batch unasked.
        env["CUDA_VISIBLE_DEVICES"] = env.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    return env


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
