"""A model that decides what rules leave open, for the accuracy reward: in the paper Qwen2.5-Max, asked every time.

Each answer is asked about once: replies lie in `<stage>/verifier.answers.jsonl`, which pass rates, training, a resumed
training and all ranks share (`AnswerStore` locks it). The prompt is the judge's answer check, which fences the answer
in and takes out what a chat template would read as its own; the reply's first line is the verdict, its second the
reason.

A verifier that can't be reached or can't say 1 or 0 is an error before training (`check`). A call that fails during it
gives no verdict (None, never 0), is counted and is tried again when the answer comes up again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finr1 import judge
from finr1.generation import (
    AnswerStore,
    Backend,
    Completion,
    EndpointBackend,
    GenerationError,
    Request,
    TransformersBackend,
    generate,
    request_key,
)

if TYPE_CHECKING:
    from finr1.params import GRPOParams

STORE_FILE = "verifier.answers.jsonl"
_TIMEOUT, _RETRIES = 60.0, 3  # seconds and further attempts: a step waits for the slowest of its answers


class Case(NamedTuple):
    """What is to be verified."""

    question: str
    gold: str
    answer: str


class Opinion(NamedTuple):
    """What came of it."""

    correct: bool | None  # None: no reply, or one that is neither 1 nor 0
    reason: str  # the verifier's, or what went wrong
    cached: bool  # known from before


@dataclass(frozen=True)
class Verifier:
    """A backend to ask, a store to remember, and the order of the prompt (`judge.CHECK_ORDERS`)."""

    backend: Backend
    store: AnswerStore | None = None
    order: str = "standard"

    def __call__(self, cases: Sequence[Case]) -> list[Opinion]:
        """An opinion on each of `cases`, in their order; equal ones are asked once. Raises for nothing that fails."""
        requests = [
            Request(id=i, messages=[{"role": "user", "content": judge.check_prompt(*case, self.order, True)}])
            for i, case in enumerate(cases)
        ]
        keys = [request_key(request, judge.JUDGE_SAMPLING, self.backend.fingerprint) for request in requests]
        if self.store is not None:
            self.store.refresh()
        known = [self.store is not None and key in self.store for key in keys]
        replies = generate(requests, judge.JUDGE_SAMPLING, self.backend, self.store, on_error="none")
        return [_opinion(*pair) for pair in zip(replies, known, strict=True)]

    def check(self) -> None:
        """Raise `GenerationError` unless it answers, and with a verdict, to one plain case."""
        if isinstance(self.backend, EndpointBackend):
            self.backend.check()  # knows within a second what a request finds out after its retries
        (opinion,) = Verifier(self.backend, order=self.order)([Case("What is 5 + 7?", "12", "It is 12.")])
        if opinion.correct is None:
            raise GenerationError(f"the verifier gives no verdict on a plain case: {opinion.reason}")

    @property
    def is_local(self) -> bool:
        """Whether the model runs in this process."""
        return isinstance(self.backend, TransformersBackend)

    def unload(self) -> None:
        """Free a local model; the next case loads it again."""
        if self.is_local:
            self.backend.unload()


def make_verifier(params: GRPOParams, stage_dir: Path) -> Verifier | None:
    """The verifier that `params` names, with its store in `stage_dir`; None for rules. Reaches nothing: see `check`.

    Raises `ValueError` for a missing key or an unusable address, `FileNotFoundError` for a path without a model.
    """
    name, size = params.verifier_model, params.verifier_concurrency
    if params.verifier_backend == "rules":
        return None
    backend: Backend
    if params.verifier_backend == "endpoint":
        backend = EndpointBackend(
            params.verifier_base_url,
            name,
            api_key_env=params.key_env,
            concurrency=size,
            timeout=_TIMEOUT,
            max_retries=_RETRIES,
        )
    else:
        backend = TransformersBackend(name, batch_size=size)
    return Verifier(backend, AnswerStore(stage_dir / STORE_FILE), params.check_order)


def _opinion(reply: Completion, cached: bool) -> Opinion:
    if reply.error is not None:
        return Opinion(None, f"no answer: {reply.error}", False)
    correct, reason = judge.read_reasoned(reply.text)
    return Opinion(correct, f"neither 1 nor 0: {reply.text[:200]!r}" if correct is None else reason, cached)
