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

_TRACEBACK_LINES = 12


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
    try:
        with (executed.parent / KERNEL_LOG).open("wb") as log, _progress(stage, executed.parent):
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
        raise NotebookFailed(_what_happened(stage, executed, error)) from None
    except DeadKernelError:
        raise NotebookFailed(_how_it_died(stage, executed)) from None
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


def _what_happened(stage: str, executed: Path, error: Exception) -> str:
    what = "\n".join(clean_lines(f"{error.ename}: {error.evalue}"))
    # Our own errors say all; of others, the lines that led there help.
    lines = [] if "\n" in what else clean_lines("\n".join(error.traceback))[-_TRACEBACK_LINES:-1]
    trace = "".join(f"  {line}\n" for line in lines)
    return f"{stage} failed in cell [{error.exec_count}]\n{trace}{what}\nThe executed notebook: {shown(executed)}"


def _how_it_died(stage: str, executed: Path) -> str:
    log = executed.with_name(KERNEL_LOG)
    lines = clean_lines(log.read_text("utf8", errors="replace"))
    # The kernel opens with a warning about its own sockets, which says nothing about its end.
    said = "".join(f"  {line}\n" for line in lines[-_TRACEBACK_LINES:] if "[IPKernelApp] WARNING" not in line)
    return (
        f"{stage} failed: its kernel died, as when the system ends a process that takes too much memory\n{said}"
        f"The executed notebook: {shown(executed)}"
    )


@contextmanager
def _progress(stage: str, folder: Path) -> Iterator[None]:
    """On a terminal, a line that says how long the stage runs and how far its training is."""
    if not sys.stdout.isatty():
        yield
        return
    done, started, line = threading.Event(), time.monotonic(), ProgressLine()

    def show() -> None:
        while not done.wait(1):
            rows = read_metrics(folder)
            step = f", training step {rows[-1]['step']}/{rows[-1].get('max_steps', '?')}" if rows else ""
            line.show(f"     {stage}: {duration(time.monotonic() - started)}{step}")

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print("\r\x1b[K", end="", flush=True)
