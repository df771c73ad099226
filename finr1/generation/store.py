"""What is asked, what is answered, and the file that keeps the answers, so that a killed run never pays twice.

The file is JSONL, one line per answer. sqlite3 was weighed: users read, filter and share these files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable
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
    reasoning: str | None = None  # sent apart by the endpoint (`reasoning_content`), else what stands in <think>
    finish_reason: str = "stop"  # "stop", "length", another word of the endpoint, or "error"
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

    def completion(self, text: str, reasoning: str | None = None, **more: Any) -> Completion:
        """`text` as the answer to this job, with `more` fields; without `reasoning`, it is read from the think block.

        Templates that prefill `<think>` leave only the closing tag, and a cut answer has only the opening one.
        """
        head, closing, _ = text.partition("</think>")
        if reasoning is None and (closing or "<think>" in head):
            reasoning = head.split("<think>", 1)[-1].strip()
        asked = {"key": self.key, "id": self.request.id, "sample": self.sample}
        return Completion(**asked, text=text, reasoning=reasoning, **more)

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


class AnswerStore:
    """Append-only JSONL file of `Completion`s, keyed by `Completion.key`; the first answer to a key stays.

    `put` returns when its lines are with the operating system: they survive `kill -9` of this process (not a power
    cut; that would take an fsync for each answer). Writers hold `flock`, so several processes may share a store.
    A fragment without a newline was left by a writer that died: the next one drops it.
    """

    def __init__(self, path: str | Path) -> None:
        """Open `path`, creating it and its folder. Raises `ValueError` for a file that holds something else."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._answers: dict[str, Completion] = {}
        self._end = 0  # everything before this byte is in `_answers`
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Completion | None:
        """The answer stored under `key`, or None."""
        return self._answers.get(key)

    def refresh(self) -> None:
        """See what other processes have stored since."""
        self.put([])

    def put(self, completions: Iterable[Completion]) -> None:
        """Append the answers whose keys are new, in one write; failures are no answers and are left out.

        Raises `OSError` when the disk is full; what it cut off is dropped as any fragment is.
        """
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            self._read_new_lines()
            answers = {answer.key: answer for answer in completions if answer.error is None}
            new = [answer.model_dump_json() + "\n" for key, answer in answers.items() if key not in self._answers]
            data = "".join(new).encode()
            while data:
                data = data[os.write(self._fd, data) :]
            self._read_new_lines()
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _read_new_lines(self) -> None:
        """Take in the lines behind `_end`, and cut off a last one that its writer did not live to finish."""
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(self._end)
            for line in file:
                # Under the lock nobody else is in the middle of a line.
                if not line.endswith(b"\n") and _LINE_START.startswith(line[: len(_LINE_START)]):
                    os.ftruncate(self._fd, self._end)
                    break
                try:
                    answer = Completion.model_validate_json(line)
                except ValueError:
                    raise ValueError(f"{self.path}: this line is no stored answer: {line[:80]!r}") from None
                if answer.error is None:  # `generate` once kept failures there, too
                    self._answers.setdefault(answer.key, answer)
                self._end += len(line)
