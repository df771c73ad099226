"""What a training has come to: its logs, one line about them, and the newest checkpoint that is as it was written."""

import shutil
import time
from datetime import timedelta
from pathlib import Path

from finr1.manifest import read_object, remove, sampled_sha256, write_json
from finr1.paths import shown
from finr1.records import read_jsonl

METRICS_FILE = "metrics.jsonl"
EARLY_FILE = "early_answers.jsonl"  # of the model in training, see notebook 04
LISTED = "files.json"  # of a checkpoint, written last: a kill leaves it out


def read_metrics(stage_dir: Path) -> list[dict]:
    """The rows that the trainer has logged so far; a line that is being written is left for the next look."""
    path = stage_dir / METRICS_FILE
    return [row for row in read_jsonl(path, part=True) if "step" in row] if path.exists() else []


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: `0:03:05`."""
    return str(timedelta(seconds=round(seconds)))


def describe(rows: list[dict], seconds: float) -> str:
    """`step 3/12, loss 0.123, reward 1.5, 0:02:05`; `starting` until the trainer has logged something."""
    row = rows[-1] if rows else {}
    told = [f"step {row['step']}/{row.get('max_steps', '?')}" if row else "starting"]
    told += [f"{key} {row[key]:.4g}" for key in ("loss", "reward", "mean_token_accuracy") if row.get(key) is not None]
    return ", ".join([*told, duration(seconds)])


class ProgressLine:
    """A line that is replaced in a notebook; elsewhere, as in a log, one line every ten seconds."""

    def __init__(self) -> None:
        from IPython import display, get_ipython

        self._printed, self._handle = float("-inf"), None
        if hasattr(get_ipython(), "kernel"):  # a display is stored once; carriage returns would all be kept in the file
            self._handle = display.display({"text/plain": "starting"}, raw=True, display_id=True)

    def show(self, line: str, last: bool = False) -> None:
        if self._handle:
            self._handle.update({"text/plain": line}, raw=True)
        elif last or time.monotonic() - self._printed >= 10:
            self._printed = time.monotonic()
            print(line, flush=True)


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
        for name, sha256 in read_object(checkpoint / LISTED, {}).items():
            if sampled_sha256(checkpoint / name) != sha256:
                return name
        name = "trainer_state.json"
        best = read_object(checkpoint / name, {})["best_model_checkpoint"]
    except (OSError, ValueError, KeyError):
        return name
    best = checkpoint.with_name(Path(best).name) if best else checkpoint  # `load_best_model_at_end` will load it
    return _broken_file(best) if best != checkpoint else None
