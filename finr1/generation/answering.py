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


class BudgetSpent(GenerationError):
    """The budget is spent; what is answered is stored, and running again with a larger one asks for the rest."""


@dataclass(frozen=True)
class Budget:
    """When to stop asking. Requests under way are still answered, so `concurrency` of them may come on top."""

    max_cost: float | None = None  # in the currency of the prices; None: no limit
    prompt_price: float = 0.0  # for a million prompt tokens
    completion_price: float = 0.0  # for a million completion tokens, reasoning included

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6


@dataclass
class Progress:
    """How far `generate` is; as text, one plain line."""

    total: int  # different answers needed
    reused: int  # of them, found in the store
    budget: Budget = Budget()
    answered: int = 0
    failed: int = 0
    uncounted: int = 0  # answers without token counts
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
        if self.cost:
            line += f", cost {self.cost:.2f}"
        if left and rate:
            line += f", {left / rate:.0f} s left"
        return line

    @property
    def cost(self) -> float:
        """Of the answers of this run, those from the store apart."""
        return self.budget.cost(self.prompt_tokens, self.completion_tokens)

    @property
    def spent(self) -> bool:
        """Whether the budget is used up, or cannot be kept because the server counts no tokens."""
        return self.budget.max_cost is not None and (self.cost >= self.budget.max_cost or self.uncounted > 0)

    def count(self, completions: Sequence[Completion]) -> None:
        """Add freshly arrived `completions`."""
        for completion in completions:
            self.answered += completion.error is None
            self.failed += completion.error is not None
            self.uncounted += completion.error is None and completion.usage.completion_tokens is None
            self.prompt_tokens += completion.usage.prompt_tokens or 0
            self.completion_tokens += completion.usage.completion_tokens or 0


def generate(
    requests: Sequence[Request],
    sampling: SamplingParams,
    backend: Backend,
    store: AnswerStore | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    on_error: Literal["raise", "none"] = "raise",
    budget: Budget = Budget(),
    give_up_after: int = 100,
) -> list[Completion]:
    """Answers to `requests`, in their order, `sampling.num_samples` in a row for each.

    What `store` holds is not asked again, equal requests are asked once, and each answer is in the store before
    anybody sees it. `on_progress` is called at most once a second, and at the end; `on_progress=print` will do.

    A request that fails for good (after the backend's retries) raises `GenerationError` once the requests under way are
    answered and stored; no further ones are begun. With `on_error="none"` all others are asked, and its place is taken
    by a completion with `finish_reason="error"`, which is not stored: running again asks again. Unless nothing is ever
    answered: after `give_up_after` failures without one answer, no further request is begun.

    When `budget` is spent, no further request is begun either; what is under way is stored. Then `BudgetSpent` is
    raised, or with `on_error="none"` those not asked get such a completion.
    """
    jobs = _jobs(requests, sampling, backend.fingerprint)
    answers = _stored_answers(jobs, store)
    unique: dict[str, Job] = {}
    for job in jobs:
        unique.setdefault(job.key, job)
    asked = [job for job in unique.values() if job.key not in answers]
    progress, tell = Progress(len(unique), reused=len(answers), budget=budget), _once_a_second(on_progress)

    def stop() -> bool:
        hopeless = progress.failed >= (1 if on_error == "raise" else give_up_after)
        return progress.spent or (hopeless and (on_error == "raise" or not progress.answered))

    with closing(backend.complete(asked, sampling, stop)) as groups:
        for group in groups if asked else ():
            answers.update((completion.key, completion) for completion in _stored(group, store))
            progress.count(group)
            tell(progress)
    tell(progress, last=True)
    failures = [answer for answer in answers.values() if answer.error is not None]
    if on_error == "raise" and failures:
        raise _error(failures, progress, store)
    why = "not asked: nothing is answered"
    if progress.spent:
        why = f"not asked: the budget of {budget.max_cost} is spent"
    if progress.spent and progress.uncounted:
        why = f"not asked: the budget of {budget.max_cost} cannot be kept, the server counts no tokens"
    not_asked = {key: job.failure(why) for key, job in unique.items() if key not in answers}
    if on_error == "raise" and not_asked:
        raise BudgetSpent(f"{progress}; {len(not_asked)} {why}", list(not_asked.values()))
    answers.update(not_asked)
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
