"""One process at a time, by a lock on a file. The system drops it when its holder dies: nothing is left to clean up."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finr1.paths import MessageAlone, shown


class Busy(MessageAlone, RuntimeError):
    """Another process is at work there."""


@contextmanager
def lock(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold `path`; where another process does, say `what` it does and wait, or without `wait` raise Busy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"process {file.read() or '(just started)'} {what}"
            if not wait:
                raise Busy(f"{holder}: wait or end it") from None
            print(f"{holder}: waiting for it ({shown(path)})", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
