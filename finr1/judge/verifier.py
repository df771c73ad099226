"""A model that decides what rules leave open, for the accuracy reward: in the paper Qwen2.5-Max, asked every time.

Each answer is asked about once: pass rates, training, a resumed training and all ranks share one store of replies. A
verifier that can't be reached or can't say 1 or 0 is an error before training (`Verifier.check`). A call that fails
during it gives no verdict (None, never 0), is counted, and is tried again when the answer comes up again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finr1.generation import (
    AnswerStore,
    Backend,
    EndpointBackend,
    GenerationError,
    Request,
    TransformersBackend,
    generate,
    request_key,
)
from finr1.judge.model import JUDGE_SAMPLING, check_prompt, read_reasoned

if TYPE_CHECKING:
    from finr1.params import GRPOParams

STORE_FILE = "verifier.answers.jsonl"


class Case(NamedTuple):
    """An answer to verify and, once a verifier was asked, what came of it."""

    question: str
    gold: str
    answer: str
    correct: bool | None = None  # None: no reply, or one that is neither 1 nor 0
    reason: str = ""  # the verifier's, or what went wrong
    cached: bool = False  # known from before


@dataclass(frozen=True)
class Verifier:
    """A backend to ask, a store to remember, and the order of the prompt (`judge.CHECK_PROMPTS`)."""

    backend: Backend
    store: AnswerStore | None = None
    order: str = "standard"

    def __call__(self, cases: Sequence[Case]) -> list[Case]:
        """`cases` with what the verifier says of each; a failed call never raises: its error is the reason then."""
        prompts = [check_prompt(case.question, case.gold, case.answer, self.order, with_reason=True) for case in cases]
        requests = [Request(id=i, messages=[{"role": "user", "content": prompt}]) for i, prompt in enumerate(prompts)]
        keys = [request_key(request, JUDGE_SAMPLING, self.backend.fingerprint) for request in requests]
        if self.store is not None:
            self.store.refresh()
        known = [self.store is not None and key in self.store for key in keys]
        replies = generate(requests, JUDGE_SAMPLING, self.backend, self.store, on_error="none")
        verified = []
        for case, reply, cached in zip(cases, replies, known, strict=True):
            correct, reason = read_reasoned(reply.text)
            if reply.error is not None:
                correct, reason, cached = None, f"no answer: {reply.error}", False
            elif correct is None:
                reason = f"neither 1 nor 0: {reply.text[:200]!r}"
            verified.append(case._replace(correct=correct, reason=reason, cached=cached))
        return verified

    def check(self) -> None:
        """Raise `GenerationError` unless it answers, and with a verdict, to one plain case."""
        if isinstance(self.backend, EndpointBackend):
            self.backend.check()  # knows within a second what a request finds out after its retries
        (case,) = Verifier(self.backend, order=self.order)([Case("What is 5 + 7?", "12", "It is 12.")])
        if case.correct is None:
            raise GenerationError(f"the verifier gives no verdict on a plain case: {case.reason}")

    @property
    def is_local(self) -> bool:
        """Whether the model runs in this process."""
        return isinstance(self.backend, TransformersBackend)

    def unload(self) -> None:
        """Free a local model; the next case loads it again."""
        if self.is_local:
            self.backend.unload()


def make_verifier(params: GRPOParams, stage_dir: Path) -> Verifier | None:
    """The verifier that `params` names, with its store in `stage_dir`; None for rules. Contacts no server.

    Raises `ValueError` for a missing key or an unusable address, `FileNotFoundError` for a path without a model.
    """
    name, size = params.verifier_model, params.verifier_concurrency
    if params.verifier_backend == "rules":
        return None
    if params.verifier_backend == "transformers":
        backend: Backend = TransformersBackend(name, batch_size=size)
    else:  # a training step waits for the slowest of its answers
        how = {"api_key_env": params.key_env, "concurrency": size, "timeout": 60.0, "max_retries": 3}
        backend = EndpointBackend(params.verifier_base_url, name, **how)
    return Verifier(backend, AnswerStore(stage_dir / STORE_FILE))
