"""One line of progress, read from the metrics file that a trainer writes; nothing that floods a notebook or a log."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
EARLY_FILE = "early_answers.jsonl"  # of the model in training, see `callbacks.EarlyLook`
_SHOWN = ("loss", "reward", "mean_token_accuracy")  # of a row, those that are there


def read_metrics(stage_dir: Path) -> list[dict[str, Any]]:
    """The rows that the trainer has logged so far; a line that is being written is left for the next look."""
    path = Path(stage_dir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text("utf8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def describe(rows: list[dict[str, Any]], seconds: float) -> str:
    """`step 3/12, loss 0.123, reward 1.5, 2 min 05 s`; `starting` until the trainer has logged something."""
    if not rows:
        return f"starting, {duration(seconds)}"
    row = rows[-1]
    of = f"/{row['max_steps']}" if "max_steps" in row else ""
    numbers = [f"{name} {row[name]:.4g}" for name in _SHOWN if isinstance(row.get(name), int | float)]
    return ", ".join([f"step {row.get('step', len(rows))}{of}", *numbers, duration(seconds)])


class ProgressLine:
    """A line that is replaced in a notebook or on a terminal (at most once a second), or one line every ten seconds."""

    def __init__(self) -> None:
        ipython = sys.modules.get("IPython")
        self._in_notebook = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
        self._replaces = not self._in_notebook and sys.stdout.isatty()
        self._interval = 1 if self._in_notebook or self._replaces else 10  # seconds
        self._handle: Any = None
        self._shown = float("-inf")

    def show(self, line: str, last: bool = False) -> None:
        """Show `line`, unless it comes too soon after the one before; the `last` one always is shown."""
        now = time.monotonic()
        if not last and now - self._shown < self._interval:
            return
        self._shown = now
        if not self._in_notebook:
            before, after = ("\r", "\x1b[K") if self._replaces else ("", "")
            print(f"{before}{line}{after}", end="\n" if last or not self._replaces else "", flush=True)
            return
        # An updated display is stored once, with its last text; carriage returns would all be kept in the file.
        from IPython.display import display

        if self._handle is None:
            self._handle = display({"text/plain": line}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": line}, raw=True)
