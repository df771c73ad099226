"""Answers on disk, one JSON object a line, so that a killed run never pays twice."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from finr1.generation.request import Completion

_LINE_START = b'{"key":"'
_BLOCK = 1 << 20  # bytes read at once


class AnswerStore:
    """Append-only JSONL file of `Completion`s, keyed by `Completion.key`; the first answer to a key stays.

    `put` returns when its lines are with the operating system: they survive `kill -9` of this process (not a power
    cut; that would take an fsync for each answer). Writers hold `flock`, so several processes may share a store.
    A fragment without a newline was left by a writer that died: the next one drops it. Memory: the keys and where
    their lines stand, not the answers.
    """

    def __init__(self, path: str | Path) -> None:
        """Open `path`, creating it and its folder.

        Warns about whole lines that are no answers and leaves them alone; raises `ValueError` when the last line is a
        fragment of something else.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._threads = threading.Lock()  # flock excludes processes, not the threads of one
        self._open()
        self.refresh()

    def rewrite(self, rows: Iterable[Completion]) -> None:
        """Replace the file by `rows` in their order, failures included, and behind them what it holds of other ids.

        Atomic, and safe beside other writers: they see the new file at their next call.
        """
        with self._locked():
            rows = list(rows)
            ours, target = {row.id for row in rows}, self.path.resolve()
            temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            with temporary.open("wb") as new, open(target, "rb") as old:
                for row in rows:
                    new.write(row.model_dump_json().encode() + b"\n")
                for line in old:
                    record = _read_line(line)
                    if record is None or (record["error"] is None and record["id"] not in ours):
                        new.write(line)
            os.replace(temporary, target)

    def get(self, key: str) -> Completion | None:
        """The answer stored under `key`, or None."""
        if key not in self._lines:
            return None
        offset, length = self._lines[key]
        return Completion.model_validate_json(os.pread(self._fd, length, offset))

    def put(self, completions: Iterable[Completion]) -> None:
        """Append the answers whose keys are new, all in one write.

        Raises `ValueError` for a completion with an error (a failure is no answer) and `OSError` when the disk is full;
        the file then is as it was before.
        """
        lines: dict[str, bytes] = {}
        for completion in completions:
            if completion.error is not None:
                raise ValueError(f"request {completion.id!r} failed; only answers are stored")
            lines.setdefault(completion.key, completion.model_dump_json().encode() + b"\n")
        with self._locked():
            self._append(b"".join(line for key, line in lines.items() if key not in self._lines))

    def refresh(self) -> None:
        """See what other processes have stored since."""
        with self._locked():
            pass

    def close(self) -> None:
        """Close the file; the store can't be used afterwards."""
        os.close(self._fd)

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def _open(self) -> None:
        self._lines: dict[str, tuple[int, int]] = {}  # key -> (offset, length), bytes
        self._end = 0  # everything before this byte is in `_lines`
        self.strange = 0  # lines that are no answers
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)

    def _is_replaced(self) -> bool:
        """Whether another file has taken the path, see `rewrite`."""
        return not self.path.exists() or os.stat(self.path).st_ino != os.fstat(self._fd).st_ino

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file alone; inside, it ends with a whole line and `_lines` is up to date."""
        with self._threads:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            while self._is_replaced():
                os.close(self._fd)  # lets go of the lock, too
                self._open()
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                self._drop_torn_line()
                self._read_new_lines()
                yield
                self._read_new_lines()
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _drop_torn_line(self) -> None:
        """Cut the file after its last newline. Under the lock nobody else is in the middle of a line."""
        size = keep = os.fstat(self._fd).st_size
        while keep > self._end and os.pread(self._fd, 1, keep - 1) != b"\n":
            start = max(self._end, keep - 65536)
            keep = start + os.pread(self._fd, keep - start, start).rfind(b"\n") + 1
        if keep == size:
            return
        if not _LINE_START.startswith(os.pread(self._fd, len(_LINE_START), keep)):
            raise ValueError(f"{self.path} is no store of answers: its last line is something else")
        os.ftruncate(self._fd, keep)

    def _read_new_lines(self) -> None:
        strange: list[int] = []
        for line in self._new_lines():
            record = _read_line(line)
            if record is None:
                strange.append(self._end)
            elif record["error"] is None:  # failures stand there for the reader alone
                self._lines.setdefault(record["key"], (self._end, len(line)))
            self._end += len(line)
        if strange:
            self.strange += len(strange)
            where = f"{len(strange)} lines, the first at byte {strange[0]},"
            warnings.warn(f"{self.path}: {where} are no answers; they are ignored", stacklevel=5)

    def _new_lines(self) -> Iterator[bytes]:
        """The lines behind `_end`, which is no file of its own: sockets may have taken all descriptors."""
        offset, begun = self._end, b""
        while block := os.pread(self._fd, _BLOCK, offset):
            offset += len(block)
            *whole, begun = (begun + block).split(b"\n")
            yield from (line + b"\n" for line in whole)

    def _append(self, lines: bytes) -> None:
        written = os.write(self._fd, lines) if lines else 0
        if written < len(lines):
            os.ftruncate(self._fd, self._end)
            raise OSError(f"{self.path}: only {written} of {len(lines)} bytes could be written; is the disk full?")


def _read_line(line: bytes) -> dict | None:
    """The record of a line, or None for a line that is no `Completion`."""
    try:
        record = json.loads(line)
        return record if Completion.model_fields.keys() <= record.keys() else None
    except (ValueError, AttributeError, RecursionError):
        return None
