"""What long work has come to: one line with the time left, a training's logs, and its newest whole checkpoint."""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from finr1.manifest import read_object, remove, sampled_sha256, write_json
from finr1.paths import Busy, lock, run_folder, shown
from finr1.records import read_jsonl

METRICS_FILE = "metrics.jsonl"
EARLY_FILE = "early_answers.jsonl"  # of the model in training, see notebook 04
LOG_FILE, FIRST_STEP = "train.log", "first step: "  # what the trainer prints, and how its lines on that step begin
LISTED = "files.json"  # of a checkpoint, written last: a kill leaves it out


def read_metrics(stage_dir: Path) -> list[dict]:
    """The rows that the trainer has logged so far; a line that is being written is left for the next look."""
    path = stage_dir / METRICS_FILE
    return [row for row in read_jsonl(path, part=True) if "step" in row] if path.exists() else []


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: `0:03:05`."""
    return str(timedelta(seconds=round(seconds)))


def describe(rows: list[dict], seconds: float, pace: float | None = None, start: str = "starting") -> str:
    """`step 3/12, loss 0.123, reward 1.5, 0:02:05`, and with `pace` (seconds a step) `0:06:15 left`; or `start`."""
    row = rows[-1] if rows else {}
    told = [f"step {row['step']}/{row.get('max_steps', '?')}" if row else start]
    told += [f"{key} {row[key]:.4g}" for key in ("loss", "reward", "mean_token_accuracy") if row.get(key) is not None]
    left = [f"{duration(pace * (row['max_steps'] - row['step']))} left"] if pace and "max_steps" in row else []
    return ", ".join([*told, duration(seconds), *left])


class ProgressLine:
    """A line that is replaced in a notebook; elsewhere, as in a log, one line every ten seconds, or none if `quiet`."""

    def __init__(self, name: str = "", quiet: bool = False) -> None:
        self._name, self._quiet, self._printed, self._handle = name, quiet, float("-inf"), None

    def show(self, told: object, last: bool = False) -> None:
        line = f"{self._name}{told}"
        if self._handle:
            self._handle.update({"text/plain": line}, raw=True)
        elif "IPython" in sys.modules and hasattr(sys.modules["IPython"].get_ipython(), "kernel"):
            # A display is stored once; carriage returns would all be kept in the file.
            self._handle = sys.modules["IPython"].display.display({"text/plain": line}, raw=True, display_id=True)
        elif not self._quiet and (last or time.monotonic() - self._printed >= 10):
            self._printed = time.monotonic()
            print(line, flush=True)


def follow(stage_dir: Path, ended: Callable[[], bool], on_progress: Callable[[list[dict]], object] | None = None):
    """Show a line, and give all rows to `on_progress` when there are new ones, until `ended`, which waits a second."""
    line, started, rows, seen, last = ProgressLine(), time.monotonic(), [], None, False
    while not last:
        last, now, before = ended(), time.monotonic(), rows
        with suppress(ValueError):  # of a session before; the trainer cuts them off
            rows = read_metrics(stage_dir)
        seen = seen or rows and (now, rows[-1]["step"])
        steps = rows[-1]["step"] - seen[1] if rows else 0
        pace = (now - seen[0]) / steps if steps > 0 else None
        line.show(describe(rows, now - started, pace, "" if rows else _first_step(stage_dir / LOG_FILE)), last)
        if on_progress and rows != before:
            on_progress(rows)


def _first_step(log: Path) -> str:
    lines = log.read_text("utf8", "replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.startswith(FIRST_STEP)), "starting")


def stopped(stage_dir: Path) -> str:
    """Where a training that does not run stands, and how it resumes."""
    rows, newest = read_metrics(stage_dir), newest_whole(stage_dir / "checkpoints")
    where = f"at step {rows[-1]['step']}" if rows else "before its first step"
    resumes = f"resume from checkpoint {newest.rpartition('-')[2]}" if newest else "begin anew: there is no checkpoint"
    return f"stopped {where}; run the cell again to {resumes}"


def seal(checkpoint: Path) -> None:
    """Put the logs of its stage into a checkpoint, and a list of what it holds."""
    for log in (METRICS_FILE, EARLY_FILE):
        rewind(checkpoint / log, checkpoint.parent.parent)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != LISTED]
    write_json(checkpoint / LISTED, {str(path.relative_to(checkpoint)): sampled_sha256(path) for path in files})


def rewind(log: Path, checkpoint: Path) -> None:
    """Make a log what it was when `checkpoint` was written; without one it ends."""
    remove(log)
    if (checkpoint / log.name).exists():
        shutil.copy(checkpoint / log.name, log)


def newest_whole(folder: Path, drop: bool = False) -> str | None:
    """The newest checkpoint below `folder` that is as it was written; `drop` removes and names each newer one."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    for checkpoint in sorted(numbered, key=lambda path: -int(path.name.partition("-")[2])):
        if (broken := _broken_file(checkpoint)) is None:
            return str(checkpoint)
        if drop:
            print(f"{shown(checkpoint)} is dropped: {broken} is missing or not as it was written", flush=True)
            remove(checkpoint)
    return None


def _broken_file(checkpoint: Path) -> str | None:
    name = LISTED
    try:
        for name, sha256 in read_object(checkpoint / LISTED, {"trainer_state.json": str}).items():
            if sampled_sha256(checkpoint / name) != sha256:
                return name
        name = "trainer_state.json"
        best = read_object(checkpoint / name, {})["best_model_checkpoint"]
    except (OSError, ValueError, KeyError):
        return name
    best = checkpoint.with_name(Path(best).name) if best else checkpoint  # `load_best_model_at_end` will load it
    return _broken_file(best) if best != checkpoint else None


def watch(options: argparse.Namespace) -> int:
    """Show the training of a run that another process has started, until it ends; 1 when there is none."""
    run = run_folder(options.run)

    def ended() -> bool:
        with suppress(Busy), lock(stage / "train.lock", ""):
            return True
        return bool(time.sleep(1))

    for stage in (stages := [file.parent for file in sorted(run.glob("0[45]_*/train.py"))]):
        if not ended():
            print(f"{shown(stage)} trains; Ctrl-C ends this watching, not the training", flush=True)
            follow(stage, ended)
        print(f"{shown(stage)}: {'trained' if (stage / 'model').exists() else stopped(stage)}")
    if not stages:
        print(f"{shown(run)}: no training has been started there", file=sys.stderr)
    return int(not stages)
