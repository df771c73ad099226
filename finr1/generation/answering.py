"""`generate`: requests in, completions out, asking a backend only for what is not known yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Protocol

from finr1.generation.request import Completion, Job, Request, SamplingParams, request_key
from finr1.generation.store import AnswerStore


class Backend(Protocol):
    """Whatever can answer. Implementations share no code, so they share no base class."""

    @property
    def fingerprint(self) -> str:
        """Names what the answers depend on besides the request (model, endpoint, dtype); never a secret."""

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` in any order, in groups as they get ready.

        Once `stop()` is true, begin nothing new and yield what is under way. A job that can't be answered yields a
        completion with `error` set. Closing the iterator gives up what is under way.
        """


class GenerationError(RuntimeError):
    """Some requests have no answer. `failures` holds them, each with its reason in `.error`."""

    def __init__(self, message: str, failures: Sequence[Completion] = ()) -> None:
        super().__init__(message)
        self.failures = list(failures)


@dataclass
class Progress:
    """How far `generate` is; as text, one plain line."""

    total: int  # different answers needed
    reused: int  # of them, found in the store
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        rate = self.answered / self.seconds if self.seconds else 0.0
        left = self.total - self.reused - self.answered - self.failed
        line = f"{self.reused + self.answered}/{self.total} answers"
        if self.reused:
            line += f", {self.reused} from the store"
        if self.failed:
            line += f", {self.failed} failed"
        line += f", {rate:.1f}/s, {self.completion_tokens} tokens"
        if left and rate:
            line += f", {left / rate:.0f} s left"
        return line

    def count(self, completions: Sequence[Completion]) -> None:
        """Add freshly arrived `completions`."""
        for completion in completions:
            self.answered += completion.error is None
            self.failed += completion.error is not None
            self.prompt_tokens += completion.prompt_tokens or 0
            self.completion_tokens += completion.completion_tokens or 0


def generate(
    requests: Sequence[Request],
    sampling: SamplingParams,
    backend: Backend,
    store: AnswerStore | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    on_error: Literal["raise", "none"] = "raise",
) -> list[Completion]:
    """Answers to `requests`, in their order, `sampling.num_samples` in a row for each.

    What `store` holds is not asked again, equal requests are asked once, and each answer is in the store before
    anybody sees it. `on_progress` is called at most once a second, and at the end; `on_progress=print` will do.

    A request that fails for good (after the backend's retries) raises `GenerationError` once the requests under way are
    answered and stored; no further ones are begun. With `on_error="none"` all others are asked, and its place is taken
    by a completion with `finish_reason="error"`, which is not stored: running again asks again.
    """
    jobs = _jobs(requests, sampling, backend.fingerprint)
    answers = _stored_answers(jobs, store)
    unique: dict[str, Job] = {}
    for job in jobs:
        unique.setdefault(job.key, job)
    asked = [job for job in unique.values() if job.key not in answers]
    progress, tell = Progress(total=len(unique), reused=len(answers)), _once_a_second(on_progress)

    def stop() -> bool:
        return on_error == "raise" and progress.failed > 0

    with closing(backend.complete(asked, sampling, stop)) as groups:
        for group in groups if asked else ():
            answers.update((completion.key, completion) for completion in _stored(group, store))
            progress.count(group)
            tell(progress)
    tell(progress, last=True)
    if stop():
        raise _error([answer for answer in answers.values() if answer.error is not None], progress, store)
    return [answers[job.key].model_copy(update={"id": job.request.id, "sample": job.sample}) for job in jobs]


def _jobs(requests: Sequence[Request], sampling: SamplingParams, fingerprint: str) -> list[Job]:
    return [
        Job(request, sample, request_key(request, sampling, fingerprint, sample))
        for request in requests
        for sample in range(sampling.num_samples)
    ]


def _stored_answers(jobs: Sequence[Job], store: AnswerStore | None) -> dict[str, Completion]:
    if store is None:
        return {}
    store.refresh()
    return {job.key: store.get(job.key) for job in jobs if job.key in store}


def _stored(group: list[Completion], store: AnswerStore | None) -> list[Completion]:
    """`group` once its answers are on disk; where another process was first, its answer."""
    if store is None:
        return group
    store.put(completion for completion in group if completion.error is None)
    return [completion if completion.error is not None else store.get(completion.key) for completion in group]


def _once_a_second(on_progress: Callable[[Progress], object] | None) -> Callable[..., None]:
    """`on_progress` with a brake, and the clock of `Progress.seconds`."""
    start = told = time.monotonic()

    def tell(progress: Progress, last: bool = False) -> None:
        nonlocal told
        now = time.monotonic()
        progress.seconds = now - start
        if on_progress is not None and (last or now - told >= 1.0):
            told = now
            on_progress(progress)

    return tell


def _error(failures: list[Completion], progress: Progress, store: AnswerStore | None) -> GenerationError:
    first = failures[0]
    message = f"{len(failures)} of {progress.total} requests failed; the first, {first.id!r}: {first.error}"
    if store is not None:
        message += f" ({progress.reused + progress.answered} answers are stored; running again asks for the others)"
    return GenerationError(message, failures)
