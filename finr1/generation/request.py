"""What is asked and what is answered, and the key that ties the two together."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """A chat that awaits its next assistant turn."""

    model_config = ConfigDict(extra="forbid")

    id: str | int  # the caller's own; not part of the key, so it may change without asking again
    messages: list[dict[str, Any]] = Field(min_length=1)  # [{"role": "user", "content": "..."}, ...]


class SamplingParams(BaseModel):
    """How to decode. `temperature=0` is greedy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)  # new tokens, reasoning included
    num_samples: int = Field(1, ge=1)  # answers for each request
    seed: int = 0


class Usage(BaseModel):
    """Tokens of one answer as the backend counts them; None where it does not."""

    model_config = ConfigDict(extra="forbid")

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """One answer to one request, or with `error` set, the reason why there is none."""

    model_config = ConfigDict(extra="ignore")  # a store may have been written by a later version

    key: str  # of the request, see `request_key`
    id: str | int  # of the request
    sample: int  # 0 .. num_samples - 1
    text: str  # as it came; without the reasoning where the endpoint sends that apart
    reasoning: str | None  # sent apart by the endpoint (`reasoning_content`), else what stands in <think>
    finish_reason: str  # "stop", "length", what else the endpoint says, or "error"
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
