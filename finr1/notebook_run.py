"""One notebook through papermill: in this very interpreter's kernel, with errors that a person can read."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from finr1.launch import clean_lines
from finr1.manifest import what_is_missing
from finr1.params import Params
from finr1.paths import outputs_root, repository_root, shown
from finr1.progress import ProgressLine, duration, read_metrics
from finr1.run import KERNEL_LOG

_LAST_LINES = 12  # of a traceback or a log, as many as an error shows


class NotebookFailed(RuntimeError):
    """A notebook stopped: its own error, and where the executed notebook lies."""


def execute(stage: str, params: Params) -> Path:
    """Run `notebooks/<stage>.ipynb` with `params`; returns the executed notebook, in the stage's folder.

    Raises NotebookFailed with the notebook's own error.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    notebook = repository_root() / "notebooks" / f"{stage}.ipynb"
    executed = outputs_root() / params.run / stage / f"{stage}.ipynb"
    if not notebook.exists():
        raise NotebookFailed(f"{stage}: {shown(notebook)} is missing")
    executed.parent.mkdir(parents=True, exist_ok=True)
    log_file, where = executed.with_name(KERNEL_LOG), f"The executed notebook: {shown(executed)}"
    try:
        with log_file.open("wb") as log, _progress(stage, executed.parent):
            papermill.execute_notebook(
                str(notebook),
                str(executed),
                parameters=params.model_dump(),
                kernel_name="python3",
                language="python",
                kernel_manager_class=_kernel_manager_class(log),
                cwd=str(repository_root()),
                start_timeout=300,  # seconds; a busy machine takes its time
                progress_bar=False,
                log_output=False,
            )
    except papermill.PapermillExecutionError as error:
        said = "\n".join(clean_lines(f"{error.ename}: {error.evalue}"))
        # The suite's own errors say all; of others, the lines that led there help.
        trace = [] if "\n" in said else clean_lines("\n".join(error.traceback))[-_LAST_LINES:-1]
        lines = [f"{stage} failed in cell [{error.exec_count}]", *(f"  {line}" for line in trace), said, where]
        raise NotebookFailed("\n".join(lines)) from None
    except DeadKernelError:
        # The kernel opens with a warning about its own sockets, which says nothing about its end.
        log_end = clean_lines(log_file.read_text("utf8", errors="replace"))[-_LAST_LINES:]
        said = [f"  {line}" for line in log_end if "[IPKernelApp] WARNING" not in line]
        died = f"{stage} failed: its kernel died, as when the system ends a process that takes too much memory"
        raise NotebookFailed("\n".join([died, *said, where])) from None
    if missing := what_is_missing(executed.parent):
        raise NotebookFailed(
            f"{stage} ran to its end, but is not complete ({missing}): its last cell is `run.finish(...)`"
        )
    return executed


def _kernel_manager_class(log: BinaryIO) -> type:
    """A kernel manager whose kernels run this interpreter and send what they say outside of cells to `log`.

    Jupyter looks for `python3` in the user's own folder too, where another project may have left one for its Python.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="finr1", language="python", interrupt_mode="signal")

        async def start_kernel(self, **arguments: Any) -> None:
            await super().start_kernel(**arguments, stdout=log, stderr=log)

    return ThisPython


@contextmanager
def _progress(stage: str, folder: Path) -> Iterator[None]:
    """On a terminal, a line that says how long the stage runs and how far its training is."""
    if not sys.stdout.isatty():
        yield
        return
    done, started, line = threading.Event(), time.monotonic(), ProgressLine()

    def keep_showing() -> None:
        while not done.wait(1):
            rows = read_metrics(folder)
            step = f", training step {rows[-1]['step']}/{rows[-1].get('max_steps', '?')}" if rows else ""
            line.show(f"     {stage}: {duration(time.monotonic() - started)}{step}")

    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print("\r\x1b[K", end="", flush=True)
