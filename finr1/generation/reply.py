"""What a chat completion's JSON says, of all that servers put into it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from finr1.generation.request import Completion, Job, Usage

_BROKEN_OFF = {"error", "insufficient_system_resource"}


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None  # DeepSeek, older vLLM
    reasoning: str | None = None  # newer vLLM, OpenRouter


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    error: Any = None


class _Usage(Usage):
    model_config = ConfigDict(extra="ignore")  # servers count more than we need


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    error: Any = None


def read_reply(job: Job, content: bytes) -> Completion:
    """The answer in a reply's JSON; raises `ValueError` for anything that is not one.

    Some servers say 200 and mean an error (OpenRouter), or break an answer off for lack of capacity (DeepSeek).
    """
    reply = _Reply.model_validate_json(content)
    choice, usage = reply.choices[0], reply.usage or _Usage()
    said = choice.message.content or choice.message.reasoning_content or choice.message.reasoning
    if reply.error or choice.error or choice.finish_reason in _BROKEN_OFF or not (said or choice.finish_reason):
        raise ValueError("the reply holds no answer")
    return job.completion(
        choice.message.content or "",
        reasoning=choice.message.reasoning_content or choice.message.reasoning,
        finish_reason=choice.finish_reason or "unknown",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )
