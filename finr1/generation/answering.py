"""`generate`: requests in, completions out, asking a backend only for what is not known yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Protocol

from finr1.generation.store import AnswerStore, Completion, Job, Request, SamplingParams, request_key


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
    """Some requests have no answer."""


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
    answered: int = 0
    failed: int = 0
    uncounted: int = 0  # answers without token counts
    tokens: int = 0  # of the answers
    cost: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        done = f"{self.reused + self.answered}/{self.total} answers, {self.reused} from the store, {self.failed} failed"
        rate = self.answered / self.seconds if self.seconds else 0.0
        return f"{done}, {rate:.1f}/s, {self.tokens} tokens, cost {self.cost:.2f}"


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

    No further request is begun once `budget` is spent (or can't be kept, because the server counts no tokens), or once
    one has failed for good, after the backend's retries; those under way are answered and stored. Then
    `GenerationError` is raised. With `on_error="none"` failures end nothing, and each request without an answer gets a
    completion with `error` set. None of these is stored: running again asks again.
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
    progress = Progress(len(unique), reused=len(answers))

    def why_stop() -> str:
        if budget.max_cost is not None and progress.uncounted:
            return f"the budget of {budget.max_cost} cannot be kept, the server counts no tokens"
        if budget.max_cost is not None and progress.cost >= budget.max_cost:
            return f"the budget of {budget.max_cost} is spent"
        return "another request failed" if on_error == "raise" and progress.failed else ""

    started, told = time.monotonic(), 0.0
    with closing(backend.complete(asked, sampling, lambda: bool(why_stop()))) as groups:
        for group in groups if asked else ():
            if store is not None:  # where another process was first, its answer counts
                store.put(group)
                group = [completion if completion.error else store.get(completion.key) for completion in group]
            for completion in group:
                answers[completion.key] = completion
                prompt, written = completion.usage.prompt_tokens, completion.usage.completion_tokens
                progress.failed += completion.error is not None
                progress.answered += completion.error is None
                progress.uncounted += completion.error is None and written is None
                progress.tokens += written or 0
                progress.cost += ((prompt or 0) * budget.prompt_price + (written or 0) * budget.completion_price) / 1e6
            progress.seconds = time.monotonic() - started
            if on_progress is not None and progress.seconds - told >= 1.0:
                told = progress.seconds
                on_progress(progress)
    if on_progress is not None:
        on_progress(progress)

    for key, job in unique.items():
        if key not in answers:
            answers[key] = job.failure(f"not asked: {why_stop()}")
    failures = [answer for answer in answers.values() if answer.error is not None]
    if on_error == "raise" and failures:
        first = f"the first, {failures[0].id!r}: {failures[0].error}"
        raise GenerationError(f"{len(failures)} of {progress.total} requests have no answer; {first}")
    return [answers[job.key].model_copy(update={"id": job.request.id, "sample": job.sample}) for job in jobs]
