"""Answers from any server that speaks OpenAI's chat completions: DeepSeek, vLLM, OpenAI, `transformers serve`.

The `openai` package sends the requests and retries them: connection errors, time-outs, 408, 409, 429 and every 5xx,
after the server's Retry-After (up to 120 s; a longer one means failure) or else after 0.5, 1, 2, 4, 8, 8 ... s less up
to a quarter by chance. It does not look into a reply that arrived, so replies that make no sense (cut JSON, no choices)
are asked for again here, out of the same budget of retries.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from finr1.generation.answering import GenerationError
from finr1.generation.request import Completion, Job, Request, SamplingParams

if TYPE_CHECKING:
    from openai import AsyncOpenAI

DEFAULT_KEY_ENV = "FINR1_API_KEY"
_NO_KEY = "none"  # what a server without authentication is sent
_CHECK_TIMEOUT = 30.0  # seconds
_OURS = {"model", "messages", "stream", "n"}  # parts of the request that `extra` must not change


@dataclass
class EndpointBackend:
    """Chat completions of `model` at `base_url`, `concurrency` requests at a time.

    The key comes from the environment variable `api_key_env`; for the default name, OPENAI_API_KEY stands in. Servers
    on this machine need none. It is read when it is used and kept nowhere. `timeout` (s) is the longest silence of the
    server within one attempt. `extra` goes into every request's body as it is; None removes a field that we would send,
    e.g. `{"max_tokens": None, "max_completion_tokens": 4096}`.

    Raises `ValueError` for a missing or unusable key, a URL that is none or holds a secret, and wrong numbers. May be
    used inside a running event loop (Jupyter): its own runs in a thread of its own.
    """

    base_url: str
    model: str
    api_key_env: str = DEFAULT_KEY_ENV
    concurrency: int = 16
    timeout: float = 600.0
    max_retries: int = 6
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.username or url.password or url.query:
            raise ValueError(f"base_url must be a bare address; put the key into {self.api_key_env}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url={self.base_url!r} is no address such as https://api.deepseek.com/v1")
        if self.concurrency < 1 or self.max_retries < 0 or self.timeout <= 0:
            numbers = f"concurrency={self.concurrency}, max_retries={self.max_retries}, timeout={self.timeout}"
            raise ValueError(f"{numbers}: need at least 1, at least 0, more than 0")
        if clash := _OURS & self.extra.keys():
            raise ValueError(f"extra must not set {sorted(clash)}")
        self._key()

    @property
    def fingerprint(self) -> str:
        what = {"endpoint": self.base_url.rstrip("/"), "model": self.model, "extra": self.extra}
        return json.dumps(what, sort_keys=True)

    def check(self) -> None:
        """Raise `GenerationError` unless the server answers, takes the key and knows the model.

        Asks for the list of models; where that does not name the model, for one token.
        """
        from anyio.from_thread import start_blocking_portal

        with start_blocking_portal() as portal:
            problem = portal.call(self._find_problem)
        if problem:
            raise GenerationError(f"endpoint {self.base_url}, model {self.model!r}: {problem}")

    def complete(
        self, jobs: Sequence[Job], sampling: SamplingParams, stop: Callable[[], bool]
    ) -> Iterator[list[Completion]]:
        """Answer `jobs` one by one as the server does, see `Backend`. Sample k is asked with seed + k."""
        from anyio.from_thread import start_blocking_portal

        answers: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        # Leaving the block early, by an exception or because the caller closes us, cancels what is under way.
        with start_blocking_portal() as portal:
            asking = portal.start_task_soon(self._ask_all, jobs, sampling, stop, answers)
            while (answer := answers.get()) is not None:
                yield [answer]
            asking.result()

    # ---- inside the event loop --------------------------------------------------------------------------------------

    async def _ask_all(self, jobs: Sequence[Job], sampling: SamplingParams, stop, answers: queue.SimpleQueue) -> None:
        """Put the answers to `jobs` into `answers` as they come, then None."""
        waiting = iter(jobs)

        async def work(client: AsyncOpenAI) -> None:
            for job in waiting:  # shared: each worker takes the next one that nobody has
                if stop():
                    return
                answers.put(await self._ask(client, job, sampling))

        try:
            async with self._client(self.timeout) as client, asyncio.TaskGroup() as workers:
                for _ in range(min(self.concurrency, len(jobs))):
                    workers.create_task(work(client))
        finally:
            answers.put(None)

    async def _ask(self, client: AsyncOpenAI, job: Job, sampling: SamplingParams) -> Completion:
        from openai import OpenAIError

        retries = self.max_retries
        while True:
            try:
                reply = await client.chat.completions.with_raw_response.create(
                    model=self.model, messages=job.request.messages, extra_body=self._body(job, sampling)
                )
                return _read_reply(job, reply.content)
            except ValidationError:
                retries -= reply.retries_taken + 1
                if retries < 0:
                    return job.failure(self._redact(f"the server's reply makes no sense: {reply.content[:200]!r}"))
                client = client.with_options(max_retries=retries)
                await asyncio.sleep(random.uniform(0.4, 0.5))
            except (OpenAIError, ValueError, TypeError) as error:  # the last two: messages that no JSON can hold
                return job.failure(self._describe(error))

    async def _find_problem(self) -> str | None:
        import openai

        async with self._client(min(self.timeout, _CHECK_TIMEOUT), max_retries=1) as client:
            try:
                served = {model.id async for model in client.models.list()}
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.APIConnectionError) as error:
                return self._describe(error)
            except (openai.OpenAIError, ValueError, TypeError, AttributeError):
                served = set()  # no such route, or a list of its own kind: the token decides
            if self.model in served:
                return None
            probe = Job(Request(id="check", messages=[{"role": "user", "content": "1"}]), sample=0, key="")
            return (await self._ask(client, probe, SamplingParams(max_tokens=1))).error

    def _client(self, timeout: float, max_retries: int | None = None) -> AsyncOpenAI:
        import openai

        # Unless told otherwise the library adds the ids of the user's OpenAI account to requests for any server.
        account = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key(),
            max_retries=self.max_retries if max_retries is None else max_retries,
            timeout=openai.Timeout(timeout, connect=min(timeout, 10.0)),
            default_headers=account,
            # A proxy from the environment can't reach this machine's own servers.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not self._is_local()),
        )

    def _body(self, job: Job, sampling: SamplingParams) -> dict[str, Any]:
        body = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed + job.sample,
        }
        return {name: value for name, value in {**body, **self.extra}.items() if value is not None}

    # ---- the key ----------------------------------------------------------------------------------------------------

    def _is_local(self) -> bool:
        return urlsplit(self.base_url).hostname in ("localhost", "127.0.0.1", "::1")

    def _key(self) -> str:
        names = [self.api_key_env] + ["OPENAI_API_KEY"] * (self.api_key_env == DEFAULT_KEY_ENV)
        for name in names:
            key = os.environ.get(name, "").strip()
            if key and not (key.isascii() and key.isprintable()):
                raise ValueError(f"the key in {name} has characters that no key has")
            if key:
                return key
        if self._is_local():
            return _NO_KEY
        raise ValueError(
            f"no API key for {self.base_url}: set the environment variable {' or '.join(names)} "
            f"({self.api_key_env}={_NO_KEY} for a server that wants no key)"
        )

    def _redact(self, text: str) -> str:
        """`text` without the key: servers quote it when they refuse it."""
        key = self._key()
        return text if key == _NO_KEY else text.replace(key, "***")

    def _describe(self, error: Exception) -> str:
        import openai

        if isinstance(error, openai.APITimeoutError):
            text = "no answer before the time-out"
        elif isinstance(error, openai.APIConnectionError):
            text = f"no connection to {self.base_url}: {error.__cause__ or error}"
        elif isinstance(error, openai.OpenAIError):
            text = str(error)
        else:
            text = f"{type(error).__name__}: {error}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            text = f"the key in {self.api_key_env} was refused: {text}"
        return self._redact(text)[:500]


# ---- what we need of a reply; everything else in it is ignored ------------------------------------------------------


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None  # DeepSeek, older vLLM
    reasoning: str | None = None  # newer vLLM, OpenRouter


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _read_reply(job: Job, content: bytes) -> Completion:
    """The answer in a reply's JSON; raises `ValidationError` for anything that is not one."""
    reply = _Reply.model_validate_json(content)
    choice, usage = reply.choices[0], reply.usage or _Usage()
    return job.completion(
        choice.message.content or "",
        reasoning=choice.message.reasoning_content or choice.message.reasoning,
        finish_reason=choice.finish_reason or "unknown",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )
