"""One line of progress, read from the metrics file that a trainer writes; nothing that floods a notebook or a log."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
EARLY_FILE = "early_answers.jsonl"  # of the model in training, see `training.EarlyLook`


def read_metrics(stage_dir: Path) -> list[dict[str, Any]]:
    """The rows that the trainer has logged so far; a line that is being written is left for the next look."""
    path = Path(stage_dir) / METRICS_FILE
    lines = path.read_text("utf8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def describe(rows: list[dict[str, Any]], seconds: float) -> str:
    """`step 3/12, loss 0.123, reward 1.5, 2 min 05 s`; `starting` until the trainer has logged something."""
    if not rows:
        return f"starting, {duration(seconds)}"
    row = rows[-1]
    shown = [name for name in ("loss", "reward", "mean_token_accuracy") if isinstance(row.get(name), int | float)]
    numbers = "".join(f"{name} {row[name]:.4g}, " for name in shown)
    return f"step {row.get('step', len(rows))}/{row.get('max_steps', '?')}, {numbers}{duration(seconds)}"


class ProgressLine:
    """A line that is replaced in a notebook or on a terminal (at most once a second), or one line every ten seconds."""

    def __init__(self) -> None:
        ipython = sys.modules.get("IPython")
        self._in_notebook = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
        self._on_terminal = not self._in_notebook and sys.stdout.isatty()
        self._handle: Any = None
        self._shown = float("-inf")

    def show(self, line: str, last: bool = False) -> None:
        """Show `line`, unless it comes too soon after the one before; the `last` one always is shown."""
        interval = 1 if self._in_notebook or self._on_terminal else 10  # seconds
        if not last and time.monotonic() - self._shown < interval:
            return
        self._shown = time.monotonic()
        if self._on_terminal:
            print(f"\r{line}\x1b[K", end="\n" if last else "", flush=True)
        elif not self._in_notebook:
            print(line, flush=True)
        elif self._handle is not None:
            self._handle.update({"text/plain": line}, raw=True)
        else:  # an updated display is stored once, with its last text; carriage returns would all be kept in the file
            from IPython.display import display

            self._handle = display({"text/plain": line}, raw=True, display_id=True)
