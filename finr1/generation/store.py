"""What is asked, what is answered, and the file that keeps the answers, so that a killed run never pays twice.

The file is JSONL, one line per answer. sqlite3 was weighed: its store would be half as long, but users read, filter and
share these files, `python -m finr1 generate --output` writes one anyway, and old run folders hold them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

_LINE_START = b'{"key":"'


class Request(BaseModel):
    """A chat that awaits its next assistant turn."""

    id: str | int  # the caller's own; not part of the key, so it may change without asking again
    messages: list[dict[str, Any]] = Field(min_length=1)  # [{"role": "user", "content": "..."}, ...]


class SamplingParams(BaseModel):
    """How to decode. `temperature=0` is greedy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)  # new tokens, reasoning included
    num_samples: int = Field(1, ge=1)  # answers for each request
    seed: int = 0  # of the first sample


class Usage(BaseModel):
    """Tokens of one answer as the backend counts them; None where it does not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """One answer to one request, or with `error` set, the reason why there is none."""

    key: str  # of the request, see `request_key`
    id: str | int  # of the request
    sample: int  # 0 .. num_samples - 1
    text: str  # as it came; without the reasoning where the endpoint sends that apart
    reasoning: str | None  # sent apart by the endpoint (`reasoning_content`), else what stands in <think>
    finish_reason: str  # "stop", "length", another word of the endpoint, or "error"
    usage: Usage = Usage()
    error: str | None = None

    @property
    def tagged(self) -> str:
        """`text` with its reasoning in a think block, wherever the backend put it."""
        if self.reasoning is None or "<think>" in self.text or "</think>" in self.text:
            return self.text
        return f"<think>{self.reasoning}</think>{self.text}"


class Job(NamedTuple):
    """One answer that a backend is to fetch."""

    request: Request
    sample: int
    key: str

    def completion(
        self,
        text: str,
        *,
        reasoning: str | None = None,
        finish_reason: str = "stop",
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        error: str | None = None,
    ) -> Completion:
        """`text` as the answer to this job; without `reasoning`, its think block is looked up."""
        return Completion(
            key=self.key,
            id=self.request.id,
            sample=self.sample,
            text=text,
            reasoning=think_text(text) if reasoning is None else reasoning,
            finish_reason=finish_reason,
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
            error=error,
        )

    def failure(self, error: str) -> Completion:
        """This job without an answer, because of `error`."""
        return self.completion("", finish_reason="error", error=error)


def request_key(request: Request, sampling: SamplingParams, fingerprint: str, sample: int = 0) -> str:
    """SHA-256 (hex) of everything that the answer depends on: chat, decoding, backend, and which sample it is.

    `num_samples` is left out: a run that asks for more samples reuses those it has.
    """
    question = {
        "messages": request.messages,
        "sampling": sampling.model_dump(exclude={"num_samples"}),
        "backend": fingerprint,
        "sample": sample,
    }
    canonical = json.dumps(question, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def think_text(text: str) -> str | None:
    """What stands in the first think block of `text`; None without one.

    Templates that prefill `<think>` leave only the closing tag in the text, and a cut answer has only the opening one.
    """
    head, closing, _ = text.partition("</think>")
    before, opening, inside = head.partition("<think>")
    if opening:
        return inside.strip()
    return before.strip() if closing else None


class AnswerStore:
    """Append-only JSONL file of `Completion`s, keyed by `Completion.key`; the first answer to a key stays.

    `put` returns when its lines are with the operating system: they survive `kill -9` of this process (not a power
    cut; that would take an fsync for each answer). Writers hold `flock`, so several processes may share a store.
    A fragment without a newline was left by a writer that died: the next one drops it. Memory holds the keys and where
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

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, key: str) -> Completion | None:
        """The answer stored under `key`, or None."""
        if key not in self._lines:
            return None
        offset, length = self._lines[key]
        return Completion.model_validate_json(os.pread(self._fd, length, offset))

    def refresh(self) -> None:
        """See what other processes have stored since."""
        with self._locked():
            pass

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
            new = b"".join(line for key, line in lines.items() if key not in self._lines)
            written = os.write(self._fd, new) if new else 0
            if written < len(new):
                os.ftruncate(self._fd, self._end)
                raise OSError(f"{self.path}: only {written} of {len(new)} bytes could be written; is the disk full?")
            self._read_new_lines()

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

    def _open(self) -> None:
        self._lines: dict[str, tuple[int, int]] = {}  # key -> (offset, length), bytes
        self._end = 0  # everything before this byte is in `_lines`
        self.strange = 0  # lines that are no answers
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file alone; inside, it ends with a whole line and `_lines` is up to date."""
        with self._threads:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            # `rewrite`, here or in another process, may have put another file at the path.
            while not self.path.exists() or os.stat(self.path).st_ino != os.fstat(self._fd).st_ino:
                os.close(self._fd)  # lets go of the lock, too
                self._open()
                fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                self._read_new_lines()
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _read_new_lines(self) -> None:
        """Index the lines behind `_end`, and cut off a last one that its writer did not live to finish."""
        strange: list[int] = []
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):  # under the lock nobody else is in the middle of a line
                    if not _LINE_START.startswith(line[: len(_LINE_START)]):
                        raise ValueError(f"{self.path} is no store of answers: its last line is something else")
                    os.ftruncate(self._fd, self._end)
                    break
                record = _read_line(line)
                if record is None:
                    strange.append(self._end)
                elif record["error"] is None:  # failures stand there for people to read
                    self._lines.setdefault(record["key"], (self._end, len(line)))
                self._end += len(line)
        if strange:
            self.strange += len(strange)
            where = f"{len(strange)} lines, the first at byte {strange[0]},"
            warnings.warn(f"{self.path}: {where} are no answers; they are ignored", stacklevel=5)


def _read_line(line: bytes) -> dict | None:
    """The record of a line, or None for a line that is no `Completion`."""
    try:
        record = json.loads(line)
        return record if Completion.model_fields.keys() <= record.keys() else None
    except (ValueError, AttributeError, RecursionError):
        return None
