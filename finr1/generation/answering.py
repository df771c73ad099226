"""`generate`: requests in, completions out, asking a backend only for what is not known yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Protocol

from finr1.generation.store import AnswerStore, Completion, Job, Request, SamplingParams, request_key

GIVE_UP_AFTER = 100  # failures without one answer: the server is not going to give any


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

    def unload(self) -> None:
        """Free the memory of a local model; the next use loads it again."""


class GenerationError(RuntimeError):
    """Some requests have no answer. `failures` holds them, each with its reason in `.error`."""

    def __init__(self, message: str, failures: Sequence[Completion] = ()) -> None:
        super().__init__(message)
        self.failures = list(failures)


@dataclass(frozen=True)
class Budget:
    """When to stop asking. Requests under way are still answered, so `concurrency` of them may come on top."""

    max_cost: float | None = None  # in the currency of the prices; None: no limit
    prompt_price: float = 0.0  # for a million prompt tokens
    completion_price: float = 0.0  # for a million completion tokens, reasoning included


@dataclass
class Progress:
    """How far `generate` is; as text, one plain line."""

    total: int  # different answers needed
    reused: int  # of them, from the store, at no cost
    budget: Budget = Budget()
    answered: int = 0
    failed: int = 0
    uncounted: int = 0  # answers without token counts
    tokens: int = 0  # of the answers
    cost: float = 0.0
    seconds: float = 0.0

    @property
    def spent(self) -> bool:
        """Whether the budget is used up, or cannot be kept because the server counts no tokens."""
        return self.budget.max_cost is not None and (self.cost >= self.budget.max_cost or self.uncounted > 0)

    def count(self, completions: Sequence[Completion]) -> None:
        """Add freshly arrived `completions`."""
        for completion in completions:
            usage = completion.usage
            self.answered += completion.error is None
            self.failed += completion.error is not None
            self.uncounted += completion.error is None and usage.completion_tokens is None
            self.tokens += usage.completion_tokens or 0
            self.cost += (usage.prompt_tokens or 0) * self.budget.prompt_price / 1e6
            self.cost += (usage.completion_tokens or 0) * self.budget.completion_price / 1e6

    def __str__(self) -> str:
        rate = self.answered / self.seconds if self.seconds else 0.0
        left = self.total - self.reused - self.answered - self.failed
        parts = [
            f"{self.reused + self.answered}/{self.total} answers",
            self.reused and f"{self.reused} from the store",
            self.failed and f"{self.failed} failed",
            f"{rate:.1f}/s, {self.tokens} tokens",
            self.cost and f"cost {self.cost:.2f}",
            left and rate and f"{left / rate:.0f} s left",
        ]
        return ", ".join(part for part in parts if part)


def generate(
    requests: Sequence[Request],
    sampling: SamplingParams,
    backend: Backend,
    store: AnswerStore | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    on_error: Literal["raise", "none"] = "raise",
    budget: Budget = Budget(),
) -> list[Completion]:
    """Answers to `requests`, in their order, `sampling.num_samples` in a row for each.

    What `store` holds is not asked again, equal requests are asked once, and each answer is in the store before
    anybody sees it. `on_progress` is called at most once a second, and at the end; `on_progress=print` will do.

    A request that fails for good (after the backend's retries) raises `GenerationError` once the requests under way are
    answered and stored; no further ones are begun. With `on_error="none"` all others are asked, and its place is taken
    by a completion with `finish_reason="error"`, which is not stored: running again asks again. Asking also ends after
    `GIVE_UP_AFTER` failures without one answer.

    When `budget` is spent, no further request is begun either; what is under way is stored. `GenerationError` then says
    so, or with `on_error="none"` those not asked get such a completion. A larger budget asks for the rest.
    """
    jobs = [
        Job(request, sample, request_key(request, sampling, backend.fingerprint, sample))
        for request in requests
        for sample in range(sampling.num_samples)
    ]
    unique: dict[str, Job] = {}
    for job in jobs:
        unique.setdefault(job.key, job)
    answers: dict[str, Completion] = {}
    if store is not None:
        store.refresh()
        answers = {key: store.get(key) for key in unique if key in store}
    asked = [job for key, job in unique.items() if key not in answers]
    progress = Progress(len(unique), reused=len(answers), budget=budget)

    def stop() -> bool:
        if on_error == "raise" and progress.failed:
            return True
        return progress.spent or (progress.failed >= GIVE_UP_AFTER and not progress.answered)

    started, told = time.monotonic(), 0.0
    with closing(backend.complete(asked, sampling, stop)) as groups:
        for group in groups if asked else ():
            if store is not None:  # where another process was first, its answer counts
                store.put(completion for completion in group if completion.error is None)
                group = [completion if completion.error else store.get(completion.key) for completion in group]
            answers.update((completion.key, completion) for completion in group)
            progress.count(group)
            progress.seconds = time.monotonic() - started
            if on_progress is not None and progress.seconds - told >= 1.0:
                told = progress.seconds
                on_progress(progress)
    if on_progress is not None:
        on_progress(progress)

    failures = [answer for answer in answers.values() if answer.error is not None]
    if on_error == "raise" and failures:
        message = f"{len(failures)} of {progress.total} requests failed; the first, {failures[0].id!r}: "
        message += failures[0].error
        if store is not None:
            message += f" ({progress.reused + progress.answered} answers are stored; running again asks for the others)"
        raise GenerationError(message, failures)
    why = "not asked: nothing is answered"
    if progress.spent:
        state = "cannot be kept, the server counts no tokens" if progress.uncounted else "is spent"
        why = f"not asked: the budget of {budget.max_cost} {state}"
    not_asked = {key: job.failure(why) for key, job in unique.items() if key not in answers}
    if on_error == "raise" and not_asked:
        raise GenerationError(f"{progress}; {len(not_asked)} {why}", list(not_asked.values()))
    answers.update(not_asked)
    return [answers[job.key].model_copy(update={"id": job.request.id, "sample": job.sample}) for job in jobs]
