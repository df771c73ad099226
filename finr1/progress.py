"""One line of progress, read from the metrics file that a trainer writes; nothing that floods a notebook or a log."""

import time
from datetime import timedelta
from pathlib import Path

from finr1.records import read_jsonl

METRICS_FILE = "metrics.jsonl"
EARLY_FILE = "early_answers.jsonl"  # of the model in training, see notebook 04


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
